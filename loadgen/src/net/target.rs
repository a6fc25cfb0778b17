//! Where the load goes: a `ws://` URL, resolved once.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// Source addresses per third byte of 127.0.x.y, and how many third bytes: 4,000 addresses, 28,000 ports each.
const SOURCES_PER_BLOCK: usize = 250;
const SOURCE_BLOCKS: usize = 16;

/// A `ws://` URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host name or address, without the brackets of IPv6.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// Path and query, with the slash in front.
    pub(crate) path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("ws://") else {
            return Err(format!("`{text}` does not begin with ws:// (TLS is left to the load balancer)"));
        };
        let (authority, path) = rest.find(['/', '?']).map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = split_authority(authority)?;
        if host.is_empty() {
            return Err(format!("`{text}` names no host"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: host.to_owned(), port, path })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.authority(), self.path)
    }
}

impl Url {
    /// Host and port as they stand in a URL and in the `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

fn split_authority(authority: &str) -> Result<(&str, u16), String> {
    let bad_port = |port: &str| format!("`{port}` is not a port");
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or("an IPv6 address lacks its closing bracket")?;
        let port = port.strip_prefix(':').unwrap_or("80");
        return Ok((host, port.parse().map_err(|_| bad_port(port))?));
    }
    let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
    Ok((host, port.parse().map_err(|_| bad_port(port))?))
}

/// A resolved target.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// What was asked for.
    pub(crate) url: Url,
    /// What it resolved to.
    pub(crate) address: SocketAddr,
    /// The `Origin` header to send, if any.
    pub(crate) origin: Option<String>,
}

impl Target {
    /// Resolves `url` and refuses what is not loopback unless `allow_remote`.
    pub(crate) fn resolve(url: &Url, origin: Option<String>, allow_remote: bool) -> Result<Self, String> {
        let mut addresses = (url.host.as_str(), url.port)
            .to_socket_addrs()
            .map_err(|error| format!("{} cannot be resolved: {error}", url.host))?;
        let address = addresses.next().ok_or_else(|| format!("{} has no address", url.host))?;
        if !address.ip().is_loopback() && !allow_remote {
            return Err(format!(
                "{url} is {}, which is not this host. Load on other people's servers is an attack; if it is \
                 yours, say --allow-remote",
                address.ip()
            ));
        }
        Ok(Self { url: url.clone(), address, origin })
    }

    /// The source address of the client with this index: clients are spread over 127.0.0.0/8, because one address
    /// has only so many ports.
    pub(crate) fn source(&self, index: usize) -> Option<Ipv4Addr> {
        match self.address.ip() {
            IpAddr::V4(ip) if ip.is_loopback() => {
                let block = (index / SOURCES_PER_BLOCK) % SOURCE_BLOCKS;
                Some(Ipv4Addr::new(127, 0, 1 + block as u8, 1 + (index % SOURCES_PER_BLOCK) as u8))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("a good URL")
    }

    #[test]
    fn urls_are_taken_apart() {
        let plain = url("ws://127.0.0.1:8080/ws");
        assert_eq!((plain.host.as_str(), plain.port, plain.path.as_str()), ("127.0.0.1", 8080, "/ws"));
        let six = url("ws://[::1]:9/x?a=b");
        assert_eq!((six.host.as_str(), six.port, six.path.as_str()), ("::1", 9, "/x?a=b"));
        assert_eq!(six.to_string(), "ws://[::1]:9/x?a=b");
        assert_eq!(url("ws://localhost").path, "/");
        assert_eq!(url("ws://localhost").port, 80);
        assert_eq!(url("ws://h:1?q").path, "/?q");
    }

    #[test]
    fn other_urls_are_refused() {
        for bad in [
            "http://127.0.0.1/",
            "wss://127.0.0.1/",
            "127.0.0.1:8080",
            "ws://h:port/",
            "ws://:80/",
            "ws://[::1",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_loopback_unless_allowed() {
        assert!(Target::resolve(&url("ws://127.0.0.1:1/"), None, false).is_ok());
        assert!(Target::resolve(&url("ws://127.3.2.1:1/"), None, false).is_ok());
        assert!(Target::resolve(&url("ws://[::1]:1/"), None, false).is_ok());
        let refused = Target::resolve(&url("ws://192.0.2.1:1/"), None, false).expect_err("not loopback");
        assert!(refused.contains("--allow-remote"), "{refused}");
        assert!(Target::resolve(&url("ws://192.0.2.1:1/"), None, true).is_ok());
    }

    #[test]
    fn sources_are_spread_on_loopback_only() {
        let target = Target::resolve(&url("ws://127.0.0.1:1/"), None, false).expect("loopback");
        assert_eq!(target.source(0), Some(Ipv4Addr::new(127, 0, 1, 1)));
        assert_eq!(target.source(251), Some(Ipv4Addr::new(127, 0, 2, 2)));
        let six = Target::resolve(&url("ws://[::1]:1/"), None, false).expect("loopback");
        assert_eq!(six.source(0), None);
    }
}
