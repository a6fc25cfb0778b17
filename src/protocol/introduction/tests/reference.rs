//! Random steps, against a reference that searches through lists.

use super::*;

/// The reference: lists that are searched from end to end.
#[derive(Default)]
struct Reference {
    peers: Vec<Wanting>,
    /// Which peer has joined which document, in that order.
    joined: Vec<(String, String)>,
}

struct Wanting {
    id: String,
    client: ClientId,
    introductions: BTreeSet<(String, String)>,
}

impl Reference {
    fn connect(&mut self, id: &str, client: ClientId) {
        match self.peers.iter_mut().find(|peer| peer.id == id) {
            Some(peer) => peer.client = client,
            None => {
                self.peers.push(Wanting { id: id.to_owned(), client, introductions: BTreeSet::new() });
            }
        }
    }

    fn leave(&mut self, client: ClientId) {
        let Some(at) = self.peers.iter().position(|peer| peer.client == client) else { return };
        let gone = self.peers.remove(at);
        self.joined.retain(|(id, _)| *id != gone.id);
    }

    fn documents(&self, id: &str) -> Vec<&str> {
        self.joined.iter().filter(|(peer, _)| peer == id).map(|(_, document)| document.as_str()).collect()
    }

    /// The others that have something in common with this peer, by their first such document.
    fn met(&self, id: &str) -> Vec<String> {
        let mut met: Vec<String> = Vec::new();
        for document in self.documents(id) {
            for (other, theirs) in &self.joined {
                if theirs == document && other != id && !met.contains(other) {
                    met.push(other.clone());
                }
            }
        }
        met
    }

    /// What follows, or nothing if the message is ignored.
    fn message(&mut self, client: ClientId, join: &[&str], leave: &[&str]) -> Option<Vec<Got>> {
        let id = self.peers.iter().find(|peer| peer.client == client)?.id.clone();
        for document in join {
            let pair = (id.clone(), (*document).to_owned());
            if !self.joined.contains(&pair) {
                self.joined.push(pair);
            }
        }
        self.joined.retain(|(peer, document)| *peer != id || !leave.contains(&document.as_str()));
        let mut all = Vec::new();
        for other in if join.is_empty() { Vec::new() } else { self.met(&id) } {
            let theirs = self.documents(&other);
            let mut common = self.documents(&id);
            common.retain(|document| theirs.contains(document));
            let common: Vec<_> = common.into_iter().map(str::to_owned).collect();
            let keys: Vec<_> = common.iter().map(String::as_str).collect();
            all.push((client, introduction_of(&other, &keys)));
            let to = self.peers.iter().find(|peer| peer.id == other).expect("there").client;
            all.push((to, introduction_of(&id, &keys)));
            self.remember(&id, &other, &common);
            self.remember(&other, &id, &common);
        }
        Some(all)
    }

    fn remember(&mut self, id: &str, other: &str, common: &[String]) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == id).expect("there");
        peer.introductions.extend(common.iter().map(|document| (other.to_owned(), document.clone())));
    }

    fn only(&self, id: &str) -> Option<&(String, String)> {
        let peer = self.peers.iter().find(|peer| peer.id == id)?;
        peer.introductions.first().filter(|_| peer.introductions.len() == 1)
    }

    fn partner_of(&self, id: &str) -> Option<(String, String)> {
        let (partner, document) = self.only(id)?;
        let back = self.only(partner)?;
        (back.0 == id && back.1 == *document).then(|| (partner.clone(), document.clone()))
    }
}

const IDS: [&str; 4] = ["a", "b\"", "c", "d"];
const DOCUMENTS: [&str; 4] = ["1", "2\\", "", "é"];

#[derive(Debug, Clone)]
enum Step {
    Connect(&'static str),
    Leave(proptest::sample::Index),
    Say { from: proptest::sample::Index, join: Vec<&'static str>, leave: Vec<&'static str> },
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<proptest::sample::Index>;
    let documents = || proptest::collection::vec(proptest::sample::select(&DOCUMENTS), 0..4);
    prop_oneof![
        3 => proptest::sample::select(&IDS).prop_map(Step::Connect),
        1 => index().prop_map(Step::Leave),
        6 => (index(), documents(), documents()).prop_map(|(from, join, leave)| Step::Say { from, join, leave }),
    ]
}

/// What the table must take, summed up from what is in it.
fn counted(introductions: &Introductions) -> usize {
    let peers = introductions.peers.iter().map(|(_, peer)| peer.bytes() + peer.introduced.bytes());
    let held: BTreeSet<_> = introductions
        .peers
        .iter()
        .flat_map(|(at, peer)| {
            let remembered = match &peer.introduced {
                Introduced::One { document, .. } => Some(*document),
                Introduced::Nobody | Introduced::More => None,
            };
            introductions.memberships.documents(PeerKey(at)).chain(remembered)
        })
        .collect();
    let empty = Documents::new(RandomState::with_seed(1)).hold_and_count(b"");
    let documents = held.iter().map(|document| empty + introductions.documents.name(*document).len());
    peers.sum::<usize>() + documents.sum::<usize>() + introductions.memberships.bytes()
}

impl Documents {
    fn hold_and_count(mut self, name: &[u8]) -> usize {
        self.hold_named(name);
        self.bytes()
    }
}

/// Carries one step out on both sides.
fn take(step: &Step, table: &mut Table, reference: &mut Reference, clients: &mut Vec<Client>) {
    match step {
        Step::Connect(id) => {
            let client = table.connect(id);
            reference.connect(id, client.id);
            clients.push(client);
        }
        Step::Leave(_) | Step::Say { .. } if clients.is_empty() => {}
        Step::Leave(at) => {
            let client = at.get(clients);
            table.leave(client);
            reference.leave(client.id);
        }
        Step::Say { from, join, leave } => {
            let client = from.get(clients);
            let message = serde_json::json!({ "join": join, "leave": leave }).to_string();
            match reference.message(client.id, join, leave) {
                Some(expected) => assert_eq!(table.says(client, &message), expected, "{message}"),
                None => assert_eq!(table.actions(client, &message), [Action::Ignore]),
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_is_what_the_reference_says(steps in proptest::collection::vec(step(), 0..60)) {
        let (mut table, mut reference, mut clients) = (table(), Reference::default(), Vec::new());
        for step in &steps {
            take(step, &mut table, &mut reference, &mut clients);
            for id in IDS {
                prop_assert_eq!(table.partner_of(id), reference.partner_of(id), "{}", id);
            }
            prop_assert_eq!(table.introductions.len(), reference.peers.len());
            prop_assert_eq!(table.introductions.bytes(), counted(&table.introductions));
        }
        for client in &clients {
            table.leave(client);
        }
        prop_assert!(table.introductions.is_empty());
        prop_assert_eq!(table.introductions.bytes(), 0);
    }

    /// Names come out as they went in, whatever they are made of.
    #[test]
    fn any_name_comes_out_as_it_went_in(id in "\\PC{1,8}|[\\x00-\\x1f\"\\\\/]{1,4}", document in any::<String>()) {
        let mut table = table();
        let (a, b) = (table.connect(&id), table.connect("other"));
        table.joins(&a, &[&document]);
        let expected = [(b.id, introduction_of(&id, &[&document])), (a.id, introduction_of("other", &[&document]))];
        prop_assert_eq!(table.joins(&b, &[&document]), expected);
        prop_assert_eq!(table.partner_of("other"), Some((id, document)));
    }
}
