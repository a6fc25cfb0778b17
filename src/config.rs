//! Flags and environment.
//!
//! Each flag has a name in the environment as well. A flag that makes no sense ends the start with an error; a value
//! in the environment that makes none is named in a warning and left out, since what the operators of the servers
//! that came before have set must never stop the start (protocols.md section 0, environment).

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};
use tracing::Level;

use crate::limits::{Limits, SHARDS_MAX};
use crate::net::{driver, splice::Choice};
use crate::redis::{Endpoint, Endpoints};
use crate::shard::Offered;

/// The configuration of one server.
#[derive(Debug, Clone, Parser)]
#[command(name = "parlor", version, about = "A WebRTC signaling server on io_uring")]
pub struct Config {
    /// Address or name to listen on; all interfaces if it is not set
    #[arg(long, env = "HOST")]
    pub host: Option<String>,

    /// Port to listen on; 0 lets the system choose
    #[arg(long, env = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// Shards: one thread and one ring each; as many as the cores this process may use if it is not set
    #[arg(long, env = "SHARDS", value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX as i64))]
    pub shards: Option<u16>,

    /// What the shards wait for sockets with
    #[arg(long, env = "IO_DRIVER", value_enum, default_value = "auto", ignore_case = true)]
    pub io_driver: driver::Choice,

    /// Entries of each io_uring; more take more locked memory
    #[arg(long, env = "RING_ENTRIES", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(64..=32_768))]
    pub ring_entries: u32,

    /// Largest message in bytes; a larger one is closed 1009
    #[arg(long, env = "MAX_MESSAGE_BYTES", default_value_t = Limits::MESSAGE_BYTES_MAX)]
    pub max_message_bytes: usize,

    /// Most frames of one message; more are closed 1009
    #[arg(long, env = "MAX_FRAGMENTS", default_value_t = Limits::FRAGMENTS_MAX)]
    pub max_fragments: u32,

    /// Most bytes that wait for one client before it is closed as too slow; twice the largest message and 64 KiB if
    /// it is not set
    #[arg(long, env = "OUTBOX_MAX_BYTES")]
    pub outbox_max_bytes: Option<usize>,

    /// Most bytes of buffers that one shard holds
    #[arg(long, env = "SHARD_BUFFER_BYTES", default_value_t = Limits::SHARD_BUFFER_BYTES)]
    pub shard_buffer_bytes: usize,

    /// Dialects to speak, separated by commas
    #[arg(long, env = "PROTOCOLS", default_value = "pairing,rendezvous,directory,rooms,documents", value_parser = offered)]
    pub protocols: Offered,

    /// Port for /health, /healthz, /readyz and /metrics alone, which then leaves the other port; none if it is not set
    #[arg(long, env = "HTTP_PORT")]
    pub http_port: Option<u16>,

    /// Messages that one pairing client may send per second; rooms and introductions allow five times as many
    #[arg(long, env = "MAX_MSG_PER_SECOND", default_value_t = Limits::MESSAGES_PER_SECOND_MAX)]
    pub max_msg_per_second: u32,

    /// Messages that one rendezvous client may send per RATE_LIMIT_MS before it is closed
    #[arg(long, env = "RATE_LIMIT_MESSAGES", default_value_t = Limits::RENDEZVOUS_MESSAGES_MAX)]
    pub rate_limit_messages: u32,

    /// Milliseconds of a rendezvous client's window
    #[arg(long, env = "RATE_LIMIT_MS", default_value_t = Limits::RENDEZVOUS_WINDOW_MS, value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit_ms: u32,

    /// Milliseconds after the last create or join in a room until it expires
    #[arg(long, env = "ROOM_TIMEOUT_MS", default_value_t = Limits::ROOM_TIMEOUT_MS, value_parser = clap::value_parser!(u64).range(1..))]
    pub room_timeout_ms: u64,

    /// Bytes that are kept for the end of a pipe that has not come, before nothing more is read
    #[arg(long, env = "PIPE_HOLD_BYTES", default_value_t = Limits::PIPE_HOLD_BYTES)]
    pub pipe_hold_bytes: usize,

    /// Milliseconds that one end of a pipe waits for the other; 0 for no limit
    #[arg(long, env = "PIPE_HOLD_MS", default_value_t = Limits::PIPE_HOLD_MS)]
    pub pipe_hold_ms: u64,

    /// Most ends of pipes that wait for the other
    #[arg(long, env = "MAX_HELD_PIPES", default_value_t = Limits::HELD_PIPES_MAX)]
    pub max_held_pipes: usize,

    /// What moves the bytes of raw pipes
    #[arg(long, env = "PIPE_SPLICE", value_enum, default_value = "auto", ignore_case = true)]
    pub pipe_splice: Choice,

