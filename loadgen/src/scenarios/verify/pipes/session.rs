//! One pipe after the other between the two ends of a pair.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::super::violation::Violation;
use super::Shared;
use super::end::PipeEnd;
use super::plan::StreamId;
use super::verdict::{self, Arrival};
use crate::client::Ending;
use crate::dialects::Seat;
use crate::failure::Failure;
use crate::net::target::Target;
use crate::options::PipeMode;
use crate::raw::RawEnding;
use crate::scenarios::fleet;
use crate::scenarios::stage::Phase;

/// An end that neither sends nor hears anything for so long, and should, has failed.
const STANDSTILL: Duration = Duration::from_secs(15);
/// Longest time for which an end is held alone.
const ALONE_MS_MAX: u32 = 30;
/// One in so many first ends is replaced before the other comes.
const REPLACED_EVERY: u32 = 8;
/// Bytes after which an end that is held for long sends no more frames: a server that holds too much stops reading,
/// and would not see that the end closes.
const HELD_BYTES: u64 = 10_000;
/// One in so many pipes has a third end that comes too late.
const THIRD_EVERY: u32 = 8;

/// One pipe.
struct Session<'a> {
    shared: &'a Shared,
    pair: usize,
    cycle: u32,
    mode: PipeMode,
    /// Where the two ends connect.
    hosts: [usize; 2],
    /// The paths of the two ends.
    paths: [String; 2],
    /// All that were opened.
    ends: RefCell<Vec<Rc<PipeEnd>>>,
}

