//! Introductions: which peers want which documents, what their clients say, and what each must hear (protocols.md
//! section 5).

use super::behaviour::{Manner, Play};
use super::checks::fail;
use super::connection::Connection;
use super::documents::{DOCUMENTS, IDS};
use super::ledger;
use super::lobby;
use super::scene::Scene;

/// More than the server needs to remember one peer and all documents of it, in bytes.
const BYTES_PER_PEER_MAX: usize = 4_096;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// The documents that it joins, and those that it leaves.
    Lists { join: Vec<usize>, leave: Vec<usize> },
    /// Whatever is ignored.
    Ignored,
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// Which of the ids it came with.
    id: usize,
}

/// All who are there.
#[derive(Debug, Default)]
pub(super) struct Book {
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    id: usize,
    /// Who came last with this id.
    index: usize,
    /// In the order in which it joined them.
    documents: Vec<usize>,
    /// To whom it was introduced over which document since it is there.
    introduced: Vec<(usize, usize)>,
    /// All of that is certain.
    is_certain: bool,
}

/// Who can be meant by a pipe's URL that names but one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partner {
    Nobody,
    /// This peer, over this document.
    One(usize, usize),
    /// The books do not know.
    Uncertain,
}

impl Book {
    /// A client's URL was read at its home.
    pub(super) fn enter(&mut self, scene: &mut Scene<'_>, me: usize) {
        let Some(id) = scene.introduction(me).map(|client| client.id) else {
            fail("no introductions client")
        };
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) {
            peer.index = me;
            scene.summary.takeovers += 1;
            return;
        }
        self.peers.push(Peer {
            id,
            index: me,
            documents: Vec::new(),
            introduced: Vec::new(),
            is_certain: scene.is_certain,
        });
    }

    /// A client's message was handled, within its rate.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>, me: usize, word: Word) {
        let Word::Lists { join, leave } = word else { return };
        let Some(position) = self.peers.iter().position(|peer| peer.index == me) else { return };
        let peer = &mut self.peers[position];
        for document in &join {
            if !peer.documents.contains(document) {
                peer.documents.push(*document);
            }
        }
        peer.documents.retain(|document| !leave.contains(document));
        if !join.is_empty() {
            self.introduce(scene, position);
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, me: usize) {
        self.peers.retain(|peer| peer.index != me);
    }

    /// More than the server needs to remember all of it, in bytes.
    pub(super) fn bytes_max(&self) -> usize {
        self.peers.len() * BYTES_PER_PEER_MAX
    }

    /// The clients that the introductions are made to.
    pub(super) fn clients(&self) -> impl Iterator<Item = usize> {
        self.peers.iter().map(|peer| peer.index)
    }

    /// Who was introduced to this peer and to nobody else, if both are there.
    pub(super) fn partner_of(&self, remote: usize) -> Partner {
        let find = |id| self.peers.iter().find(|peer: &&Peer| peer.id == id);
        let Some(peer) = find(remote) else { return Partner::Nobody };
        let Some(&(other_id, document)) = peer.introduced.first() else {
            return if peer.is_certain { Partner::Nobody } else { Partner::Uncertain };
        };
        let Some(other) = find(other_id) else { return Partner::Nobody };
        if !peer.is_certain || !other.is_certain {
            return Partner::Uncertain;
        }
        match (&peer.introduced[..], &other.introduced[..]) {
            ([_], [there]) if *there == (remote, document) => Partner::One(other_id, document),
            _ => Partner::Nobody,
        }
    }

    fn introduce(&mut self, scene: &mut Scene<'_>, position: usize) {
        let group = scene.new_group();
        let (me, my_id) = (self.peers[position].index, self.peers[position].id);
        for other in (0..self.peers.len()).filter(|other| *other != position) {
            let mine = &self.peers[position].documents;
            let theirs = &self.peers[other].documents;
            let common: Vec<usize> = mine.iter().copied().filter(|own| theirs.contains(own)).collect();
            if common.is_empty() {
                continue;
            }
            let keys: Vec<String> =
                common.iter().map(|document| format!("\"{}\"", DOCUMENTS[*document].from_server)).collect();
            let text = |id: usize| {
                let id = IDS[id].from_server;
                format!(r#"{{"type":"Introduction","id":"{id}","keys":[{}]}}"#, keys.join(","))
            };
            let (other_index, other_id) = (self.peers[other].index, self.peers[other].id);
            let what = ledger::What::Text(text(other_id));
            scene.expect_what(me, what, ledger::Meaning::Nothing, group);
            scene.expect(other_index, text(my_id));
            self.remember(position, other_id, &common, scene.is_certain);
            self.remember(other, my_id, &common, scene.is_certain);
            scene.summary.introductions += 1;
        }
    }

    fn remember(&mut self, position: usize, other_id: usize, documents: &[usize], is_certain: bool) {
        let peer = &mut self.peers[position];
        peer.is_certain &= is_certain;
        for document in documents {
            if !peer.introduced.contains(&(other_id, *document)) {
                peer.introduced.push((other_id, *document));
            }
        }
    }
}

