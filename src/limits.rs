//! Every bound of the server, in one place, related by const assertions.
//!
//! What an operator may set is in [`Limits`]; what is fixed is a constant. A full queue is a decision, and the
//! decision stands beside its limit.

/// Longest upgrade or HTTP request head in bytes. Longer: 431, then the connection is closed.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// A plain HTTP connection that asks nothing for so long is closed.
pub const KEEP_ALIVE_IDLE_MS: u64 = 60_000;
/// After a close of our own we wait so long for the answer, then end TCP (protocols.md section 0, close).
pub const CLOSE_DEADLINE_MS: u64 = 5_000;
/// Longest payload of a control frame, RFC 6455 section 5.5.
pub const CONTROL_PAYLOAD_MAX: usize = 125;
/// Deepest nesting of arrays and objects that is still JSON (protocols.md section 0, JSON).
pub const JSON_DEPTH_MAX: usize = 1_000;
/// Longest user id that `auth` makes us remember, in bytes; a longer one is not remembered.
pub const USER_ID_BYTES_MAX: usize = 128;

/// The window of all rates but the rendezvous' own, in milliseconds.
pub const RATE_WINDOW_MS: u32 = 1_000;
/// Messages of a directory client per window; over it each is answered with an error (protocols.md section 3).
pub const DIRECTORY_MESSAGES_MAX: u32 = 50;
/// Largest message of a directory client in bytes (protocols.md section 0, size).
pub const DIRECTORY_MESSAGE_BYTES_MAX: usize = 65_536;
/// Rooms and introductions allow so many times [`Limits::messages_per_second_max`] before reading stops.
pub const PAUSED_MESSAGES_FACTOR: u32 = 5;

/// Most documents of one peer: each `join` walks through them. One more: close 1013 `too many documents`.
pub const DOCUMENTS_PER_PEER_MAX: usize = 10_000;
/// Most bytes of documents' names that are written for one message. Each of the sender's introductions takes about as
/// many of its outbox, so a sender that would pass this is far over its bound, and is closed for it at once.
pub const INTRODUCTION_KEYS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest id of a peer in bytes that another host may name: ids come in request heads.
pub const PEER_ID_BYTES_MAX: usize = HEAD_BYTES_MAX;
/// Registrations of introductions that a shard has under way. What would be one more waits, one entry a peer, and only
/// the last state of that peer is registered then.
pub const REGISTRATIONS_MAX: usize = 1_024;
/// Registrations that have failed though Redis is there are tried again after so long, in milliseconds.
pub const REGISTRATION_RETRY_MS: u64 = 1_000;
/// Most peers that have left while Redis was away and are taken out of it when it is back. Of more, entries stay behind
/// that nobody answers for, until this host is gone.
pub const PARTINGS_MAX: usize = 65_536;
/// The same for ends of pipes that do not wait any more. Names are up to two heads of requests each.
pub const PIPE_PARTINGS_MAX: usize = 4_096;

/// Bytes that wait for one end of a pipe before nothing more is read from the other. One read more may come on top.
pub const PIPE_OUTBOX_BYTES_HIGH: usize = 256 * 1024;
/// Bytes that wait for one end of a pipe when the other is read from again.
pub const PIPE_OUTBOX_BYTES_LOW: usize = 64 * 1024;

/// Most bytes of a pipe in one letter to another host.
pub const PIPE_CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Bytes that may be on their way, in each direction of a pipe between two hosts, or wait there to be sent on: what
/// Redis and the other host keep of it at the most. Who has more is not read from.
pub const PIPE_CREDIT_BYTES: usize = 256 * 1024;
/// Credit is given back when so many bytes of it have gone on.
pub const PIPE_CREDIT_BYTES_MIN: usize = PIPE_CREDIT_BYTES / 4;
/// Ends of pipes that could not be registered though Redis is there are tried again after so long, in milliseconds.
pub const PIPE_RETRY_MS: u64 = 1_000;

