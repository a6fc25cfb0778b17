//! What Redis keeps, and the commands that work on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Answer;

/// A value.
#[derive(Debug, Clone)]
enum Value {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    Set(BTreeSet<Vec<u8>>),
    List(VecDeque<Vec<u8>>),
    /// Members and their scores.
    Sorted(BTreeMap<Vec<u8>, f64>),
}

/// All keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    values: BTreeMap<Vec<u8>, Value>,
    expire_ms: BTreeMap<Vec<u8>, u64>,
}

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// Takes the value of a key as one kind, made if it is missing.
macro_rules! value {
    ($keys:expr, $key:expr, $kind:ident) => {
        match $keys.values.entry($key.to_vec()).or_insert_with(|| Value::$kind(Default::default())) {
            Value::$kind(value) => value,
            _ => return Answer::Error(WRONG_TYPE.into()),
        }
    };
}

impl Keys {
    /// Carries out a command. Empty collections are removed, as are keys that have expired.
    pub(super) fn call(&mut self, name: &str, arguments: &[Vec<u8>], now_ms: u64) -> Answer {
        self.expire(now_ms);
        let answer = self.dispatch(name, arguments, now_ms);
        self.drop_empty();
        answer
    }

    /// Keys whose values name this text, other than those about hosts, and about rooms, which outlive their members.
    pub(super) fn naming(&self, text: &str) -> Vec<String> {
        let shown = |value: &Value| match value {
            Value::Text(text) => text.escape_ascii().to_string(),
            Value::Hash(hash) => joined(hash.iter().flat_map(|(field, value)| [field, value])),
            Value::Set(set) => joined(set.iter()),
            Value::List(list) => joined(list.iter()),
            Value::Sorted(sorted) => joined(sorted.keys()),
        };
        let others = self
            .values
            .iter()
            .filter(|(key, _)| !matches!(key.as_slice(), b"parlor:hosts" | b"parlor:rooms:hosts"));
        let lines = others.map(|(key, value)| format!("{}: {}", key.escape_ascii(), shown(value)));
        lines.filter(|line| line.contains(text)).collect()
    }

    fn dispatch(&mut self, name: &str, arguments: &[Vec<u8>], now_ms: u64) -> Answer {
        let Some((key, rest)) = arguments.split_first() else { return wrong(name) };
        match name {
            "GET" | "SET" | "SETNX" | "INCR" | "INCRBY" | "GETDEL" => self.text(name, key, rest, now_ms),
            "DEL" | "EXISTS" | "UNLINK" => self.many(name, arguments),
            "EXPIRE" | "PEXPIRE" | "PERSIST" | "PTTL" | "TTL" => self.time(name, key, rest, now_ms),
            _ if name.starts_with('H') => self.hash(name, key, rest),
            "SADD" | "SREM" | "SMEMBERS" | "SISMEMBER" | "SCARD" => self.set(name, key, rest),
            _ if name.starts_with('Z') => self.sorted(name, key, rest),
            _ => self.list(name, key, rest),
        }
    }

    fn expire(&mut self, now_ms: u64) {
        let due: Vec<Vec<u8>> =
            self.expire_ms.iter().filter(|(_, at)| **at <= now_ms).map(|(key, _)| key.clone()).collect();
        for key in due {
            self.remove(&key);
        }
    }

    fn drop_empty(&mut self) {
        self.values.retain(|_, value| match value {
            Value::Text(_) => true,
            Value::Hash(hash) => !hash.is_empty(),
            Value::Set(set) => !set.is_empty(),
            Value::List(list) => !list.is_empty(),
            Value::Sorted(sorted) => !sorted.is_empty(),
        });
        self.expire_ms.retain(|key, _| self.values.contains_key(key));
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.expire_ms.remove(key);
        self.values.remove(key).is_some()
    }