/// Opens pipes until nothing new is to begin.
pub(super) async fn one_after_the_other(shared: &Rc<Shared>, pair: usize) -> Result<(), Failure> {
    let mut cycle = 0;
    while !shared.stage.reached(Phase::Draining) {
        let session = Session::new(shared, pair, cycle);
        let deaths = session.deaths();
        match session.run().await {
            // What came of a pipe whose host died meanwhile is not judged but for its end.
            result if session.is_lost(deaths, result.is_err()).await => {
                drop(result);
                let is_over = session.finish_lost().await?;
                if is_over && let Some(again) = session.on_living_hosts().await {
                    cycle += 1;
                    again.run_again().await?;
                }
                session.wait_for_hosts().await;
            }
            result => result?,
        }
        cycle += 1;
    }
    Ok(())
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared, pair: usize, cycle: u32) -> Self {
        let modes = [PipeMode::Raw, PipeMode::Websocket];
        let mode = shared.mode.unwrap_or(modes[shared.chance.below(2) as usize]);
        let seat = Seat { group: pair, member: 0, members: 2, cycle: u64::from(cycle) };
        // Both ends may have one name: the second is then the other end.
        let same = shared.chance.below(16) == 0;
        let names = [seat.name(0), seat.name(if same { 0 } else { 1 })];
        let path = |own: usize| {
            let word = ["connection", "connect", "CONNECTION"][shared.chance.below(3) as usize];
            // The same document in two spellings.
            let document = ["d%C3%A9%2F1", "d%c3%a9%2f1"][shared.chance.below(2) as usize];
            let slash = if shared.chance.below(4) == 0 { "/" } else { "" };
            format!("/{word}/{}/{}/{document}{slash}", names[own], names[1 - own])
        };
        let paths = [path(0), path(1)];
        let hosts = [0, 1].map(|place| shared.targets.placing().host(2 * pair + place, 2));
        Self { shared, pair, cycle, mode, hosts, paths, ends: RefCell::default() }
    }

    /// The same pipe once more, on hosts that live, when all have been told that one died; nothing where there is no more
    /// time, or none of two.
    async fn on_living_hosts(&self) -> Option<Self> {
        let (hosts, count) = (&self.shared.hosts, self.shared.targets.all().len());
        let living =
            |host: usize| (0..count).map(|step| (host + step) % count).find(|host| !hosts.is_down(*host));
        let places = [living(self.hosts[0])?, living(self.hosts[1])?];
        let died_at = self.hosts.iter().filter_map(|host| hosts.died_at(*host)).max();
        while died_at.is_some_and(|died_at| died_at.elapsed() < hosts.heard_within()) {
            if self.shared.stage.reached(Phase::Draining) {
                return None;
            }
            monoio::time::sleep(fleet::STEP).await;
        }
        let (cycle, paths) = (self.cycle + 1, self.paths.clone());
        Some(Self { cycle, paths, hosts: places, ends: RefCell::default(), ..*self })
    }

    /// What is left of the end that died with its host must not be met by one of the same name.
    async fn run_again(&self) -> Result<(), Failure> {
        let deaths = self.deaths();
        let result = self.run().await;
        if self.is_lost(deaths, result.is_err()).await {
            return self.finish_lost().await.map(drop);
        }
        result?;
        self.shared.tally.borrow_mut().again += 1;
        Ok(())
    }

    async fn run(&self) -> Result<(), Failure> {
        let is_same = self.paths[0].split('/').nth(2) == self.paths[0].split('/').nth(3);
        if !is_same && self.shared.chance.below(REPLACED_EVERY) == 0 {
            self.run_replaced().await
        } else {
            let first = self.open(0, self.stream(0), self.stream(1), u64::MAX).await?;
            self.join(first, is_same).await
        }
    }

    fn target(&self, place: usize) -> &Target {
        &self.shared.targets.all()[self.hosts[place]]
    }

    /// How often the hosts of the two ends have died.
    fn deaths(&self) -> u64 {
        self.hosts.map(|host| self.shared.hosts.deaths(host)).iter().sum()
    }

    /// Whether a host of the two has died meanwhile, or is found dead where something went wrong.
    async fn is_lost(&self, deaths: u64, is_wrong: bool) -> bool {
        for place in [0, 1] {
            let host = self.hosts[place];
            if is_wrong && self.shared.hosts.is_dead(host, self.target(place)).await {
                self.shared.hosts.died(host, Instant::now());
                return true;
            }
        }
        self.deaths() != deaths
    }

    /// A host has died: an end on another one that has heard the dead end must end in time. Whether none is left: one
    /// that is held alone, and of which much is held, is not seen to go.
    async fn finish_lost(&self) -> Result<bool, Failure> {
        let mut is_over = true;
        let hosts = &self.shared.hosts;
        let died_at = self.hosts.iter().filter_map(|host| hosts.died_at(*host)).max();
        let until = died_at.unwrap_or_else(Instant::now) + hosts.heard_within();
        let ends = self.ends.take();
        for end in &ends {
            let must_end =
                end.left().is_none() && end.has_heard.get() && !hosts.is_down(self.hosts[end.place()]);
            while must_end && end.arrival().is_none() {
                if Instant::now() > until {
                    let (whose, dead) = (end.state(), "the other end".to_owned());
                    return Err(self.failure(&Violation::NotTold { whose, dead }));
                }
                monoio::time::sleep(fleet::STEP).await;
            }
            is_over &= end.arrival().is_some() || hosts.is_down(self.hosts[end.place()]);
            end.give_up();
            self.forget(end);
        }
        self.shared.tally.borrow_mut().lost += 1;
        Ok(is_over)
    }

    /// Waits until both hosts are there.
    async fn wait_for_hosts(&self) {
        let is_down = || self.hosts.iter().any(|host| self.shared.hosts.is_down(*host));
        while is_down() && !self.shared.stage.reached(Phase::Draining) {
            monoio::time::sleep(fleet::STEP).await;
        }
    }

    /// A first end is replaced by another one, and must then be closed, having heard nothing.
    async fn run_replaced(&self) -> Result<(), Failure> {
        let replaced = self.open(0, self.stream(2), self.stream(1), u64::MAX).await?;
        let first = self.open(0, self.stream(0), self.stream(1), u64::MAX).await?;
        self.until(&replaced, |end| end.arrival().is_some()).await?;
        self.forget(&replaced);
        let is_closed = match replaced.arrival() {
            Some(Arrival::WebSocket { ending: Ending::Closed(code, _), .. }) => code == 1005,
            Some(Arrival::Raw(RawEnding::Finished)) => true,
            _ => false,
        };
        if replaced.left().is_none() && (!is_closed || replaced.has_heard.get()) {
            let how = format!("a held end that was replaced ended with {:?}", replaced.arrival());
            return Err(self.failure(&Violation::WrongEnding { how }));
        }
        self.shared.tally.borrow_mut().replaced += 1;
        self.join(first, false).await
    }

    /// The second end comes, and both send and hear to the end.
    async fn join(&self, first: Rc<PipeEnd>, is_same: bool) -> Result<(), Failure> {
        let alone = Duration::from_millis(u64::from(self.shared.chance.below(ALONE_MS_MAX)));
        monoio::time::sleep(alone).await;
        if first.left().is_some() || first.arrival().is_some() {
            return self.finish_alone(&first).await;
        }
        let second = match self.open(1, self.stream(1), self.stream(0), u64::MAX).await {
            // A reset that was passed on at once may overtake what was sent before it, the answer to the upgrade too.
            Err(Failure::Handshake(_)) if first.left().is_some() => return self.finish_alone(&first).await,
            opened => opened?,
        };
        if first.left().is_some() {
            // The second may have come too late, and is then held alone.
            second.give_up();
            return self.finish_both(&first, &second).await;
        }
        first.joined();
        second.joined();
        let is_third = !is_same && self.shared.chance.below(THIRD_EVERY) == 0;
        let third = match is_third {
            true => Some(self.open(0, self.stream(3), self.stream(1), HELD_BYTES).await?),
            false => None,
        };
        self.finish_both(&first, &second).await?;
        let (one, other) = (first.report(), second.report());
        if let (Some(one), Some(other)) = (&one, &other) {
            let judged = verdict::check(one, other).and_then(|()| verdict::check(other, one));
            judged.map_err(|violation| self.failure(&violation))?;
        }
        match third {
            Some(third) => self.finish_third(&third).await,
            None => Ok(()),
        }
    }

    /// An end came where the pair was piped already: it is held, and hears nothing.
    async fn finish_third(&self, third: &Rc<PipeEnd>) -> Result<(), Failure> {
        let was_held = third.arrival().is_none() || third.left().is_some();
        if third.left().is_none() {
            third.close();
        }
        self.until(third, |end| end.arrival().is_some()).await?;
        self.forget(third);
        if !was_held || third.has_heard.get() {
            let how = format!("an end beside a pipe was not held: {:?}", third.arrival());
            return Err(self.failure(&Violation::WrongEnding { how }));
        }
        self.shared.tally.borrow_mut().held_anew += 1;
        Ok(())
    }

    async fn finish_alone(&self, first: &Rc<PipeEnd>) -> Result<(), Failure> {
        if first.left().is_none() {
            let how = format!("a held end ended with {:?}", first.arrival());
            return Err(self.failure(&Violation::WrongEnding { how }));
        }
        // The server may hold so much of it that it has stopped reading, and does not see the close.
        first.give_up();
        self.until(first, |end| end.arrival().is_some()).await?;
        self.forget(first);
        Ok(())
    }

    async fn finish_both(&self, first: &Rc<PipeEnd>, second: &Rc<PipeEnd>) -> Result<(), Failure> {
        self.until(first, |end| end.arrival().is_some()).await?;
        self.until(second, |end| end.arrival().is_some()).await?;
        let mut tally = self.shared.tally.borrow_mut();
        tally.pipes += 1;
        tally.raw_pipes += u64::from(self.mode == PipeMode::Raw);
        for end in [first, second] {
            tally.messages += u64::from(end.received().messages);
            tally.bytes += end.received().bytes;
        }
        drop(tally);
        self.forget(first);
        self.forget(second);
        Ok(())
    }

    /// Waits until an end is so; what it found wrong, or that it stands still, is a failure.
    async fn until(&self, end: &Rc<PipeEnd>, is_so: impl Fn(&PipeEnd) -> bool) -> Result<(), Failure> {
        loop {
            if let Some(violation) = end.violation.take() {
                return Err(self.failure(&violation));
            }
            if is_so(end) || self.shared.stage.reached(Phase::Stopped) {
                return Ok(());
            }
            if end.moved_at().elapsed() > STANDSTILL {
                let ends: Vec<_> = self.ends.borrow().iter().map(|end| end.state()).collect();
                let how = format!("{} stands still; {}", end.stream, ends.join("; "));
                return Err(self.failure(&Violation::WrongEnding { how }));
            }
            monoio::time::sleep(fleet::STEP).await;
        }
    }

    /// Opens an end that reads and writes from now on.
    async fn open(
        &self,
        place: usize,
        stream: StreamId,
        other: StreamId,
        bytes_max: u64,
    ) -> Result<Rc<PipeEnd>, Failure> {
        let index = 2 * self.pair + place;
        let path = &self.paths[place];
        let end = PipeEnd::open(self.mode, self.target(place), path, index, (stream, other)).await?;
        self.shared.ends.borrow_mut().push(Rc::clone(&end));
        self.ends.borrow_mut().push(Rc::clone(&end));
        monoio::spawn(Rc::clone(&end).read(Rc::clone(&self.shared.chance)));
        monoio::spawn(Rc::clone(&end).write(bytes_max));
        Ok(end)
    }

    fn forget(&self, end: &Rc<PipeEnd>) {
        self.shared.ends.borrow_mut().retain(|known| !Rc::ptr_eq(known, end));
    }

    fn stream(&self, end: u8) -> StreamId {
        StreamId { pair: self.pair as u32, cycle: self.cycle, end }
    }

    fn failure(&self, violation: &Violation) -> Failure {
        let (pair, cycle, mode) = (self.pair, self.cycle, self.mode);
        Failure::Violation(format!("pair {pair}, pipe {cycle} ({mode:?}, {:?}): {violation}", self.paths))
    }
}