/// Most shards of a host: the shard part of a client id has 8 bits, and the last number is the cluster's.
pub const SHARDS_MAX: usize = 255;
/// Most connections of a shard: the slot part of a client id has 24 bits. One more is closed at once.
pub const CLIENTS_PER_SHARD_MAX: usize = 1 << 24;

/// Largest record that a shard keeps of one connection, in bytes.
pub const RECORD_BYTES_MAX: usize = 256;

/// Bytes that one recv(2) may bring: the scratch that all clients of a shard are read into. Many frames fit, which
/// halves the calls under load.
pub const READ_SCRATCH_BYTES: usize = 64 * 1024;
/// Shared bytes up to this length are copied into an outbox; longer ones are kept by reference.
pub const COPY_MAX: usize = 4 * 1024;
/// Most pieces that one gather write hands to the kernel.
pub const GATHER_MAX: usize = 16;
/// Buffers that a shard keeps for the next client that needs one, and the largest that it keeps. What is over goes
/// back to the allocator.
pub const POOLED_BUFFERS_MAX: usize = 1_024;
/// See [`POOLED_BUFFERS_MAX`].
pub const POOLED_BUFFER_BYTES_MAX: usize = 8 * 1024;
/// Smallest buffer that is handed out, in bytes.
pub const BUFFER_BYTES_MIN: usize = 512;

/// Frames up to this length cross shards inside the ring; longer ones as reference-counted bytes.
pub const MAIL_INLINE_BYTES: usize = 336;
/// Largest element of a ring, in bytes.
pub const MAIL_BYTES_MAX: usize = 400;
/// Mail that waits for room in a ring before the shard stops reading from clients. Reading goes on below half.
/// Nothing is dropped: what is handled already may still add to it, and that is bounded by one read per client.
pub const MAIL_WAITING_MAX: usize = 1_024;