    fn text(&mut self, name: &str, key: &Vec<u8>, rest: &[Vec<u8>], now_ms: u64) -> Answer {
        let before = match self.values.get(key) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(_) if name != "SET" => return Answer::Error(WRONG_TYPE.into()),
            _ => None,
        };
        match (name, rest) {
            ("GET", []) => before.map_or(Answer::Nil, Answer::Bytes),
            ("GETDEL", []) => {
                self.remove(key);
                before.map_or(Answer::Nil, Answer::Bytes)
            }
            ("SET", [value, options @ ..]) => {
                let options: Vec<String> = options
                    .iter()
                    .map(|option| String::from_utf8_lossy(option).to_ascii_uppercase())
                    .collect();
                if options.iter().any(|option| option == "NX") && self.values.contains_key(key) {
                    return Answer::Nil;
                }
                self.expire_ms.remove(key);
                for pair in options.windows(2) {
                    let unit = match pair[0].as_str() {
                        "EX" => 1_000,
                        "PX" => 1,
                        _ => continue,
                    };
                    self.expire_ms.insert(key.clone(), now_ms + unit * number(pair[1].as_bytes()) as u64);
                }
                self.values.insert(key.clone(), Value::Text(value.clone()));
                if options.iter().any(|option| option == "GET") {
                    return before.map_or(Answer::Nil, Answer::Bytes);
                }
                Answer::Done
            }
            ("SETNX", [value]) => {
                let is_new = before.is_none();
                if is_new {
                    self.values.insert(key.clone(), Value::Text(value.clone()));
                }
                Answer::Integer(i64::from(is_new))
            }
            ("INCR" | "INCRBY", by) => {
                let by = by.first().map_or(1, |by| number(by));
                let sum = before.map_or(0, |text| number(&text)) + by;
                self.values.insert(key.clone(), Value::Text(sum.to_string().into_bytes()));
                Answer::Integer(sum)
            }
            _ => wrong(name),
        }
    }

    fn many(&mut self, name: &str, keys: &[Vec<u8>]) -> Answer {
        let is_there = |one: &mut Self, key: &Vec<u8>| match name {
            "EXISTS" => one.values.contains_key(key),
            _ => one.remove(key),
        };
        Answer::Integer(keys.iter().filter(|key| is_there(self, key)).count() as i64)
    }

    fn time(&mut self, name: &str, key: &Vec<u8>, rest: &[Vec<u8>], now_ms: u64) -> Answer {
        let is_there = self.values.contains_key(key);
        match (name, rest) {
            ("EXPIRE" | "PEXPIRE", [time, ..]) => {
                let unit = if name == "EXPIRE" { 1_000 } else { 1 };
                if is_there {
                    self.expire_ms.insert(key.clone(), now_ms + unit * number(time).max(0) as u64);
                }
                Answer::Integer(i64::from(is_there))
            }
            ("PERSIST", []) => Answer::Integer(i64::from(self.expire_ms.remove(key).is_some())),
            ("PTTL" | "TTL", []) => {
                let unit = if name == "TTL" { 1_000 } else { 1 };
                let left = self.expire_ms.get(key).map(|at| (at - now_ms) as i64 / unit);
                Answer::Integer(left.unwrap_or(if is_there { -1 } else { -2 }))
            }
            _ => wrong(name),
        }
    }

    fn hash(&mut self, name: &str, key: &[u8], rest: &[Vec<u8>]) -> Answer {
        let hash = value!(self, key, Hash);
        match (name, rest) {
            ("HGET", [field]) => hash.get(field).map_or(Answer::Nil, |value| Answer::Bytes(value.clone())),
            ("HEXISTS", [field]) => Answer::Integer(i64::from(hash.contains_key(field))),
            ("HSETNX", [field, value]) => {
                let is_new = !hash.contains_key(field);
                hash.entry(field.clone()).or_insert_with(|| value.clone());
                Answer::Integer(i64::from(is_new))
            }
            ("HSET" | "HMSET", pairs) if pairs.len() % 2 == 0 => {
                let before = hash.len();
                for pair in pairs.chunks(2) {
                    hash.insert(pair[0].clone(), pair[1].clone());
                }
                Answer::Integer((hash.len() - before) as i64)
            }
            ("HINCRBY", [field, by]) => {
                let sum = hash.get(field).map_or(0, |text| number(text)) + number(by);
                hash.insert(field.clone(), sum.to_string().into_bytes());
                Answer::Integer(sum)
            }
            ("HDEL", fields) => {
                Answer::Integer(fields.iter().filter(|field| hash.remove(*field).is_some()).count() as i64)
            }
            ("HMGET", fields) => {
                let get = |field| hash.get(field).map_or(Answer::Nil, |value| Answer::Bytes(value.clone()));
                Answer::List(fields.iter().map(get).collect())
            }
            ("HLEN", []) => Answer::Integer(hash.len() as i64),
            ("HKEYS", []) => bytes(hash.keys()),
            ("HVALS", []) => bytes(hash.values()),
            ("HGETALL", []) => bytes(hash.iter().flat_map(|(field, value)| [field, value])),
            _ => wrong(name),
        }
    }

    fn set(&mut self, name: &str, key: &[u8], rest: &[Vec<u8>]) -> Answer {
        let set = value!(self, key, Set);
        match (name, rest) {
            ("SADD", members) => {
                Answer::Integer(members.iter().filter(|member| set.insert((*member).clone())).count() as i64)
            }
            ("SREM", members) => {
                Answer::Integer(members.iter().filter(|member| set.remove(*member)).count() as i64)
            }
            ("SISMEMBER", [member]) => Answer::Integer(i64::from(set.contains(member))),
            ("SMEMBERS", []) => bytes(set.iter()),
            ("SCARD", []) => Answer::Integer(set.len() as i64),
            _ => wrong(name),
        }
    }

    fn list(&mut self, name: &str, key: &[u8], rest: &[Vec<u8>]) -> Answer {
        let list = value!(self, key, List);
        match (name, rest) {
            ("LPUSH", items) => items.iter().for_each(|item| list.push_front(item.clone())),
            ("RPUSH", items) => items.iter().for_each(|item| list.push_back(item.clone())),
            ("LPOP", []) => return list.pop_front().map_or(Answer::Nil, Answer::Bytes),
            ("RPOP", []) => return list.pop_back().map_or(Answer::Nil, Answer::Bytes),
            ("LREM", [count, item]) if number(count) == 0 => {
                let before = list.len();
                list.retain(|other| other != item);
                return Answer::Integer((before - list.len()) as i64);
            }
            ("LREM", [count, item]) if number(count) == -1 => {
                let at = list.iter().rposition(|other| other == item);
                return Answer::Integer(i64::from(at.and_then(|at| list.remove(at)).is_some()));
            }
            ("LRANGE", [first, last]) => {
                let at = |bound: &[u8]| match number(bound) {
                    bound @ ..0 => (list.len() as i64 + bound).max(0) as usize,
                    bound => bound as usize,
                };
                let (first, last) = (at(first), at(last));
                return bytes(list.iter().take(last.saturating_add(1)).skip(first));
            }
            ("LINDEX", [at]) => {
                let at = number(at);
                let at = if at < 0 { list.len() as i64 + at } else { at };
                let item = usize::try_from(at).ok().and_then(|at| list.get(at));
                return item.map_or(Answer::Nil, |item| Answer::Bytes(item.clone()));
            }
            ("LPOS", [item]) => {
                let at = list.iter().position(|other| other == item);
                return at.map_or(Answer::Nil, |at| Answer::Integer(at as i64));
            }
            ("LLEN", []) => {}
            _ => return wrong(name),
        }
        Answer::Integer(list.len() as i64)
    }

    fn sorted(&mut self, name: &str, key: &[u8], rest: &[Vec<u8>]) -> Answer {
        let sorted = value!(self, key, Sorted);
        match (name, rest) {
            ("ZADD", [option, score_of, member]) if option == b"NX" => {
                let is_new = !sorted.contains_key(member);
                sorted.entry(member.clone()).or_insert_with(|| score(score_of));
                Answer::Integer(i64::from(is_new))
            }
            ("ZADD", pairs) if pairs.len() % 2 == 0 => {
                let before = sorted.len();
                for pair in pairs.chunks(2) {
                    sorted.insert(pair[1].clone(), score(&pair[0]));
                }
                Answer::Integer((sorted.len() - before) as i64)
            }
            ("ZREM", members) => Answer::Integer(
                members.iter().filter(|member| sorted.remove(*member).is_some()).count() as i64,
            ),
            ("ZSCORE", [member]) => {
                sorted.get(member).map_or(Answer::Nil, |score| Answer::Bytes(score.to_string().into_bytes()))
            }
            ("ZCARD", []) => Answer::Integer(sorted.len() as i64),
            ("ZREMRANGEBYSCORE", [low, high]) => {
                let (before, low, high) = (sorted.len(), score(low), score(high));
                sorted.retain(|_, score| *score < low || *score > high);
                Answer::Integer((before - sorted.len()) as i64)
            }
            ("ZRANGE", [first, last, options @ ..]) => {
                let mut members = in_order(sorted, |_| true);
                let (first, last) = (place(first, members.len()), place(last, members.len()));
                members.truncate(usize::try_from(last + 1).unwrap_or_default());
                members.drain(..members.len().min(usize::try_from(first).unwrap_or_default()));
                match options {
                    [] => bytes(members.iter().map(|(member, _)| member)),
                    [scores] if scores.eq_ignore_ascii_case(b"WITHSCORES") => with_scores(members),
                    _ => wrong(name),
                }
            }
            ("ZRANGEBYSCORE", [low, high]) => {
                let (low, high) = (score(low), score(high));
                let members = in_order(sorted, |score| (low..=high).contains(&score));
                bytes(members.iter().map(|(member, _)| member))
            }
            _ => wrong(name),
        }
    }
}

