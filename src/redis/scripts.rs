//! Which scripts Redis knows: each is sent whole once a connection, and then by its digest.

use std::fmt::Write;

use redis::Cmd;
use sha1::{Digest, Sha1};

use crate::cluster::Script;

/// The scripts that were run.
#[derive(Default)]
pub(super) struct Scripts(Vec<Known>);

struct Known {
    script: &'static Script,
    /// SHA-1 in hex.
    digest: String,
    /// It was sent over the connection that there is now.
    is_sent: bool,
}

impl Scripts {
    /// A new connection may lead to another Redis.
    pub(super) fn handle_connected(&mut self) {
        self.0.iter_mut().for_each(|known| known.is_sent = false);
    }

    /// Redis says that it does not know this one.
    pub(super) fn handle_unknown(&mut self, script: &'static Script) {
        self.find(script).is_sent = false;
    }

    /// The call of a script.
    pub(super) fn call(&mut self, script: &'static Script, keys: &[Vec<u8>], arguments: &[Vec<u8>]) -> Cmd {
        let known = self.find(script);
        let mut call = match std::mem::replace(&mut known.is_sent, true) {
            true => command("EVALSHA", &known.digest),
            false => command("EVAL", script.source),
        };
        call.arg(keys.len()).arg(keys).arg(arguments);
        call
    }

    fn find(&mut self, script: &'static Script) -> &mut Known {
        let at = self.0.iter().position(|known| std::ptr::eq(known.script, script));
        let at = at.unwrap_or_else(|| {
            self.0.push(Known { script, digest: digest(script.source), is_sent: false });
            self.0.len() - 1
        });
        &mut self.0[at]
    }
}

fn command(name: &str, script: &str) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(script);
    command
}

fn digest(source: &str) -> String {
    let mut hex = String::new();
    for byte in Sha1::digest(source) {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONE: Script = Script { source: "return 1" };

    fn packed(call: &Cmd) -> String {
        String::from_utf8(call.get_packed_command()).expect("ASCII")
    }

    #[test]
    fn a_script_is_sent_whole_once_a_connection() {
        let mut scripts = Scripts::default();
        let mut call = || packed(&scripts.call(&ONE, &[b"k".to_vec()], &[b"a".to_vec()]));
        assert_eq!(call(), "*5\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n1\r\n$1\r\nk\r\n$1\r\na\r\n");
        let by_digest = "*5\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n$1\r\n1\r\n\
            $1\r\nk\r\n$1\r\na\r\n";
        assert_eq!(call(), by_digest);
        scripts.handle_connected();
        assert!(packed(&scripts.call(&ONE, &[], &[])).contains("return 1"));
        assert!(packed(&scripts.call(&ONE, &[], &[])).starts_with("*3\r\n$7\r\nEVALSHA"));
        scripts.handle_unknown(&ONE);
        assert!(packed(&scripts.call(&ONE, &[], &[])).contains("return 1"));
    }
}
