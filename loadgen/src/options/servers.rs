//! The options that name the servers.

use clap::Args;

use super::CommonArgs;
use crate::failure::Failure;
use crate::net::spread::{Spread, Targets};
use crate::net::target::Url;
use crate::servers::Servers;

/// Which servers, and how clients are spread over them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServersArgs {
    /// The server, or several hosts over one Redis: the option again, or commas [default: ws://127.0.0.1:8080/ws]
    ///
    /// The path counts for pairing alone.
    #[arg(long, value_delimiter = ',')]
    pub(crate) url: Vec<Url>,
    /// Process of the server, on this host: CPU time per message and memory are then read from /proc
    ///
    /// Of several servers one each, in the same order. Bytes per client mean something only for a server that was just
    /// started: later it reuses what it has.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pid: Vec<u32>,
    /// Several servers: whether partners are on one host or on different ones [default: across]
    ///
    /// Partners: the two of a pair, the roles of a connection id, the members of a room, peers of the introductions, the
    /// ends of a pipe. In pairing the server chooses partners; `relay` lets one pair into the queue after the other, so
    /// that there is no choice, and `verify` and `churn` take what comes.
    #[arg(long, value_enum)]
    pub(crate) spread: Option<Spread>,
}

impl ServersArgs {
    /// The servers, resolved and allowed.
    pub(crate) fn resolve(&self, common: &CommonArgs, default: &str) -> Result<Servers, Failure> {
        let default: Vec<Url> = default.parse().into_iter().collect();
        let urls = if self.url.is_empty() { &default } else { &self.url };
        servers(urls, &self.pid, self.spread, common)
    }
}

/// These servers, resolved and allowed.
pub(super) fn servers(
    urls: &[Url],
    pids: &[u32],
    spread: Option<Spread>,
    common: &CommonArgs,
) -> Result<Servers, Failure> {
    let targets = urls.iter().map(|url| common.target(url)).collect::<Result<_, _>>()?;
    Servers::new(Targets::new(targets, spread)?, pids.to_vec())
}
