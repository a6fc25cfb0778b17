//! A host's two connections to Redis, as `redis/` plays them: commands in order, replies in order, everything late, and
//! all that is under way lost with a connection.

use std::collections::{BTreeSet, VecDeque};

use super::redis::Redis;
use crate::cluster::{Command, Connection, Reply, Token};

/// What a connection brings to its host.
#[derive(Debug)]
pub(super) enum Happening {
    Connected(Connection),
    Disconnected(Connection),
    Reply(Token, Reply),
    Subscribed(Vec<u8>),
    Push(Vec<u8>, Vec<u8>),
}

impl std::fmt::Display for Happening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(token, reply) => write!(f, "{token:?} {}", said(reply)),
            Self::Subscribed(channel) => write!(f, "subscribed {}", channel.escape_ascii()),
            Self::Push(channel, payload) => {
                write!(f, "{}: {}", channel.escape_ascii(), payload.escape_ascii())
            }
            Self::Connected(_) | Self::Disconnected(_) => write!(f, "{self:?}"),
        }
    }
}

/// Something that is under way until a time.
type Late<T> = VecDeque<(u64, T)>;

/// A command or a wish under way to Redis.
#[derive(Debug)]
enum Wish {
    Subscribe(Vec<u8>),
    Unsubscribe(Vec<u8>),
}

/// Both connections of one host.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Its number among those that Redis tells what is published.
    pub(super) listener: usize,
    can_ask: bool,
    can_listen: bool,
    /// When each is made anew.
    ask_again_ms: u64,
    listen_again_ms: u64,
    commands: Late<(Token, Command)>,
    /// Sent and not answered, in order; the answers are under way.
    unanswered: VecDeque<Token>,
    replies: Late<(Token, Reply)>,
    channels: BTreeSet<Vec<u8>>,
    wishes: Late<Wish>,
    pushes: Late<Happening>,
    /// Mail to this host is lost until then, and nobody is told.
    pub(super) lossy_until_ms: u64,
    /// The cluster wants its subscriptions anew.
    pub(super) wants_resubscription: bool,
    /// Prints each command and its reply.
    trace: Option<fn(std::fmt::Arguments<'_>)>,
    /// What the host is told next, whatever the time.
    news: VecDeque<Happening>,
}

