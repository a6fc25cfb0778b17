//! Clients that come and go at random on hosts that fail at random, beside foreign ones. Nobody is ever told anything
//! twice, and once all is quiet everybody knows whoever is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::world::World;
use super::{notice, text};
use crate::id::ClientId;
use crate::protocol::rendezvous::Role;

const HOSTS: usize = 3;
const CONNECTIONS: [[u8; 64]; 2] = [[b'a'; 64], [b'b'; 64]];

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    connection: usize,
    role: Role,
}

impl Place {
    fn set(self, role: Role) -> String {
        let connection = String::from_utf8(CONNECTIONS[self.connection].to_vec()).expect("ASCII");
        format!("{connection}:{}", role.name())
    }

    fn is_opposite(self, other: Self) -> bool {
        self.connection == other.connection && self.role != other.role
    }
}

/// What a foreign client does next.
enum Step {
    Add,
    Remove,
    Look(&'static str),
    Publish(String, String),
}

struct Foreign {
    id: String,
    place: Place,
    steps: VecDeque<Step>,
    is_leaving: bool,
}

struct Play {
    world: World,
    ours: BTreeMap<ClientId, (usize, Place)>,
    foreign: Vec<Foreign>,
    made: usize,
    /// Whether hosts and Redis fail.
    has_faults: bool,
    has_public_layouts: bool,
    /// How much is carried out between two moves, about.
    pace: usize,
}

impl Play {
    fn new(seed: u64, has_faults: bool) -> Self {
        let has_public_layouts = !seed.is_multiple_of(4);
        Self {
            world: World::new(HOSTS as u32, has_public_layouts, seed),
            ours: BTreeMap::new(),
            foreign: Vec::new(),
            made: 0,
            has_faults,
            has_public_layouts,
            pace: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.world.chance.below(end)
    }

    fn place(&mut self) -> Place {
        let role = if self.below(2) == 0 { Role::Wallet } else { Role::Extension };
        Place { connection: self.below(CONNECTIONS.len()), role }
    }

    fn move_once(&mut self) {
        let host = self.below(HOSTS);
        match self.below(if self.has_faults { 24 } else { 18 }) {
            0..=3 if self.ours.len() < 12 && !self.world.hosts[host].is_still => {
                let place = self.place();
                let client = self.world.arrive_at(host, CONNECTIONS[place.connection], place.role);
                self.ours.insert(client, (host, place));
            }
            4..=6 if !self.ours.is_empty() => {
                let nth = self.below(self.ours.len());
                let (client, (host, _)) =
                    self.ours.iter().nth(nth).map(|(a, b)| (*a, *b)).expect("it is there");
                if !self.world.hosts[host].is_still {
                    self.ours.remove(&client);
                    self.world.leave(host, client);
                }
            }
            7 if self.foreign.len() < 4 && self.has_public_layouts => {
                self.made += 1;
                let (id, place) = (format!("foreign {}", self.made), self.place());
                let steps = [Step::Add, Step::Look("JustConnected")].into();
                self.foreign.push(Foreign { id, place, steps, is_leaving: false });
            }
            8 if !self.foreign.is_empty() => {
                let nth = self.below(self.foreign.len());
                let foreign = &mut self.foreign[nth];
                if !std::mem::replace(&mut foreign.is_leaving, true) {
                    foreign.steps.extend([Step::Remove, Step::Look("Disconnected")]);
                }
            }
            9..=13 => self.step_foreign(),
            14..=16 => {
                for _ in 0..self.below(1 + self.pace) {
                    self.world.step();
                }
            }
            18 => self.world.lose_subscriptions(host),
            19 => self.world.disconnect(host),
            20 => self.world.connect(host),
            21 => self.pause_or_resume(host),
            22 if self.below(4) == 0 => {
                // Those that Redis forgets do not know it.
                self.foreign.clear();
                self.world.foreign.clear();
                self.world.restart_empty();
            }
            _ => {
                let ms = 1 + self.below(1_500) as u64;
                self.world.tick(ms);
            }
        }
        self.look_at_all();
    }

    fn pause_or_resume(&mut self, host: usize) {
        let host = &mut self.world.hosts[host];
        host.is_still = !host.is_still;
    }

    /// A foreign client does what is next.
    fn step_foreign(&mut self) {
        if self.foreign.is_empty() {
            return;
        }
        let nth = self.below(self.foreign.len());
        let foreign = &mut self.foreign[nth];
        let (id, place) = (foreign.id.clone(), foreign.place);
        match foreign.steps.pop_front() {
            Some(Step::Add) => self.world.add_foreign(&place.set(place.role), &id),
            Some(Step::Remove) => {
                self.world.sets.entry(place.set(place.role).into()).or_default().remove(id.as_bytes());
            }
            Some(Step::Look(info)) => {
                let others = self.world.members(&place.set(place.role.other()));
                if info == "JustConnected" {
                    // Whom it sees it knows from then on.
                    let seen = others.iter().map(|other| notice(info, other));
                    self.world.foreign.entry(id.clone().into()).or_default().extend(seen);
                }
                let publish = others.into_iter().map(|to| Step::Publish(to, notice(info, &id)));
                foreign.steps = publish.chain(foreign.steps.drain(..)).collect();
            }
            Some(Step::Publish(to, text)) => {
                self.world.publish(to.as_bytes(), &text.into());
            }
            None if foreign.is_leaving => {
                self.world.foreign.remove(id.as_bytes());
                self.foreign.remove(nth);
            }
            None => {}
        }
    }

    /// All that is under way ends, and whoever stood still goes on.
    fn calm_down(&mut self) {
        for host in 0..HOSTS {
            self.world.hosts[host].is_still = false;
            self.world.connect(host);
        }
        while self.foreign.iter().any(|foreign| !foreign.steps.is_empty() || foreign.is_leaving) {
            self.step_foreign();
        }
        self.world.live(15);
        self.look_at_all();
    }

    /// Nobody is told what it knows.
    fn look_at_all(&mut self) {
        let mut knows: BTreeMap<ClientId, BTreeSet<String>> = std::mem::take(&mut self.world.views);
        for host in &mut self.world.hosts {
            for (client, told) in std::mem::take(&mut host.told) {
                let known = knows.entry(client).or_default();
                for text in told {
                    apply(known, &text, client);
                }
            }
        }
        self.world.views = knows;
    }

    fn check(&mut self) {
        for (client, (host, place)) in &self.ours {
            let ours =
                self.ours.iter().filter(|(_, (there, other))| there != host && place.is_opposite(*other));
            let foreign = self.foreign.iter().filter(|foreign| place.is_opposite(foreign.place));
            let there: BTreeSet<String> =
                ours.map(|(id, _)| text(*id)).chain(foreign.map(|foreign| foreign.id.clone())).collect();
            let known = self.world.views.get(client).cloned().unwrap_or_default();
            assert_eq!(known, there, "{client:?} of host {host}");
        }
        for connection in 0..CONNECTIONS.len() {
            for role in [Role::Wallet, Role::Extension] {
                let place = Place { connection, role };
                let ours =
                    self.ours.iter().filter(|(_, (_, other))| *other == place).map(|(id, _)| text(*id));
                let foreign = self.foreign.iter().filter(|foreign| foreign.place == place);
                let there: BTreeSet<String> = ours.chain(foreign.map(|foreign| foreign.id.clone())).collect();
                let prefix = if self.has_public_layouts { "" } else { "parlor:rendezvous:" };
                let set = format!("{prefix}{}", place.set(role));
                assert_eq!(self.world.members(&set).into_iter().collect::<BTreeSet<_>>(), there);
            }
        }
        if !self.has_faults {
            self.check_foreign();
        }
        for host in &self.world.hosts {
            let clients = self.ours.values().filter(|(at, _)| self.world.hosts[*at].id == host.id).count();
            let of_clients = if self.has_public_layouts { clients } else { 0 };
            assert_eq!(host.channels.len(), 2 + of_clients);
        }
    }

    /// What foreign clients have seen and were told, if nothing was lost.
    fn check_foreign(&self) {
        for foreign in &self.foreign {
            let mut known = BTreeSet::new();
            for text in &self.world.foreign[foreign.id.as_bytes()] {
                let (info, id) = read(text);
                if info == "remoteClientDisconnected" {
                    known.remove(&id)
                } else {
                    known.insert(id)
                };
            }
            known.retain(|id| !id.starts_with("foreign"));
            let ours = self.ours.iter().filter(|(_, (_, place))| place.is_opposite(foreign.place));
            assert_eq!(known, ours.map(|(id, _)| text(*id)).collect(), "{}", foreign.id);
        }
    }
}

fn read(text: &str) -> (String, String) {
    let notice: Value = serde_json::from_str(text).expect("JSON");
    let field = |name: &str| notice[name].as_str().expect("a string").to_owned();
    (field("info"), field("remoteClientId"))
}

fn apply(known: &mut BTreeSet<String>, text: &str, client: ClientId) {
    let (info, id) = read(text);
    match &*info {
        "remoteClientDisconnected" => assert!(known.remove(&id), "{client:?} did not know: {text}"),
        _ => assert!(known.insert(id), "{client:?} knew: {text}"),
    }
}

fn play(seed: u64, has_faults: bool) {
    let mut play = Play::new(seed, has_faults);
    for _ in 0..4 {
        play.pace = play.below(80);
        for _ in 0..150 {
            play.move_once();
        }
        play.calm_down();
        play.check();
    }
}

#[test]
fn while_nothing_fails() {
    (0..200).for_each(|seed| play(seed, false));
}

#[test]
fn while_hosts_and_redis_fail() {
    (0..200).for_each(|seed| play(seed, true));
}
