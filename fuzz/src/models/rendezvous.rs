//! Two roles that share a connection id (protocols.md section 2).

use std::collections::BTreeSet;

use parlor::shard::dialects::Dialect;
use parlor::wire::envelope::Kind;
use serde_json::value::RawValue;

use crate::json::{self, Object};
use crate::referee::door::Behind;
use crate::referee::{Entry, Model, Overrun, Parting, Rate, Table};
use crate::wire::Reading;
use crate::world::Host;

/// Who is where, in the order in which they came.
#[derive(Debug, Default)]
pub struct Rendezvous {
    clients: Vec<Seat>,
    /// All who ever were there, by peer.
    places: Vec<(usize, char, bool)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    who: usize,
    connection: char,
    is_wallet: bool,
}

impl Rendezvous {
    fn seat(&self, who: usize) -> Option<Seat> {
        self.clients.iter().copied().find(|seat| seat.who == who)
    }

    fn counterparts(&self, seat: Seat) -> Vec<usize> {
        let is_one = |other: &&Seat| other.connection == seat.connection && other.is_wallet != seat.is_wallet;
        self.clients.iter().filter(is_one).map(|other| other.who).collect()
    }
}

impl Model for Rendezvous {
    fn enter(&mut self, who: usize, behind: Behind, table: &mut Table) -> Entry {
        let Behind::Rendezvous { connection, is_wallet } = behind else { panic!("{behind:?}") };
        let seat = Seat { who, connection, is_wallet };
        let others = self.counterparts(seat);
        self.clients.push(seat);
        self.places.push((who, connection, is_wallet));
        for &other in &others {
            table.say(who, &notice("remoteClientIsAlreadyConnected", table.id(other)));
        }
        for other in others {
            table.say(other, &notice("remoteClientJustConnected", table.id(who)));
        }
        Entry::Open
    }

    fn rate(&self, _who: usize, table: &Table) -> Option<Rate> {
        let limits = &table.limits;
        let (max, window_ms) = (limits.rendezvous_messages_max, limits.rendezvous_window_ms);
        Some(Rate { max, window_ms, overrun: Overrun::Close("rate limit hit, slow down") })
    }

    fn message_bytes_max(&self, _who: usize, table: &Table) -> usize {
        table.limits.message_bytes_max
    }