    /// Milliseconds between two pings; who is silent for twice as long is cut
    #[arg(long, env = "HEARTBEAT_MS", default_value_t = Limits::HEARTBEAT_MS, value_parser = clap::value_parser!(u64).range(1..))]
    pub heartbeat_ms: u64,

    /// Milliseconds that a request head may take
    #[arg(long, env = "HEAD_DEADLINE_MS", default_value_t = Limits::HEAD_DEADLINE_MS, value_parser = clap::value_parser!(u64).range(1..))]
    pub head_deadline_ms: u64,

    /// Milliseconds that a shutdown may take
    #[arg(long, env = "SHUTDOWN_GRACE_MS", default_value_t = 10_000)]
    pub shutdown_grace_ms: u64,

    /// Whether who is left by a partner waits for the next one at once
    #[arg(long, env = "REQUEUE_ON_PARTNER_LEAVE", default_value = "true", action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub requeue_on_partner_leave: bool,

    /// Origins that may connect, separated by commas and compared byte for byte; all if it is empty
    #[arg(long, env = "ALLOWED_ORIGIN", default_value = "", hide_default_value = true)]
    pub allowed_origin: String,

    /// Whether clients without an origin may connect where origins are limited
    #[arg(long, env = "ALLOW_NO_ORIGIN", default_value = "false", action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub allow_no_origin: bool,

    /// Redis or Valkey that joins several hosts, with user, password and database if it has them; rediss:// for TLS
    #[arg(long, env = "REDIS_URL", value_parser = Endpoint::parse, hide_env_values = true)]
    pub redis_url: Option<Endpoint>,

    /// Name or address of the Redis that commands go to, in place of REDIS_URL
    #[arg(long, env = "REDIS_HOST_PUB")]
    pub redis_host_pub: Option<String>,

    /// Name or address of the Redis that is subscribed to; that of the commands if it is not set
    #[arg(long, env = "REDIS_HOST_SUBS")]
    pub redis_host_subs: Option<String>,

    /// Port of both
    #[arg(long, env = "REDIS_PORT", default_value_t = 6_379)]
    pub redis_port: u16,

    /// Password of both
    #[arg(long, env = "REDIS_PASSWORD", hide_env_values = true)]
    pub redis_password: Option<Secret>,

    /// Whether to use the keys and channels that the original servers of pairing and rendezvous share, so that these
    /// can be replaced one at a time
    #[arg(long, env = "REDIS_PUBLIC_LAYOUTS", default_value = "true", action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub redis_public_layouts: bool,

    /// Path on which messages are echoed, for conformance suites; off if it is not set
    #[arg(long, env = "ECHO_PATH", value_parser = path)]
    pub echo_path: Option<String>,

    /// Name of this instance in health answers; random if it is not set
    #[arg(long, env = "INSTANCE_ID")]
    pub instance_id: Option<String>,

    /// trace, debug, info, warn or error; or 0 to 6
    #[arg(long, env = "LOG_LEVEL", default_value = "info", value_parser = level)]
    pub log_level: Level,

    /// Ask the server that runs here with this configuration whether it is well, and exit with 0 or 1
    #[arg(long)]
    pub healthcheck: bool,
}

