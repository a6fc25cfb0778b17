//! Rendezvous: who is at a connection id, what its clients say, and what each must hear (protocols.md section 2).

use super::behaviour::{Manner, Play};
use super::checks::fail;
use super::connection::{Connection, Voice};
use super::ledger::{Meaning, What};
use super::scene::Scene;

/// The connection ids of a run: the last two differ by upper case alone, and are two.
const CONNECTIONS: [&str; 3] = [
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "abcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcd",
    "ABCDEFabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcd",
];
const ROLES: [&str; 2] = ["wallet", "extension"];
const METHODS: [&str; 4] = ["offer", "answer", "iceCandidate", "iceCandidates"];

/// URLs that are wrong, and the reason that they are closed with.
const WRONG_URLS: [(&str, &str); 7] = [
    ("/short?source=wallet&target=extension", "missing connectionId in path"),
    ("?source=wallet", "missing target"),
    ("?source=wallet&target=phone", "invalid target"),
    ("?target=extension", "missing source"),
    ("?target=extension&source=", "missing source"),
    ("?target=wallet&source=Wallet", "invalid source"),
    ("?source=wallet&target=wallet", "source and target needs to be different"),
];

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// A good one: its `requestId` as it stands, whom it is for, and the whole text.
    Message { request_id: String, target: String, text: String },
    /// Whatever else: what it is answered.
    Wrong(String),
}

/// What a client learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// This client is there.
    Met(usize, String),
    /// It is not any more.
    Parted(usize),
    /// Somebody's message.
    Data,
    /// Its own message went through.
    Confirmed,
}

/// One client's place, and what it knows.
#[derive(Debug)]
pub(super) struct Client {
    place: Result<Place, &'static str>,
    /// The counterparts that it was told of, and their ids.
    counterparts: Vec<(usize, String)>,
    /// Ids of counterparts that have gone.
    gone: Vec<String>,
    said: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    connection: usize,
    role: usize,
}

/// Who is there, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Book {
    members: Vec<Member>,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    index: usize,
    place: Place,
    /// The others were surely told of it.
    is_certain: bool,
}

impl Member {
    fn is_counterpart(&self, place: Place) -> bool {
        self.place.connection == place.connection && self.place.role != place.role
    }
}

