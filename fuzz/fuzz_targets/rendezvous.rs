//! Rendezvous (protocols.md section 2): what clients of both roles say and do, against a model that knows each byte that
//! they are to be sent. No message reaches anybody but its target, under the name of its sender and as the bytes that
//! came in; each learns of the others' coming and going once.
//!
//! How an input says it: [`parlor_fuzz::play`].
#![no_main]

use libfuzzer_sys::fuzz_target;
use parlor_fuzz::models::rendezvous::Rendezvous;
use parlor_fuzz::play::{Script, play};
use parlor_fuzz::referee::door::{Behind, Door, door};

const DOORS: &[Door] = &[
    door(WALLET, Behind::Rendezvous { connection: 'a', is_wallet: true }),
    door(EXTENSION, Behind::Rendezvous { connection: 'a', is_wallet: false }),
    door(WALLET, Behind::Rendezvous { connection: 'a', is_wallet: true }),
    door(EXTENSION, Behind::Rendezvous { connection: 'a', is_wallet: false }),
    door(WALLET, Behind::Rendezvous { connection: 'A', is_wallet: true }),
    door(EXTENSION, Behind::Rendezvous { connection: 'A', is_wallet: false }),
    door("/x?source=wallet&target=extension", Behind::Wrong("missing connectionId in path")),
    door("/~?source=wallet&target=", Behind::Wrong("missing target")),
    door("/~?target=phone&source=wallet", Behind::Wrong("invalid target")),
    door("/~?target=wallet", Behind::Wrong("missing source")),
    door("/~?target=wallet&source=x&source=wallet", Behind::Wrong("invalid source")),
    door("/~?target=wallet&source=wallet", Behind::Wrong("source and target needs to be different")),
    door("/x%zz?source=wallet", Behind::Refused("400")),
    door("/~/?x=y", Behind::Refused("404")),
];
const WALLET: &str = "/~?source=wallet&target=extension";
const EXTENSION: &str = "/~?x&target=%77allet&source=extension";

const MESSAGES: &[&str] = &[
    r#"{"requestId":"1","method":"offer","encryptedPayload":"p","targetClientId":"@"}"#,
    r#"{"requestId":"2","method":"answer","encryptedPayload":"*","targetClientId":"@"}"#,
    r#" {"method":"iceCandidate", "requestId":"\ud800","source":"wallet","encryptedPayload":"","targetClientId":"@","x":1.50}"#,
    r#"{"requestId":"4","method":"iceCandidates","encryptedPayload":"p","targetClientId":"@","remoteClientId":"@"}"#,
    r#"{"requestId":"5","method":"offer","encryptedPayload":"p","targetClientId":"nobody","startAt":1e999}"#,
    r#"{"requestId":6,"method":"Offer","encryptedPayload":null,"source":"phone","startAt":"now"}"#,
    r#"{"requestId":"7","requestId":["?"],"connectionId":7,"method":{},"encryptedPayload":true}"#,
    r#"{"requestId":"8","method":"\u006fffer","encryptedPayload":"?","target\u0043lientId":"@"}"#,
    r#"["?"]"#,
    "{?",
    r#""?""#,
    "?",
];

fuzz_target!(|input: &[u8]| play(input, Script { doors: DOORS, messages: MESSAGES }, Rendezvous::default()));
