//! Inputs and what each client then gets, each line of protocols.md section 2; and random ones against references that
//! are written another way.

mod issues;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::id::{Entropy, HostId, ShardIndex, Slot};
use crate::protocol;
use crate::wire::envelope::Parser;

const CONNECTION: [u8; 64] = [b'a'; 64];
const OTHER_CONNECTION: [u8; 64] = [b'A'; 64];

/// A home of rendezvous and all that one needs to speak to it.
struct Table {
    rendezvous: Rendezvous,
    entropy: Entropy,
    parser: Parser,
    clients_made: u32,
}

fn table() -> Table {
    Table {
        rendezvous: Rendezvous::new([1, 2, 3, 4]),
        entropy: Entropy::from_seed([3; 32]),
        parser: Parser::default(),
        clients_made: 0,
    }
}

struct Client {
    id: ClientId,
    state: State,
}

impl Client {
    fn text(&self) -> String {
        text_of(self.id)
    }
}

fn text_of(id: ClientId) -> String {
    String::from_utf8(id.text().to_vec()).expect("ASCII")
}

/// What somebody gets.
type Got = (ClientId, String);

impl Table {
    fn new_id(&mut self) -> ClientId {
        self.clients_made += 1;
        ClientId::new(HostId(9), ShardIndex(0), Slot(self.clients_made), &mut self.entropy)
    }

    fn connect(&mut self, connection: [u8; 64], source: Role) -> (Client, Vec<Got>) {
        let (id, mut out) = (self.new_id(), Actions::new());
        let place = Place { connection, source, target: source.other() };
        let state = self.rendezvous.handle_connect(&place, id, &mut out);
        (Client { id, state }, got(&out, id, b""))
    }

    /// Connects somebody whose notices do not matter.
    fn client(&mut self, source: Role) -> Client {
        self.connect(CONNECTION, source).0
    }

    fn says(&mut self, client: &Client, message: &[u8]) -> Vec<Got> {
        got(&self.actions(client, message), client.id, message)
    }

    fn actions(&mut self, client: &Client, message: &[u8]) -> Actions {
        let mut out = Actions::new();
        let parsed = self.parser.parse(message);
        let envelope = parsed.as_ref().map_err(|not_json| *not_json);
        self.rendezvous.handle_message(&client.state, client.id, message, envelope, &mut out);
        out
    }

    fn leave(&mut self, client: &Client) -> Vec<Got> {
        let mut out = Actions::new();
        self.rendezvous.handle_leave(&client.state, client.id, &mut out);
        got(&out, client.id, b"")
    }

    /// What a lone client is answered to this.
    fn answer(&mut self, message: &[u8]) -> String {
        let client = self.client(Role::Wallet);
        let [(to, text)] = self.says(&client, message).try_into().expect("one answer");
        assert_eq!(to, client.id);
        self.leave(&client);
        text
    }
}

/// Carries the actions out on paper.
fn got(actions: &Actions, me: ClientId, message: &[u8]) -> Vec<Got> {
    let mut all = Vec::new();
    for action in actions {
        let (to, parts) = match action {
            Action::Reply(parts) => (vec![me], parts.clone()),
            Action::Send { to, parts } => (vec![*to], parts.clone()),
            Action::Confirm { sent, about, .. } => {
                (vec![me], parts([Part::Literal(sent), Part::Span(about.clone()), Part::Literal("}")]))
            }
            Action::Broadcast { to, parts } => {
                assert!(!to.is_empty(), "a broadcast to nobody");
                (to.clone(), parts.clone())
            }
            other => panic!("not of this dialect: {other:?}"),
        };
        let mut bytes = Vec::new();
        protocol::write(&parts, message, |piece| bytes.extend_from_slice(piece));
        assert_eq!(bytes.len(), protocol::len_of(&parts));
        let text = String::from_utf8(bytes).expect("UTF-8");
        serde_json::from_str::<&RawValue>(&text).expect("JSON");
        all.extend(to.into_iter().map(|to| (to, text.clone())));
    }
    all
}