/// Draws an id, and the target of the request that asks for it.
pub(super) fn connect(play: &mut Play<'_>) -> (Client, String) {
    let chance = &mut *play.chance;
    let id = chance.below(IDS.len());
    let word = chance.pick(&["introduction", "introduction", "Introduction", "INTRODUCTION"]);
    let slash = chance.pick(&["", "", "/"]);
    let path = format!("/{word}/{}{slash}?target=wallet", IDS[id].in_path(chance));
    (Client { id }, path)
}

/// Says something, or nothing.
pub(super) fn act(client: &mut Connection, manner: Manner, play: &mut Play<'_>) {
    let count = match manner {
        Manner::Flooding => play.chance.between(1..=25),
        Manner::Behaved | Manner::Clumsy | Manner::Forging if play.chance.one_in(3) => play.chance.below(4),
        Manner::Behaved | Manner::Clumsy | Manner::Forging => 0,
    };
    for _ in 0..count {
        let (word, text) = match manner {
            Manner::Clumsy if play.chance.one_in(3) => (Word::Ignored, ignored(play).to_owned()),
            _ => lists(play),
        };
        client.say(ledger::Word::Introductions(word), text.as_bytes(), play.chance);
    }
}

fn lists(play: &mut Play<'_>) -> (Word, String) {
    let chance = &mut *play.chance;
    let mut draw = |most: usize| {
        let documents: Vec<usize> =
            (0..chance.below(most + 1)).map(|_| chance.below(DOCUMENTS.len())).collect();
        let names: Vec<&str> =
            documents.iter().map(|document| DOCUMENTS[*document].in_json(chance)).collect();
        let text = names.join(chance.pick(&[",", " , "]));
        (documents, text)
    };
    let ((join, joined), (leave, left)) = (draw(3), draw(2));
    match chance.below(4) {
        0 => {
            let text = format!(r#"{{"type":"Leave","leave":[{left}],"id":"B"}}"#);
            (Word::Lists { join: Vec::new(), leave }, text)
        }
        1 => {
            let text = format!(r#" {{ "leave" : [ {left} ],"id":7 , "join":[1],"join" : [{joined} ] }} "#);
            (Word::Lists { join, leave }, text)
        }
        _ => (Word::Lists { join, leave: Vec::new() }, format!(r#"{{"type":"Join","join":[{joined}]}}"#)),
    }
}

fn ignored(play: &mut Play<'_>) -> &'static str {
    play.chance.pick(&[
        "",
        "null",
        "[]",
        "{\"join\":[\"doc1\"]",
        r#"{"type":"Join","join":"doc1"}"#,
        r#"{"type":"Join","join":["doc1",null]}"#,
        r#"{"type":"Join","join":["doc1"],"leave":[["doc1"]]}"#,
        r#"{"type":"Join","join":["doc1"],"leave":null}"#,
        r#"{"type":"ping"}"#,
        lobby::ROOM_NOT_FOUND,
    ])
}
