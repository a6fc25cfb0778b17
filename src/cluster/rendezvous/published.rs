//! What is published for clients: how our notices are written, and what others have published for ours.

use bytes::Bytes;

use super::{News, Rendezvous};
use crate::cluster::FromCluster;
use crate::cluster::desk::Desk;
use crate::id::ClientId;
use crate::limits::{FOREIGN_ID_BYTES_MAX, PUBLISHED_BYTES_MAX};
use crate::wire::envelope::{Kind, Parser};
use crate::wire::quote::quote;

use super::sets::is_foreign;

pub(super) const ALREADY_CONNECTED: &str = "remoteClientIsAlreadyConnected";
pub(super) const JUST_CONNECTED: &str = "remoteClientJustConnected";
pub(super) const DISCONNECTED: &str = "remoteClientDisconnected";

/// What a client is told about another.
pub(super) fn notice(info: &str, about: &[u8]) -> Bytes {
    let mut text = format!(r#"{{"info":"{info}","remoteClientId":"#);
    quote(about, &mut text);
    text.push('}');
    text.into()
}

/// Whether this can be a client's id: it stands in JSON, and is remembered.
pub(super) fn is_name(name: &[u8]) -> bool {
    (1..=FOREIGN_ID_BYTES_MAX).contains(&name.len()) && std::str::from_utf8(name).is_ok()
}

/// What somebody has published for a client.
enum Published {
    /// A client has come, or was there before.
    Connected(Vec<u8>),
    /// A client has left.
    Disconnected(Vec<u8>),
    /// Anything else that is a JSON object.
    Other,
}

impl Rendezvous {
    /// Somebody has published something for a client: it gets that as it came, unless it says nothing new.
    pub(super) fn hear(&mut self, client: ClientId, payload: &Bytes, desk: &mut Desk) {
        // What comes for one that has just left is too late.
        let Some(_) = self.records.get(&client).filter(|record| !record.is_leaving) else { return };
        let Some(published) = read(&mut self.parser, payload) else {
            return desk.metrics.counters.rendezvous_ignored.add(1);
        };
        let payload = payload.clone();
        match published {
            // Of ours we know better.
            Published::Connected(other) | Published::Disconnected(other) if !is_foreign(&other, desk) => {
                desk.metrics.counters.rendezvous_ignored.add(1);
            }
            Published::Connected(other) => {
                if self.remember(client, &other) {
                    Self::deliver_published(client, payload, desk);
                }
            }
            Published::Disconnected(other) => self.part_from(client, &other, Some(payload), desk),
            Published::Other => Self::deliver_published(client, payload, desk),
        }
    }

    pub(super) fn deliver_published(to: ClientId, payload: Bytes, desk: &mut Desk) {
        desk.mail(to.shard(), FromCluster::Rendezvous(News::DeliverPublished { to, payload }));
    }
}

/// What is published; nothing if it is no JSON object.
fn read(parser: &mut Parser, payload: &[u8]) -> Option<Published> {
    if payload.len() > PUBLISHED_BYTES_MAX {
        return None;
    }
    let envelope = parser.parse(payload).ok().filter(|envelope| envelope.kind == Kind::Object)?;
    let other = envelope.text_of("remoteClientId").filter(|other| is_name(other));
    let info = envelope.text_of("info");
    Some(match (info.as_deref(), other) {
        (Some(info), Some(other)) if is(info, ALREADY_CONNECTED) || is(info, JUST_CONNECTED) => {
            Published::Connected(other.into_owned())
        }
        (Some(info), Some(other)) if is(info, DISCONNECTED) => Published::Disconnected(other.into_owned()),
        _ => Published::Other,
    })
}

fn is(info: &[u8], name: &str) -> bool {
    info == name.as_bytes()
}
