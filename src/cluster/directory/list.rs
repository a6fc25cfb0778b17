//! The list as Redis has it: entries, what changes them, and how both are written there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{ClientId, HostId, TEXT_LEN};
use crate::limits::{DIRECTORY_NAME_BYTES_MAX, DIRECTORY_NAMES_MAX};

/// One name of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub sequence: u64,
    /// Who has it.
    pub client: ClientId,
    /// The name.
    pub name: Arc<str>,
}

/// What changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) entry: Entry,
    /// It comes, or it goes.
    pub(super) comes: bool,
}

impl Change {
    /// Reads `<sequence> <+ or -> <client id> <name>`.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (sequence, rest) = text.split_once(' ')?;
        let (sign, rest) = rest.split_once(' ')?;
        let (client, name) = rest.split_once(' ')?;
        let comes = match sign {
            "+" => true,
            "-" => false,
            _ => return None,
        };
        // Numbers begin with 1.
        let entry = entry(sequence, client, name.as_bytes()).filter(|entry| entry.sequence > 0)?;
        Some(Self { entry, comes })
    }
}

fn entry(sequence: &str, client: &str, name: &[u8]) -> Option<Entry> {
    let is_number = sequence.bytes().all(|byte| byte.is_ascii_digit());
    let sequence = sequence.parse().ok().filter(|_| is_number)?;
    let client = ClientId::parse(client.as_bytes()).filter(|_| client.len() == TEXT_LEN)?;
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let is_name = (1..=DIRECTORY_NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(is_good);
    let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
    Some(Entry { sequence, client, name: name.into() })
}

/// All names, of all hosts.
#[derive(Debug, Default)]
pub(super) struct List {
    by_name: BTreeMap<Arc<str>, Entry>,
    by_place: BTreeMap<(u64, ClientId), Arc<str>>,
}

impl List {
    /// Reads what Redis has: names and `<sequence> <client id>` in turn, and the number of the last change behind them.
    /// What is no entry is left out.
    pub(super) fn parse(items: &[Vec<u8>]) -> Option<(Self, u64)> {
        let (sequence, pairs) = items.split_last()?;
        let sequence = std::str::from_utf8(sequence).ok()?.parse().ok()?;
        let mut list = Self::default();
        for pair in pairs.chunks_exact(2) {
            let value = std::str::from_utf8(&pair[1]).ok().and_then(|value| value.split_once(' '));
            if let Some(entry) = value.and_then(|(sequence, client)| entry(sequence, client, &pair[0])) {
                list.insert(entry);
            }
        }
        Some((list, sequence))
    }

    /// Adds an entry. False: there is no room for it.
    pub(super) fn insert(&mut self, entry: Entry) -> bool {
        self.remove(&entry.name);
        if self.by_name.len() >= DIRECTORY_NAMES_MAX {
            return false;
        }
        self.by_place.insert((entry.sequence, entry.client), entry.name.clone());
        self.by_name.insert(entry.name.clone(), entry);
        true
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(entry) = self.by_name.remove(name) {
            self.by_place.remove(&(entry.sequence, entry.client));
        }
    }

    /// Who has a name.
    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }

    /// The entry of a name, if it is this client's.
    pub(super) fn find_of(&self, name: &str, client: ClientId) -> Option<&Entry> {
        self.find(name).filter(|entry| entry.client == client)
    }

    /// All, in order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_place.values().filter_map(|name| self.by_name.get(name))
    }

    /// Those of one host, in order.
    pub(super) fn of_host(&self, host: HostId) -> Vec<Entry> {
        self.entries().filter(|entry| entry.client.host() == host).cloned().collect()
    }
}
