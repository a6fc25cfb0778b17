//! The servers under test: where they are, what they spend, and what they say about themselves.

mod counts;
mod figures;

use std::time::{Duration, Instant};
use std::{io, iter, thread};

pub(crate) use self::counts::Counts;
pub(crate) use self::figures::HostsFigures;
use crate::failure::Failure;
use crate::net::get::get;
use crate::net::spread::Targets;
use crate::net::target::Target;
use crate::process::{self, CpuReading};

/// How long hosts may take to find each other.
const RELATIONS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// The servers of a run.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    /// Where they are.
    pub(crate) targets: Targets,
    /// Their processes, in the same order; none where they were not named.
    pub(crate) pids: Vec<u32>,
}

/// What each server had spent at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    hosts: Vec<HostReading>,
}

#[derive(Debug, Clone, Default)]
struct HostReading {
    cpu: Option<CpuReading>,
    counts: Option<Counts>,
}

/// What each server spent between two moments.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spent {
    pub(crate) hosts: Vec<HostSpent>,
}

/// What one server spent between two moments.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostSpent {
    /// CPU time, where its process is known and still there.
    pub(crate) cpu_ns: Option<u64>,
    /// What it counted, where it tells.
    pub(crate) counts: Option<Counts>,
}

impl Servers {
    /// These servers; an error where there are processes, but not one for each.
    pub(crate) fn new(targets: Targets, pids: Vec<u32>) -> Result<Self, Failure> {
        let (hosts, count) = (targets.all().len(), pids.len());
        if count != 0 && count != hosts {
            return Err(Failure::Options(format!(
                "{count} processes for {hosts} servers: name one for each, in the order of the servers, or none"
            )));
        }
        Ok(Self { targets, pids })
    }

    /// Their URLs, with commas between them.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<_> = self.targets.all().iter().map(|target| target.url.to_string()).collect();
        urls.join(",")
    }

    /// Waits until servers that know other hosts at all know each other. Those that tell nothing are believed.
    pub(crate) fn await_relations(&self) -> Result<(), Failure> {
        let others = self.targets.all().len() as u64 - 1;
        if !self.targets.placing().is_across() {
            return Ok(());
        }
        let until = Instant::now() + RELATIONS;
        self.targets.all().iter().try_for_each(|target| await_relations(target, others, until))
    }

    /// Whether a server that was gone is there again and knows so many others, as far as it tells.
    pub(crate) fn is_back(&self, place: usize, others: u64) -> bool {
        let page = get(&self.targets.all()[place], "/metrics");
        let knows = |page: &str| counts::value(page, "parlor_hosts").is_none_or(|known| known >= others);
        page.is_ok_and(|page| knows(&page))
    }

    /// What they have spent when an interval begins.
    pub(crate) fn read(&self) -> Result<Reading, Failure> {
        let counts = self.counts();
        Ok(Reading::new(self.cpu()?, counts))
    }

    /// What they have spent when an interval ends: what they say about themselves is not in it.
    pub(crate) fn read_at_end(&self) -> Result<Reading, Failure> {
        let cpu = self.cpu()?;
        Ok(Reading::new(cpu, self.counts()))
    }

    /// The same, where some may be gone: of those nothing is known.
    pub(crate) fn read_those_left(&self) -> Reading {
        let cpu = self.pids.iter().map(|pid| CpuReading::of(*pid).ok()).collect();
        Reading::new(cpu, self.counts())
    }

    fn cpu(&self) -> io::Result<Vec<Option<CpuReading>>> {
        self.pids.iter().map(|pid| CpuReading::of(*pid).map(Some)).collect()
    }

    fn counts(&self) -> Vec<Option<Counts>> {
        self.targets.all().iter().map(Counts::of).collect()
    }

    /// What `memory` says of each process; none where they are not known.
    pub(crate) fn memory(
        &self,
        memory: impl Fn(u32) -> io::Result<u64>,
    ) -> Result<Option<Vec<u64>>, Failure> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.pids.iter().map(|pid| memory(*pid)).collect::<io::Result<_>>()?))
    }

    /// What each client costs on each host, given readings of memory before and after they came.
    pub(crate) fn bytes_per_client(
        &self,
        clients: usize,
        members: usize,
        before: &[u64],
        after: &[u64],
    ) -> Vec<f64> {
        let on = |host| self.targets.placing().clients_on(host, clients, members);
        let both = before.iter().zip(after).enumerate();
        both.map(|(host, (before, after))| process::bytes_per(on(host), *before, *after)).collect()
    }
}

