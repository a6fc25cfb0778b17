//! Texts with holes: `<name:kind>` takes what it finds at its first use and must be the same afterwards, `<5 × x>` is
//! `xxxxx`.

use std::collections::BTreeMap;

use crate::support::is_uuid_v4;

/// What fits into a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    /// Four digits.
    Digits,
    Number,
    /// `YYYY-MM-DDTHH:MM:SS.mmmZ`.
    Time,
}

impl Kind {
    fn named(name: &str) -> Result<Self, String> {
        match name {
            "digits" => Ok(Self::Digits),
            "number" => Ok(Self::Number),
            "time" => Ok(Self::Time),
            _ => Err(format!("no hole is a {name:?}")),
        }
    }

    /// How much of the start of `text` fits.
    fn fitting(self, text: &str) -> Option<usize> {
        let start = |len| text.get(..len);
        let digits = || text.bytes().take_while(u8::is_ascii_digit).count();
        match self {
            Self::Uuid => start(36).filter(|text| is_uuid_v4(text)).map(str::len),
            Self::Digits => (digits() == 4).then_some(4),
            Self::Number => Some(digits()).filter(|len| *len > 0),
            Self::Time => start(24).filter(|text| shape(text) == "0000-00-00T00:00:00.000Z").map(str::len),
        }
    }

    /// Whether what fits is nobody else's.
    fn is_unique(self) -> bool {
        matches!(self, Self::Uuid | Self::Digits)
    }
}

fn shape(text: &str) -> String {
    text.chars().map(|symbol| if symbol.is_ascii_digit() { '0' } else { symbol }).collect()
}

/// What the holes of one conversation were found to be.
#[derive(Debug, Default)]
pub(crate) struct Found(BTreeMap<String, (Kind, String)>);

#[derive(Debug)]
enum Part {
    Bytes(Vec<u8>),
    Hole { name: String, kind: Kind },
}

/// A text with holes, or bytes without.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Part>);

impl Pattern {
    /// Reads a text with holes.
    pub(crate) fn of_text(text: &str) -> Result<Self, String> {
        Self::of(text, |literal| Ok(literal.to_owned()))
    }

    /// Reads a string in quotes with holes. A `<` that begins none is written as an escape.
    pub(crate) fn of_quoted(text: &str) -> Result<Self, String> {
        let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let inside = inside.ok_or_else(|| format!("{text} is no string in quotes"))?;
        Self::of(inside, |literal| {
            let quoted = format!("\"{literal}\"");
            serde_json::from_str(&quoted).map_err(|error| format!("{quoted}: {error}"))
        })
    }

    fn of(mut text: &str, read: impl Fn(&str) -> Result<String, String>) -> Result<Self, String> {
        let mut parts = Vec::new();
        while let Some((before, rest)) = text.split_once('<') {
            let (inside, behind) = rest.split_once('>').ok_or("a < without its >")?;
            parts.push(Part::Bytes(read(before)?.into()));
            parts.push(part(inside)?);
            text = behind;
        }
        parts.push(Part::Bytes(read(text)?.into()));
        Ok(Self(parts))
    }

    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self(vec![Part::Bytes(bytes)])
    }

    /// Fills all holes.
    ///
    /// # Errors
    /// A hole that was not found before.
    pub(crate) fn filled(&self, found: &Found) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        for part in &self.0 {
            match part {
                Part::Bytes(more) => bytes.extend_from_slice(more),
                Part::Hole { name, .. } => {
                    let (_, value) = found.0.get(name).ok_or_else(|| format!("<{name}> is not known yet"))?;
                    bytes.extend_from_slice(value.as_bytes());
                }
            }
        }
        Ok(bytes)
    }

    /// Compares to the byte; fills the holes that were not found before.
    pub(crate) fn matches(&self, mut got: &[u8], found: &mut Found) -> Result<(), String> {
        for part in &self.0 {
            let len = match part {
                Part::Bytes(bytes) => Some(bytes.len()).filter(|_| got.starts_with(bytes)),
                Part::Hole { name, kind } => found.fill(name, *kind, got)?,
            };
            got = &got[len.ok_or("is not what came")?..];
        }
        if got.is_empty() { Ok(()) } else { Err("is only the start of what came".into()) }
    }
}

impl Found {
    /// Says how much of the start of `got` is what this hole was found to be, or now is.
    fn fill(&mut self, name: &str, kind: Kind, got: &[u8]) -> Result<Option<usize>, String> {
        if let Some((_, value)) = self.0.get(name) {
            return Ok(Some(value.len()).filter(|_| got.starts_with(value.as_bytes())));
        }
        let text = String::from_utf8_lossy(got);
        let Some(len) = kind.fitting(&text) else { return Ok(None) };
        let value = text[..len].to_owned();
        let twin = self.0.iter().find(|(_, known)| kind.is_unique() && **known == (kind, value.clone()));
        if let Some((twin, _)) = twin {
            return Err(format!("says that <{name}> is not <{twin}>, but it is"));
        }
        self.0.insert(name.to_owned(), (kind, value));
        Ok(Some(len))
    }
}

/// What stands between `<` and `>`.
fn part(inside: &str) -> Result<Part, String> {
    if let Some((count, filling)) = inside.split_once(" × ") {
        let count: usize = count.parse().map_err(|_| format!("{count:?} is no number"))?;
        return Ok(Part::Bytes(filling.repeat(count).into()));
    }
    let (name, kind) = match inside.split_once(':') {
        Some((name, kind)) => (name, Kind::named(kind)?),
        None => (inside, Kind::Uuid),
    };
    let is_name =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_name { Ok(Part::Hole { name: name.into(), kind }) } else { Err(format!("<{inside}> is no hole")) }
}
