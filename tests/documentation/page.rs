//! What stands in a page: its fenced blocks, those with conversations read, each line with its number.

use super::notation::{self, Act};

/// What a fenced block may be. Any other word is a mistake, and would hide a conversation.
const TONGUES: [&str; 7] = ["conversation", "sh", "js", "json", "nginx", "caddyfile", "text"];

/// One block of a page that can be replayed.
pub(crate) struct Conversation {
    /// The page's path.
    pub(crate) page: String,
    /// Where the block begins.
    pub(crate) line: usize,
    /// What the server is started with.
    pub(crate) environment: Vec<(String, String)>,
    /// What happens, in its order.
    pub(crate) lines: Vec<Line>,
}

/// One line of a conversation.
pub(crate) struct Line {
    /// Its number in the page.
    pub(crate) number: usize,
    /// As it stands there.
    pub(crate) text: String,
    pub(crate) act: Act,
}

/// A fenced block as it stands in a page.
struct Block<'a> {
    tongue: &'a str,
    line: usize,
    lines: Vec<(usize, &'a str)>,
}

/// All conversations of a page.
///
/// # Errors
/// Each mistake with the page and the line where it stands.
pub(crate) fn conversations(page: &str, text: &str) -> Result<Vec<Conversation>, Vec<String>> {
    let mut conversations = Vec::new();
    let mut mistakes = Vec::new();
    let at = |line: usize, mistake: String| format!("{page}:{line}: {mistake}");
    for block in blocks(text).map_err(|(line, mistake)| vec![at(line, mistake)])? {
        if !TONGUES.contains(&block.tongue) {
            let mistake = format!("a block in {:?}, which is none of {TONGUES:?}", block.tongue);
            mistakes.push(at(block.line, mistake));
        } else if block.tongue == "conversation" {
            match conversation(page, &block) {
                Ok(conversation) => conversations.push(conversation),
                Err(found) => mistakes.extend(found.into_iter().map(|(line, mistake)| at(line, mistake))),
            }
        }
    }
    if mistakes.is_empty() { Ok(conversations) } else { Err(mistakes) }
}

fn blocks(text: &str) -> Result<Vec<Block<'_>>, (usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let Some(tongue) = line.trim_start().strip_prefix("```") else {
            if let Some(block) = &mut open {
                block.lines.push((number, line));
            }
            continue;
        };
        match open.take() {
            None => open = Some(Block { tongue: tongue.trim(), line: number, lines: Vec::new() }),
            Some(block) if tongue.trim().is_empty() => blocks.push(block),
            Some(_) => return Err((number, "a block begins inside another".into())),
        }
    }
    match open {
        Some(block) => Err((block.line, "this block has no end".into())),
        None => Ok(blocks),
    }
}

fn conversation(page: &str, block: &Block<'_>) -> Result<Conversation, Vec<(usize, String)>> {
    let mut conversation =
        Conversation { page: page.into(), line: block.line, environment: Vec::new(), lines: Vec::new() };
    let mut mistakes = Vec::new();
    for &(number, text) in &block.lines {
        let said = text.trim();
        let read = if said.is_empty() || said.starts_with('#') {
            Ok(())
        } else if let Some(settings) = said.strip_prefix("with ") {
            notation::environment(settings, &mut conversation.environment)
        } else {
            notation::act(said)
                .map(|act| conversation.lines.push(Line { number, text: said.to_owned(), act }))
        };
        mistakes.extend(read.err().map(|mistake| (number, format!("{said}\n    {mistake}"))));
    }
    if conversation.lines.is_empty() && mistakes.is_empty() {
        mistakes.push((block.line, "nothing happens in this conversation".into()));
    }
    if mistakes.is_empty() { Ok(conversation) } else { Err(mistakes) }
}
