//! The documentation and the running program say the same: every conversation on a page is played and compared to the
//! byte, with 1 and 4 shards, on io_uring and on epoll; settings and links are true.

mod support;

#[path = "documentation/mistakes.rs"]
mod mistakes;
#[path = "documentation/notation.rs"]
mod notation;
#[path = "documentation/page.rs"]
mod page;
#[path = "documentation/pattern.rs"]
mod pattern;
#[path = "documentation/peer.rs"]
mod peer;
#[path = "documentation/replay.rs"]
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use page::{Conversation, conversations};
use replay::replay;
use support::{Setup, on_each_setup};

/// The page that describes the notation and all dialects.
const PROTOCOLS: &str = "docs/PROTOCOLS.md";

on_each_setup!(conversations_have_taken_place);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The README and all pages below `docs`.
fn pages() -> Vec<String> {
    let mut pages = vec!["README.md".to_owned()];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of ours") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.to_str().expect("a name of ours").to_owned());
            }
        }
    }
    pages.sort();
    pages
}

fn fail(mistakes: &[String]) {
    assert!(mistakes.is_empty(), "{} mistakes:\n\n{}", mistakes.len(), mistakes.join("\n\n"));
}

/// All conversations of the protocols and of the pages beside them.
fn all_conversations() -> Vec<Conversation> {
    let (mut all, mut mistakes) = (Vec::new(), Vec::new());
    for page in pages().iter().filter(|page| *page == PROTOCOLS || page.starts_with("docs/migration/")) {
        match conversations(page, &read(page)) {
            Ok(found) => all.extend(found),
            Err(found) => mistakes.extend(found),
        }
    }
    fail(&mistakes);
    assert!(all.iter().any(|conversation| conversation.page == PROTOCOLS), "no conversation in {PROTOCOLS}");
    all
}

fn conversations_have_taken_place(setup: Setup) {
    let all = all_conversations();
    let failures: Vec<String> =
        all.iter().filter_map(|conversation| replay(conversation, setup).err()).collect();
    fail(&failures);
}

/// What the dialects have to say: each has to be shown in a line of a conversation.
const SHOWN: &[(&str, &[&str])] = &[
    (
        "←",
        &[
            // Pairing.
            r#""type":"ready""#,
            r#""type":"matched""#,
            r#""type":"offer""#,
            r#""type":"answer""#,
            r#""type":"ice""#,
            r#""type":"partner-left""#,
            r#""type":"pong"}"#,
            "ALREADY_PAIRED",
            "NOT_PAIRED",
            "UNKNOWN_TYPE",
            "INVALID_FORMAT",
            "RATE_LIMIT",
            // Rendezvous.
            "remoteClientIsAlreadyConnected",
            "remoteClientJustConnected",
            "remoteClientDisconnected",
            "remoteData",
            "confirmation",
            "missingRemoteClientError",
            "validationError",
            "invalid_type",
            "invalid_union",
            "invalidMessageError",
            r#"close 1003 "missing connectionId in path""#,
            r#"close 1003 "missing target""#,
            r#"close 1003 "invalid target""#,
            r#"close 1003 "missing source""#,
            r#"close 1003 "invalid source""#,
            r#"close 1003 "source and target needs to be different""#,
            r#"close 1013 "rate limit hit, slow down""#,
            // Directory.
            "login_success",
            "peer_connected",
            "peer_disconnected",
            r#""type":"pong","timestamp""#,
            "stream_started",
            "stream_stopped",
            "stream_restored",
            "page_opened",
            "name_taken",
            "invalid_name",
            "not_logged_in",
            "target_not_found",
            "rate_limit_exceeded",
            r#"close 4000 "Client name already taken""#,
            r#"close 4001 "Invalid client name""#,
            // Rooms.
            "room_created",
            "room_joined",
            r#""type":"signal""#,
            "Room not found",
            r#"close 1000 "Room expired""#,
            // Documents.
            r#""type":"Introduction""#,
            r#"close 1003 "use ?local= and ?document=""#,
            r#"close 1013 "peer did not connect""#,
            r#"close 1013 "server busy""#,
            // All.
            r#"close 1001 "Server shutting down""#,
            "close 1002",
            "close 1007",
            r#"close 1008 "Origin not allowed""#,
            "close 1009",
            r#"close 1013 "too slow""#,
            "ping",
            "cut",
            "end",
            "reset",
            "400",
            "403",
            "404",
        ],
    ),
    (
        "→",
        &[
            r#""type":"auth""#,
            r#""type":"available""#,
            r#""type":"next""#,
            r#""type":"leave""#,
            "iceCandidate\"",
            "iceCandidates",
            r#""type":"login""#,
            r#""type":"create""#,
            r#""type":"join""#,
            r#""type":"Join""#,
            r#""type":"Leave""#,
        ],
    ),
];

#[test]
fn every_word_of_the_dialects_is_shown() {
    let all = all_conversations();
    let lines = || all.iter().flat_map(|conversation| &conversation.lines).map(|line| line.text.as_str());
    for (arrow, words) in SHOWN {
        for word in *words {
            let is_shown = lines().any(|line| line.contains(arrow) && line.contains(word));
            assert!(is_shown, "no conversation has {arrow} {word}");
        }
    }
}

/// What `parlor --help` says: the names in the environment, and their defaults.
fn settings_in_help() -> BTreeMap<String, String> {
    let output =
        Command::new(env!("CARGO_BIN_EXE_parlor")).arg("--help").env_clear().output().expect("it runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut settings = BTreeMap::new();
    for described in help.split("[env: ").skip(1) {
        let (name, behind) = described.split_once(']').expect("a name in brackets");
        // Up to the next flag, whose description stands before its name.
        let own = behind.split(" --").next().unwrap_or_default();
        let default = own.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
        settings.insert(name.to_owned(), default.map_or("", |(default, _)| default).to_owned());
    }
    settings
}

#[test]
fn settings_and_their_defaults_are_those_of_the_program() {
    let text = read(PROTOCOLS);
    let section = text.split("\n## Settings\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.expect("the section is there").lines().filter(|line| line.starts_with("| `"));
    let written: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let default = cells[2];
            let is_number = default.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
            let default = if is_number { default.replace(',', "") } else { default.to_owned() };
            (cells[1].trim_matches('`').to_owned(), default)
        })
        .collect();
    let in_help = settings_in_help();
    assert!(in_help.len() > 20, "{in_help:?}");
    assert_eq!(written, in_help);
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|symbol| symbol.is_alphanumeric() || matches!(symbol, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

/// The targets of the links of a page, with their lines.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).flat_map(|(number, line)| {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.map(move |target| (number, target))
    })
}

#[test]
fn links_lead_somewhere() {
    let mut mistakes = Vec::new();
    for page in pages() {
        let text = read(&page);
        for (number, link) in links(&text).filter(|(_, link)| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&page).parent().expect("a page has a folder");
            let target = if file.is_empty() { root().join(&page) } else { root().join(folder).join(file) };
            let is_there = if anchor.is_empty() {
                target.exists()
            } else {
                fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            if !is_there {
                mistakes.push(format!("{page}:{number}: {link} leads nowhere"));
            }
        }
    }
    fail(&mistakes);
}
