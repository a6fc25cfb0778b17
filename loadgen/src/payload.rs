//! Client messages with real browser bodies, and the stamp inside them that tells when each was sent.
//!
//! A stamp sits inside the opaque value, where the JSON stays valid and the body stays what it claims to be: as an
//! extension attribute of a candidate (RFC 8839 section 5.1, `… x-stamp <hex>`) or as the last attribute line of a
//! session description (`a=x-stamp:<hex>`).

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

/// Name of the attribute that carries a stamp; one separator and the digits follow.
const MARKER: &str = "x-stamp";
static MARKER_FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARKER));

const OFFERS: [&str; 3] = [
    include_str!("../data/chrome-offer.sdp"),
    include_str!("../data/firefox-offer.sdp"),
    include_str!("../data/safari-offer.sdp"),
];
const ANSWERS: [&str; 3] = [
    include_str!("../data/chrome-answer.sdp"),
    include_str!("../data/firefox-answer.sdp"),
    include_str!("../data/safari-answer.sdp"),
];
const CANDIDATES: &str = include_str!("../data/candidates.json");

/// ICE messages that follow each session description in a `mixed` load.
pub(crate) const ICE_PER_SET: usize = 10;

/// What the messages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PayloadKind {
    /// Trickled candidates, about 250 bytes with the stamp.
    Ice,
    /// Offers one way, answers the other, about 2 KB.
    Sdp,
    /// One session description, then ten candidates, again and again.
    Mixed,
    /// Candidates padded so that the whole client message has this many bytes.
    Bytes(usize),
}

impl FromStr for PayloadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ice" => Ok(Self::Ice),
            "sdp" => Ok(Self::Sdp),
            "mixed" => Ok(Self::Mixed),
            _ => text
                .parse()
                .map(Self::Bytes)
                .map_err(|_| format!("`{text}` is none of ice, sdp, mixed, <bytes>")),
        }
    }
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ice => f.write_str("ice"),
            Self::Sdp => f.write_str("sdp"),
            Self::Mixed => f.write_str("mixed"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// Which end of a pair: the caller offers, the callee answers. The lower client id calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Sends offers.
    Caller,
    /// Sends answers.
    Callee,
}

impl Role {
    /// The role of `own` towards `partner`, by their client ids.
    pub(crate) fn of(own: &str, partner: &str) -> Self {
        if own < partner { Self::Caller } else { Self::Callee }
    }
}

/// Sequence number and time of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which client sent it.
    pub(crate) sender: u32,
    /// Messages of that client before it.
    pub(crate) sequence: u32,
    /// When it was sent, or should have been, in nanoseconds of the run's clock.
    pub(crate) time_ns: u64,
}

impl Stamp {
    /// Hexadecimal digits of a stamp.
    const LEN: usize = 32;

    /// Writes the digits over `out`.
    pub(crate) fn write(self, out: &mut [u8]) {
        write_hex(u64::from(self.sender) << 32 | u64::from(self.sequence), &mut out[..16]);
        write_hex(self.time_ns, &mut out[16..Self::LEN]);
    }

    /// The stamp inside a message, if there is one.
    pub(crate) fn find(message: &[u8]) -> Option<Self> {
        let start = MARKER_FINDER.find(message)? + MARKER.len() + 1;
        let digits = message.get(start..start + Self::LEN)?;
        let who = read_hex(&digits[..16])?;
        let time_ns = read_hex(&digits[16..])?;
        Some(Self { sender: (who >> 32) as u32, sequence: who as u32, time_ns })
    }
}

fn write_hex(number: u64, out: &mut [u8]) {
    for (index, digit) in out.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * index)) as usize & 0xf];
    }
}

fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

/// A client message that only lacks its stamp.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// The whole message, zeros where the stamp goes.
    pub(crate) message: Vec<u8>,
    stamp_start: usize,
}

impl Template {
    fn new(message: String) -> Self {
        let start = MARKER_FINDER.find(message.as_bytes()).map_or(message.len(), |at| at + MARKER.len() + 1);
        Self { message: message.into_bytes(), stamp_start: start }
    }

