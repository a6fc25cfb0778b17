//! One connection's task: wait until there is something to read, hand it to the shard, again. It owns no buffer.

use std::io::ErrorKind;
use std::rc::Rc;

use super::core::Core;
use super::socket::Socket;
use super::splice::move_bytes;
use crate::id::Slot;

/// Whether there may be more to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// There may be more.
    More,
    /// There will not.
    End,
}

/// Reads from a connection until its end, or until it moves to another core.
pub(super) async fn serve(core: Rc<Core>, socket: Rc<Socket>, slot: Slot) {
    // Whether so many bytes come at a time that moving them in the kernel pays.
    let mut is_bulk = core.splice.splices_at_first();
    loop {
        if core.reading.is_shut() {
            core.reading.pass().await;
        }
        if core.is_paused(slot) {
            let _watched = core.is_paused_for_long(slot).then(|| core.watch.watch(&socket, slot));
            core.resumed(slot).await;
        }
        // It has moved, by what was read last or while it was not read from.
        if !core.is_current(slot, &socket) {
            break;
        }
        if socket.readable().await.is_err() {
            break;
        }
        if core.is_cut(slot) {
            break;
        }
        if core.reading.is_shut() || core.is_paused(slot) {
            continue;
        }
        let partner = if is_bulk { core.splice_target(slot) } else { None };
        let (read, count) = match partner {
            Some(partner) => Box::pin(move_bytes(&core, &socket, slot, partner)).await,
            None => read(&core, &socket, slot),
        };
        is_bulk = core.splice.splices(count);
        if read == Read::End {
            break;
        }
    }
    core.close(slot);
}

/// Reads what is there into the core's scratch; also says how much that was.
pub(super) fn read(core: &Rc<Core>, socket: &Socket, slot: Slot) -> (Read, usize) {
    let mut scratch = core.scratch.borrow_mut();
    match socket.read(&mut scratch) {
        Ok(0) => (core.handle_end(slot), 0),
        Ok(count) => {
            core.begin_turn();
            let (input, now_ms) = (&mut scratch[..count], core.now_ms());
            core.guarded_for(slot, || core.shard.borrow_mut().handle_bytes(slot, input, now_ms));
            core.handle_events();
            core.end_turn_soon();
            (Read::More, count)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            (Read::More, 0)
        }
        Err(_) => (Read::End, 0),
    }
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