/// Text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Config {
    /// Reads flags and environment of this process. Also returns what is to be warned of. An unusable flag, `--help`
    /// and `--version` end the process.
    #[must_use]
    pub fn from_process() -> (Self, Vec<String>) {
        Self::from(std::env::args_os(), |name| std::env::var_os(name)).unwrap_or_else(|error| error.exit())
    }

    /// Reads `flags`, the program's name first, and the environment that `variable` looks up.
    ///
    /// # Errors
    /// A flag is unusable.
    pub fn from(
        flags: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<(Self, Vec<String>), clap::Error> {
        let mut flags: Vec<OsString> = flags.into_iter().collect();
        let mut warnings = Vec::new();
        let plain = Self::command().mut_args(|arg| arg.env(None));
        let described = Self::command();
        // As flags in front of the real ones, which override them.
        let mut from_environment = Vec::new();
        for arg in described.get_arguments() {
            let (Some(name), Some(long)) = (arg.get_env().and_then(|name| name.to_str()), arg.get_long())
            else {
                continue;
            };
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else { continue };
            let mut flag = OsString::from(format!("--{long}="));
            flag.push(&value);
            if is_usable(&plain, &flag) {
                from_environment.push(flag);
            } else {
                let shown = if arg.is_hide_env_values_set() { "…".into() } else { value.to_string_lossy() };
                warnings.push(format!("{name}={shown} makes no sense and is left out"));
            }
        }
        let rest = flags.split_off(flags.len().min(1));
        let all = flags.into_iter().chain(from_environment).chain(rest);
        let overriding = described.args_override_self(true).mut_args(|arg: Arg| arg.env(None));
        let matches = with_environment_in_help(overriding).try_get_matches_from(all)?;
        Ok((Self::from_arg_matches(&matches)?, warnings))
    }

    /// The bounds.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let outbox_bytes_max = Limits::outbox_bytes_max_for(self.max_message_bytes);
        Limits {
            message_bytes_max: self.max_message_bytes,
            fragments_max: self.max_fragments,
            outbox_bytes_max: self.outbox_max_bytes.unwrap_or(outbox_bytes_max),
            shard_buffer_bytes: self.shard_buffer_bytes,
            messages_per_second_max: self.max_msg_per_second,
            rendezvous_messages_max: self.rate_limit_messages,
            rendezvous_window_ms: self.rate_limit_ms,
            room_timeout_ms: self.room_timeout_ms,
            pipe_hold_bytes: self.pipe_hold_bytes,
            pipe_hold_ms: self.pipe_hold_ms,
            held_pipes_max: self.max_held_pipes,
            heartbeat_ms: self.heartbeat_ms,
            head_deadline_ms: self.head_deadline_ms,
        }
    }

    /// The shutdown's grace.
    #[must_use]
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }

    /// The origins that may connect.
    #[must_use]
    pub fn allowed_origins(&self) -> Vec<String> {
        let origins = self.allowed_origin.split(',').map(str::trim);
        origins.filter(|origin| !origin.is_empty()).map(str::to_owned).collect()
    }

    /// The Redis that joins this host to others, if there is one.
    #[must_use]
    pub fn redis(&self) -> Option<Endpoints> {
        if let Some(endpoint) = &self.redis_url {
            return Some(Endpoints { commands: endpoint.clone(), subscriptions: endpoint.clone() });
        }
        let commands = self.redis_host_pub.as_ref().or(self.redis_host_subs.as_ref())?;
        let subscriptions = self.redis_host_subs.as_ref().unwrap_or(commands);
        let password = self.redis_password.as_ref().map(|Secret(text)| text.as_str());
        let at = |host: &str| Endpoint::at(host, self.redis_port, password);
        Some(Endpoints { commands: at(commands), subscriptions: at(subscriptions) })
    }

    /// The addresses to try to listen on, in this order: the first that the system has is taken.
    ///
    /// # Errors
    /// `HOST` names nothing.
    pub fn addresses(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.addresses_with(self.port)
    }

    /// As [`Config::addresses`], with another port.
    ///
    /// # Errors
    /// `HOST` names nothing.
    pub fn addresses_with(&self, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        match &self.host {
            // Both families where there is IPv6, else IPv4.
            None => Ok(vec![([0u16; 8], port).into(), ([0u8; 4], port).into()]),
            Some(host) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                Ok((host, port).to_socket_addrs()?.collect())
            }
        }
    }
}

fn is_usable(command: &Command, flag: &OsString) -> bool {
    command.clone().try_get_matches_from([OsString::from("parlor"), flag.clone()]).is_ok()
}

/// Names each flag's variable in its help, without looking it up again.
fn with_environment_in_help(command: Command) -> Command {
    let names: Vec<(String, String)> = Config::command()
        .get_arguments()
        .filter_map(|arg| Some((arg.get_id().to_string(), arg.get_env()?.to_str()?.to_owned())))
        .collect();
    command.mut_args(move |arg| {
        let name = names.iter().find(|(id, _)| arg.get_id() == id).map(|(_, name)| name);
        match (name, arg.get_help().map(ToString::to_string)) {
            (Some(name), Some(help)) => arg.help(format!("{help} [env: {name}]")),
            _ => arg,
        }
    })
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') { Ok(text.to_owned()) } else { Err("a path begins with /".into()) }
}

/// A list of dialects. A name that is none is an error: a dialect that was meant to be spoken would not be.
fn offered(text: &str) -> Result<Offered, String> {
    let mut offered =
        Offered { pairing: false, rendezvous: false, directory: false, rooms: false, documents: false };
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.to_ascii_lowercase().as_str() {
            "pairing" => offered.pairing = true,
            "rendezvous" => offered.rendezvous = true,
            "directory" => offered.directory = true,
            "rooms" => offered.rooms = true,
            "documents" => offered.documents = true,
            _ => return Err(format!("{name} is none of pairing, rendezvous, directory, rooms, documents")),
        }
    }
    Ok(offered)
}

