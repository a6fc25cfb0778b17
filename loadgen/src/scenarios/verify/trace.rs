//! The last words of a connection, for whoever has to find out what went wrong.

use std::collections::VecDeque;
use std::fmt;

/// Messages that are kept.
const KEPT: usize = 24;
/// Longest part of each.
const BYTES_MAX: usize = 240;

#[derive(Debug, Clone, Copy)]
enum Way {
    Said,
    Heard,
}

/// What was said and heard last.
#[derive(Debug, Default)]
pub(super) struct Trace {
    lines: VecDeque<(Way, usize, Vec<u8>)>,
}

impl Trace {
    /// The client said something.
    pub(super) fn said(&mut self, message: &[u8]) {
        self.keep(Way::Said, message);
    }

    /// The client heard something.
    pub(super) fn heard(&mut self, message: &[u8]) {
        self.keep(Way::Heard, message);
    }

    fn keep(&mut self, way: Way, message: &[u8]) {
        let mut kept = if self.lines.len() < KEPT { None } else { self.lines.pop_front() };
        let mut bytes = kept.take().map_or_else(Vec::new, |(_, _, bytes)| bytes);
        bytes.clear();
        bytes.extend_from_slice(&message[..message.len().min(BYTES_MAX)]);
        self.lines.push_back((way, message.len(), bytes));
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (way, len, bytes) in &self.lines {
            let arrow = match way {
                Way::Said => "→",
                Way::Heard => "←",
            };
            let more = if *len > bytes.len() { format!(" … ({len} bytes)") } else { String::new() };
            write!(f, "\n  {arrow} {}{more}", String::from_utf8_lossy(bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_kept_in_order() {
        let mut trace = Trace::default();
        (0..100).for_each(|number| trace.said(format!("said {number}").as_bytes()));
        trace.heard(&[b'x'; 1_000]);
        let text = trace.to_string();
        assert_eq!(text.lines().count(), KEPT + 1);
        assert!(text.contains("\n  → said 99\n  ← xxx") && text.ends_with("… (1000 bytes)"), "{text}");
    }
}
