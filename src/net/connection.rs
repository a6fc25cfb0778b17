//! One connection's task: wait until there is something to read, hand it to the shard, again. It owns no buffer.

use std::io::ErrorKind;
use std::rc::Rc;

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
        if let Read::End = read(&core, &socket, slot) {
            break;
        }
    }
    core.close(slot);
}

/// Reads what is there into the core's scratch.
fn read(core: &Core, socket: &Socket, slot: Slot) -> Read {
    let mut scratch = core.scratch.borrow_mut();
    match socket.read(&mut scratch) {
        Ok(0) => Read::End,
        Ok(count) => {
            core.begin_turn();
            let (input, now_ms) = (&mut scratch[..count], core.now_ms());
            core.guarded_for(slot, || core.shard.borrow_mut().handle_bytes(slot, input, now_ms));
            core.end_turn_soon();
            Read::More
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Read::More,
        Err(_) => Read::End,
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