    /// Puts a stamp into a copy of [`Self::message`].
    pub(crate) fn put(&self, stamp: Stamp, copy: &mut [u8]) {
        stamp.write(&mut copy[self.stamp_start..self.stamp_start + Stamp::LEN]);
    }
}

/// What one role sends, in order, again and again.
#[derive(Debug)]
pub(crate) struct Script {
    caller: Vec<Template>,
    callee: Vec<Template>,
}

impl Script {
    /// The script of a kind of load.
    pub(crate) fn new(kind: PayloadKind) -> Result<Self, String> {
        let candidates = candidates();
        let ice: Vec<_> = candidates.iter().map(|candidate| ice_template(candidate, 0)).collect();
        let offers = OFFERS.map(|sdp| sdp_template("offer", sdp));
        let answers = ANSWERS.map(|sdp| sdp_template("answer", sdp));
        let both = |templates: Vec<Template>| Self { caller: templates.clone(), callee: templates };
        Ok(match kind {
            PayloadKind::Ice => both(ice),
            PayloadKind::Sdp => Self { caller: offers.to_vec(), callee: answers.to_vec() },
            PayloadKind::Mixed => Self { caller: mixed(&offers, &ice), callee: mixed(&answers, &ice) },
            PayloadKind::Bytes(bytes) => both(vec![padded(&candidates, bytes)?]),
        })
    }

    /// The template of a role's message number `step`.
    pub(crate) fn at(&self, role: Role, step: usize) -> &Template {
        let templates = self.of(role);
        &templates[step % templates.len()]
    }

    /// Mean length of the client messages in bytes.
    pub(crate) fn message_bytes_mean(&self) -> f64 {
        let lens = self.caller.iter().chain(&self.callee).map(|template| template.message.len());
        lens.sum::<usize>() as f64 / (self.caller.len() + self.callee.len()) as f64
    }

    fn of(&self, role: Role) -> &[Template] {
        match role {
            Role::Caller => &self.caller,
            Role::Callee => &self.callee,
        }
    }
}

/// What `RTCIceCandidate.toJSON` gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Candidate {
    /// The candidate line without `a=`.
    pub(crate) candidate: String,
    sdp_mid: String,
    #[serde(rename = "sdpMLineIndex")]
    sdp_m_line_index: u32,
    username_fragment: String,
}

impl Candidate {
    /// The candidate as JSON with more attributes behind its own.
    pub(crate) fn to_json_with(&self, attributes: &str) -> String {
        let candidate = Self { candidate: format!("{} {attributes}", self.candidate), ..self.clone() };
        serde_json::to_string(&candidate).unwrap_or_default()
    }
}

/// The trickled candidates of several browsers.
pub(crate) fn candidates() -> Vec<Candidate> {
    serde_json::from_str(CANDIDATES).expect("the list is checked by a test")
}

/// The session description number `index` of a role, as JSON string with one more attribute line.
pub(crate) fn sdp_json(role: Role, index: usize, attribute: &str) -> String {
    let sdps = match role {
        Role::Caller => OFFERS,
        Role::Callee => ANSWERS,
    };
    sdp_to_json(sdps[index % sdps.len()], attribute)
}

fn sdp_to_json(sdp: &str, attribute: &str) -> String {
    let body = sdp.replace('\n', "\r\n");
    serde_json::Value::String(format!("{body}a={attribute}\r\n")).to_string()
}

fn mixed(sdps: &[Template], ice: &[Template]) -> Vec<Template> {
    let candidates = |set: usize| ice.iter().cycle().skip(set * ICE_PER_SET).take(ICE_PER_SET).cloned();
    sdps.iter()
        .enumerate()
        .flat_map(|(set, sdp)| std::iter::once(sdp.clone()).chain(candidates(set)))
        .collect()
}

