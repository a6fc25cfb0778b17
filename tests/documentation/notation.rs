//! The notation of conversations, as PROTOCOLS.md describes it.

use super::pattern::Pattern;

/// What one line says.
pub(crate) enum Act {
    /// Somebody does or hears something.
    Peer { who: String, step: Step },
    /// The server is told to stop.
    Terminate,
}

/// What somebody does or hears.
pub(crate) enum Step {
    /// Opens a WebSocket, or a stream of raw bytes.
    Opens { path: Pattern, is_raw: bool, origin: Option<String> },
    /// Asks for something over plain HTTP.
    Asks { path: Pattern, header: Option<String> },
    /// Sends something so many times at once, each in so many frames.
    Says { kind: Kind, value: Pattern, times: usize, frames: usize },
    /// Gets something so many times.
    Hears { what: Heard, times: usize },
    /// Sends a close.
    Closes(Option<u16>),
    /// Ends its direction of a raw stream.
    Ends,
    /// Its connection is reset.
    IsCut,
    /// Neither reads nor answers any more.
    FallsSilent,
}

/// How bytes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
    /// As they are.
    Raw,
}

/// What somebody gets.
pub(crate) enum Heard {
    Value(Kind, Pattern),
    Close(Option<u16>, String),
    /// An answer over plain HTTP.
    Answer(u16, Body),
    Ping,
    /// The end of TCP without a close.
    Cut,
    /// The end of the other direction of a raw stream.
    End,
    /// The same as a reset.
    Reset,
    /// Nothing before the pong to a ping.
    Nothing,
}

/// What is said of the body of an answer.
pub(crate) enum Body {
    Any,
    Whole(Pattern),
    Contains(String),
}

/// Reads the settings of a line `with A=1 B=2`.
pub(crate) fn environment(settings: &str, out: &mut Vec<(String, String)>) -> Result<(), String> {
    for setting in settings.split_whitespace() {
        let (name, value) = setting.split_once('=').ok_or_else(|| format!("{setting:?} has no ="))?;
        out.push((name.to_owned(), value.to_owned()));
    }
    Ok(())
}

/// Reads a line.
pub(crate) fn act(line: &str) -> Result<Act, String> {
    if line == "SIGTERM" {
        return Ok(Act::Terminate);
    }
    let (who, rest) = line.split_once(' ').ok_or("a line begins with who does something")?;
    if !who.bytes().all(|byte| byte.is_ascii_alphanumeric())
        || !who.starts_with(|first: char| first.is_ascii_uppercase())
    {
        return Err(format!("{who:?} is no name"));
    }
    let (verb, rest) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    let rest = rest.trim();
    let step = match (verb, rest) {
        ("opens", rest) => opens(rest),
        ("asks", rest) => asks(rest),
        ("→", rest) => says(rest),
        ("←", rest) => hears(rest),
        ("closes", "") => Ok(Step::Closes(None)),
        ("closes", code) => number(code).map(|code| Step::Closes(Some(code))),
        ("ends", "") => Ok(Step::Ends),
        ("is", "cut") => Ok(Step::IsCut),
        ("falls", "silent") => Ok(Step::FallsSilent),
        _ => Err(format!("nobody knows how {who} \"{verb} {rest}\"")),
    };
    step.map(|step| Act::Peer { who: who.to_owned(), step })
}

fn opens(rest: &str) -> Result<Step, String> {
    let (rest, origin) = match rest.split_once(" from ") {
        Some((rest, origin)) => (rest, Some(origin.to_owned())),
        None => (rest, None),
    };
    let (path, is_raw) = match rest.strip_suffix(" raw") {
        Some(path) => (path, true),
        None => (rest, false),
    };
    Ok(Step::Opens { path: path_in(path)?, is_raw, origin })
}

fn asks(rest: &str) -> Result<Step, String> {
    let (path, header) = match rest.split_once(" with ") {
        Some((path, header)) if header.contains(": ") => (path, Some(header.to_owned())),
        Some((_, header)) => return Err(format!("{header:?} is no header")),
        None => (rest, None),
    };
    Ok(Step::Asks { path: path_in(path)?, header })
}

