//! What a shard counts. One shard writes each number, anybody reads: so a total over all shards is exact at the
//! request, and counting costs no lock. Nothing is labelled by client, room or name: such labels never end.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::HOST_PROOF_MS;

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
    ($(#[$about:meta])* $type:ident: $($field:ident, $kind:ident, $name:literal, $help:literal;)*) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $type {
            $(#[doc = $help] pub $field: Number,)*
        }

        impl $type {
            /// Descriptions in the order of `values`.
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
    /// All numbers of one shard.
    Counters:
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
    pipes_distant, Counter, "parlor_pipe_ends_joined_over_hosts_total", "Pipe ends that were joined with one of another host.";
    pipe_chunks_sent, Counter, "parlor_pipe_chunks_sent_total", "Letters with bytes of pipes to other hosts.";
    pipe_chunks_received, Counter, "parlor_pipe_chunks_received_total", "Letters with bytes of pipes from other hosts.";
    pipe_chunk_bytes, Counter, "parlor_pipe_chunk_bytes_total", "Bytes of pipes sent to other hosts.";
    ignored, Counter, "parlor_messages_ignored_total", "Messages that the contract leaves unanswered.";
    moves, Counter, "parlor_connections_moved_total", "Connections that went to their key's shard.";
    mail_sent, Counter, "parlor_mail_sent_total", "Mail handed to other shards.";
    mail_waiting, Gauge, "parlor_mail_waiting", "Mail that waits for room in a ring.";
    letters_ignored, Counter, "parlor_letters_ignored_total", "Letters from other hosts to nobody here.";
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

numbers! {
    /// All numbers of the thread that speaks to Redis and to other hosts.
    ClusterCounters:
    redis_connected, Gauge, "parlor_redis_connected", "Whether both connections to Redis are there.";
    redis_commands, Counter, "parlor_redis_commands_total", "Commands sent to Redis.";
    redis_failed, Counter, "parlor_redis_replies_failed_total", "Commands that were refused or lost.";
    redis_publishes, Counter, "parlor_redis_publishes_total", "Messages published.";
    redis_pushes, Counter, "parlor_redis_pushes_total", "Published messages that came in.";
    redis_reconnects, Counter, "parlor_redis_reconnects_total", "Connections to Redis that were lost.";
    redis_subscriptions, Gauge, "parlor_redis_subscriptions", "Channels that are listened to.";
    redis_queue, Gauge, "parlor_redis_queue", "Commands that wait for Redis or its replies.";
    redis_bytes_sent, Counter, "parlor_redis_bytes_sent_total", "Bytes of keys, members and payloads sent.";
    redis_bytes_received, Counter, "parlor_redis_bytes_received_total", "Bytes of replies and messages received.";
    hosts, Gauge, "parlor_hosts", "Other hosts that this one has a relation to.";
    relations_ended, Counter, "parlor_relations_ended_total", "Relations to other hosts that have ended.";
    letters_sent, Counter, "parlor_letters_sent_total", "Letters sent to other hosts.";
    letters_received, Counter, "parlor_letters_received_total", "Letters received from other hosts.";
    letters_dropped, Counter, "parlor_letters_dropped_total", "Letters to hosts whose relation has ended.";
    messages_refused, Counter, "parlor_host_messages_refused_total", "Messages in our channels that are none.";
    rendezvous_ignored, Counter, "parlor_rendezvous_ignored_total", "What others published or said to rendezvous that is nothing.";
    pairing_matches, Counter, "parlor_pairing_distant_matches_total", "Waiters that were matched with one of another host or server.";
    pairing_commands, Counter, "parlor_pairing_commands_total", "Commands sent to Redis for pairing, letters not counted.";
    pairing_dropped, Counter, "parlor_pairing_ids_dropped_total", "Ids taken off the list of waiters that were nobody's.";
    pairing_ignored, Counter, "parlor_pairing_signals_ignored_total", "What others said about pairing that makes no sense.";
    mail_waiting, Gauge, "parlor_cluster_mail_waiting", "Mail for shards that waits for room in a ring.";
    panics, Counter, "parlor_cluster_panics_total", "Panics over Redis and other hosts.";
}

/// All that the thread that speaks to Redis says of itself.
#[derive(Debug, Default)]
pub struct ClusterMetrics {
    /// The plain numbers.
    pub counters: ClusterCounters,
    /// How long replies of Redis take.
    pub replies: Histogram,
    /// How long the last call of each kind took, in microseconds; by [`Call`].
    pub last_calls_us: [Number; Call::COUNT],
    /// When our own heartbeat last came back, in milliseconds since the start, and one more; 0 if it is not there.
    returned: Number,
}

impl ClusterMetrics {
    /// Our own heartbeat came back at this time, or the way that it came is not there any more.
    pub fn set_returned(&self, at_ms: Option<u64>) {
        self.returned.set(at_ms.map_or(0, |at_ms| at_ms + 1));
    }

    /// Whether publishing and subscribing are both proven.
    #[must_use]
    pub fn is_ready(&self, now_ms: u64) -> bool {
        let returned = self.returned.value();
        returned > 0 && now_ms.saturating_sub(returned - 1) < HOST_PROOF_MS
    }
}

/// What the rendezvous original tells apart when it says how long Redis took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the original's")]
pub enum Call {
    Get,
    Set,
    Delete,
    Publish,
    Subscribe,
}

impl Call {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// How often something took how long, in buckets whose number is fixed.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each of [`Histogram::BOUNDS`], and one for what took longer.
    buckets: [Number; Self::BOUNDS.len() + 1],
    sum_us: Number,
}

impl Histogram {
    /// The upper bounds of the buckets, in microseconds and as Prometheus is told them, in seconds.
    pub const BOUNDS: [(u64, &str); 12] = [
        (250, "0.00025"),
        (500, "0.0005"),
        (1_000, "0.001"),
        (2_500, "0.0025"),
        (5_000, "0.005"),
        (10_000, "0.01"),
        (25_000, "0.025"),
        (50_000, "0.05"),
        (100_000, "0.1"),
        (250_000, "0.25"),
        (1_000_000, "1"),
        (2_500_000, "2.5"),
    ];

    /// Something took so many microseconds.
    pub fn add(&self, us: u64) {
        let at = Self::BOUNDS.iter().position(|(bound, _)| us <= *bound).unwrap_or(Self::BOUNDS.len());
        self.buckets[at].add(1);
        self.sum_us.add(us);
    }

    /// For each bound, and last for none, how often something took no longer.
    #[must_use]
    pub fn cumulated(&self) -> [u64; Self::BOUNDS.len() + 1] {
        let mut sum = 0;
        std::array::from_fn(|at| {
            sum += self.buckets[at].value();
            sum
        })
    }

    /// Microseconds that all together took.
    #[must_use]
    pub fn sum_us(&self) -> u64 {
        self.sum_us.value()
    }
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
        for description in Counters::DESCRIPTIONS.iter().chain(ClusterCounters::DESCRIPTIONS) {
            assert_eq!(description.name.ends_with("_total"), description.kind == Kind::Counter);
        }
    }

    #[test]
    fn a_bucket_holds_what_is_up_to_its_bound() {
        let histogram = Histogram::default();
        for us in [1, 250, 251, 2_500_000, 2_500_001] {
            histogram.add(us);
        }
        let cumulated = histogram.cumulated();
        assert_eq!((cumulated[0], cumulated[1], cumulated[11], cumulated[12]), (2, 3, 4, 5));
        assert_eq!(histogram.sum_us(), 1 + 250 + 251 + 2_500_000 + 2_500_001);
        assert!(Histogram::BOUNDS.is_sorted_by_key(|(us, _)| *us));
        for (us, seconds) in Histogram::BOUNDS {
            let parsed = seconds.parse::<f64>().expect("a number");
            assert!((parsed * 1e6 - us as f64).abs() < 1e-6, "{seconds}");
        }
    }

    #[test]
    fn readiness_ends_by_itself() {
        let metrics = ClusterMetrics::default();
        assert!(!metrics.is_ready(0), "never seen");
        metrics.set_returned(Some(0));
        assert!(
            metrics.is_ready(0) && metrics.is_ready(HOST_PROOF_MS - 1) && !metrics.is_ready(HOST_PROOF_MS)
        );
        metrics.set_returned(None);
        assert!(!metrics.is_ready(1));
    }
}
