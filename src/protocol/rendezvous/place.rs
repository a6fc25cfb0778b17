//! What the URL of a client says: `/<64 hex>?source=…&target=…`.

/// A connection id: 64 hex digits as they stand in the path. Upper case is another id.
pub(super) type Connection = [u8; CONNECTION_LEN];

const CONNECTION_LEN: usize = 64;

/// The two roles that a client can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// `wallet`
    Wallet,
    /// `extension`
    Extension,
}

/// Where a client wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The connection id, its 64 hex digits as they stand in the path.
    pub connection: [u8; 64],
    /// The client's own role.
    pub source: Role,
    /// The role of those that it wants to reach, never its own.
    pub target: Role,
}

/// Reads a URL: `path` as it came, undecoded, and `query` without its `?`.
///
/// # Errors
/// The reason of the close with 1003 that a wrong URL gets, the first of those that apply.
pub fn place(path: &str, query: Option<&str>) -> Result<Place, &'static str> {
    let connection = connection_of(path).ok_or("missing connectionId in path")?;
    let target = role(query, "target", "missing target", "invalid target")?;
    let source = role(query, "source", "missing source", "invalid source")?;
    if source == target {
        return Err("source and target needs to be different");
    }
    Ok(Place { connection, source, target })
}

/// Whether `path` is `/` and exactly 64 hex digits, undecoded.
#[must_use]
pub fn is_connection_path(path: &str) -> bool {
    connection_of(path).is_some()
}

/// Whether `query` has a key `source` or `target`, whatever its value: a URL that means rendezvous, whatever its path.
#[must_use]
pub fn has_roles(query: Option<&str>) -> bool {
    value_of(query, "source").or_else(|| value_of(query, "target")).is_some()
}

impl Role {
    /// The name that it has in a URL, and in Redis.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wallet => "wallet",
            Self::Extension => "extension",
        }
    }

    /// The one that is not this one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Wallet => Self::Extension,
            Self::Extension => Self::Wallet,
        }
    }
}

fn connection_of(path: &str) -> Option<Connection> {
    let digits = path.strip_prefix('/')?.as_bytes();
    let connection = Connection::try_from(digits).ok()?;
    connection.iter().all(u8::is_ascii_hexdigit).then_some(connection)
}

fn role(
    query: Option<&str>,
    key: &str,
    missing: &'static str,
    invalid: &'static str,
) -> Result<Role, &'static str> {
    match value_of(query, key).as_deref() {
        None | Some("") => Err(missing),
        Some("wallet") => Ok(Role::Wallet),
        Some("extension") => Ok(Role::Extension),
        Some(_) => Err(invalid),
    }
}

/// The decoded value of the first `key`, as `URLSearchParams.get` gives it.
fn value_of<'a>(query: Option<&'a str>, key: &str) -> Option<std::borrow::Cow<'a, str>> {
    let mut pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.find(|(name, _)| name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests;