fn path_in(text: &str) -> Result<Pattern, String> {
    let text = text.trim();
    // A blank may stand in a hole alone.
    let outside = text.split('<').map(|part| part.rsplit('>').next().unwrap_or_default());
    if !text.starts_with('/') || outside.into_iter().any(|part| part.contains(' ')) {
        return Err(format!("{text:?} is no path"));
    }
    Pattern::of_text(text)
}

fn says(rest: &str) -> Result<Step, String> {
    let (rest, times, frames) = counted(rest)?;
    let (kind, value) = value(rest)?;
    if kind == Kind::Raw && frames != 1 {
        return Err("raw bytes have no frames".into());
    }
    Ok(Step::Says { kind, value, times, frames })
}

fn hears(rest: &str) -> Result<Step, String> {
    let (rest, times, frames) = counted(rest)?;
    if frames != 1 {
        return Err("in how many frames something comes is not said".into());
    }
    let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
    let what = match (word, behind.trim()) {
        ("ping", "") => Heard::Ping,
        ("cut", "") => Heard::Cut,
        ("end", "") => Heard::End,
        ("reset", "") => Heard::Reset,
        ("nothing", "") => Heard::Nothing,
        ("close", behind) => close(behind)?,
        (status, body) if status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()) => {
            Heard::Answer(number(status)?, answer_body(body)?)
        }
        _ => value(rest).map(|(kind, value)| Heard::Value(kind, value))?,
    };
    Ok(Step::Hears { what, times })
}

fn close(behind: &str) -> Result<Heard, String> {
    if behind.is_empty() {
        return Ok(Heard::Close(None, String::new()));
    }
    let (code, reason) = behind.split_once(' ').unwrap_or((behind, "\"\""));
    Ok(Heard::Close(Some(number(code)?), quoted(reason)?))
}

fn answer_body(text: &str) -> Result<Body, String> {
    if text.is_empty() {
        return Ok(Body::Any);
    }
    match text.strip_prefix("contains ") {
        Some(part) => quoted(part).map(Body::Contains),
        None => bytes(text).map(Body::Whole),
    }
}

/// Takes `(3 times)` or `(in 3 frames)` from the end: the rest, how many times, in how many frames.
fn counted(text: &str) -> Result<(&str, usize, usize), String> {
    let Some((rest, count)) = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) else {
        return Ok((text, 1, 1));
    };
    if let Some(times) = count.strip_suffix(" times") {
        Ok((rest.trim_end(), number(times)?, 1))
    } else if let Some(frames) = count.strip_prefix("in ").and_then(|count| count.strip_suffix(" frames")) {
        Ok((rest.trim_end(), 1, number(frames)?))
    } else {
        Err(format!("({count}) says neither how many times nor in how many frames"))
    }
}

/// What is sent or comes: JSON as it stands is a text, anything else says what it is.
fn value(text: &str) -> Result<(Kind, Pattern), String> {
    if text.starts_with('{') {
        return Ok((Kind::Text, Pattern::of_text(text)?));
    }
    let (kind, text) = text.split_once(' ').ok_or_else(|| format!("{text:?} is nothing that is known"))?;
    let kind = match kind {
        "text" => Kind::Text,
        "binary" => Kind::Binary,
        "raw" => Kind::Raw,
        _ => return Err(format!("{kind:?} is none of text, binary and raw")),
    };
    Ok((kind, bytes(text.trim())?))
}

/// Bytes: JSON as it stands, a string in quotes, or hexadecimal digits.
fn bytes(text: &str) -> Result<Pattern, String> {
    if text.starts_with(['{', '[']) {
        return Pattern::of_text(text);
    }
    let Some(digits) = text.strip_prefix("0x") else { return Pattern::of_quoted(text) };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    bytes.map(Pattern::of_bytes).ok_or_else(|| format!("{text} is not in hexadecimal"))
}

fn quoted(text: &str) -> Result<String, String> {
    serde_json::from_str(text).map_err(|error| format!("{text} is no string in quotes: {error}"))
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}
