//! SKELETON: directory over several hosts, as a shard sees it.

use crate::cluster::directory::{Letter, News};
use crate::id::HostId;
use crate::shard::Shard;

impl Shard {
    /// The cluster has something to say.
    pub(super) fn receive_directory_news(&mut self, news: News) {
        match news {}
    }

    /// Another host's shard has something to say.
    pub(super) fn receive_directory_letter(&mut self, _from: HostId, letter: Letter) {
        match letter {}
    }

    /// Another host can be written to.
    pub(super) fn find_directory_host(&mut self, _host: HostId) {}

    /// Another host is gone, with all its clients.
    pub(super) fn lose_directory_host(&mut self, _host: HostId) {}
}