impl Book {
    /// A client's URL was read at its home.
    pub(super) fn enter(&mut self, scene: &mut Scene<'_>, me: usize) {
        let place = match scene.rendezvous(me).map(|client| client.place) {
            Some(Ok(place)) => place,
            Some(Err(reason)) => return scene.stop(me, Some(1003), Some(reason)),
            None => fail("no rendezvous client"),
        };
        let id = scene.id(me);
        for other in self.counterparts(place) {
            let other_id = scene.id(other);
            let text =
                format!(r#"{{"info":"remoteClientIsAlreadyConnected","remoteClientId":"{other_id}"}}"#);
            scene.expect_news(me, text, Meaning::Rendezvous(News::Met(other, other_id)));
            let text = format!(r#"{{"info":"remoteClientJustConnected","remoteClientId":"{id}"}}"#);
            scene.expect_news(other, text, Meaning::Rendezvous(News::Met(me, id.clone())));
        }
        self.members.push(Member { index: me, place, is_certain: scene.is_certain });
    }

    /// A client's message was handled.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>, me: usize, word: Word) {
        let limits = &scene.settings.limits;
        let (max, window_ms) = (limits.rendezvous_messages_max, limits.rendezvous_window_ms);
        if !scene.connections[me].ledger.window.allows(scene.now_ms, window_ms, max) {
            scene.summary.rendezvous_too_fast += 1;
            return scene.stop(me, Some(1013), Some("rate limit hit, slow down"));
        }
        match word {
            Word::Message { request_id, target, text } => self.relay(scene, me, &request_id, &target, &text),
            Word::Wrong(answer) => scene.expect(me, answer),
        }
    }

    /// The others hear that a client is gone.
    pub(super) fn tell_of_leave(&self, scene: &mut Scene<'_>, me: usize, leavers: &[usize]) {
        let Some(&Member { place, is_certain, .. }) = self.find(me) else { return };
        let text = format!(r#"{{"info":"remoteClientDisconnected","remoteClientId":"{}"}}"#, scene.id(me));
        for other in self.counterparts(place) {
            scene.is_certain = is_certain && !leavers.contains(&other);
            scene.expect_news(other, text.clone(), Meaning::Rendezvous(News::Parted(me)));
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, me: usize) {
        self.members.retain(|member| member.index != me);
    }

    /// What holds of an open client when all is at rest.
    pub(super) fn check_at_rest(&self, client: &Client) {
        let Ok(place) = client.place else { return };
        let mut known: Vec<usize> = client.counterparts.iter().map(|(index, _)| *index).collect();
        let mut there = self.counterparts(place);
        known.sort_unstable();
        there.sort_unstable();
        if known != there {
            fail(format!("was told of {known:?}, but {there:?} are there"));
        }
    }

    fn find(&self, index: usize) -> Option<&Member> {
        self.members.iter().find(|member| member.index == index)
    }

    fn counterparts(&self, place: Place) -> Vec<usize> {
        self.members.iter().filter(|other| other.is_counterpart(place)).map(|other| other.index).collect()
    }

    fn relay(&self, scene: &mut Scene<'_>, me: usize, request_id: &str, target: &str, text: &str) {
        let Some(mine) = self.find(me) else { return };
        let is_target = |member: &&Member| {
            member.is_counterpart(mine.place) && scene.connections[member.index].id == *target.as_bytes()
        };
        let id = scene.id(me);
        let data = format!(
            r#"{{"info":"remoteData","data":{text},"remoteClientId":"{id}","requestId":{request_id}}}"#
        );
        let Some(to) = self.members.iter().find(is_target).map(|member| member.index) else {
            scene.summary.rendezvous_missing += 1;
            return scene.expect(me, missing(request_id));
        };
        scene.expect_what(to, What::Text(data.clone()), Meaning::Rendezvous(News::Data), 0);
        let confirmation = format!(r#"{{"info":"confirmation","requestId":{request_id}}}"#);
        let has_taken = scene.connections[to].has_taken(data.len());
        scene.is_certain &= has_taken.is_some();
        if has_taken != Some(false) {
            scene.expect_what(me, What::Text(confirmation), Meaning::Rendezvous(News::Confirmed), 0);
        }
        if has_taken != Some(true) {
            scene.expect(me, missing(request_id));
        }
    }
}

fn missing(request_id: &str) -> String {
    format!(r#"{{"info":"missingRemoteClientError","requestId":{request_id}}}"#)
}

impl Client {
    /// The client has heard something.
    pub(super) fn learn(&mut self, news: News) {
        match news {
            News::Met(index, id) => {
                if self.counterparts.iter().any(|(known, _)| *known == index) {
                    fail("was told twice that somebody is there");
                }
                self.counterparts.push((index, id));
            }
            News::Parted(index) => {
                let position = self.counterparts.iter().position(|(known, _)| *known == index);
                let gone = position.map(|position| self.counterparts.remove(position));
                self.gone.extend(gone.map(|(_, id)| id));
            }
            News::Data | News::Confirmed => {}
        }
    }
}

/// Draws a place, and the target of the request that asks for it.
pub(super) fn connect(play: &mut Play<'_>) -> (Client, String) {
    let chance = &mut *play.chance;
    let connection = chance.pick(&[0, 0, 0, 1, 2]);
    let hex = CONNECTIONS[connection];
    let role = chance.below(2);
    let (source, target) = (ROLES[role], ROLES[1 - role]);
    let mut path = match chance.below(3) {
        0 => format!("/{hex}?target={target}&x=1&source={source}"),
        _ => format!("/{hex}?source={source}&target={target}"),
    };
    let mut place = Ok(Place { connection, role });
    if chance.one_in(30) {
        let (url, reason) = chance.pick(&WRONG_URLS);
        path = if url.starts_with('/') { url.to_owned() } else { format!("/{hex}{url}") };
        place = Err(reason);
    }
    (Client { place, counterparts: Vec::new(), gone: Vec::new(), said: 0 }, path)
}

/// Says something, or nothing.
pub(super) fn act(client: &mut Connection, manner: Manner, play: &mut Play<'_>) {
    let count = match manner {
        Manner::Flooding => play.chance.between(1..=20),
        _ => play.chance.below(4),
    };
    for _ in 0..count {
        let chance = &mut *play.chance;
        match manner {
            Manner::Clumsy if chance.one_in(3) => {
                let (text, answer) = wrong(chance.below(12));
                client.say(super::ledger::Word::Rendezvous(Word::Wrong(answer)), text.as_bytes(), chance);
            }
            Manner::Behaved | Manner::Clumsy | Manner::Forging | Manner::Flooding => {
                say_message(client, manner, play);
            }
        }
    }
}

fn say_message(client: &mut Connection, manner: Manner, play: &mut Play<'_>) {
    let own_id = String::from_utf8_lossy(&client.id).into_owned();
    let Voice::Rendezvous(state) = &mut client.voice else { return };
    let chance = &mut *play.chance;
    let known = state.counterparts.len();
    let target = match chance.below(12) {
        0 => state.gone.last().cloned().unwrap_or_default(),
        1 => own_id,
        2 => play.stranger.clone(),
        3 if manner == Manner::Clumsy => "nobody".to_owned(),
        _ if known > 0 => state.counterparts[chance.below(known)].1.clone(),
        _ if chance.one_in(4) => play.stranger.clone(),
        _ => return,
    };
    state.said += 1;
    let request_id = match chance.below(8) {
        0 => format!(r#""\u0072\"{}""#, state.said),
        1 => r#""""#.to_owned(),
        _ => format!(r#""r{}""#, state.said),
    };
    let method = chance.pick(&METHODS);
    let payload = play.padding(300);
    let (own, other) = ("00000000-0000-4000-8000-000000000000", "remoteClientId");
    let text = match play.chance.below(4) {
        0 => format!(
            "\n{{ \"targetClientId\":\"{target}\" , \"method\" : \"{method}\",\"requestId\":{request_id},\
             \"encryptedPayload\":\"{payload}\",\"startAt\":1.50,\"source\":\"wallet\",\"connectionId\":\"\" }} "
        ),
        1 if manner == Manner::Forging => format!(
            r#"{{"info":"remoteData","{other}":"{own}","from":"{own}","requestId":1,"requestId":{request_id},"method":"{method}","encryptedPayload":"{payload}","targetClientId":"{target}"}}"#
        ),
        _ => format!(
            r#"{{"requestId":{request_id},"method":"{method}","encryptedPayload":"{payload}","targetClientId":"{target}"}}"#
        ),
    };
    let word = Word::Message { request_id, target, text: text.clone() };
    client.say(super::ledger::Word::Rendezvous(word), text.as_bytes(), play.chance);
}

/// A message that is refused, and the answer to it.
fn wrong(kind: usize) -> (String, String) {
    const REST: &str = r#""encryptedPayload":"","targetClientId":"x""#;
    let string = |name: &str| {
        format!(
            r#"{{"code":"invalid_type","expected":"string","received":"undefined","path":["{name}"],"message":"Required"}}"#
        )
    };
    let wrong_type = |name: &str, expected: &str, received: &str| {
        format!(
            r#"{{"code":"invalid_type","expected":"{expected}","received":"{received}","path":["{name}"],"message":"Expected {expected}, received {received}"}}"#
        )
    };
    let (text, request_id, errors) = match kind {
        0 => {
            let missing = ["requestId", "encryptedPayload", "targetClientId"].map(string);
            ("{}".to_owned(), None, [&missing[..], &[no_literal("method", &METHODS)]].concat())
        }
        1 => {
            let text = format!(r#"{{"method":"offer","requestId":7,{REST}}}"#);
            (text, Some("7"), vec![wrong_type("requestId", "string", "number")])
        }
        2 => {
            let text = format!(r#"{{"method":"Offer","source":["wallet"],"requestId":"a",{REST}}}"#);
            (text, Some(r#""a""#), vec![no_literal("method", &METHODS), no_literal("source", &ROLES)])
        }
        3 => {
            let text = format!(
                r#"{{"startAt":"now","connectionId":null,"method":"answer","requestId":"b",{REST}}}"#
            );
            let errors =
                vec![wrong_type("connectionId", "string", "null"), wrong_type("startAt", "number", "string")];
            (text, Some(r#""b""#), errors)
        }
        4 => {
            let text = r#"{"requestId":"c","targetClientId":{},"encryptedPayload":false,"method":"offer"}"#;
            let errors = vec![
                wrong_type("encryptedPayload", "string", "boolean"),
                wrong_type("targetClientId", "string", "object"),
            ];
            (text.to_owned(), Some(r#""c""#), errors)
        }
        5 | 6 => {
            let (text, received) = if kind == 5 { ("[1]", "array") } else { ("null", "null") };
            let error = wrong_type("", "object", received).replace(r#"[""]"#, "[]");
            (text.to_owned(), None, vec![error])
        }
        7 => return (String::new(), not_json("")),
        8 => return ("{\"a\"".to_owned(), not_json(r#"{\"a\""#)),
        9 => return ("\u{feff}{}".to_owned(), not_json("\u{feff}{}")),
        10 => return ("a\\b\n\u{1}é".to_owned(), not_json(r"a\\b\n\u0001é")),
        _ => return ("{'requestId':1}".to_owned(), not_json("{'requestId':1}")),
    };
    let request_id = request_id.map(|id| format!(r#""requestId":{id},"#)).unwrap_or_default();
    (text, format!(r#"{{"info":"validationError",{request_id}"error":[{}]}}"#, errors.join(",")))
}

fn no_literal(name: &str, literals: &[&str]) -> String {
    let errors: Vec<String> = literals
        .iter()
        .map(|literal| {
            format!(
                r#"{{"issues":[{{"code":"invalid_literal","expected":"{literal}","path":["{name}"],"message":"Invalid literal value, expected \"{literal}\""}}],"name":"ZodError"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"code":"invalid_union","unionErrors":[{}],"path":["{name}"],"message":"Invalid input"}}"#,
        errors.join(",")
    )
}

fn not_json(quoted: &str) -> String {
    format!(
        r#"{{"info":"invalidMessageError","data":"{quoted}","error":"invalid message format, expected JSON"}}"#
    )
}
