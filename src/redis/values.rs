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

#[cfg(test)]
mod tests {
    use super::*;

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