/// Levels by name in any case, or as the rendezvous original counts them (0 silly to 6 fatal).
fn level(text: &str) -> Result<Level, String> {
    match text.to_ascii_lowercase().as_str() {
        "0" | "1" | "trace" | "silly" => Ok(Level::TRACE),
        "2" | "debug" => Ok(Level::DEBUG),
        "3" | "info" => Ok(Level::INFO),
        "4" | "warn" | "warning" => Ok(Level::WARN),
        "5" | "6" | "error" | "fatal" => Ok(Level::ERROR),
        _ => Err("one of trace, debug, info, warn, error, or 0 to 6".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str], environment: &[(&str, &str)]) -> Result<(Config, Vec<String>), clap::Error> {
        let flags = ["parlor"].iter().chain(flags).map(OsString::from);
        Config::from(flags, |name| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_defaults() {
        let environment =
            [("PORT", "9000"), ("MAX_MSG_PER_SECOND", "7"), ("REQUEUE_ON_PARTNER_LEAVE", "false")];
        let (config, warnings) = config(&["--port", "9001"], &environment).expect("usable");
        assert_eq!((config.port, config.max_msg_per_second, config.heartbeat_ms), (9001, 7, 25_000));
        assert!(!config.requeue_on_partner_leave);
        assert!(warnings.is_empty());
    }

    #[test]
    fn what_others_have_set_never_stops_the_start() {
        let environment = [
            ("PORT", "eighty"),
            ("SHARDS", "0"),
            ("LOG_LEVEL", "verbose"),
            ("HEARTBEAT_MS", ""),
            ("NODE_ENV", "x"),
        ];
        let (config, warnings) = config(&[], &environment).expect("usable");
        assert_eq!((config.port, config.shards, config.log_level), (8080, None, Level::INFO));
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("PORT=eighty"));
    }

    #[test]
    fn an_unusable_flag_is_an_error() {
        for flags in
            [&["--port", "eighty"][..], &["--shards", "0"], &["--shards", "257"], &["--echo-path", "x"]]
        {
            assert!(config(flags, &[]).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn levels_are_known_by_name_and_number() {
        for (text, expected) in
            [("TRACE", Level::TRACE), ("0", Level::TRACE), ("Warn", Level::WARN), ("6", Level::ERROR)]
        {
            assert_eq!(config(&[], &[("LOG_LEVEL", text)]).expect("usable").0.log_level, expected);
        }
    }

    #[test]
    fn redis_is_a_url_or_what_the_rendezvous_original_names() {
        let redis = |environment: &[(&str, &str)]| config(&[], environment).expect("usable").0.redis();
        let both = |commands: Endpoint, subscriptions: Endpoint| Some(Endpoints { commands, subscriptions });
        assert_eq!(redis(&[("REDIS_PORT", "7000"), ("REDIS_PASSWORD", "secret")]), None, "no host is named");
        let url = Endpoint::parse("redis://:pass@a:1/2").expect("a URL");
        let environment = [("REDIS_URL", "redis://:pass@a:1/2"), ("REDIS_HOST_PUB", "b")];
        assert_eq!(redis(&environment), both(url.clone(), url));
        let environment = [
            ("REDIS_HOST_PUB", "a"),
            ("REDIS_HOST_SUBS", "b"),
            ("REDIS_PORT", "7000"),
            ("REDIS_PASSWORD", "secret"),
        ];
        let at = |host: &str| Endpoint::at(host, 7_000, Some("secret"));
        assert_eq!(redis(&environment), both(at("a"), at("b")));
        let plain = Endpoint::at("a", 6_379, None);
        for name in ["REDIS_HOST_PUB", "REDIS_HOST_SUBS"] {
            assert_eq!(redis(&[(name, "a")]), both(plain.clone(), plain.clone()), "{name}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let environment = [("REDIS_URL", "redi://:secret@a"), ("REDIS_PASSWORD", "secret")];
        let (config, warnings) = config(&[], &environment).expect("usable");
        assert_eq!(warnings, ["REDIS_URL=… makes no sense and is left out"]);
        assert!(!format!("{config:?}").contains("secret"));
    }

    #[test]
    fn dialects_are_a_list() {
        let protocols = |text: &str| config(&["--protocols", text], &[]).map(|(config, _)| config.protocols);
        assert_eq!(config(&[], &[]).expect("usable").0.protocols, Offered::ALL);
        let some = protocols("rooms, Pairing").expect("usable");
        assert_eq!((some.rooms, some.pairing, some.directory), (true, true, false));
        assert!(protocols("rooms,chat").is_err());
    }

    #[test]
    fn origins_are_a_list() {
        let (config, _) =
            config(&[], &[("ALLOWED_ORIGIN", "https://a.example, https://b.example,")]).expect("usable");
        assert_eq!(config.allowed_origins(), ["https://a.example", "https://b.example"]);
    }

    #[test]
    fn hosts_are_addresses_or_names() {
        for (host, first) in [("127.0.0.1", "127.0.0.1:8080"), ("[::1]", "[::1]:8080"), ("::1", "[::1]:8080")]
        {
            let (config, _) = config(&[], &[("HOST", host)]).expect("usable");
            assert_eq!(config.addresses().expect("resolves")[0].to_string(), first);
        }
    }
}
