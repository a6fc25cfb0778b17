//! Threads with a runtime each, and many connections that are opened side by side.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::stage::{Phase, Stage};
use crate::client::Connection;
use crate::failure::Failure;
use crate::net::runtime::{Driver, DriverChoice};
use crate::net::spread::Targets;
use crate::net::target::Target;

/// Connections that a thread opens at the same time: more would overflow the backlog of a plain server.
const OPENING_MAX: usize = 64;
/// What clients get to close in peace.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How often a thread looks whether the phase has changed.
pub(crate) const STEP: Duration = Duration::from_millis(5);

/// Runs `work` on each of `threads` threads, and `direct` on this one; when `direct` is done, the stage is stopped.
pub(crate) fn run<R, D>(
    threads: usize,
    driver: DriverChoice,
    stage: &Arc<Stage>,
    work: impl AsyncFn(usize, Arc<Stage>) -> R + Sync,
    direct: impl FnOnce(&Stage) -> Result<D, Failure>,
) -> Result<(D, Vec<R>), Failure>
where
    R: Send,
{
    thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads)
            .map(|thread| {
                let stage = Arc::clone(stage);
                scope.spawn(move || match Driver::start(driver) {
                    Ok(mut runtime) => Some(runtime.block_on(work(thread, stage))),
                    Err(error) => {
                        stage.fail(Failure::System(format!("no runtime: {error}")));
                        None
                    }
                })
            })
            .collect();
        let directed = direct(stage);
        stage.advance(Phase::Stopped);
        let results: Vec<_> = handles.into_iter().map(thread::ScopedJoinHandle::join).collect();
        let directed = directed?;
        stage.check()?;
        let results: Option<Vec<_>> = results.into_iter().map(|result| result.ok().flatten()).collect();
        let results =
            results.ok_or_else(|| Failure::System("a thread of the generator panicked".to_owned()))?;
        Ok((directed, results))
    })
}

/// The share of `count` clients that belongs to one of `threads` threads.
pub(crate) fn share(count: usize, thread: usize, threads: usize) -> Range<usize> {
    count * thread / threads..count * (thread + 1) / threads
}

/// The clients of the groups that belong to one of `threads` threads: a group is never torn apart.
pub(crate) fn share_groups(groups: usize, members: usize, thread: usize, threads: usize) -> Range<usize> {
    let share = share(groups, thread, threads);
    share.start * members..share.end * members
}

/// Opens a connection per index to its host and on its path, several at a time, and hands each over at once. The first that fails fails the
/// stage, and the rest is not tried.
pub(crate) async fn open_all(
    stage: &Arc<Stage>,
    (targets, members): (&Rc<Targets>, usize),
    indices: Range<usize>,
    path: impl Fn(usize, &Target) -> String + 'static,
    on_open: impl Fn(usize, Rc<Connection>) + 'static,
) {
    let next = Rc::new(Cell::new(indices.start));
    let on_open = Rc::new((path, on_open));
    let openers: Vec<_> = (0..OPENING_MAX.min(indices.len()))
        .map(|_| {
            let (stage, targets) = (Arc::clone(stage), Rc::clone(targets));
            let (next, on_open) = (Rc::clone(&next), Rc::clone(&on_open));
            monoio::spawn(async move {
                let (path, on_open) = on_open.as_ref();
                while next.get() < indices.end && !stage.reached(Phase::Stopped) {
                    let index = next.replace(next.get() + 1);
                    let target = targets.of(index, members);
                    match Connection::open(target, &path(index, target), index).await {
                        Ok(connection) => on_open(index, connection),
                        Err(failure) => {
                            stage.fail(failure);
                            next.set(indices.end);
                        }
                    }
                }
            })
        })
        .collect();
    for opener in openers {
        opener.await;
    }
}

/// Connections of a thread that are still served.
#[derive(Debug, Default)]
pub(crate) struct Live {
    count: Cell<usize>,
}

impl Live {
    /// One more.
    pub(crate) fn enter(&self) {
        self.count.set(self.count.get() + 1);
    }

    /// One less.
    pub(crate) fn leave(&self) {
        self.count.set(self.count.get() - 1);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Waits until all have ended; those that do not within a while are told to.
    pub(crate) async fn drained<'a>(&self, connections: impl Iterator<Item = &'a Rc<Connection>>) {
        let steps = CLOSE_DEADLINE.as_millis() / STEP.as_millis();
        for _ in 0..steps {
            if self.count.get() == 0 {
                break;
            }
            monoio::time::sleep(STEP).await;
        }
        connections.for_each(|connection| connection.stop_reading());
        // The closes of sockets are ring operations too: they get their turns.
        monoio::time::sleep(4 * STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_all_clients_once() {
        let shares: Vec<_> = (0..3).flat_map(|thread| share(10, thread, 3)).collect();
        assert_eq!(shares, (0..10).collect::<Vec<_>>());
        let shares: Vec<_> = (0..3).map(|thread| share_groups(4, 5, thread, 3)).collect();
        assert_eq!(shares, [0..5, 5..10, 10..20]);
    }
}
