//! What a shard counts. One shard writes each number, anybody reads: so a total over all shards is exact at the
//! request, and counting costs no lock. Nothing is labelled by client, room or name: such labels never end.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds to the number. Only the shard that owns it may do this.
    pub fn add(&self, count: u64) {
        self.0.store(self.value().wrapping_add(count), Ordering::Relaxed);
    }

    /// Takes from the number. Only the shard that owns it may do this.
    pub fn sub(&self, count: u64) {
        self.0.store(self.value().wrapping_sub(count), Ordering::Relaxed);
    }

    /// Sets the number. Only the shard that owns it may do this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number as it stands.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a number only grows, for Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A number's description.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Name in Prometheus' text.
    pub name: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! numbers {
    ($($field:ident, $kind:ident, $name:literal, $help:literal;)*) => {
        /// All numbers of one shard.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $(#[doc = $help] pub $field: Number,)*
        }

        impl Counters {
            /// Descriptions in the order of [`Counters::values`].
            pub const DESCRIPTIONS: &[Description] =
                &[$(Description { name: $name, kind: Kind::$kind, help: $help }),*];

            /// All numbers as they stand.
            #[must_use]
            pub fn values(&self) -> [u64; Self::DESCRIPTIONS.len()] {
                [$(self.$field.value()),*]
            }
        }
    };
}

numbers! {
    connections, Gauge, "parlor_connections", "Open TCP connections.";
    clients, Gauge, "parlor_clients", "Open WebSocket connections.";
    connections_accepted, Counter, "parlor_connections_accepted_total", "TCP connections accepted.";
    connections_shed, Counter, "parlor_connections_shed_total", "Connections closed at once: no file or slot free.";
    accept_errors, Counter, "parlor_accept_errors_total", "Failed accepts.";
    heads_refused, Counter, "parlor_heads_refused_total", "Request heads answered 4xx.";
    heads_timed_out, Counter, "parlor_heads_timed_out_total", "Connections whose head did not come in time.";
    requests, Counter, "parlor_http_requests_total", "Plain HTTP requests answered.";
    upgrades, Counter, "parlor_upgrades_total", "WebSockets opened.";
    messages_received, Counter, "parlor_messages_received_total", "Messages received.";
    messages_sent, Counter, "parlor_messages_sent_total", "Messages put into outboxes.";
    bytes_received, Counter, "parlor_bytes_received_total", "Bytes read from clients.";
    bytes_sent, Counter, "parlor_bytes_sent_total", "Bytes written to clients.";
    writes, Counter, "parlor_writes_total", "Calls that wrote to clients.";
    writes_blocked, Counter, "parlor_writes_blocked_total", "Writes that the socket did not take whole.";
    matches, Counter, "parlor_matches_total", "Clients told of a match.";
    rendezvous_clients, Gauge, "parlor_rendezvous_clients", "Clients at a connection id.";
    rendezvous_received, Counter, "parlor_rendezvous_messages_received_total", "Messages from rendezvous clients.";
    rendezvous_sent, Counter, "parlor_rendezvous_messages_sent_total", "Messages to rendezvous clients.";
    directory_clients, Gauge, "parlor_directory_clients", "Directory clients that are logged in.";
    rooms, Gauge, "parlor_rooms", "Rooms that have not expired.";
    pipes_held, Gauge, "parlor_pipes_held", "Pipe ends that wait for the other.";
    pipes_joined, Counter, "parlor_pipes_joined_total", "Pipes whose two ends were joined.";
    pipe_frames, Counter, "parlor_pipe_frames_total", "Pieces of messages passed through pipes.";
    pipe_bytes, Counter, "parlor_pipe_bytes_total", "Bytes passed through pipes.";
    pipe_bytes_spliced, Counter, "parlor_pipe_bytes_spliced_total", "Bytes that the kernel moved from end to end.";
    ignored, Counter, "parlor_messages_ignored_total", "Messages that the contract leaves unanswered.";
    moves, Counter, "parlor_connections_moved_total", "Connections that went to their key's shard.";
    mail_sent, Counter, "parlor_mail_sent_total", "Mail handed to other shards.";
    mail_waiting, Gauge, "parlor_mail_waiting", "Mail that waits for room in a ring.";
    reading_paused, Counter, "parlor_reading_paused_total", "Times that reading stopped because mail waited.";
    rate_limited, Counter, "parlor_rate_limited_total", "Messages over a client's rate.";
    protocol_errors, Counter, "parlor_protocol_errors_total", "Clients closed for breaking RFC 6455 or a limit.";
    origins_refused, Counter, "parlor_origins_refused_total", "Clients closed for their origin.";
    too_slow, Counter, "parlor_too_slow_total", "Clients closed because their outbox was full.";
    server_busy, Counter, "parlor_server_busy_total", "Clients closed because the buffers were used up.";
    heartbeats_missed, Counter, "parlor_heartbeats_missed_total", "Clients cut because they were silent.";
    panics, Counter, "parlor_panics_total", "Clients closed because the server panicked over them.";
    buffer_bytes, Gauge, "parlor_buffer_bytes", "Bytes of buffers in use.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_the_order_of_their_descriptions() {
        let counters = Counters::default();
        counters.panics.add(3);
        counters.clients.add(2);
        counters.clients.sub(1);
        for (description, value) in Counters::DESCRIPTIONS.iter().zip(counters.values()) {
            let expected = match description.name {
                "parlor_panics_total" => 3,
                "parlor_clients" => 1,
                _ => 0,
            };
            assert_eq!(value, expected, "{}", description.name);
        }
    }

    #[test]
    fn names_follow_the_habits_of_prometheus() {
        for description in Counters::DESCRIPTIONS {
            assert_eq!(description.name.ends_with("_total"), description.kind == Kind::Counter);
        }
    }
}
