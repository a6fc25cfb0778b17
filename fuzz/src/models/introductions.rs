//! Peers that want the same documents are told of each other.

use parlor::wire::envelope::Kind;
use serde_json::value::RawValue;

use crate::json::{self, Object};
use crate::referee::Table;

/// Who wants what.
#[derive(Debug, Default)]
pub struct Introductions {
    peers: Vec<Peer>,
    next_joining: usize,
}

#[derive(Debug)]
struct Peer {
    id: &'static str,
    /// Who speaks for it.
    who: usize,
    /// Its documents and the number of its joining.
    documents: Vec<(Vec<u8>, usize)>,
    /// To whom it was introduced, and over what.
    met: Vec<(String, Vec<Vec<u8>>)>,
}

impl Introductions {
    /// A client comes under an id.
    pub(super) fn enter(&mut self, who: usize, id: &'static str) {
        match self.peers.iter_mut().find(|peer| peer.id == id) {
            Some(peer) => peer.who = who,
            None => self.peers.push(Peer { id, who, documents: Vec::new(), met: Vec::new() }),
        }
    }

    /// It has said something.
    pub(super) fn handle_message(&mut self, who: usize, raw: &RawValue, table: &mut Table) {
        let Some(at) = self.peers.iter().position(|peer| peer.who == who) else { return };
        if json::kind(raw) != Kind::Object {
            return;
        }
        let said = Object::new(raw);
        let (Some(join), Some(leave)) = (list(&said, "join"), list(&said, "leave")) else { return };
        let is_introduced = !join.is_empty();
        let documents = &mut self.peers[at].documents;
        for document in join {
            if !documents.iter().any(|(has, _)| *has == document) {
                documents.push((document, self.next_joining));
                self.next_joining += 1;
            }
        }
        documents.retain(|(document, _)| !leave.contains(document));
        if is_introduced {
            self.introduce(at, table);
        }
    }

    /// A client is gone.
    pub(super) fn leave(&mut self, who: usize) {
        self.peers.retain(|peer| peer.who != who);
    }

    /// Who was introduced to this peer and to nobody else, and over which document.
    pub(super) fn partner_of(&self, remote: &str) -> Option<(String, String)> {
        let only = |id: &str| {
            let met = &self.peers.iter().find(|peer| peer.id == id)?.met;
            let (first, documents) = met.first()?;
            let is_only = documents.len() == 1 && met.iter().all(|other| *other == met[0]);
            is_only.then(|| (first.clone(), documents[0].clone()))
        };
        let (partner, document) = only(remote)?;
        let (back, _) = only(&partner)?;
        let document = String::from_utf8(document).ok()?;
        (back == remote).then_some((partner, document))
    }

    fn introduce(&mut self, me: usize, table: &mut Table) {
        for (other, documents) in self.meetings(me) {
            let names: Vec<String> = documents.iter().map(|document| json::stringified(document)).collect();
            let names = names.join(",");
            let tell = |table: &mut Table, to: &Peer, of: &Peer| {
                let id = json::stringified(of.id.as_bytes());
                table.say(to.who, &format!(r#"{{"type":"Introduction","id":{id},"keys":[{names}]}}"#));
            };
            tell(table, &self.peers[me], &self.peers[other]);
            tell(table, &self.peers[other], &self.peers[me]);
            let (my_id, other_id) = (self.peers[me].id.to_owned(), self.peers[other].id.to_owned());
            self.peers[me].met.push((other_id, documents.clone()));
            self.peers[other].met.push((my_id, documents));
        }
    }

    /// All with whom a peer has documents in common, and those, in its order. Of those whom it meets over the same
    /// document first, who has had it for longer comes first.
    fn meetings(&self, me: usize) -> Vec<(usize, Vec<Vec<u8>>)> {
        let mut meetings = Vec::new();
        for (other, peer) in self.peers.iter().enumerate().filter(|(other, _)| *other != me) {
            let joining =
                |name: &Vec<u8>| peer.documents.iter().find(|(has, _)| has == name).map(|(_, at)| *at);
            let mine = self.peers[me].documents.iter().map(|(name, _)| name).enumerate();
            let common: Vec<_> =
                mine.filter_map(|(at, name)| Some((at, joining(name)?, name.clone()))).collect();
            if let Some(&(first, joining, _)) = common.first() {
                let names = common.into_iter().map(|(_, _, name)| name).collect();
                meetings.push(((first, joining), other, names));
            }
        }
        meetings.sort_by_key(|(order, ..)| *order);
        meetings.into_iter().map(|(_, other, names)| (other, names)).collect()
    }
}

/// A list of strings; one that is missing is empty. Nothing: something else stands there.
fn list(said: &Object<'_>, name: &str) -> Option<Vec<Vec<u8>>> {
    let Some(list) = said.member(name) else { return Some(Vec::new()) };
    let texts = json::elements(list).into_iter().map(|text| Some(json::text(text)?.into_owned()));
    if json::kind(list) == Kind::Array { texts.collect() } else { None }
}
