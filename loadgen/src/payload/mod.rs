//! Client messages with real browser bodies, as each dialect wraps them.

mod stamp;

use std::fmt;
use std::str::FromStr;

use memchr::memmem;
use serde::{Deserialize, Serialize};

pub(crate) use self::stamp::Stamp;
use self::stamp::{MARKER, MARKER_FINDER};
use crate::dialects::Dialect;

const OFFERS: [&str; 3] = [
    include_str!("../../data/chrome-offer.sdp"),
    include_str!("../../data/firefox-offer.sdp"),
    include_str!("../../data/safari-offer.sdp"),
];
const ANSWERS: [&str; 3] = [
    include_str!("../../data/chrome-answer.sdp"),
    include_str!("../../data/firefox-answer.sdp"),
    include_str!("../../data/safari-answer.sdp"),
];
const CANDIDATES: &str = include_str!("../../data/candidates.json");

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

/// What a client has to say: which kind of message, the field it stands in, and the opaque JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body {
    /// `offer`, `answer` or `ice`.
    pub(crate) kind: &'static str,
    /// `sdp` or `candidate`.
    pub(crate) field: &'static str,
    /// The JSON value of that field.
    pub(crate) opaque: String,
}

impl Body {
    /// A candidate.
    pub(crate) fn ice(opaque: String) -> Self {
        Self { kind: "ice", field: "candidate", opaque }
    }

    /// A session description.
    pub(crate) fn sdp(kind: &'static str, opaque: String) -> Self {
        Self { kind, field: "sdp", opaque }
    }
}

/// Where a template wants to be told whom a message is for: a dialect writes as many of these as the address is long.
const BLANK: u8 = b'@';
/// Fewer blanks in a row are not meant.
const BLANKS_MIN: &[u8] = b"@@@@@@@@";

/// The room for an address of `len` bytes.
pub(crate) fn blank(len: usize) -> String {
    char::from(BLANK).to_string().repeat(len)
}

/// A client message that only lacks its stamp and its address.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    /// The whole message, with zeros where the stamp goes.
    pub(crate) message: Vec<u8>,
    stamp_start: Option<usize>,
    address_start: Option<usize>,
}

impl Template {
    /// Finds the places in a message.
    pub(crate) fn new(message: String) -> Self {
        let stamp_start = MARKER_FINDER.find(message.as_bytes()).map(|at| at + MARKER.len() + 1);
        let address_start = memmem::find(message.as_bytes(), BLANKS_MIN);
        Self { message: message.into_bytes(), stamp_start, address_start }
    }

    /// Puts stamp and address into a copy of [`Self::message`].
    pub(crate) fn put(&self, stamp: Stamp, address: &str, copy: &mut [u8]) {
        if let Some(start) = self.stamp_start {
            stamp.write(&mut copy[start..start + Stamp::LEN]);
        }
        if let Some(start) = self.address_start {
            copy[start..start + address.len()].copy_from_slice(address.as_bytes());
        }
    }
}

/// What one role sends, in order, again and again.
#[derive(Debug)]
pub(crate) struct Script {
    caller: Vec<Template>,
    callee: Vec<Template>,
}