#[cfg(test)]
impl Servers {
    /// So many servers that nobody connects to.
    pub(crate) fn example(count: u16) -> Self {
        let target = |port: u16| {
            let url = format!("ws://127.0.0.1:{port}/ws").parse().expect("a URL");
            Target::resolve(&url, None, false).expect("loopback")
        };
        let targets = Targets::new((1..=count).map(target).collect(), None).expect("good");
        Self::new(targets, Vec::new()).expect("good")
    }
}

impl Reading {
    fn new(cpu: Vec<Option<CpuReading>>, counts: Vec<Option<Counts>>) -> Self {
        let cpu = cpu.into_iter().chain(iter::repeat(None));
        let hosts = counts.into_iter().zip(cpu).map(|(counts, cpu)| HostReading { cpu, counts });
        Self { hosts: hosts.collect() }
    }

    /// What was spent from here to a later reading.
    pub(crate) fn until(&self, later: &Self) -> Spent {
        let spent = |(before, after): (&HostReading, &HostReading)| HostSpent {
            cpu_ns: before.cpu.as_ref().zip(after.cpu.as_ref()).map(|(before, after)| after.ns_since(before)),
            counts: before
                .counts
                .as_ref()
                .zip(after.counts.as_ref())
                .map(|(before, after)| after.since(before)),
        };
        Spent { hosts: self.hosts.iter().zip(&later.hosts).map(spent).collect() }
    }
}

impl Spent {
    /// CPU time of all servers; none where that of one is not known.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        let sum = self.hosts.iter().map(|host| host.cpu_ns).sum();
        if self.hosts.is_empty() { None } else { sum }
    }
}

fn await_relations(target: &Target, others: u64, until: Instant) -> Result<(), Failure> {
    loop {
        let page = get(target, "/metrics").ok();
        let Some(known) = page.and_then(|page| counts::value(&page, "parlor_hosts")) else { return Ok(()) };
        if known >= others {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Failure::Server(format!(
                "{} knows {known} other hosts (parlor_hosts), {others} were named: do all of them have the same \
                 REDIS_URL?",
                target.url
            )));
        }
        thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::spread::Spread;

    fn servers(urls: &[&str], pids: &[u32]) -> Result<Servers, Failure> {
        let target =
            |url: &&str| Target::resolve(&url.parse().expect("a URL"), None, false).expect("loopback");
        Servers::new(Targets::new(urls.iter().map(target).collect(), None)?, pids.to_vec())
    }

    #[test]
    fn each_server_has_its_process_or_none_has() {
        let two = ["ws://127.0.0.1:1/ws", "ws://127.0.0.1:2/ws"];
        assert!(servers(&two, &[]).is_ok() && servers(&two, &[1, 2]).is_ok());
        let refused = servers(&two, &[1]).expect_err("one is missing").to_string();
        assert!(refused.starts_with("1 processes for 2 servers"), "{refused}");
        assert_eq!(servers(&two, &[]).expect("two").urls(), "ws://127.0.0.1:1/ws,ws://127.0.0.1:2/ws");
        assert_eq!(servers(&two, &[]).expect("two").targets.placing().spread(), Some(Spread::Across));
    }

    #[test]
    fn cpu_time_is_summed_and_unknown_where_one_is() {
        let spent = |cpu_ns: &[Option<u64>]| Spent {
            hosts: cpu_ns.iter().map(|cpu_ns| HostSpent { cpu_ns: *cpu_ns, counts: None }).collect(),
        };
        assert_eq!(spent(&[Some(1), Some(2)]).cpu_ns(), Some(3));
        assert_eq!(spent(&[Some(1), None]).cpu_ns(), None);
    }

    #[test]
    fn servers_that_are_gone_tell_nothing() {
        // Nobody listens on port 1, and no process has the highest number.
        let gone = servers(&["ws://127.0.0.1:1/ws"], &[u32::MAX]).expect("one");
        assert!(gone.read().is_err());
        let spent = gone.read_those_left().until(&gone.read_those_left());
        assert!(spent.cpu_ns().is_none() && spent.hosts[0].counts.is_none());
    }
}