fn told(info: &str, client: &Client) -> String {
    format!(r#"{{"info":"{info}","remoteClientId":"{}"}}"#, client.text())
}

/// A message to `target` that passes.
fn message_to(target: &str) -> String {
    format!(r#"{{"requestId":"r","method":"offer","encryptedPayload":"x","targetClientId":"{target}"}}"#)
}

#[test]
fn both_learn_of_each_other_in_the_order_of_arrival() {
    let mut table = table();
    let (a, alone) = table.connect(CONNECTION, Role::Extension);
    assert_eq!(alone, [], "nothing is sent to a client that is alone");
    let (b, same_role) = table.connect(CONNECTION, Role::Extension);
    assert_eq!(same_role, []);
    let (_, elsewhere) = table.connect(OTHER_CONNECTION, Role::Wallet);
    assert_eq!(elsewhere, [], "upper case is another id");
    let (c, notices) = table.connect(CONNECTION, Role::Wallet);
    let expected = [
        (c.id, told("remoteClientIsAlreadyConnected", &a)),
        (c.id, told("remoteClientIsAlreadyConnected", &b)),
        (a.id, told("remoteClientJustConnected", &c)),
        (b.id, told("remoteClientJustConnected", &c)),
    ];
    assert_eq!(notices, expected);
    assert_eq!(table.leave(&a), [(c.id, told("remoteClientDisconnected", &a))]);
    assert_eq!(table.leave(&a), [], "one leaves once");
    assert_eq!(table.leave(&c), [(b.id, told("remoteClientDisconnected", &c))]);
    assert_eq!(table.leave(&b), []);
    assert_eq!(table.rendezvous.len(), 1, "the other connection id");
}

#[test]
fn who_came_back_is_last_in_the_order() {
    let mut table = table();
    let (a, b) = (table.client(Role::Wallet), table.client(Role::Wallet));
    table.leave(&a);
    let again = table.client(Role::Wallet);
    let (c, notices) = table.connect(CONNECTION, Role::Extension);
    let order: Vec<_> = notices.into_iter().filter(|(to, _)| *to == c.id).map(|(_, text)| text).collect();
    assert_eq!(order, [&b, &again].map(|client| told("remoteClientIsAlreadyConnected", client)));
}

#[test]
fn a_message_goes_to_its_target_as_it_came_and_is_confirmed() {
    let mut table = table();
    let (a, b) = (table.client(Role::Wallet), table.client(Role::Extension));
    let to = b.text();
    let escaped = to.replace('-', "\\u002D");
    for (request_id, message) in [
        (r#""r""#, message_to(&to)),
        (r#""""#, message_to(&to).replace(r#""r""#, r#""""#)),
        (r#""\ud83dé\/""#, message_to(&escaped).replace(r#""r""#, r#""\ud83dé\/""#)),
        (r#""2""#, message_to(&to).replace(r#""r""#, r#"1 ,"requestId" : "2""#)),
        (r#""r""#, format!(" {}\n", message_to("nobody").replace("}", &format!(r#","targetClientId":"{to}"}}"#)))),
        (
            r#""r""#,
            message_to(&to).replace(
                "offer",
                r#"iceC\u0061ndidates","source":"wallet","connectionId":"any","startAt":-1.50e400,"remoteClientId":"me","x":[1.0,null],"s":"{"#,
            ),
        ),
    ] {
        let data = format!(
            r#"{{"info":"remoteData","data":{message},"remoteClientId":"{}","requestId":{request_id}}}"#,
            a.text()
        );
        let confirmation = format!(r#"{{"info":"confirmation","requestId":{request_id}}}"#);
        assert_eq!(table.says(&a, message.as_bytes()), [(b.id, data), (a.id, confirmation)], "{message}");
    }
}

#[test]
fn a_target_that_is_not_there_is_missing() {
    let mut table = table();
    let (a, own_role) = (table.client(Role::Wallet), table.client(Role::Wallet));
    let gone = table.client(Role::Extension);
    table.leave(&gone);
    let there = table.client(Role::Extension);
    let (elsewhere, _) = table.connect(OTHER_CONNECTION, Role::Extension);
    let missing = [(a.id, r#"{"info":"missingRemoteClientError","requestId":"r"}"#.to_owned())];
    for target in [
        a.text(),
        own_role.text(),
        gone.text(),
        elsewhere.text(),
        there.text().to_uppercase(),
        there.text().replace('-', ""),
        format!("{} ", there.text()),
        String::new(),
        r"\ud800".to_owned(),
    ] {
        assert_eq!(table.says(&a, message_to(&target).as_bytes()), missing, "{target}");
    }
    assert_eq!(table.says(&a, message_to(&there.text()).as_bytes()).len(), 2, "the one who is there");
}

#[test]
fn who_has_left_is_not_listened_to() {
    let mut table = table();
    let (a, b) = (table.client(Role::Wallet), table.client(Role::Extension));
    table.leave(&a);
    assert_eq!(table.actions(&a, message_to(&b.text()).as_bytes()), [Action::Ignore]);
    assert_eq!(table.actions(&a, b"not JSON"), [Action::Ignore]);
}

#[test]
fn what_is_no_json_comes_back_as_text() {
    for (message, data) in [
        (&b""[..], r#""""#),
        (b"hello \"you\"\r\n\x01", r#""hello \"you\"\r\n\u0001""#),
        (b"{\"a\":1,}", r#""{\"a\":1,}""#),
        (b"\xff{}\xe2\x82", "\"\u{fffd}{}\u{fffd}\""),
        (b"\xed\xa0\x80", "\"\u{fffd}\u{fffd}\u{fffd}\""),
        ("\u{feff}{}".as_bytes(), "\"\u{feff}{}\""),
    ] {
        let expected = format!(
            r#"{{"info":"invalidMessageError","data":{data},"error":"invalid message format, expected JSON"}}"#
        );
        assert_eq!(table().answer(message), expected, "{}", message.escape_ascii());
    }
}

/// The members of what came out; none of a name twice.
fn members_of(text: &str) -> BTreeMap<String, Box<RawValue>> {
    let members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(text).expect("an object");
    let written: usize = members.iter().map(|(key, value)| key.len() + value.get().len() + 4).sum();
    assert_eq!(written + 1, text.len(), "each member is there once, and no blanks: {text}");
    members
}

proptest! {
    /// Any bytes at all: one answer, or a confirmed delivery; what is no JSON comes back as `from_utf8_lossy` reads it.
    #[test]
    fn any_bytes_are_answered(message in proptest::collection::vec(any::<u8>(), 0..64)) {
        let answer = members_of(&table().answer(&message));
        if answer["info"].get() == "\"invalidMessageError\"" {
            let data: String = serde_json::from_str(answer["data"].get()).expect("a string");
            prop_assert_eq!(data, String::from_utf8_lossy(&message));
        } else {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&message).is_ok());
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Connect { upper: bool, wallet: bool },
    Leave(proptest::sample::Index),
    Say { from: proptest::sample::Index, to: proptest::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<proptest::sample::Index>;
    prop_oneof![
        3 => (any::<bool>(), any::<bool>()).prop_map(|(upper, wallet)| Step::Connect { upper, wallet }),
        2 => index().prop_map(Step::Leave),
        3 => (index(), index()).prop_map(|(from, to)| Step::Say { from, to }),
    ]
}

/// A client as the reference sees it.
struct Seen {
    client: Client,
    connection: [u8; 64],
    role: Role,
    is_here: bool,
}

fn counterparts<'a>(seen: &'a [Seen], of: &Seen) -> Vec<&'a Client> {
    let (connection, role) = (of.connection, of.role);
    let meets = |other: &&Seen| other.is_here && other.connection == connection && other.role != role;
    seen.iter().filter(meets).map(|other| &other.client).collect()
}

fn check_connect(table: &mut Table, seen: &mut Vec<Seen>, upper: bool, wallet: bool) {
    let connection = if upper { OTHER_CONNECTION } else { CONNECTION };
    let role = if wallet { Role::Wallet } else { Role::Extension };
    let (client, notices) = table.connect(connection, role);
    let newcomer = Seen { client, connection, role, is_here: true };
    let me = &newcomer.client;
    let others = counterparts(seen, &newcomer);
    let to_me = others.iter().map(|other| (me.id, told("remoteClientIsAlreadyConnected", other)));
    let to_others = others.iter().map(|other| (other.id, told("remoteClientJustConnected", me)));
    assert_eq!(notices, to_me.chain(to_others).collect::<Vec<_>>());
    seen.push(newcomer);
}

fn check_leave(table: &mut Table, seen: &mut [Seen], at: usize) {
    let notices = table.leave(&seen[at].client);
    let others = if seen[at].is_here { counterparts(seen, &seen[at]) } else { Vec::new() };
    let gone = told("remoteClientDisconnected", &seen[at].client);
    assert_eq!(notices, others.iter().map(|other| (other.id, gone.clone())).collect::<Vec<_>>());
    seen[at].is_here = false;
}

fn check_say(table: &mut Table, seen: &[Seen], from: usize, to: usize) {
    if !seen[from].is_here {
        return;
    }
    let (me, target) = (&seen[from].client, &seen[to].client);
    let reached =
        table.says(me, message_to(&target.text()).as_bytes()).iter().any(|(to, _)| *to == target.id);
    let expected = counterparts(seen, &seen[from]).iter().any(|other| other.id == target.id);
    assert!(from == to || reached == expected, "from {from} to {to}");
}

proptest! {
    #[test]
    fn who_is_there_is_known_whatever_happens(steps in proptest::collection::vec(step(), 0..60)) {
        let mut table = table();
        let mut seen = Vec::new();
        for step in steps {
            match step {
                Step::Connect { upper, wallet } => check_connect(&mut table, &mut seen, upper, wallet),
                Step::Leave(_) | Step::Say { .. } if seen.is_empty() => {}
                Step::Leave(at) => {
                    let at = at.index(seen.len());
                    check_leave(&mut table, &mut seen, at);
                }
                Step::Say { from, to } => {
                    check_say(&mut table, &seen, from.index(seen.len()), to.index(seen.len()));
                }
            }
            let used = [CONNECTION, OTHER_CONNECTION]
                .iter()
                .filter(|connection| seen.iter().any(|one| one.is_here && one.connection == **connection))
                .count();
            prop_assert_eq!(table.rendezvous.len(), used);
        }
        for at in 0..seen.len() {
            check_leave(&mut table, &mut seen, at);
        }
        prop_assert!(table.rendezvous.is_empty());
        prop_assert!(table.rendezvous.clients.is_empty() && table.rendezvous.seats.is_empty());
    }
}
