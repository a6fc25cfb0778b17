//! That the test itself can fail: conversations that are not true, and some that nobody can read.

use crate::page::conversations;
use crate::replay::replay;
use crate::support::Setup;

/// Conversations that are not true, and the line of their page that says so; the first one is the fence.
const UNTRUE: &[(usize, &str)] = &[
    // What came is another.
    (3, "A opens /ws\nA ← {\"type\":\"ready\",\"clientId\":\"me\"}"),
    (
        5,
        "A opens /ws\nA ← {\"type\":\"ready\",\"clientId\":\"<a>\"}\nA → {\"type\":\"next\"}\nA ← {\"type\":\"pong\"}",
    ),
    (3, "A opens /ws\nA ← {\"type\":\"ready\",\"clientId\":\"<a>\"} \"}"),
    (4, "A opens /\nA → {\"type\":\"ping\"}\nA ← close 1000"),
    (4, "A opens /\nA closes 3001\nA ← close 3002"),
    (4, "A opens /\nA closes 3001\nA ← close 3001 \"why\""),
    (4, "A opens /\nA closes 3001\nA ← close"),
    (3, "A opens /nowhere\nA ← 403"),
    (3, "H asks /nowhere\nH ← 404 {\"error\":\"Forbidden\"}"),
    (3, "H asks /nowhere\nH ← 404 contains \"Forbidden\""),
    (3, "A opens /nowhere\nA ← nothing"),
    (3, "A opens /ws\nA ← nothing"),
    (4, "A opens /\nA → {\"type\":\"ping\"}\nA ← binary 0x00"),
    // A hole is another, or not yet filled, or two are one.
    (
        6,
        "A opens /ws\nA ← {\"type\":\"ready\",\"clientId\":\"<a>\"}\nB opens /ws\nA closes\nB ← {\"type\":\"ready\",\"clientId\":\"<a>\"}",
    ),
    (3, "A opens /\nA → {\"type\":\"login\",\"name\":\"<a>\"}"),
    (
        5,
        "H asks /healthz\nH ← 200 {\"ok\":true,\"uptime\":<s:number>,\"clients\":0,\"instanceId\":\"inst-<a>\"}\nH asks /healthz\nH ← 200 {\"ok\":true,\"uptime\":<s:number>,\"clients\":0,\"instanceId\":\"inst-<b>\"}",
    ),
    // Something more came, or something is missing at the end.
    (4, "A opens /\nA → {\"type\":\"ping\"}\nA is cut"),
    (1, "A opens /\nSIGTERM"),
    (1, "A opens /ws"),
    (1, "A opens /\nA closes"),
    (1, "A opens /nowhere"),
    (1, "A opens /\nA → {\"type\":\"login\",\"name\":\"a\"}"),
    (1, "R opens /connection/a/b/c raw"),
    (1, "R opens /connection/a/b/c raw\nS opens /connection/b/a/c raw\nR ends\nS ← end"),
    (
        5,
        "A opens /ws\nA ← {\"type\":\"ready\",\"clientId\":\"<a>\"}\nA opens /nowhere\nA opens /ws\nA ← nothing",
    ),
    // Nobody is there, or nobody who could do that.
    (2, "A → {\"type\":\"ping\"}"),
    (3, "A opens /\nA ends"),
    (3, "A opens /\nA ← end"),
    (3, "H asks /healthz\nH → {\"type\":\"ping\"}"),
    (5, "R opens /connection/a/b/c raw\nS opens /connection/b/a/c raw\nR → raw \"no\"\nS ← raw \"on\""),
    (4, "R opens /connection/a/b/c raw\nS opens /connection/b/a/c raw\nR → {\"type\":\"ping\"}"),
    (5, "R opens /connection/a/b/c raw\nS opens /connection/b/a/c raw\nR is cut\nS ← end"),
    (5, "R opens /connection/a/b/c raw\nS opens /connection/b/a/c raw\nR ends\nS ← reset"),
];

/// Pages that nobody can read, and the line that says so.
const UNREADABLE: &[(usize, &str)] = &[
    (1, "```conversatoin\nA opens /ws\n```"),
    (1, "```\nA opens /ws\n```"),
    (1, "```conversation\nA opens /ws"),
    (2, "```conversation\n```sh\nls\n```"),
    (1, "```conversation\n# nothing\nwith A=1\n```"),
    (3, "\n```conversation\nA\n```"),
    (2, "```conversation\nA sings\n```"),
    (2, "```conversation\na opens /ws\n```"),
    (2, "```conversation\nA opens ws\n```"),
    (2, "```conversation\nA opens /ws now\n```"),
    (2, "```conversation\nA asks / with nothing\n```"),
    (3, "```conversation\nA opens /ws\nA -> {}\n```"),
    (2, "```conversation\nA → hello\n```"),
    (2, "```conversation\nA → text hello\n```"),
    (2, "```conversation\nA → text \"hello\n```"),
    (2, "```conversation\nA → blob \"hello\"\n```"),
    (2, "```conversation\nA → binary 0x0\n```"),
    (2, "```conversation\nA → binary 0xfg\n```"),
    (2, "```conversation\nA → {\"a\":\"<b\"}\n```"),
    (2, "```conversation\nA → {\"a\":\"<b:letters>\"}\n```"),
    (2, "```conversation\nA → {\"a\":\"<b c>\"}\n```"),
    (2, "```conversation\nA → {\"a\":\"<x × y>\"}\n```"),
    (2, "```conversation\nA → {} (twice)\n```"),
    (2, "```conversation\nA → {} (many times)\n```"),
    (2, "```conversation\nA → raw \"\" (in 2 frames)\n```"),
    (2, "```conversation\nA ← {} (in 2 frames)\n```"),
    (2, "```conversation\nA ← close 1000 Room expired\n```"),
    (2, "```conversation\nA ← close never\n```"),
    (2, "```conversation\nA ← closed\n```"),
    (2, "```conversation\nA closes soon\n```"),
    (2, "```conversation\nwith A\nA opens /\n```"),
];

#[test]
fn what_is_not_true_is_a_failure() {
    for (line, lines) in UNTRUE {
        let text = format!("```conversation\n{lines}\n```\n");
        let found = conversations("page", &text).unwrap_or_else(|mistakes| panic!("{lines}\n{mistakes:?}"));
        let failure = replay(&found[0], Setup::EPOLL_1).expect_err(lines);
        let is_there = failure.starts_with(&format!("page:{line}: "));
        assert!(is_there, "line {line} is wrong, not {failure}\n{lines}");
    }
}

#[test]
fn what_nobody_can_read_is_a_failure() {
    for (line, text) in UNREADABLE {
        let mistakes = conversations("page", text).err().unwrap_or_else(|| panic!("it was read:\n{text}"));
        let is_there = mistakes.iter().any(|mistake| mistake.starts_with(&format!("page:{line}: ")));
        assert!(is_there, "line {line} is wrong, not {mistakes:?}\n{text}");
    }
}
