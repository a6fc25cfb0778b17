//! Which client goes to which host, where there are several.

use clap::ValueEnum;
use serde::Serialize;

use super::target::Target;
use crate::failure::Failure;

/// Where the members of a group connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spread {
    /// All on one host; the groups take turns
    Same,
    /// Each on another host than the one before it, as far as there are hosts
    #[default]
    Across,
}

/// How clients are spread over so many hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placing {
    hosts: usize,
    spread: Spread,
}

impl Placing {
    /// Everybody on one host.
    #[cfg(test)]
    pub(crate) const ONE: Self = Self { hosts: 1, spread: Spread::Across };

    /// Clients are spread over this many hosts, one at least.
    pub(crate) fn new(hosts: usize, spread: Spread) -> Self {
        assert!(hosts > 0, "a run has a server");
        Self { hosts, spread }
    }

    /// The host of the client with this index, where each group has so many members.
    pub(crate) fn host(self, index: usize, members: usize) -> usize {
        let (group, member) = (index / members, index % members);
        match self.spread {
            Spread::Same => group % self.hosts,
            Spread::Across => (group + member) % self.hosts,
        }
    }

    /// Whether members of one group are on different hosts.
    pub(crate) fn is_across(self) -> bool {
        self.hosts > 1 && self.spread == Spread::Across
    }

    /// How many hosts there are.
    pub(crate) fn hosts(self) -> usize {
        self.hosts
    }

    /// How they are spread; none where there is nothing to choose.
    pub(crate) fn spread(self) -> Option<Spread> {
        (self.hosts > 1).then_some(self.spread)
    }

    /// How many of `clients` are on a host.
    pub(crate) fn clients_on(self, host: usize, clients: usize, members: usize) -> usize {
        (0..clients).filter(|index| self.host(*index, members) == host).count()
    }
}

/// The hosts of a run.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    all: Vec<Target>,
    placing: Placing,
}

impl Targets {
    /// These hosts, each once; an error where one is named twice, or where there is nothing to spread over.
    pub(crate) fn new(all: Vec<Target>, spread: Option<Spread>) -> Result<Self, Failure> {
        let wrong = |text: String| Err(Failure::Options(text));
        for (place, target) in all.iter().enumerate() {
            if all[..place].iter().any(|other| other.address == target.address) {
                return wrong(format!("{} is named twice: each server once", target.url));
            }
        }
        match (all.len(), spread) {
            (0, _) => wrong("no server is named".to_owned()),
            (1, Some(_)) => wrong("--spread needs several servers: --url more than once".to_owned()),
            (hosts, spread) => Ok(Self { all, placing: Placing::new(hosts, spread.unwrap_or_default()) }),
        }
    }

    /// Where the client with this index connects, where each group has so many members.
    pub(crate) fn of(&self, index: usize, members: usize) -> &Target {
        &self.all[self.placing.host(index, members)]
    }

    /// All of them, in the order in which they were named.
    pub(crate) fn all(&self) -> &[Target] {
        &self.all
    }

    /// How clients are spread over them.
    pub(crate) fn placing(&self) -> Placing {
        self.placing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(urls: &[&str], spread: Option<Spread>) -> Result<Targets, Failure> {
        let target = |url: &&str| {
            Target::resolve(&url.parse().expect("a URL"), None, false).expect("an address of this host")
        };
        Targets::new(urls.iter().map(target).collect(), spread)
    }

    fn hosts(placing: Placing, clients: usize, members: usize) -> Vec<usize> {
        (0..clients).map(|index| placing.host(index, members)).collect()
    }

    #[test]
    fn partners_sit_on_different_hosts_and_hosts_have_equal_shares() {
        let two = Placing::new(2, Spread::Across);
        assert_eq!(hosts(two, 8, 2), [0, 1, 1, 0, 0, 1, 1, 0]);
        assert_eq!(hosts(two, 8, 4), [0, 1, 0, 1, 1, 0, 1, 0], "roles and neighbours in a room");
        let three = Placing::new(3, Spread::Across);
        assert_eq!(hosts(three, 6, 2), [0, 1, 1, 2, 2, 0]);
        assert_eq!(hosts(three, 4, 4), [0, 1, 2, 0]);
        assert_eq!(hosts(three, 4, 1), [0, 1, 2, 0], "clients that belong to no group");
        for host in 0..3 {
            assert_eq!(three.clients_on(host, 300, 2), 100);
        }
    }

    #[test]
    fn a_group_can_stay_on_one_host() {
        let placing = Placing::new(2, Spread::Same);
        assert_eq!(hosts(placing, 8, 2), [0, 0, 1, 1, 0, 0, 1, 1]);
        assert!(!placing.is_across() && Placing::new(2, Spread::Across).is_across());
    }

    #[test]
    fn one_host_has_everybody() {
        assert_eq!(hosts(Placing::ONE, 5, 2), [0; 5]);
        assert!(!Placing::ONE.is_across() && Placing::ONE.spread().is_none());
        let one = targets(&["ws://127.0.0.1:1/"], None).expect("one");
        assert_eq!(one.of(7, 2).url.port, 1);
    }

    #[test]
    fn hosts_are_named_once_and_spread_over_only_where_there_are_several() {
        let two = targets(&["ws://127.0.0.1:1/ws", "ws://127.0.0.1:2/ws"], None).expect("two");
        assert_eq!((two.of(0, 2).url.port, two.of(1, 2).url.port), (1, 2));
        let problem = |urls: &[&str], spread| targets(urls, spread).expect_err("refused").to_string();
        assert!(problem(&["ws://127.0.0.1:1/ws", "ws://127.0.0.1:1/"], None).contains("named twice"));
        assert!(problem(&["ws://127.0.0.1:1/"], Some(Spread::Same)).contains("--spread"));
        assert!(problem(&[], None).contains("no server"));
    }
}
