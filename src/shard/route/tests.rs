//! Paths, as protocols.md section 0 lists them.

use std::sync::Arc;

use super::*;
use crate::id::HostId;
use crate::limits::Limits;
use crate::plant::Planted;
use crate::protocol::pipe::Places;
use crate::shard::Offered;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";

fn settings(offered: Offered) -> Settings {
    Settings {
        host: HostId(1),
        shards: 4,
        limits: Limits::default(),
        offered,
        key_seed: [1, 2, 3, 4],
        has_cluster: false,
        requeue_on_partner_leave: true,
        allowed_origins: Vec::new(),
        allow_no_origin: false,
        echo_path: Some("/echo".into()),
        held_pipes: Arc::new(Places::new(Limits::HELD_PIPES_MAX)),
        planted: Planted::default(),
    }
}

fn described(url: &str, is_raw: bool, offered: Offered) -> String {
    let settings = settings(offered);
    match route(&url.parse().expect("a URL"), is_raw, &settings) {
        Err(NoRoute::NotFound) => "404".into(),
        Err(NoRoute::BadEscape) => "400".into(),
        Ok(Opening::Echo) => "echo".into(),
        Ok(Opening::Pairing) => "pairing".into(),
        Ok(Opening::Rendezvous(_)) => "rendezvous".into(),
        Ok(Opening::WrongUrl(reason)) => reason.into(),
        Ok(Opening::Lobby) => "lobby".into(),
        Ok(Opening::Introduction(id)) => format!("introduction {id}"),
        Ok(Opening::Pipe(end)) => format!("{} pipe", if end.is_raw() { "raw" } else { "websocket" }),
        Ok(Opening::ShortPipe(remote)) => format!("short {remote}"),
    }
}

#[test]
fn each_path_leads_where_it_should() {
    let roles = "source=wallet&target=extension";
    for (url, expected) in [
        ("/ws".to_owned(), "pairing"),
        ("/WS/".into(), "pairing"),
        (format!("/ws?{roles}"), "pairing"),
        ("/ws//".into(), "404"),
        ("/ws/x".into(), "404"),
        (format!("/ws/x?{roles}"), "404"),
        ("/".into(), "lobby"),
        (format!("/?{roles}"), "lobby"),
        ("//".into(), "404"),
        (format!("/{ID}?{roles}"), "rendezvous"),
        (format!("/{ID}"), "missing target"),
        (format!("/{ID}/?{roles}"), "missing connectionId in path"),
        (format!("/{}?{roles}", &ID[1..]), "missing connectionId in path"),
        (format!("/%30{}?{roles}", &ID[1..]), "missing connectionId in path"),
        ("/x?source=".into(), "missing connectionId in path"),
        ("/x?sourced=1".into(), "404"),
        ("/%zz".into(), "400"),
        ("/introduction/a%2Fb".into(), "introduction a/b"),
        ("/Introduction/a/".into(), "introduction a"),
        ("/introduction".into(), "404"),
        ("/introduction/".into(), "404"),
        ("/introduction//".into(), "404"),
        ("/introduction/a/b".into(), "404"),
        ("/introduction/%ff".into(), "400"),
        ("/connection/a/b/c".into(), "websocket pipe"),
        ("/CONNECT/a/b/c/".into(), "websocket pipe"),
        ("/connection/a//c".into(), "404"),
        ("/connection/a/b".into(), "404"),
        ("/connection/a/b/c/d".into(), "404"),
        ("/connection/a".into(), "short a"),
        ("/connect/a?local=b&document=".into(), "short a"),
        ("/connect/a?local=b&document=c".into(), "websocket pipe"),
        ("/echo".into(), "echo"),
        ("/other".into(), "404"),
    ] {
        assert_eq!(described(&url, false, Offered::ALL), expected, "{url}");
    }
}

#[test]
fn raw_bytes_take_the_long_form_alone() {
    for (url, expected) in [
        ("/connection/a/b/c", "raw pipe"),
        ("/connect/a?local=b&document=c", "raw pipe"),
        ("/connect/a", "404"),
        ("/ws", "404"),
        ("/", "404"),
    ] {
        assert_eq!(described(url, true, Offered::ALL), expected, "{url}");
    }
}

#[test]
fn a_dialect_that_is_off_has_no_paths() {
    let none =
        Offered { pairing: false, rendezvous: false, directory: false, rooms: false, documents: false };
    for (url, offered) in [
        ("/ws", Offered { pairing: false, ..Offered::ALL }),
        ("/ws?source=wallet", Offered { pairing: false, ..Offered::ALL }),
        (&format!("/{ID}?source=wallet&target=extension"), Offered { rendezvous: false, ..Offered::ALL }),
        ("/x?source=wallet", Offered { rendezvous: false, ..Offered::ALL }),
        ("/", Offered { directory: false, rooms: false, ..Offered::ALL }),
        ("/introduction/a", Offered { documents: false, ..Offered::ALL }),
        ("/connection/a/b/c", Offered { documents: false, ..Offered::ALL }),
        ("/ws", none),
    ] {
        assert_eq!(described(url, false, offered), "404", "{url}");
    }
    assert_eq!(described("/", false, Offered { rooms: true, ..none }), "lobby");
}

#[test]
fn both_ends_of_a_pipe_have_one_home() {
    let settings = settings(Offered::ALL);
    let home = |url: &str| {
        let opening = route(&url.parse().expect("a URL"), false, &settings).expect("a route");
        opening.home(&settings).expect("a home")
    };
    let mut homes = std::collections::BTreeSet::new();
    for document in 0..100 {
        let (one, other) =
            (format!("/connection/a/b/{document}"), format!("/connect/b?local=a&document={document}"));
        assert_eq!(home(&one), home(&other));
        homes.insert(home(&one).0);
    }
    assert_eq!(homes.len(), 4, "spread over all shards");
    assert_ne!(home("/"), PAIRING_HOME);
}