fn in_order(sorted: &BTreeMap<Vec<u8>, f64>, is_in: impl Fn(f64) -> bool) -> Vec<(Vec<u8>, f64)> {
    let scores = sorted.iter().map(|(member, score)| (member.clone(), *score));
    let mut members: Vec<(Vec<u8>, f64)> = scores.filter(|(_, score)| is_in(*score)).collect();
    members.sort_by(|(a, x), (b, y)| x.total_cmp(y).then_with(|| a.cmp(b)));
    members
}

fn with_scores(members: Vec<(Vec<u8>, f64)>) -> Answer {
    let pairs = members.into_iter().flat_map(|(member, score)| [member, score.to_string().into_bytes()]);
    Answer::List(pairs.map(Answer::Bytes).collect())
}

/// Where a place is that may be counted from the end; it may be before the first.
fn place(text: &[u8], len: usize) -> i64 {
    let at = number(text);
    if at < 0 { (len as i64 + at).max(-1) } else { at }
}

fn bytes<'a>(items: impl Iterator<Item = &'a Vec<u8>>) -> Answer {
    Answer::List(items.map(|item| Answer::Bytes(item.clone())).collect())
}

fn joined<'a>(items: impl Iterator<Item = &'a Vec<u8>>) -> String {
    items.map(|item| item.escape_ascii().to_string()).collect::<Vec<_>>().join(" ")
}

fn number(text: &[u8]) -> i64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn score(text: &[u8]) -> f64 {
    match text {
        b"-inf" => f64::NEG_INFINITY,
        b"+inf" | b"inf" => f64::INFINITY,
        text => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default(),
    }
}

fn wrong(name: &str) -> Answer {
    Answer::Error(format!("{name} is not simulated, or its arguments are wrong"))
}