    fn handle_message(&mut self, who: usize, message: &[u8], table: &mut Table) {
        let Some(raw) = json::parse(message) else {
            let data = json::stringified(String::from_utf8_lossy(message).as_bytes());
            let error = "invalid message format, expected JSON";
            return table
                .say(who, &format!(r#"{{"info":"invalidMessageError","data":{data},"error":"{error}"}}"#));
        };
        if json::kind(raw) != Kind::Object {
            let issue = wrong_type("object", name_of(json::kind(raw)), "");
            return table.say(who, &format!(r#"{{"info":"validationError","error":[{issue}]}}"#));
        }
        let said = Object::new(raw);
        let request_id = said.member("requestId").map(RawValue::get);
        let issues = issues(&said);
        if !issues.is_empty() {
            let request_id = request_id.map_or(String::new(), |id| format!(r#""requestId":{id},"#));
            let issues = issues.join(",");
            return table
                .say(who, &format!(r#"{{"info":"validationError",{request_id}"error":[{issues}]}}"#));
        }
        self.relay(who, message, &said, request_id.expect("it is valid"), table);
    }

    fn leave(&mut self, who: usize, _parting: Parting, table: &mut Table) {
        let Some(seat) = self.seat(who) else { return };
        self.clients.retain(|other| *other != seat);
        for other in self.counterparts(seat) {
            table.say(other, &notice("remoteClientDisconnected", table.id(who)));
        }
    }

    fn finish(&self, host: &Host, table: &Table, readings: &[Reading<'_>]) {
        let is_there = |who: usize| matches!(host.dialect(who), Some(Dialect::Rendezvous(_)));
        for &(who, connection, is_wallet) in &self.places {
            let is_other = |place: &&(usize, char, bool)| place.1 == connection && place.2 != is_wallet;
            let others: Vec<usize> = self.places.iter().filter(is_other).map(|place| place.0).collect();
            let known = known(&readings[who], &others, table);
            let there = others.iter().copied().filter(|&other| is_there(other)).collect();
            assert!(!is_there(who) || known == there, "peer {who} knows {known:?} of {there:?}");
        }
    }
}

impl Rendezvous {
    fn relay(&self, who: usize, message: &[u8], said: &Object<'_>, request_id: &str, table: &mut Table) {
        let target = said.text_of("targetClientId").expect("it is valid");
        let seat = self.seat(who).expect("who speaks is there");
        let mut others = self.counterparts(seat).into_iter();
        let Some(to) = others.find(|&other| *target == table.clients[other].id) else {
            return table
                .say(who, &format!(r#"{{"info":"missingRemoteClientError","requestId":{request_id}}}"#));
        };
        let tail = format!(r#","remoteClientId":"{}","requestId":{request_id}}}"#, table.id(who));
        let data = [br#"{"info":"remoteData","data":"#, message, tail.as_bytes()].concat();
        // Who is too slow for it is as good as gone.
        let info = if table.say_bytes(to, &data) { "confirmation" } else { "missingRemoteClientError" };
        table.say(who, &format!(r#"{{"info":"{info}","requestId":{request_id}}}"#));
    }
}

/// Whom a client knows by what it has read. Each of them comes once and goes once, says something in between alone,
/// and is one of `others`.
fn known(reading: &Reading<'_>, others: &[usize], table: &Table) -> BTreeSet<usize> {
    let mut known = BTreeSet::new();
    for text in reading.texts() {
        let said = Object::new(text);
        let Some(id) = said.text_of("remoteClientId") else { continue };
        let other = others.iter().copied().find(|&other| *id == table.clients[other].id);
        let other = other.expect("somebody of the other role on the same connection id");
        let is_right = match &*said.text_of("info").expect("it says what it is") {
            b"remoteClientIsAlreadyConnected" | b"remoteClientJustConnected" => known.insert(other),
            b"remoteClientDisconnected" => known.remove(&other),
            b"remoteData" => known.contains(&other),
            info => panic!("{}", info.escape_ascii()),
        };
        assert!(is_right, "{text}, but known are {known:?}");
    }
    known
}

fn notice(info: &str, id: &str) -> String {
    format!(r#"{{"info":"{info}","remoteClientId":"{id}"}}"#)
}

/// What zod has to say of each field.
fn issues(said: &Object<'_>) -> Vec<String> {
    let mut issues = Vec::new();
    let mut check = |name: &str, expected: &str, is_optional: bool| {
        let received = said.member(name).map_or("undefined", |value| name_of(json::kind(value)));
        if received != expected && !(is_optional && received == "undefined") {
            issues.push(wrong_type(expected, received, &format!("\"{name}\"")));
        }
    };
    check("requestId", "string", false);
    check("connectionId", "string", true);
    check("encryptedPayload", "string", false);
    check("targetClientId", "string", false);
    check("startAt", "number", true);
    issues.extend(none_of(said, "method", &["offer", "answer", "iceCandidate", "iceCandidates"], false));
    issues.extend(none_of(said, "source", &["wallet", "extension"], true));
    issues
}

fn wrong_type(expected: &str, received: &str, path: &str) -> String {
    let message = match received {
        "undefined" => String::from("Required"),
        _ => format!("Expected {expected}, received {received}"),
    };
    format!(
        r#"{{"code":"invalid_type","expected":"{expected}","received":"{received}","path":[{path}],"message":"{message}"}}"#
    )
}

fn none_of(said: &Object<'_>, name: &str, literals: &[&str], is_optional: bool) -> Option<String> {
    let value = said.member(name);
    let text = value.and_then(json::text);
    if value.is_none() && is_optional
        || literals.iter().any(|literal| text.as_deref() == Some(literal.as_bytes()))
    {
        return None;
    }
    let errors: Vec<String> = literals
        .iter()
        .map(|literal| {
            let message = format!(r#"Invalid literal value, expected \"{literal}\""#);
            format!(
                r#"{{"issues":[{{"code":"invalid_literal","expected":"{literal}","path":["{name}"],"message":"{message}"}}],"name":"ZodError"}}"#
            )
        })
        .collect();
    let errors = errors.join(",");
    Some(format!(
        r#"{{"code":"invalid_union","unionErrors":[{errors}],"path":["{name}"],"message":"Invalid input"}}"#
    ))
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "boolean",
        Kind::Number => "number",
        Kind::String => "string",
        Kind::Array => "array",
        Kind::Object => "object",
    }
}