impl Script {
    /// The script of a kind of load in a dialect.
    pub(crate) fn new(kind: PayloadKind, dialect: Dialect) -> Result<Self, String> {
        if let Some(templates) = dialect.own_templates(kind)? {
            return Ok(Self { caller: templates.clone(), callee: templates });
        }
        let wrap = |body: Body| Template::new(dialect.wrap(&body));
        let candidates = candidates();
        let ice: Vec<_> = candidates.iter().map(|candidate| wrap(ice_body(candidate, 0))).collect();
        let offers = OFFERS.map(|sdp| wrap(sdp_body("offer", sdp)));
        let answers = ANSWERS.map(|sdp| wrap(sdp_body("answer", sdp)));
        let both = |templates: Vec<Template>| Self { caller: templates.clone(), callee: templates };
        Ok(match kind {
            PayloadKind::Ice => both(ice),
            PayloadKind::Sdp => Self { caller: offers.to_vec(), callee: answers.to_vec() },
            PayloadKind::Mixed => Self { caller: mixed(&offers, &ice), callee: mixed(&answers, &ice) },
            PayloadKind::Bytes(bytes) => both(vec![padded(&candidates, bytes, wrap)?]),
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

fn sdp_body(kind: &'static str, sdp: &str) -> Body {
    Body::sdp(kind, sdp_to_json(sdp, &format!("{MARKER}:{}", "0".repeat(Stamp::LEN))))
}

fn ice_body(candidate: &Candidate, padding: usize) -> Body {
    let pad = if padding == 0 { String::new() } else { format!(" {}", "x".repeat(padding - 1)) };
    Body::ice(candidate.to_json_with(&format!("{MARKER} {}{pad}", "0".repeat(Stamp::LEN))))
}

fn padded(
    candidates: &[Candidate],
    bytes: usize,
    wrap: impl Fn(Body) -> Template,
) -> Result<Template, String> {
    let shortest = candidates.iter().min_by_key(|candidate| candidate.candidate.len());
    let candidate = shortest.ok_or("there are no candidates")?;
    let bytes_min = wrap(ice_body(candidate, 0)).message.len();
    match bytes.checked_sub(bytes_min) {
        Some(padding) => Ok(wrap(ice_body(candidate, padding))),
        None => Err(format!(
            "a message of {bytes} bytes has no room for a candidate and its stamp: {bytes_min} is the least"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sender: 7, sequence: u32::MAX, time_ns: 0x0123_4567_89ab_cdef };
    const STAMPED: [Dialect; 4] = [Dialect::Pairing, Dialect::Rendezvous, Dialect::Directory, Dialect::Rooms];

    fn script(kind: PayloadKind, dialect: Dialect) -> Script {
        Script::new(kind, dialect).expect("a script")
    }

    fn scripts() -> Vec<Script> {
        let kinds = [PayloadKind::Ice, PayloadKind::Sdp, PayloadKind::Mixed, PayloadKind::Bytes(500)];
        STAMPED.iter().flat_map(|dialect| kinds.map(|kind| script(kind, *dialect))).collect()
    }

    #[test]
    fn a_stamp_is_found_where_it_was_put_and_the_json_stays_valid() {
        let address = "00000000-0000-4000-8000-0123456789ef";
        for script in scripts() {
            for template in script.caller.iter().chain(&script.callee) {
                let mut message = template.message.clone();
                template.put(STAMP, address, &mut message);
                assert_eq!(Stamp::find(&message), Some(STAMP));
                let json: serde_json::Value = serde_json::from_slice(&message).expect("JSON");
                assert_eq!(json.to_string().contains(address), template.address_start.is_some());
                assert!(json.to_string().contains("0123456789abcdef"));
                assert!(!message.contains(&BLANK), "{json}");
            }
        }
    }

    #[test]
    fn padded_messages_have_exactly_the_length_asked_for() {
        for dialect in STAMPED {
            let padded = |bytes| Script::new(PayloadKind::Bytes(bytes), dialect);
            let least = padded(1).expect_err("too short");
            let least: usize = least.rsplit(' ').nth(3).and_then(|word| word.parse().ok()).expect("a number");
            for bytes in [least, least + 1, least + 2, 1_000, 100_000] {
                let script = padded(bytes).expect("long enough");
                assert_eq!(script.at(Role::Caller, 0).message.len(), bytes);
            }
            assert!(padded(least - 1).is_err());
        }
    }

    #[test]
    fn mixed_is_one_description_and_ten_candidates() {
        let script = script(PayloadKind::Mixed, Dialect::Pairing);
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
        let mean = |kind| script(kind, Dialect::Pairing).message_bytes_mean();
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
