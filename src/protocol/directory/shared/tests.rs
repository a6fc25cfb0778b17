//! What a host is told of the list, and what follows for its own clients.

use super::*;
use crate::id::{Entropy, ShardIndex, Slot};
use crate::protocol::{self, Action, Part};
use crate::wire::envelope::Parser;

const SEND: &str = r#"{"type":"say","target":"far"}"#;

/// The directory of a host, its clients, and two of other hosts.
struct Table {
    directory: Directory,
    clients: Vec<(ClientId, State)>,
    distant: [ClientId; 2],
}

fn table() -> Table {
    let mut entropy = Entropy::from_seed([4; 32]);
    let mut client = |host, slot| ClientId::new(HostId(host), ShardIndex(0), Slot(slot), &mut entropy);
    let clients = (0..4).map(|slot| (client(9, slot), State::default())).collect();
    Table { directory: Directory::new([1, 2, 3, 4], true), clients, distant: [client(1, 0), client(2, 0)] }
}

impl Table {
    fn says(&mut self, who: usize, message: &str) -> Vec<String> {
        let mut out = Actions::new();
        let mut parser = Parser::default();
        let (id, state) = &mut self.clients[who];
        let envelope = parser.parse(message.as_bytes()).expect("JSON");
        self.directory.handle_message(state, *id, message.as_bytes(), Ok(&envelope), 0, &mut out);
        self.shown(&out, message)
    }

