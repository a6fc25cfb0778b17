//! Scripts: `redis.call`, `redis.pcall`, KEYS and ARGV, and what Redis makes of what they return.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use mlua::{Error, Function, MultiValue, Result, Table, Value};

use super::{Answer, State};

/// A Lua with the functions that Redis gives it.
pub(super) struct Lua {
    lua: mlua::Lua,
    /// By source.
    functions: BTreeMap<&'static str, Function>,
}

impl Lua {
    pub(super) fn new(state: &Rc<RefCell<State>>) -> Self {
        let lua = mlua::Lua::new();
        // Without memory Lua has no functions; then there is nothing to simulate either.
        give_redis(&lua, state).expect("an empty Lua takes functions");
        Self { lua, functions: BTreeMap::new() }
    }

    /// Runs a script.
    pub(super) fn run(&mut self, source: &'static str, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Answer {
        match self.try_run(source, keys, arguments) {
            Ok(answer) => answer,
            Err(error) => Answer::Error(error.to_string()),
        }
    }

    fn try_run(&mut self, source: &'static str, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Result<Answer> {
        let function = match self.functions.get(source) {
            Some(function) => function.clone(),
            None => {
                let function = self.lua.load(source).into_function()?;
                self.functions.insert(source, function.clone());
                function
            }
        };
        self.lua.globals().set("KEYS", self.list(keys)?)?;
        self.lua.globals().set("ARGV", self.list(arguments)?)?;
        answer_of(function.call(())?)
    }

    fn list(&self, items: &[Vec<u8>]) -> Result<Table> {
        let strings: Result<Vec<mlua::LuaString>> =
            items.iter().map(|item| self.lua.create_string(item)).collect();
        self.lua.create_sequence_from(strings?)
    }
}

fn give_redis(lua: &mlua::Lua, state: &Rc<RefCell<State>>) -> Result<()> {
    let redis = lua.create_table()?;
    for (name, is_protected) in [("call", false), ("pcall", true)] {
        let state = Rc::clone(state);
        let call = lua.create_function(move |lua, words: MultiValue| {
            let words: Result<Vec<Vec<u8>>> = words.into_iter().map(word).collect();
            match state.borrow_mut().call(&words?) {
                Answer::Error(error) if !is_protected => Err(Error::runtime(error)),
                answer => value_of(lua, answer),
            }
        })?;
        redis.set(name, call)?;
    }
    lua.globals().set("redis", redis)
}

fn word(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(number) => Ok(number.to_string().into_bytes()),
        // As Redis does it: 17 digits, and none behind the point where there are none.
        Value::Number(number) => Ok(number.to_string().into_bytes()),
        other => Err(Error::runtime(format!("a command's word is a {}", other.type_name()))),
    }
}

/// What a command's answer is in Lua.
fn value_of(lua: &mlua::Lua, answer: Answer) -> Result<Value> {
    Ok(match answer {
        Answer::Nil => Value::Boolean(false),
        Answer::Integer(number) => Value::Number(number as f64),
        Answer::Bytes(bytes) => Value::String(lua.create_string(bytes)?),
        Answer::List(items) => {
            let values: Result<Vec<Value>> = items.into_iter().map(|item| value_of(lua, item)).collect();
            Value::Table(lua.create_sequence_from(values?)?)
        }
        Answer::Done => one_field(lua, "ok", "OK")?,
        Answer::Error(error) => one_field(lua, "err", &error)?,
    })
}

fn one_field(lua: &mlua::Lua, name: &str, text: &str) -> Result<Value> {
    let table = lua.create_table()?;
    table.set(name, text)?;
    Ok(Value::Table(table))
}

/// What Redis makes of what a script returns: a list ends at its first nil, numbers lose what is behind the point.
fn answer_of(value: Value) -> Result<Answer> {
    Ok(match value {
        Value::Nil | Value::Boolean(false) => Answer::Nil,
        Value::Boolean(true) => Answer::Integer(1),
        Value::Integer(number) => Answer::Integer(number),
        Value::Number(number) => Answer::Integer(number as i64),
        Value::String(text) => Answer::Bytes(text.as_bytes().to_vec()),
        Value::Table(table) => {
            if let Some(error) = table.get::<Option<mlua::LuaString>>("err")? {
                return Ok(Answer::Error(error.to_string_lossy()));
            }
            if table.contains_key("ok")? {
                return Ok(Answer::Done);
            }
            let items: Result<Vec<Answer>> =
                table.sequence_values::<Value>().map(|item| item.and_then(answer_of)).collect();
            Answer::List(items?)
        }
        other => return Err(Error::runtime(format!("a script returns a {}", other.type_name()))),
    })
}
