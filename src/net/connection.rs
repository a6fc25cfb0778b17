//! One connection's task: read, hand it to the shard, again.
//!
//! An idle connection waits without a buffer and is read into the core's scratch; one that is read twice within a
//! period keeps a read of its own in flight ([`super::busy`]).

use std::io;
use std::rc::Rc;

use rustix::io::Errno;

use super::core::Core;
use super::socket::Socket;
use crate::id::Slot;

/// Whether there may be more to read.
enum Read {
    More,
    End,
}

/// Reads from a connection until its end.
pub(super) async fn serve(core: Rc<Core>, socket: Rc<Socket>, slot: Slot) {
    let mut last_period = core.reads.period().wrapping_sub(1);
    loop {
        if core.reading.is_shut() {
            core.reading.pass().await;
        }
        if socket.readable().await.is_err() {
            break;
        }
        if core.reading.is_shut() {
            continue;
        }
        if let Read::End = read_scratch(&core, &socket, slot) {
            break;
        }
        let period = core.reads.period();
        // Boxed, so that an idle connection's task has no room for it.
        if period == last_period
            && let Read::End = Box::pin(serve_busy(&core, &socket, slot)).await
        {
            break;
        }
        last_period = period;
    }
    core.close(slot);
}

/// Reads with one read in flight until the connection falls silent, or the end.
async fn serve_busy(core: &Core, socket: &Socket, slot: Slot) -> Read {
    let mut busy = core.reads.enter();
    while !core.reading.is_shut() {
        let buffer = std::mem::take(&mut busy.buffer);
        let (result, buffer) = socket.read_owned(buffer, busy.cancel_handle()).await;
        busy.buffer = buffer;
        match judge(result) {
            Ok(None) => return Read::End,
            Ok(Some(count)) => {
                busy.mark();
                handle(core, slot, &mut busy.buffer[..count]);
                let is_full = count == busy.buffer.capacity();
                if is_full && let Read::End = read_scratch(core, socket, slot) {
                    return Read::End;
                }
            }
            Err(Errno::CANCELED) => break,
            Err(_) => {}
        }
    }
    Read::More
}

/// Reads what is there into the core's scratch.
fn read_scratch(core: &Core, socket: &Socket, slot: Slot) -> Read {
    let mut scratch = core.scratch.borrow_mut();
    match judge(socket.read(&mut scratch)) {
        Ok(Some(count)) => {
            handle(core, slot, &mut scratch[..count]);
            Read::More
        }
        Err(_) => Read::More,
        Ok(None) => Read::End,
    }
}

/// Tells apart what a read brought: bytes; the end, in order or not; or nothing this time.
fn judge(result: io::Result<usize>) -> Result<Option<usize>, Errno> {
    match result {
        Ok(0) => Ok(None),
        Ok(count) => Ok(Some(count)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(errno @ (Errno::AGAIN | Errno::INTR | Errno::CANCELED)) => Err(errno),
            _ => Ok(None),
        },
    }
}

fn handle(core: &Core, slot: Slot, input: &mut [u8]) {
    core.begin_turn();
    let now_ms = core.now_ms();
    core.guarded_for(slot, || core.shard.borrow_mut().handle_bytes(slot, input, now_ms));
    core.end_turn_soon();
}

/// Waits until a socket that was full takes bytes again.
pub(super) async fn wait_writable(core: Rc<Core>, socket: Rc<Socket>, slot: Slot) {
    // An error will come up again when the outbox is written.
    let _ = socket.writable().await;
    if core.is_current(slot, &socket) {
        core.shard.borrow_mut().handle_writable(slot);
        core.end_turn_soon();
    }
}
