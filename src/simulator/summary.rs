//! What happened in a run, so that a simulator that tests nothing does not go unseen.

use super::socket::ClientEnd;
use crate::metrics::Counters;

macro_rules! summary {
    ($($field:ident: $help:literal;)*) => {
        /// How often what happened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Summary {
            $(#[doc = $help] pub $field: u64,)*
        }

        impl Summary {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// All numbers with their names.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field)),*]
            }
        }
    };
}

summary! {
    runs: "Runs.";
    connections: "Connections accepted.";
    upgrades: "WebSockets opened.";
    matches: "Clients told of a match.";
    declined: "Matches that the older one's shard declined, told by mail.";
    frames_relayed: "Messages that clients received from partners.";
    frames_across: "Frames that crossed shards.";
    large_frames_across: "Of those, such as travel as shared bytes.";
    writes_blocked: "Writes that a socket did not take whole.";
    rings_full: "Mail that a ring did not take.";
    reading_paused: "Reads that waited because too much mail did.";
    finished: "Clients that ended TCP.";
    drops: "Clients that reset TCP.";
    half_open: "Clients that fell silent for good.";
    too_slow: "Clients closed because their outbox was full.";
    server_busy: "Clients closed because the buffers were used up.";
    protocol_errors: "Clients closed for breaking RFC 6455 or a limit.";
    rate_limited: "Messages over a client's rate.";
    requests: "Plain requests answered.";
    heads_refused: "Request heads answered 4xx.";
    heads_timed_out: "Heads that did not come in time.";
    heartbeats: "Pings of the server that clients received.";
    heartbeats_missed: "Clients cut because they were silent.";
    panics: "Clients cut as if the server had panicked over them.";
    quiet_points: "Times that all mail had arrived.";
    shutdowns: "Runs that ended in a shutdown.";
}

impl Summary {
    /// Counts a client's end of its connection.
    pub(super) fn count_end(&mut self, end: ClientEnd) {
        match end {
            ClientEnd::Open => {}
            ClientEnd::Finished => self.finished += 1,
            ClientEnd::Reset => self.drops += 1,
            ClientEnd::Silent => self.half_open += 1,
        }
    }

    /// Counts what a shard has counted at the end of a run.
    pub(super) fn count_shard(&mut self, counters: &Counters) {
        self.connections += counters.connections_accepted.value();
        self.upgrades += counters.upgrades.value();
        self.matches += counters.matches.value();
        self.writes_blocked += counters.writes_blocked.value();
        self.too_slow += counters.too_slow.value();
        self.server_busy += counters.server_busy.value();
        self.protocol_errors += counters.protocol_errors.value();
        self.rate_limited += counters.rate_limited.value();
        self.requests += counters.requests.value();
        self.heads_refused += counters.heads_refused.value();
        self.heads_timed_out += counters.heads_timed_out.value();
        self.heartbeats_missed += counters.heartbeats_missed.value();
    }
}