fn sdp_template(kind: &str, sdp: &str) -> Template {
    let json = sdp_to_json(sdp, &format!("{MARKER}:{}", "0".repeat(Stamp::LEN)));
    Template::new(format!(r#"{{"type":"{kind}","sdp":{json}}}"#))
}

fn ice_template(candidate: &Candidate, padding: usize) -> Template {
    let pad = if padding == 0 { String::new() } else { format!(" {}", "x".repeat(padding - 1)) };
    let json = candidate.to_json_with(&format!("{MARKER} {}{pad}", "0".repeat(Stamp::LEN)));
    Template::new(format!(r#"{{"type":"ice","candidate":{json}}}"#))
}

fn padded(candidates: &[Candidate], bytes: usize) -> Result<Template, String> {
    let shortest = candidates.iter().min_by_key(|candidate| candidate.candidate.len());
    let candidate = shortest.ok_or("there are no candidates")?;
    let bytes_min = ice_template(candidate, 0).message.len();
    match bytes.checked_sub(bytes_min) {
        Some(padding) => Ok(ice_template(candidate, padding)),
        None => Err(format!(
            "a message of {bytes} bytes has no room for a candidate and its stamp: {bytes_min} is the least"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sender: 7, sequence: u32::MAX, time_ns: 0x0123_4567_89ab_cdef };

    fn scripts() -> Vec<Script> {
        [PayloadKind::Ice, PayloadKind::Sdp, PayloadKind::Mixed, PayloadKind::Bytes(500)]
            .map(|kind| Script::new(kind).expect("a script"))
            .into()
    }

    #[test]
    fn a_stamp_is_found_where_it_was_put_and_the_json_stays_valid() {
        for script in scripts() {
            for template in script.caller.iter().chain(&script.callee) {
                let mut message = template.message.clone();
                template.put(STAMP, &mut message);
                assert_eq!(Stamp::find(&message), Some(STAMP));
                let json: serde_json::Value = serde_json::from_slice(&message).expect("JSON");
                let opaque = json.get("sdp").or(json.get("candidate")).expect("an opaque value");
                assert!(opaque.to_string().contains("0123456789abcdef"));
            }
        }
    }

    #[test]
    fn no_stamp_is_found_where_none_is() {
        assert_eq!(Stamp::find(br#"{"type":"ready","clientId":"x"}"#), None);
        assert_eq!(Stamp::find(b"x-stamp 00"), None);
        assert_eq!(Stamp::find(b"x-stamp 0000000000000000000000000000000g"), None);
    }

    #[test]
    fn padded_messages_have_exactly_the_length_asked_for() {
        let least = padded(&candidates(), 0).expect_err("too short");
        let least: usize = least.rsplit(' ').nth(3).and_then(|word| word.parse().ok()).expect("a number");
        for bytes in [least, least + 1, least + 2, 1_000, 100_000] {
            assert_eq!(padded(&candidates(), bytes).expect("long enough").message.len(), bytes);
        }
        assert!(padded(&candidates(), least - 1).is_err());
    }

    #[test]
    fn mixed_is_one_description_and_ten_candidates() {
        let script = Script::new(PayloadKind::Mixed).expect("a script");
        let is = |role, step, kind: &str| {
            String::from_utf8_lossy(&script.at(role, step).message)
                .starts_with(&format!(r#"{{"type":"{kind}""#))
        };
        assert!(is(Role::Caller, 0, "offer") && is(Role::Callee, 0, "answer"));
        assert!((1..=10).all(|step| is(Role::Caller, step, "ice")));
        assert!(is(Role::Caller, 11, "offer"));
    }

    #[test]
    fn sizes_are_those_of_browsers() {
        let mean = |kind| Script::new(kind).expect("a script").message_bytes_mean();
        assert!((200.0..300.0).contains(&mean(PayloadKind::Ice)), "{}", mean(PayloadKind::Ice));
        assert!((1_800.0..2_500.0).contains(&mean(PayloadKind::Sdp)), "{}", mean(PayloadKind::Sdp));
    }

    #[test]
    fn kinds_are_read_and_written_alike() {
        for text in ["ice", "sdp", "mixed", "512"] {
            assert_eq!(text.parse::<PayloadKind>().expect("a kind").to_string(), text);
        }
        assert!("large".parse::<PayloadKind>().is_err());
    }
}
