//! What happened in a run, so that a simulator that tests nothing does not go unseen.

use super::connection::{Connection, Voice};
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
    undecided: "Runs that ended early because the books could not tell what must hold.";
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
    moves: "Sockets that went to another shard.";
    moves_dropped: "Of those, such as were lost on the way.";
    rate_pauses: "Times that a client said too much and was not read from for a while.";
    rate_resumes: "Times that it went on.";
    resumes: "Times that a client was read from again, for whatever reason.";
    rendezvous_data: "Messages that rendezvous clients received.";
    rendezvous_confirmed: "Confirmations that they received.";
    rendezvous_missing: "Messages whose target was missing.";
    rendezvous_too_fast: "Rendezvous clients closed for their rate.";
    presences: "Times that a client was told that another had come or gone.";
    logins: "Logins into the directory.";
    names_taken: "Logins under a name that was taken.";
    from_peers: "Messages that directory clients received from peers.";
    directory_too_fast: "Messages refused for their rate there.";
    rooms_created: "Rooms created.";
    rooms_joined: "Clients that entered a room of another.";
    rooms_expired: "Rooms that expired.";
    signals: "Messages that clients received from their rooms.";
    introductions: "Pairs of peers that were introduced.";
    takeovers: "Ids that a second client took over.";
    pipes_joined: "Pipes whose ends met.";
    pipes_completed: "Pipes whose URL was completed by the introductions.";
    pipes_replaced: "Ends that were replaced while they waited.";
    pipes_expired: "Ends that waited for too long.";
    pipes_refused: "Ends that were one too many.";
    pipe_bytes: "Bytes that ends received.";
    bytes_spliced: "Bytes that the kernel moved.";
    ends_passed_on: "Streams ended because the partner's was.";
    resets_passed_on: "Streams reset because the partner's was lost.";
    quiet_points: "Times that all mail had arrived.";
    shutdowns: "Runs that ended in a shutdown.";
}

impl Summary {
    /// Counts a client's end of its connection.
    pub(super) fn count_end(&mut self, end: ClientEnd) {
        match end {
            ClientEnd::Open => {}
            ClientEnd::Finished | ClientEnd::HalfFinished => self.finished += 1,
            ClientEnd::Reset => self.drops += 1,
            ClientEnd::Silent => self.half_open += 1,
        }
    }

    /// Counts what a client has received by the end of a run.
    pub(super) fn count_connection(&mut self, connection: &Connection) {
        match &connection.voice {
            Voice::Pairing(account) => self.frames_relayed += account.relays_received,
            Voice::Pipe(end) => self.pipe_bytes += end.bytes_received,
            Voice::Rendezvous(_) | Voice::Lobby(_) | Voice::Introductions(_) => {}
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