/// A host tells the others so often that it is there, in milliseconds.
pub const HOST_HEARTBEAT_MS: u64 = 1_000;
/// Our own heartbeats prove the way through Redis for as long as they come back no further apart.
pub const HOST_PATH_GAP_MS: u64 = 2 * HOST_HEARTBEAT_MS;
/// A host that was not heard for so long, while our own heartbeats came back, is dead.
pub const HOST_SILENCE_MS: u64 = 4 * HOST_HEARTBEAT_MS;
/// A host that stood still for so long must suppose that the others have given it up: its last heartbeat was a second
/// old when it stopped.
pub const HOST_PAUSE_MS: u64 = HOST_SILENCE_MS - HOST_HEARTBEAT_MS;
/// We are ready for so long after our own heartbeat came back.
pub const HOST_PROOF_MS: u64 = 3 * HOST_HEARTBEAT_MS;
/// Subscriptions that seem to be there, but have not brought back our own heartbeat for so long, are made anew.
pub const HOST_WEDGED_MS: u64 = 4 * HOST_HEARTBEAT_MS;
/// An answer that says the same as the one before is not given again sooner, whatever a neighbour asks.
pub const HOST_ANSWER_MS: u64 = 50;
/// A host tells another one that it has a relation to how much it has written to it so often, in milliseconds, even if
/// that is nothing new: what says so may be lost with what it speaks of.
pub const HOST_MARK_MS: u64 = 5 * HOST_HEARTBEAT_MS;
/// Most other hosts. More are not talked to, which is logged once.
pub const HOSTS_MAX: usize = 1_024;
/// A host is remembered for so many seconds after it was last seen, longer than what it leaves in Redis.
pub const HOST_ROLL_AGE_S: u64 = 2 * RENDEZVOUS_EXPIRY_S;
/// Hosts that are none of ours, because ids were met that look as if they were: so many are remembered.
pub const STRANGERS_MAX: usize = 65_536;
/// The roll of hosts is read so often, in milliseconds.
pub const HOST_ROLL_MS: u64 = 60_000;
/// The sets of rendezvous expire in so many seconds (protocols.md section 6).
pub const RENDEZVOUS_EXPIRY_S: u64 = 43_200;
/// The sets are renewed, and looked at, so often, in milliseconds.
pub const RENDEZVOUS_RENEWAL_MS: u64 = 3_600_000;
/// What Redis refused for a client is tried again after so many milliseconds.
pub const RENDEZVOUS_RETRY_MS: u64 = 1_000;
/// Clients that Redis is asked about at the same time while many are registered again. Others wait for their turn.
pub const RENDEZVOUS_ASKED_MAX: usize = 1_024;
/// Counterparts on other hosts that a host's clients were told of, all clients together. Further ones are not announced:
/// nobody is told that they leave either, and they can be reached by whoever knows their ids.
pub const RENDEZVOUS_KNOWN_MAX: usize = 1 << 20;
/// Most notices to clients in one piece of mail.
pub const RENDEZVOUS_NOTICES_MAX: usize = 1_024;
/// Clients that have left and are not out of the sets yet, since Redis is away or refuses. One more is forgotten: whoever
/// looks for it finds it missing, and its id goes when this host does.
pub const RENDEZVOUS_LEAVING_MAX: usize = 1 << 17;
/// Bytes of messages that wait until Redis has said whether their foreign targets are there. A message that would pass
/// it finds its target missing; one alone always passes.
pub const RENDEZVOUS_HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Whoever waits for what became of a message is told that its target is missing after so many milliseconds: only a host
/// that is not what it seems leaves one without an answer for as long.
pub const RENDEZVOUS_ANSWER_MS: u64 = 10_000;
/// Longest id of a client that is none of ours, in bytes. Longer ones are nobody's.
pub const FOREIGN_ID_BYTES_MAX: usize = 128;
/// Longest message that is published to a rendezvous client, in bytes. Longer ones are ignored, and so is what is longer
/// than the client's outbox may be.
pub const PUBLISHED_BYTES_MAX: usize = HOST_FRAME_BYTES_MAX;
/// Mail to another host is sent when so many bytes have gathered, else at the end of a turn.
pub const HOST_MAIL_BYTES: usize = 256 * 1024;
/// Most letters in one piece of mail from another host. With more it is refused.
pub const HOST_LETTERS_MAX: usize = 65_536;
/// Longest frame that goes to another host. The sender of a longer one is closed 1009: Redis cuts subscribers that
/// have 32 MiB to catch up with.
pub const HOST_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Who waits for a partner alone is lent to the cluster after one to two times so many milliseconds. Two that come
/// within that time cost Redis nothing, and a client is on the list in Redis within 50 ms (protocols.md section 6).
pub const PAIRING_REMINDER_MS: u64 = 10;
/// Those who came after one who is lent are matched without it when the cluster does not give it back for so long.
pub const PAIRING_RECALL_MS: u64 = 250;
/// Another host that was asked for its client is given up after so many milliseconds; if it answers later, its client
/// waits anew.
pub const PAIRING_ASK_MS: u64 = 1_000;
/// A host with a waiter on the list looks for others there so often, in milliseconds.
pub const PAIRING_RETRY_MS: u64 = 1_000;
/// A waiter that somebody has taken waits anew if no match follows for so long. Each entry in that time stands for a
/// loan, and a host lends one waiter at a time, each after [`PAIRING_REMINDER_MS`] at least.
pub const PAIRING_MATCH_MS: u64 = 2_000;
/// An id that somebody else had when it was to be taken off the list is looked for once more after so many milliseconds.
/// Who puts ids back does so within [`PAIRING_ASK_MS`] after it asked for them, and what it takes to get to Redis.
pub const PAIRING_STRAY_MS: u64 = 2 * PAIRING_MATCH_MS;
/// Most ids that are kept to be taken off the list when Redis is back. More stay there until somebody takes them, and
/// finds that they are nobody's.
pub const PAIRING_LEFTOVERS_MAX: usize = 1_024;
/// Most ids on the list that a waiter passes over because their hosts cannot be reached at the moment. With one more it
/// stays off the list until it looks again.
pub const PAIRING_PASSED_OVER_MAX: usize = 64;
/// Most matches of foreign servers that wait for a word of our shards. One more is answered by `partner-left`.
pub const PAIRING_CLAIMS_MAX: usize = 65_536;
/// Longest name of the directory, in bytes (protocols.md section 3).
pub const DIRECTORY_NAME_BYTES_MAX: usize = 64;
/// Most names that a host knows of the directory's list. More are not shown to its clients, and one of its own that would
/// be over it is closed 1013 `server busy`.
pub const DIRECTORY_NAMES_MAX: usize = 1 << 18;
/// A login waits so long for Redis, in milliseconds; then its client is closed 1013 `server busy`. `create` and `join`
/// in rooms wait as long, and are then answered as if there was no room.
pub const ANSWER_MS_MAX: u64 = 10_000;
/// The directory's list is not read again sooner because of what is published, in milliseconds; and a login that is to
/// be asked again is asked so often.
pub const DIRECTORY_PAUSE_MS: u64 = 500;
/// Where Redis has lost the directory's list, peers of other hosts that are there have so long to be in it again, in
/// milliseconds, before they are told to be gone.
pub const DIRECTORY_DOUBT_MS: u64 = 2_000;
/// Changes and letters that wait while the directory's list is read. A change over it is read with the list once more; a
/// letter over it ends the relation to its host, so that the loss is not silent.
pub const DIRECTORY_WAITING_MAX: usize = 65_536;
/// Bytes of such letters.
pub const DIRECTORY_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Ids that are tried for a new room before one of all that are free is looked for.
pub const ROOM_CANDIDATES: usize = 8;
/// What rooms could not ask Redis is asked again so often, in milliseconds.
pub const ROOM_PAUSE_MS: u64 = 500;
/// When Redis is back, perhaps empty, other hosts put their rooms back within so many milliseconds. What is not found before
/// that is asked for again.
pub const ROOM_RETURN_MS: u64 = 2_000;
/// Hosts that have said to be in a room that a client of this host may be about to come to. More are not remembered.
pub const ROOM_KNOCKS_MAX: usize = 1_024;

