//! The acceptor of one core.

use std::future::{Future, poll_fn};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::core::Core;
use super::driver::Driver;
use super::socket::Socket;

/// Most connections accepted before other work gets its turn.
const BATCH: usize = 64;
/// Most batches accepted from the backlog when the server stops: as long as the backlog is.
const LAST_BATCHES: usize = 64;
/// How long accepting rests when no file is free, not even the spare one.
const REST: Duration = Duration::from_millis(50);

/// What a listener's connections may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    /// Everything (`PORT`).
    Public,
    /// Health and metrics alone (`HTTP_PORT`).
    Private,
}

/// A file that is given up when no other is free, so that a connection can be accepted and closed instead of
/// standing in the backlog, where it would make every accept fail at once.
struct Spare(Option<OwnedFd>);

impl Spare {
    fn open() -> Self {
        Self(rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok())
    }
}

/// Accepts connections until the server stops, and then those that came before.
pub(super) async fn accept_all(core: Rc<Core>, listener: OwnedFd, port: Port) {
    let listener = match Socket::new(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!("the listener cannot be waited for: {error}");
            return core.handle_accept_ended();
        }
    };
    let mut spare = Spare::open();
    while wait(&core, &listener, port).await {
        if let Batch::NoFile = accept_batch(&core, &listener, port, &mut spare) {
            monoio::time::sleep(REST).await;
        }
    }
    // Who came before the stop, but not all who come for ever.
    for _ in 0..LAST_BATCHES {
        if !matches!(accept_batch(&core, &listener, port, &mut spare), Batch::More) {
            break;
        }
    }
    drop(listener);
    core.handle_accept_ended();
}

/// Waits for a connection; says false when the server stops.
async fn wait(core: &Core, listener: &Socket, port: Port) -> bool {
    let mut readable = pin!(listener.readable());
    poll_fn(|context| {
        if core.is_stopping_or_wake(port, context.waker()) {
            return Poll::Ready(false);
        }
        readable.as_mut().poll(context).map(|_| true)
    })
    .await
}

/// What is left after a batch.
enum Batch {
    /// There may be more.
    More,
    /// Nobody waits.
    Empty,
    /// There is no file for whoever waits.
    NoFile,
}

fn accept_batch(core: &Rc<Core>, listener: &Socket, port: Port, spare: &mut Spare) -> Batch {
    let mut flags = SocketFlags::CLOEXEC;
    if core.driver == Driver::Epoll {
        flags |= SocketFlags::NONBLOCK;
    }
    for _ in 0..BATCH {
        match rustix::net::accept_with(listener, flags) {
            Ok(fd) => core.open(fd, port),
            Err(Errno::AGAIN) => return Batch::Empty,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                core.shard.borrow().counters().accept_errors.add(1);
                if !shed(core, listener, spare) {
                    return Batch::NoFile;
                }
            }
            // The peer has gone again, or a signal came: the next one may be fine.
            Err(_) => core.shard.borrow().counters().accept_errors.add(1),
        }
    }
    Batch::More
}

/// Accepts one connection on the spare file and closes it at once. Says whether that worked.
fn shed(core: &Core, listener: &Socket, spare: &mut Spare) -> bool {
    let had_one = spare.0.take().is_some();
    let accepted = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).is_ok();
    *spare = Spare::open();
    if accepted {
        core.shard.borrow().counters().connections_shed.add(1);
    }
    had_one && accepted
}