    fn wants(&mut self, who: usize, name: &str) -> Vec<String> {
        self.says(who, &format!(r#"{{"type":"login","name":"{name}"}}"#))
    }

    fn admits(&mut self, who: usize, number: u64, name: &str) -> Vec<String> {
        let mut out = Actions::new();
        let (id, state) = &mut self.clients[who];
        self.directory.handle_admitted(state, *id, number, name.into(), &mut out);
        self.shown(&out, "")
    }

    fn comes(&mut self, who: usize, number: u64, name: &str) -> Option<Vec<String>> {
        let mut out = Actions::new();
        let has_come = self.directory.handle_came(self.distant[who], number, &name.into(), &mut out);
        has_come.then(|| self.shown(&out, ""))
    }

    fn goes(&mut self, who: usize) -> Vec<String> {
        let mut out = Actions::new();
        self.directory.handle_went(self.distant[who], &mut out);
        self.shown(&out, "")
    }

    fn leaves(&mut self, who: usize) -> Vec<String> {
        let mut out = Actions::new();
        let (id, state) = &mut self.clients[who];
        self.directory.handle_leave(state, *id, &mut out);
        self.shown(&out, "")
    }

    /// An action as a line: to whom, and what.
    fn shown(&self, actions: &Actions, message: &str) -> Vec<String> {
        let position = |id: &ClientId| self.clients.iter().position(|(other, _)| other == id).expect("ours");
        let text = |parts: &[Part]| {
            let mut bytes = Vec::new();
            protocol::write(parts, message.as_bytes(), |piece| bytes.extend_from_slice(piece));
            String::from_utf8(bytes).expect("UTF-8")
        };
        let line = |action: &Action| match action {
            Action::Reply(parts) => text(parts),
            Action::Broadcast { to, parts } => {
                let to: Vec<String> = to.iter().map(|id| position(id).to_string()).collect();
                format!("{} {}", to.join(","), text(parts))
            }
            Action::Directory(Ask::Login { name, .. }) => format!("ask {name}"),
            Action::Directory(Ask::Logout(id)) => format!("log out {}", position(id)),
            Action::Distant { to: Distant::Client(id), parts } => format!("to {} {}", id.host(), text(parts)),
            Action::Distant { to: Distant::Hosts(hosts), parts } => {
                let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                format!("to {} {}", hosts.join(","), text(parts))
            }
            Action::Close { client, reason, .. } => format!("close {} {reason}", position(client)),
            Action::Ignore => "ignored".into(),
            other => panic!("{other:?}"),
        };
        actions.iter().map(line).collect()
    }
}

fn connected(name: &str) -> String {
    format!(r#"{{"type":"peer_connected","peer":"{name}"}}"#)
}

fn disconnected(name: &str) -> String {
    format!(r#"{{"type":"peer_disconnected","peer":"{name}"}}"#)
}

#[test]
fn the_list_has_the_order_of_its_numbers() {
    let mut table = table();
    assert_eq!(table.wants(0, "a"), ["ask a"]);
    assert_eq!(table.comes(0, 7, "far"), Some(vec![]), "nobody is here to hear it");
    assert_eq!(table.admits(0, 3, "a"), [r#"{"type":"login_success","id":"a","clients":["a","far"]}"#]);
    assert_eq!(table.comes(1, 5, "farther"), Some(vec![format!("0 {}", connected("farther"))]));
    assert_eq!(table.wants(1, "b"), ["ask b"]);
    let success = r#"{"type":"login_success","id":"b","clients":["a","farther","far","b"]}"#;
    assert_eq!(table.admits(1, 9, "b"), [success.to_owned(), format!("0 {}", connected("b"))]);
    // Numbers that count anew change nothing but the order.
    assert_eq!(table.comes(0, 1, "far"), Some(vec![]));
    assert_eq!(table.admits(0, 2, "a"), [""; 0]);
    table.wants(2, "c");
    let success = r#"{"type":"login_success","id":"c","clients":["far","a","farther","b","c"]}"#;
    assert_eq!(table.admits(2, 9, "c")[0], success);
    assert_eq!(table.directory.names().collect::<Vec<_>>(), ["a", "b", "c"], "those of this host");
    assert_eq!(table.directory.len(), 3);
}

#[test]
fn who_waits_for_a_name_says_nothing_and_may_leave() {
    let mut table = table();
    table.wants(0, "a");
    assert_eq!(table.says(0, SEND), ["ignored"]);
    assert_eq!(table.wants(0, "a"), ["ignored"]);
    // Two may ask; the list says who has it.
    assert_eq!(table.wants(1, "a"), ["ask a"]);
    assert_eq!(table.leaves(0), ["log out 0"]);
    assert_eq!(table.admits(0, 1, "a"), [""; 0], "it has left");
    assert!(table.directory.is_empty());
    table.admits(1, 3, "a");
    // What a client of this host has, is not asked for.
    let taken = [r#"{"type":"error","error":"name_taken"}"#, "close 2 Client name already taken"];
    assert_eq!(table.wants(2, "a"), taken);
    assert_eq!(table.wants(2, "bad name")[1], "close 2 Invalid client name");
    // What another host's has, may be free by now.
    table.comes(0, 4, "far");
    assert_eq!(table.wants(3, "far"), ["ask far"]);
    let mut out = Actions::new();
    let (id, state) = &table.clients[3];
    table.directory.handle_refused(state, *id, &mut out);
    let taken = [r#"{"type":"error","error":"name_taken"}"#, "close 3 Client name already taken"];
    assert_eq!(table.shown(&out, ""), taken);
    assert_eq!(table.leaves(1), ["log out 1"]);
    assert_eq!(table.leaves(1), [""; 0]);
}

#[test]
fn peers_of_other_hosts_are_reached_by_letter() {
    let mut table = table();
    for (who, name) in [(0, "a"), (1, "b")] {
        table.wants(who, name);
        table.admits(who, who as u64, name);
    }
    assert_eq!(table.says(0, SEND), [r#"{"type":"error","error":"target_not_found","target":"far"}"#]);
    let started = r#"{"type":"stream_started","from":"a"}"#;
    assert_eq!(table.says(0, r#"{"type":"stream_started"}"#), [format!("1 {started}")]);
    table.comes(0, 7, "far");
    table.comes(1, 8, "farther");
    assert_eq!(table.says(0, SEND), [r#"to 00000001 {"type":"say","target":"far","from":"a"}"#]);
    let told = [format!("to 00000001,00000002 {started}"), format!("1 {started}")];
    assert_eq!(table.says(0, r#"{"type":"stream_started"}"#), told);
    assert_eq!(table.leaves(0), [format!("1 {}", disconnected("a")), "log out 0".to_owned()]);
    // Only those who are there are heard, by those who are there.
    let [far, farther] = table.distant;
    assert_eq!(table.directory.hearers_of(far), Some(vec![table.clients[1].0]));
    assert!(
        table.directory.knows(far, &table.clients[1].1) && !table.directory.knows(far, &table.clients[0].1)
    );
    assert_eq!(table.goes(0), [format!("1 {}", disconnected("far"))]);
    assert_eq!(table.goes(0), [""; 0], "once");
    assert_eq!(table.directory.hearers_of(far), None);
    assert!(!table.directory.knows(far, &table.clients[1].1));
    let mut out = Actions::new();
    table.directory.handle_host_gone(far.host(), &mut out);
    assert_eq!(out, [], "nobody of it is left");
    table.directory.handle_host_gone(farther.host(), &mut out);
    assert_eq!(table.shown(&out, ""), [format!("1 {}", disconnected("farther"))]);
    assert_eq!(table.says(1, r#"{"type":"stream_started"}"#), [""; 0]);
}

#[test]
fn a_name_is_never_in_the_list_twice() {
    let mut table = table();
    table.wants(0, "a");
    table.admits(0, 1, "a");
    table.comes(0, 2, "far");
    assert_eq!(table.comes(1, 3, "a"), None);
    assert_eq!(table.comes(1, 3, "far"), None);
    assert_eq!(table.comes(0, 3, "other"), None, "one client has one name");
    assert_eq!(table.comes(0, 3, "a"), None);
    table.wants(1, "b");
    assert_eq!(table.admits(1, 9, "b")[0], r#"{"type":"login_success","id":"b","clients":["a","far","b"]}"#);
}
