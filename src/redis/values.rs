//! Commands and replies, as the client has them.

use redis::{Cmd, Pipeline, Value};

use super::scripts::Scripts;
use crate::cluster::{Command, Reply};
use crate::metrics::Call;

/// What the rendezvous original calls this command; nothing if it has none of the kind.
pub(super) fn call_of(command: &Command) -> Option<Call> {
    match command {
        Command::SetMembers { .. } | Command::SetContains { .. } => Some(Call::Get),
        Command::SetAdd { .. } | Command::Expire { .. } => Some(Call::Set),
        Command::SetRemove { .. } => Some(Call::Delete),
        Command::Publish { .. } => Some(Call::Publish),
        Command::ListRemove { .. } | Command::Run { .. } => None,
    }
}

/// Whether a replica refuses this command. Scripts count as such.
pub(super) fn is_write(command: &Command) -> bool {
    match command {
        Command::SetAdd { .. }
        | Command::SetRemove { .. }
        | Command::ListRemove { .. }
        | Command::Expire { .. }
        | Command::Run { .. } => true,
        Command::SetMembers { .. } | Command::SetContains { .. } | Command::Publish { .. } => false,
    }
}

/// Adds a command to those that are sent together. Returns how many replies it has; the first is the one that counts.
pub(super) fn add(pipeline: &mut Pipeline, command: &Command, scripts: &mut Scripts) -> usize {
    let before = pipeline.len();
    match command {
        Command::SetAdd { key, member, expire_s } => {
            pipeline.add_command(of("SADD", [key, member]));
            if let Some(expire_s) = expire_s {
                pipeline.add_command(expire(key, *expire_s));
            }
        }
        Command::SetRemove { key, member } => {
            pipeline.add_command(of("SREM", [key, member]));
        }
        Command::SetMembers { key } => {
            pipeline.add_command(of("SMEMBERS", [key]));
        }
        Command::SetContains { key, member } => {
            pipeline.add_command(of("SISMEMBER", [key, member]));
        }
        Command::ListRemove { key, member } => {
            let mut command = redis::cmd("LREM");
            command.arg(key).arg(0).arg(member);
            pipeline.add_command(command);
        }
        Command::Expire { key, expire_s } => {
            pipeline.add_command(expire(key, *expire_s));
        }
        Command::Publish { channel, payload } => {
            let mut command = redis::cmd("PUBLISH");
            command.arg(channel).arg(&payload[..]);
            pipeline.add_command(command);
        }
        Command::Run { script, keys, arguments } => {
            pipeline.add_command(scripts.call(script, keys, arguments));
        }
    }
    pipeline.len() - before
}

fn of<const N: usize>(name: &str, arguments: [&Vec<u8>; N]) -> Cmd {
    let mut command = redis::cmd(name);
    for argument in arguments {
        command.arg(argument);
    }
    command
}

fn expire(key: &[u8], expire_s: u64) -> Cmd {
    let mut command = redis::cmd("EXPIRE");
    command.arg(key).arg(expire_s);
    command
}

/// A reply, or what Redis has against the command.
pub(super) fn reply_of(value: Value) -> Result<Reply, String> {
    match value {
        Value::Nil => Ok(Reply::Nil),
        Value::Int(number) => Ok(Reply::Integer(number)),
        Value::BulkString(bytes) => Ok(Reply::Bytes(bytes)),
        Value::Okay | Value::SimpleString(_) => Ok(Reply::Done),
        Value::Array(items) => items.into_iter().map(item_of).collect::<Result<_, _>>().map(Reply::List),
        Value::ServerError(error) => Err(error.to_string()),
        other => Err(format!("a reply of a kind that is not asked for: {other:?}")),
    }
}

fn item_of(value: Value) -> Result<Vec<u8>, String> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Nil => Ok(Vec::new()),
        other => Err(format!("a list of something that is not asked for: {other:?}")),
    }
}

/// Whether Redis does not know the digest of a script.
pub(super) fn is_unknown_script(value: &Value) -> bool {
    matches!(value, Value::ServerError(error) if error.code() == "NOSCRIPT")
}

/// What Redis says when it is not the one to work with, now or ever: a replica, one that is loading, or one that has lost
/// its cluster. The address that led to it may lead to another one by now.
pub(super) fn refusal_of_place(value: &Value) -> Option<String> {
    const CODES: [&str; 4] = ["READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN"];
    let Value::ServerError(error) = value else { return None };
    // Before Redis 7 an error inside a script stands in the text of another one.
    let is_inside = |code: &&str| error.details().is_some_and(|text| text.contains(&format!("-{code} ")));
    let is_of_place = CODES.contains(&error.code()) || CODES.iter().any(is_inside);
    is_of_place.then(|| format!("{} {}", error.code(), error.details().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(line: &str) -> Value {
        let mut parser = redis::Parser::new();
        parser.parse_value(format!("-{line}\r\n").as_bytes()).expect("an error line")
    }

    #[test]
    fn a_redis_that_is_not_the_one_to_work_with_says_so() {
        for line in [
            "READONLY You can't write against a read only replica.",
            "READONLY You can't write against a read only replica. script: 0e1f, on @user_script:1.",
            "ERR Error running script (call to f_0e1f): @user_script:1: -READONLY You can't write against a \
             read only replica. ",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
        ] {
            assert!(refusal_of_place(&error_of(line)).is_some(), "{line}");
        }
        for line in [
            "ERR unknown command 'READONLYX'",
            "NOSCRIPT No matching script. Please use EVAL.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ] {
            assert_eq!(refusal_of_place(&error_of(line)), None, "{line}");
        }
        assert_eq!(refusal_of_place(&Value::SimpleString("READONLY x".into())), None);
    }

    #[test]
    fn replies_are_what_they_are() {
        let bytes = |text: &str| Value::BulkString(text.into());
        let list = vec![bytes("a"), Value::Int(-3), Value::Okay, Value::SimpleString("b".into()), Value::Nil];
        for (value, reply) in [
            (Value::Nil, Reply::Nil),
            (Value::Int(7), Reply::Integer(7)),
            (bytes("x"), Reply::Bytes(b"x".to_vec())),
            (Value::Okay, Reply::Done),
            (Value::SimpleString("PONG".into()), Reply::Done),
            (Value::Array(list), Reply::List(["a", "-3", "OK", "b", ""].map(Vec::from).to_vec())),
        ] {
            assert_eq!(reply_of(value), Ok(reply));
        }
        assert!(reply_of(Value::Array(vec![Value::Array(vec![])])).is_err());
        assert!(reply_of(Value::Double(1.5)).is_err());
    }
}