/// Commands that wait for Redis or its replies. One more fails at once: nobody waits for a Redis that does not keep
/// up, and a letter that cannot be sent ends the relation to its host, which is told to all whom it concerns.
pub const REDIS_COMMANDS_MAX: usize = 65_536;
/// Bytes of such commands. A command that would pass it fails at once; one alone always passes.
pub const REDIS_COMMAND_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most commands in one write to Redis.
pub const REDIS_BATCH_COMMANDS_MAX: usize = 1_024;
/// Most writes to Redis that wait for their replies. What comes then gathers for the next.
pub const REDIS_BATCHES_MAX: usize = 64;
/// Most channels in one SUBSCRIBE.
pub const REDIS_SUBSCRIBE_CHANNELS_MAX: usize = 1_024;
/// A connection to Redis is made in so many milliseconds, or tried again.
pub const REDIS_CONNECT_MS_MAX: u64 = 2_000;
/// A connection to Redis on which a reply takes longer, in milliseconds, is given up.
pub const REDIS_REPLY_MS_MAX: u64 = 4_000;
/// The pause before a lost connection to Redis is made anew, in milliseconds; it doubles each time.
pub const REDIS_PAUSE_MS_MIN: u64 = 50;
/// See [`REDIS_PAUSE_MS_MIN`].
pub const REDIS_PAUSE_MS_MAX: u64 = 1_000;
/// A connection to Redis that held for so many milliseconds was a good one: the next pause is short again.
pub const REDIS_GOOD_MS: u64 = 1_000;
/// Mail from other hosts that waits for room in the rings of shards that do not keep up. With more of it the
/// subscriptions are dropped, which ends the relations to all hosts: a loss is never silent.
pub const CLUSTER_MAIL_WAITING_MAX: usize = 65_536;
/// Bytes of such mail.
pub const CLUSTER_MAIL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Mail from the shards that the cluster handles in one go before Redis gets its turn.
pub const CLUSTER_MAIL_BATCH: usize = 4_096;
/// What is to be said to Redis when all shards have ended is said in so many milliseconds, or not at all.
pub const CLUSTER_FAREWELL_MS: u64 = 1_000;

