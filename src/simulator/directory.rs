//! The directory: who is logged in, what its clients say, and what each must hear (protocols.md section 3).

use super::behaviour::{Manner, Play};
use super::checks::fail;
use super::ledger::{Meaning, What};
use super::lobby::{Client, News, Relay, Word};
use super::scene::Scene;
use crate::shard::Shard;

/// The names of a run.
const NAMES: [&str; 5] = ["alice", "bob", "client-1", "_", "Alice"];
const KINDS: [&str; 3] = ["stream_started", "stream_restored", "page_opened"];
const INVALID_NAME: &str = r#"{"type":"error","error":"invalid_name"}"#;
const NAME_TAKEN: &str = r#"{"type":"error","error":"name_taken"}"#;
/// Where a client thinks it comes from that lies.
const FORGED: &str = r#""from":"alice""#;

/// Who is logged in, in the order of the logins.
#[derive(Debug, Default)]
pub(super) struct Book {
    logins: Vec<Login>,
}

#[derive(Debug)]
struct Login {
    index: usize,
    name: String,
    /// The others were surely told of it.
    is_certain: bool,
}

impl Book {
    /// A message of a client that has chosen the directory, within its rate.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>, me: usize, word: Word, not_logged_in: &str) {
        let name = scene.lobby(me).and_then(|client| client.name.clone());
        match (word, name) {
            (Word::Silent, _) => {}
            (Word::Login(_), Some(_)) => scene.expect(me, INVALID_NAME.to_owned()),
            (Word::Login(name), None) => self.login(scene, me, name),
            (_, None) => scene.expect(me, not_logged_in.to_owned()),
            (Word::Ping, Some(_)) => {
                scene.expect(me, format!(r#"{{"type":"pong","timestamp":{}}}"#, scene.unix_ms));
            }
            (Word::Announce(before, behind), Some(name)) => {
                self.tell_others(scene, me, &format!("{before}{name}{behind}"), &News::FromPeer);
            }
            (Word::Relay(relay), Some(name)) => self.relay(scene, me, &relay, &name),
            (Word::Create | Word::Join(_) | Word::Signal(_) | Word::Unknown, Some(_)) => {}
        }
    }

    /// The others hear that a client is gone.
    pub(super) fn tell_of_leave(&self, scene: &mut Scene<'_>, me: usize, leavers: &[usize]) {
        let Some(login) = self.logins.iter().find(|login| login.index == me) else { return };
        let text = format!(r#"{{"type":"peer_disconnected","peer":"{}"}}"#, login.name);
        for other in self.logins.iter().filter(|other| other.index != me) {
            scene.is_certain = login.is_certain && !leavers.contains(&other.index);
            scene.expect_news(other.index, text.clone(), Meaning::Lobby(News::Went(login.name.clone())));
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, me: usize) {
        self.logins.retain(|login| login.index != me);
    }

    /// What holds of an open client when all is at rest.
    pub(super) fn check_at_rest(&self, client: &Client) {
        if !client.is_logged_in {
            return;
        }
        let mut known = client.peers.clone();
        let mut there: Vec<String> = self.logins.iter().map(|login| login.name.clone()).collect();
        known.sort_unstable();
        there.sort_unstable();
        if known != there {
            fail(format!("was told of {known:?}, but {there:?} are logged in"));
        }
    }

    /// What the server itself says of its names when all is at rest.
    pub(super) fn check_server(&self, shards: &[Shard]) {
        let names: Vec<&str> = shards.iter().flat_map(Shard::directory_names).collect();
        let there: Vec<&str> = self.logins.iter().map(|login| &*login.name).collect();
        if names != there {
            fail(format!("the server says {names:?}, but {there:?} are logged in"));
        }
    }

    fn login(&mut self, scene: &mut Scene<'_>, me: usize, name: Option<String>) {
        let Some(name) = name else {
            scene.expect(me, INVALID_NAME.to_owned());
            return scene.stop(me, Some(4001), Some("Invalid client name"));
        };
        if self.logins.iter().any(|login| login.name == name) {
            scene.summary.names_taken += 1;
            scene.expect(me, NAME_TAKEN.to_owned());
            return scene.stop(me, Some(4000), Some("Client name already taken"));
        }
        self.logins.push(Login { index: me, name: name.clone(), is_certain: scene.is_certain });
        let names: Vec<String> = self.logins.iter().map(|login| login.name.clone()).collect();
        let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let text = format!(r#"{{"type":"login_success","id":"{name}","clients":[{}]}}"#, quoted.join(","));
        scene.expect_what(me, What::Text(text), Meaning::Lobby(News::LoggedIn(names)), 0);
        let text = format!(r#"{{"type":"peer_connected","peer":"{name}"}}"#);
        self.tell_others(scene, me, &text, &News::Came(name.clone()));
        if let Some(client) = scene.lobby(me) {
            client.name = Some(name);
        }
        scene.summary.logins += 1;
    }

    fn tell_others(&self, scene: &mut Scene<'_>, me: usize, text: &str, news: &News) {
        for login in self.logins.iter().filter(|login| login.index != me) {
            let (what, meaning) = (What::Text(text.to_owned()), Meaning::Lobby(news.clone()));
            scene.expect_what(login.index, what, meaning, 0);
        }
    }

    fn relay(&self, scene: &mut Scene<'_>, me: usize, relay: &Relay, name: &str) {
        let Relay { target, target_json, head, tail } = relay;
        match self.logins.iter().find(|login| login.name == *target) {
            Some(login) => {
                let text = format!(r#"{head},"from":"{name}"{tail}"#);
                scene.expect_what(login.index, What::Text(text), Meaning::Lobby(News::FromPeer), 0);
            }
            None => {
                let text = format!(r#"{{"type":"error","error":"target_not_found","target":{target_json}}}"#);
                scene.expect(me, text);
            }
        }
    }
}

/// What a client of the directory says next, or nothing.
pub(super) fn message(client: &Client, manner: Manner, play: &mut Play<'_>) -> Option<(Word, String)> {
    if !client.is_logged_in && (client.said == 0 || play.chance.one_in(8)) {
        return Some(login(manner, play));
    }
    if !client.is_logged_in && manner != Manner::Clumsy {
        return None;
    }
    Some(match play.chance.below(12) {
        0 if manner == Manner::Clumsy => login(manner, play),
        0 | 1 => (Word::Ping, r#" {"x":"type","type":"ping"}"#.to_owned()),
        2 | 3 => announce(play),
        4 if manner == Manner::Clumsy => (Word::Create, r#"{"type":"create"}"#.to_owned()),
        _ => relay(client, manner, play),
    })
}

fn login(manner: Manner, play: &mut Play<'_>) -> (Word, String) {
    let name = play.chance.pick(&NAMES);
    let (name, text) = match play.chance.below(if manner == Manner::Clumsy { 12 } else { 5 }) {
        0 => (Some(name), format!(r#"{{"name":null,"id":" {name}\u0009","type":"login"}}"#)),
        1 => (Some(name), format!("{{\"type\":\"login\",\"name\":\"\u{feff}{name}\u{2003}\",\"id\":7}}")),
        5 => (None, r#"{"type":"login","name":7}"#.to_owned()),
        6 => (None, r#"{"type":"login"}"#.to_owned()),
        7 => (None, format!(r#"{{"type":"login","name":"{}"}}"#, "n".repeat(65))),
        8 => (None, r#"{"type":"login","name":"  "}"#.to_owned()),
        9 => (None, r#"{"type":"login","name":"ali ce","id":"alice"}"#.to_owned()),
        _ => (Some(name), format!(r#"{{"type":"login","name":"{name}"}}"#)),
    };
    (Word::Login(name.map(str::to_owned)), text)
}

fn announce(play: &mut Play<'_>) -> (Word, String) {
    let kind = play.chance.pick(&KINDS);
    let reason = match play.chance.below(8) {
        0 => (r#","reason":null"#, r#""manual""#),
        1 => (r#","reason":-0.0"#, r#""manual""#),
        2 => (r#","reason":"""#, r#""manual""#),
        3 => (r#","reason":{"a":1.50}"#, r#"{"a":1.50}"#),
        4 => (r#","reason":"\u0062ye""#, r#""\u0062ye""#),
        5 => ("", r#""manual""#),
        _ => {
            let text = format!(r#"{{"type":"{kind}","target":"alice","reason":1,{FORGED}}}"#);
            return (Word::Announce(format!(r#"{{"type":"{kind}","from":""#), "\"}".to_owned()), text);
        }
    };
    let text = format!(r#"{{"from":"bob","type":"stream_stopped"{}}}"#, reason.0);
    let behind = format!(r#"","reason":{}}}"#, reason.1);
    (Word::Announce(r#"{"type":"stream_stopped","from":""#.to_owned(), behind), text)
}

/// A message for a target. In those with a `from` of their own no blanks stand between the members, so that there is no
/// doubt what is left.
fn relay(client: &Client, manner: Manner, play: &mut Play<'_>) -> (Word, String) {
    let target = match play.chance.below(6) {
        0 => play.chance.pick(&NAMES).to_owned(),
        1 if manner == Manner::Clumsy => "nobody\\n".to_owned(),
        _ if !client.peers.is_empty() => client.peers[play.chance.below(client.peers.len())].clone(),
        _ => "bob".to_owned(),
    };
    let target_json = match target.strip_prefix('a') {
        Some(rest) if play.chance.one_in(3) => format!(r#""\u0061{rest}""#),
        _ => format!("\"{target}\""),
    };
    let opaque = format!(r#""sdp":{{"from":"x","n":1.50,"s":{},"p":"{}"}}"#, client.said, play.padding(400));
    let kind = r#""type":"offer""#;
    let to = format!(r#""target":{target_json}"#);
    let escaped = r#""fr\u006fm":[1]"#;
    let is_forger = manner == Manner::Forging || play.chance.one_in(4);
    let (text, head, tail) = match play.chance.below(4) {
        _ if !is_forger => {
            let head = format!("\t{{ {kind} ,{to}, {opaque} ");
            (format!("{head}}}\n "), head, "}\n ".to_owned())
        }
        0 => {
            let text = format!("{{{FORGED},{kind},{escaped},{to},{opaque}}}");
            (text, format!("{{{kind},{to},{opaque}"), "}".to_owned())
        }
        1 => {
            let text = format!("{{{kind},{opaque},{to},{FORGED},{escaped}}}");
            (text, format!("{{{kind},{opaque},{to}"), "}".to_owned())
        }
        2 => {
            let (many, head) = (FORGED.to_owned() + ",", format!("{{{kind},{to},\"From\":1,{opaque}"));
            let text = format!(
                "{{{}{kind},{FORGED},{to},{FORGED},\"From\":1,{FORGED},{opaque},{FORGED}}}",
                many.repeat(6)
            );
            (text, head, "}".to_owned())
        }
        _ => {
            let text = format!("{{{FORGED},{escaped},{to},{kind},{opaque}}}");
            (text, format!("{{{to},{kind},{opaque}"), "}".to_owned())
        }
    };
    let target = if target == "nobody\\n" { "nobody\n".to_owned() } else { target };
    (Word::Relay(Relay { target, target_json, head, tail }), text)
}
