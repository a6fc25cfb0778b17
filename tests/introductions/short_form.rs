//! `/connection/:remoteId`, where the pair is taken from the introductions.

use tungstenite::Message;

use super::{NO_RATE, introduction, join, open_with};
use crate::support::pipes::Socket;
use crate::support::{Server, Setup, on_each_setup};

const NOT_CLEAR: Option<(u16, &str)> = Some((1003, "use ?local= and ?document="));

on_each_setup!(a_short_form_takes_the_pair_from_the_introductions, a_short_form_that_is_not_clear_is_refused,);

fn a_short_form_takes_the_pair_from_the_introductions(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    let mut alice = open_with(&server, "alice", &["doc", "of alice"]);
    let mut bob = open_with(&server, "b%2Fb", &[]);
    join(&mut bob, &["doc"]);
    bob.expect(introduction("alice", &["doc"]));
    alice.expect(introduction("b/b", &["doc"]));
    // Others are introduced to each other, not to them.
    let mut carol = open_with(&server, "carol", &["other"]);
    let mut dave = Socket::open(&server, "/introduction/dave");
    join(&mut dave, &["other"]);
    dave.expect(introduction("carol", &["other"]));
    carol.expect(introduction("dave", &["other"]));
    let pairs = [
        ("/connection/b%2Fb", "/connection/alice"),
        ("/connection/b%2fb", "/connection/b%2Fb/alice/doc"),
        ("/connection/alice", "/connection/alice/b%2Fb/doc"),
        ("/connect/alice/", "/CONNECT/b%2Fb/"),
        ("/connect/%61lice?x=y", "/connection/alice/b%2Fb/doc"),
        ("/connection/carol", "/connection/dave"),
        ("/connection/carol/dave/other", "/connection/carol"),
    ];
    for round in 0..2 {
        for (one, other) in pairs {
            expect_pipe(&server, one, other);
        }
        // A second introduction over the same document changes nothing.
        if round == 0 {
            join(&mut alice, &["doc", "another of alice"]);
            alice.expect(introduction("b/b", &["doc"]));
            bob.expect(introduction("alice", &["doc"]));
        }
    }
    // Nor does who speaks for an id: it is still there.
    let mut new = Socket::hold(&server, "/introduction/alice");
    alice.close(None);
    new.expect_nothing();
    expect_pipe(&server, "/connection/b%2Fb", "/connection/alice");
}

/// These two paths are the ends of one pipe.
fn expect_pipe(server: &Server, one: &str, other: &str) {
    let mut first = Socket::hold(server, one);
    let mut second = Socket::open(server, other);
    let marker = format!("{one} to {other}");
    first.send(marker.as_str());
    second.expect(marker.as_str());
    second.send(Message::binary(marker.clone()));
    first.expect(Message::binary(marker));
    first.close(Some(1000));
    second.expect_close(None);
}

/// Who joins which documents in this order, who goes then, and which ids are no good for the short form.
type Case = (&'static str, &'static [(&'static str, &'static [&'static str])], &'static [&'static str]);

const NOT_CLEAR_CASES: &[(Case, &[&str])] = &[
    (("nobody is there", &[], &[]), &["alice", "bob"]),
    (("nobody else is there", &[("alice", &["d"])], &[]), &["alice", "bob"]),
    (("nothing in common", &[("alice", &["d"]), ("bob", &["e"])], &[]), &["alice", "bob"]),
    (("two documents at once", &[("alice", &["d", "e"]), ("bob", &["e", "d"])], &[]), &["alice", "bob"]),
    (
        ("one, then another", &[("alice", &["d"]), ("bob", &["d"]), ("alice", &["e"]), ("bob", &["e"])], &[]),
        &["alice", "bob"],
    ),
    (
        ("three over one document", &[("alice", &["d"]), ("bob", &["d"]), ("carol", &["d"])], &[]),
        &["alice", "bob", "carol"],
    ),
    (
        ("one of them knows another", &[("alice", &["d", "e"]), ("bob", &["d"]), ("carol", &["e"])], &[]),
        &["alice", "bob", "carol"],
    ),
    (("the other is gone", &[("alice", &["d"]), ("bob", &["d"])], &["bob"]), &["alice", "bob"]),
    (("both are gone", &[("alice", &["d"]), ("bob", &["d"])], &["bob", "alice"]), &["alice", "bob"]),
];

fn a_short_form_that_is_not_clear_is_refused(setup: Setup) {
    let server = Server::start(setup, &[NO_RATE]);
    for (index, ((what, joins, gone), refused)) in NOT_CLEAR_CASES.iter().enumerate() {
        let name = |who: &str| format!("{who}{index}");
        let mut there: Vec<(&str, Socket)> = Vec::new();
        for (who, documents) in *joins {
            if !there.iter().any(|(known, _)| known == who) {
                there.push((who, Socket::open(&server, &format!("/introduction/{}", name(who)))));
            }
            let (_, socket) = there.iter_mut().find(|(known, _)| known == who).expect("it is there");
            let documents: Vec<String> = documents.iter().map(|document| name(document)).collect();
            join(socket, &documents.iter().map(String::as_str).collect::<Vec<_>>());
            socket.drain();
        }
        for who in *gone {
            let at = there.iter().position(|(known, _)| known == who).expect("it is there");
            let (_, mut socket) = there.remove(at);
            socket.drain();
            socket.close(None);
        }
        for who in *refused {
            for path in [format!("/connection/{}", name(who)), format!("/connect/{}/?local=", name(who))] {
                let mut socket = Socket::open(&server, &path);
                socket.send(*what);
                socket.expect_close(NOT_CLEAR);
            }
        }
        for (_, mut socket) in there {
            socket.drain();
            socket.close(None);
        }
    }
    // Half of the parameters is none of them.
    for query in
        ["?", "?local=a", "?document=d", "?local=&document=d", "?local=a&document=", "?Local=a&Document=d"]
    {
        Socket::open(&server, &format!("/connection/b{query}")).expect_close(NOT_CLEAR);
    }
}