/// Length of one step of a shard's timer wheel in milliseconds: deadlines are kept to this precision.
pub const TICK_MS: u64 = 50;
/// Steps of the wheel; a deadline further away goes round more than once.
pub const WHEEL_TICKS: usize = 1_024;

/// Entries of one mail ring in a host of `shards` shards: fewer per ring the more rings there are.
#[must_use]
pub const fn mail_ring_entries(shards: usize) -> usize {
    let entries = 4_096 / if shards == 0 { 1 } else { shards };
    if entries > 512 {
        512
    } else if entries < 64 {
        64
    } else {
        entries
    }
}

/// The bounds that an operator may set, per process or per client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest message in bytes, fragments added up. Over it: close 1009.
    pub message_bytes_max: usize,
    /// Most frames of one message, empty ones count. Over it: close 1009.
    pub fragments_max: u32,
    /// Most bytes that wait for one client. Over it: close 1013 `too slow`. One message into an empty outbox always
    /// passes.
    pub outbox_bytes_max: usize,
    /// Most bytes that the buffers of one shard hold (partial messages, outboxes, waiting mail). Who would pass it
    /// is closed 1013 `server busy`.
    pub shard_buffer_bytes: usize,
    /// Messages of one client per window of a second (protocols.md section 0, rate).
    pub messages_per_second_max: u32,
    /// Messages of one rendezvous client per [`Limits::rendezvous_window_ms`]. Over it: close 1013.
    pub rendezvous_messages_max: u32,
    /// The rendezvous' window in milliseconds.
    pub rendezvous_window_ms: u32,
    /// Milliseconds after the last `create` or `join` in a room until it expires.
    pub room_timeout_ms: u64,
    /// Bytes that are kept for a pipe's end that has not come. More: nothing more is read.
    pub pipe_hold_bytes: usize,
    /// Milliseconds that a pipe's end waits for the other before it is closed 1013; 0 for no limit.
    pub pipe_hold_ms: u64,
    /// Most pipe ends of the host that wait for the other, on all shards together. One more: close 1013.
    pub held_pipes_max: usize,
    /// Milliseconds between two pings; a client that was silent for twice as long is cut.
    pub heartbeat_ms: u64,
    /// Milliseconds that a request head may take, from accept or from its first byte.
    pub head_deadline_ms: u64,
}

impl Limits {
    /// Default of `MAX_MESSAGE_BYTES`.
    pub const MESSAGE_BYTES_MAX: usize = 1_048_576;
    /// Default of `MAX_FRAGMENTS`.
    pub const FRAGMENTS_MAX: u32 = 1_024;
    /// Default of `SHARD_BUFFER_BYTES`.
    pub const SHARD_BUFFER_BYTES: usize = 256 * 1024 * 1024;
    /// Default of `MAX_MSG_PER_SECOND`.
    pub const MESSAGES_PER_SECOND_MAX: u32 = 40;
    /// Default of `RATE_LIMIT_MESSAGES`.
    pub const RENDEZVOUS_MESSAGES_MAX: u32 = 100;
    /// Default of `RATE_LIMIT_MS`.
    pub const RENDEZVOUS_WINDOW_MS: u32 = 1_000;
    /// Default of `ROOM_TIMEOUT_MS`.
    pub const ROOM_TIMEOUT_MS: u64 = 300_000;
    /// Default of `PIPE_HOLD_BYTES`.
    pub const PIPE_HOLD_BYTES: usize = 1_048_576;
    /// Default of `PIPE_HOLD_MS`.
    pub const PIPE_HOLD_MS: u64 = 0;
    /// Default of `MAX_HELD_PIPES`.
    pub const HELD_PIPES_MAX: usize = 10_000;
    /// Default of `HEARTBEAT_MS`.
    pub const HEARTBEAT_MS: u64 = 25_000;
    /// Default of `HEAD_DEADLINE_MS`.
    pub const HEAD_DEADLINE_MS: u64 = 5_000;