impl Links {
    /// Nothing is connected yet. Redis knows the host by this number.
    pub(super) fn new(listener: usize, trace: Option<fn(std::fmt::Arguments<'_>)>) -> Self {
        Self { listener, trace, ..Self::default() }
    }

    /// The cluster asks for a command.
    pub(super) fn command(&mut self, token: Token, command: Command, due_ms: u64) {
        if !self.can_ask {
            return self.news.push_back(Happening::Reply(token, Reply::Failed));
        }
        self.unanswered.push_back(token);
        push(&mut self.commands, due_ms, (token, command));
    }

    pub(super) fn subscribe(&mut self, channel: Vec<u8>, due_ms: u64) {
        if self.can_listen {
            push(&mut self.wishes, due_ms, Wish::Subscribe(channel.clone()));
        }
        self.channels.insert(channel);
    }

    pub(super) fn unsubscribe(&mut self, channel: Vec<u8>, due_ms: u64) {
        self.channels.remove(&channel);
        if self.can_listen {
            push(&mut self.wishes, due_ms, Wish::Unsubscribe(channel));
        }
    }

    /// What is still under way; empty when all has come to rest.
    pub(super) fn under_way(&self) -> String {
        let lens = [
            usize::from(!self.can_ask),
            usize::from(!self.can_listen),
            self.commands.len(),
            self.replies.len(),
            self.wishes.len(),
            self.pushes.len(),
            self.news.len(),
        ];
        if lens.iter().all(|len| *len == 0) {
            return String::new();
        }
        let first = self.commands.front();
        format!("not connected, commands, replies, wishes, pushes, news: {lens:?}, first {first:?} ")
    }

    /// The connection for commands is cut: what was not answered is lost.
    pub(super) fn lose_commands(&mut self, again_ms: u64) {
        self.ask_again_ms = again_ms;
        if std::mem::take(&mut self.can_ask) {
            self.commands.clear();
            self.replies.clear();
            self.news.push_back(Happening::Disconnected(Connection::Commands));
            let unanswered = std::mem::take(&mut self.unanswered);
            self.news.extend(unanswered.into_iter().map(|token| Happening::Reply(token, Reply::Failed)));
        }
    }

    /// The connection for what is published is cut.
    pub(super) fn lose_subscriptions(&mut self, redis: &mut Redis, again_ms: u64) {
        self.listen_again_ms = again_ms;
        redis.forget(self.listener);
        if std::mem::take(&mut self.can_listen) {
            self.wishes.clear();
            self.pushes.clear();
            self.news.push_back(Happening::Disconnected(Connection::Subscriptions));
        }
    }

    /// Makes what is not there, if Redis is.
    pub(super) fn connect(&mut self, now_ms: u64) {
        if !self.can_ask && now_ms >= self.ask_again_ms {
            self.can_ask = true;
            self.news.push_back(Happening::Connected(Connection::Commands));
        }
        if !self.can_listen && now_ms >= self.listen_again_ms {
            self.can_listen = true;
            self.news.push_back(Happening::Connected(Connection::Subscriptions));
            self.wishes =
                self.channels.iter().map(|channel| (now_ms, Wish::Subscribe(channel.clone()))).collect();
        }
    }

    /// Nothing stands in the way of connecting.
    pub(super) fn heal(&mut self) {
        (self.ask_again_ms, self.listen_again_ms, self.lossy_until_ms) = (0, 0, 0);
    }

    /// Redis carries out the next thing that has arrived there. False: there is none.
    pub(super) fn serve(&mut self, redis: &mut Redis, now_ms: u64, late_ms: u64) -> bool {
        if let Some(wish) = pop(&mut self.wishes, now_ms) {
            match wish {
                Wish::Subscribe(channel) => {
                    redis.subscribe(self.listener, &channel);
                    push(&mut self.pushes, now_ms + late_ms, Happening::Subscribed(channel));
                }
                Wish::Unsubscribe(channel) => redis.unsubscribe(self.listener, &channel),
            }
            return true;
        }
        let Some((token, command)) = pop(&mut self.commands, now_ms) else { return false };
        let reply = redis.run(&command);
        if let Some(print) = self.trace {
            print(format_args!(
                "{now_ms} Redis, from {}: {} -> {}",
                self.listener,
                shown(&command),
                said(&reply)
            ));
        }
        push(&mut self.replies, now_ms + late_ms, (token, reply));
        true
    }

    /// Something was published that this host listens to.
    pub(super) fn publish(&mut self, channel: Vec<u8>, payload: Vec<u8>, now_ms: u64, late_ms: u64) {
        if now_ms < self.lossy_until_ms && channel.starts_with(b"parlor:host:") {
            return;
        }
        let due_ms = now_ms + late_ms;
        push(&mut self.pushes, due_ms, Happening::Push(channel, payload));
    }

    /// What the host is told next.
    pub(super) fn poll(&mut self, now_ms: u64) -> Option<Happening> {
        if let Some(news) = self.news.pop_front() {
            return Some(news);
        }
        if let Some((token, reply)) = pop(&mut self.replies, now_ms) {
            self.unanswered.pop_front();
            return Some(Happening::Reply(token, reply));
        }
        pop(&mut self.pushes, now_ms)
    }
}

/// Behind all that is under way already.
fn push<T>(late: &mut Late<T>, due_ms: u64, item: T) {
    let due_ms = late.back().map_or(due_ms, |(last_ms, _)| due_ms.max(*last_ms));
    late.push_back((due_ms, item));
}

fn pop<T>(late: &mut Late<T>, now_ms: u64) -> Option<T> {
    if late.front()?.0 > now_ms {
        return None;
    }
    late.pop_front().map(|(_, item)| item)
}

/// A command for people.
fn shown(command: &Command) -> String {
    let words = |words: &[&Vec<u8>]| {
        words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
    };
    match command {
        Command::SetAdd { key, member, .. } => format!("SADD {}", words(&[key, member])),
        Command::SetRemove { key, member } => format!("SREM {}", words(&[key, member])),
        Command::SetMembers { key } => format!("SMEMBERS {}", words(&[key])),
        Command::SetContains { key, member } => format!("SISMEMBER {}", words(&[key, member])),
        Command::ListRemove { key, member } => format!("LREM {}", words(&[key, member])),
        Command::Expire { key, .. } => format!("EXPIRE {}", words(&[key])),
        Command::Publish { channel, payload } => {
            format!("PUBLISH {} {}", words(&[channel]), payload.escape_ascii())
        }
        Command::Run { script, keys, arguments } => {
            let all: Vec<&Vec<u8>> = keys.iter().chain(arguments).collect();
            format!("EVAL '{}' {}", script.source.lines().next().unwrap_or_default(), words(&all))
        }
    }
}

/// A reply for people.
fn said(reply: &Reply) -> String {
    match reply {
        Reply::Bytes(bytes) => bytes.escape_ascii().to_string(),
        Reply::List(items) => {
            items.iter().map(|item| item.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}
