//! Where Redis is, and how one gets in.

use redis::io::tcp::TcpSettings;
use redis::{Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult};

/// One Redis: address, user, password, database.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Parts);

/// What it is made of. The client's own type cannot be compared.
#[derive(Clone)]
struct Parts(ConnectionInfo);

impl PartialEq for Parts {
    fn eq(&self, other: &Self) -> bool {
        let settings = |parts: &Self| {
            let redis = parts.0.redis_settings();
            let text = |text: Option<&str>| text.map(str::to_owned);
            (redis.db(), text(redis.username()), text(redis.password()))
        };
        self.0.addr() == other.0.addr() && settings(self) == settings(other)
    }
}

impl Eq for Parts {}

/// Where commands go, and where what is published comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// `REDIS_HOST_PUB`.
    pub commands: Endpoint,
    /// `REDIS_HOST_SUBS`.
    pub subscriptions: Endpoint,
}

impl Endpoint {
    /// Reads a URL: `redis://user:password@host:port/database`, or `rediss://…` for TLS, or `unix:///path`.
    ///
    /// # Errors
    /// What is wrong with it, without the URL itself: it may hold a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let info = url.into_connection_info().map_err(|error| error.to_string())?;
        Ok(Self::of(info))
    }

    /// The Redis at a name or address.
    #[must_use]
    pub fn at(host: &str, port: u16, password: Option<&str>) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let info = ConnectionAddr::Tcp(host.to_owned(), port).into_connection_info();
        let mut info = info.unwrap_or_else(|_| unreachable!("an address is all that is needed"));
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            let settings = info.redis_settings().clone().set_password(password);
            info = info.set_redis_settings(settings);
        }
        Self::of(info)
    }

    fn of(info: ConnectionInfo) -> Self {
        let settings = info.redis_settings().clone();
        let settings =
            settings.set_protocol(ProtocolVersion::RESP2).set_lib_name("parlor", env!("CARGO_PKG_VERSION"));
        let tcp = TcpSettings::default().set_nodelay(true);
        Self(Parts(info.set_redis_settings(settings).set_tcp_settings(tcp)))
    }

    pub(super) fn client(&self) -> RedisResult<Client> {
        Client::open(self.0.0.clone())
    }
}

impl std::fmt::Display for Endpoint {
    /// The address alone.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.0.addr().fmt(f)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_how() {
        let endpoint = Endpoint::parse("redis://us%40er:p%3Ass@redis.example:7000/3").expect("a URL");
        let settings = endpoint.0.0.redis_settings();
        assert_eq!((settings.username(), settings.password()), (Some("us@er"), Some("p:ss")));
        assert_eq!((settings.db(), settings.protocol()), (3, ProtocolVersion::RESP2));
        assert_eq!(endpoint.to_string(), "redis.example:7000");
        let plain = Endpoint::parse("redis://[::1]").expect("a URL");
        assert_eq!((plain.to_string(), plain), ("::1:6379".into(), Endpoint::at("[::1]", 6_379, Some(""))));
        let secure = Endpoint::parse("rediss://redis.example").expect("a URL");
        assert!(matches!(secure.0.0.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        assert!(Endpoint::parse("unix:///run/redis.sock").is_ok());
    }

    #[test]
    fn what_is_no_url_is_refused_without_being_repeated() {
        for url in [
            "",
            "redis.example:6379",
            "http://x",
            "redis://:secret@",
            "redis://:secret@x/y",
            "rediss://:secret@x/#y",
        ] {
            let error = Endpoint::parse(url).expect_err(url);
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let endpoint = Endpoint::at("redis.example", 6_379, Some("secret"));
        assert_eq!(endpoint.0.0.redis_settings().password(), Some("secret"));
        assert_eq!(format!("{endpoint} {endpoint:?}"), "redis.example:6379 Endpoint(redis.example:6379)");
        assert_ne!(endpoint, Endpoint::at("redis.example", 6_379, None));
    }
}