    /// The default of `OUTBOX_MAX_BYTES` for a given `MAX_MESSAGE_BYTES` (protocols.md section 0, slow client).
    #[must_use]
    pub const fn outbox_bytes_max_for(message_bytes_max: usize) -> usize {
        message_bytes_max.saturating_mul(2).saturating_add(65_536)
    }

    /// The sum that is never passed, whatever peers do: bytes of user-space memory of `shards` shards that have
    /// `clients` connections each, where a connection's record and task take `record_bytes` and an element of
    /// mail `mail_bytes`.
    #[must_use]
    pub const fn memory_bytes_max(
        &self,
        shards: usize,
        clients: usize,
        record_bytes: usize,
        mail_bytes: usize,
    ) -> usize {
        let pools = POOLED_BUFFERS_MAX * POOLED_BUFFER_BYTES_MAX + READ_SCRATCH_BYTES;
        let shard = self.shard_buffer_bytes + pools + clients * record_bytes;
        shards * shard + shards * shards * mail_ring_entries(shards) * mail_bytes
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: Self::MESSAGE_BYTES_MAX,
            fragments_max: Self::FRAGMENTS_MAX,
            outbox_bytes_max: Self::outbox_bytes_max_for(Self::MESSAGE_BYTES_MAX),
            shard_buffer_bytes: Self::SHARD_BUFFER_BYTES,
            messages_per_second_max: Self::MESSAGES_PER_SECOND_MAX,
            rendezvous_messages_max: Self::RENDEZVOUS_MESSAGES_MAX,
            rendezvous_window_ms: Self::RENDEZVOUS_WINDOW_MS,
            room_timeout_ms: Self::ROOM_TIMEOUT_MS,
            pipe_hold_bytes: Self::PIPE_HOLD_BYTES,
            pipe_hold_ms: Self::PIPE_HOLD_MS,
            held_pipes_max: Self::HELD_PIPES_MAX,
            heartbeat_ms: Self::HEARTBEAT_MS,
            head_deadline_ms: Self::HEAD_DEADLINE_MS,
        }
    }
}

const _: () = assert!(BUFFER_BYTES_MIN <= POOLED_BUFFER_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX <= READ_SCRATCH_BYTES);
const _: () = assert!(CONTROL_PAYLOAD_MAX <= 125);
const _: () = assert!(PIPE_OUTBOX_BYTES_LOW < PIPE_OUTBOX_BYTES_HIGH);
const _: () = assert!(PIPE_CREDIT_BYTES_MIN + PIPE_CHUNK_BYTES_MAX < PIPE_CREDIT_BYTES);
const _: () = assert!(CLOSE_DEADLINE_MS > 2 * TICK_MS);
const _: () = assert!(HOST_HEARTBEAT_MS < HOST_PATH_GAP_MS && HOST_PATH_GAP_MS < HOST_SILENCE_MS);
const _: () = assert!(2 * PAIRING_REMINDER_MS < TICK_MS && PAIRING_ASK_MS < PAIRING_MATCH_MS);
const _: () = assert!(HOST_PROOF_MS <= HOST_WEDGED_MS, "who is wedged is not ready");
const _: () = assert!(HOST_FRAME_BYTES_MAX + HOST_MAIL_BYTES < REDIS_COMMAND_BYTES_MAX);
const _: () = assert!(RENDEZVOUS_RENEWAL_MS < RENDEZVOUS_EXPIRY_S * 1_000);
const _: () =
    assert!(2 * REDIS_REPLY_MS_MAX < RENDEZVOUS_ANSWER_MS && 2 * HOST_SILENCE_MS < RENDEZVOUS_ANSWER_MS);
const _: () = assert!(RENDEZVOUS_ASKED_MAX < REDIS_COMMANDS_MAX);
const _: () = assert!(
    DIRECTORY_NAMES_MAX * (DIRECTORY_NAME_BYTES_MAX + 64) < CLUSTER_MAIL_BYTES_MAX,
    "a shard that does not keep up is told of all names"
);
const _: () = assert!(
    Limits::outbox_bytes_max_for(Limits::MESSAGE_BYTES_MAX) < Limits::SHARD_BUFFER_BYTES,
    "one slow client alone must not use up a shard"
);
