//! Checks the source text itself: which module may name what, and how long files get.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, tests beside it not counted: longer ones want a name of their own for a part.
const FILE_LINES_MAX: usize = 500;

/// The modules that do no I/O.
const PURE: [&str; 9] =
    ["wire", "websocket", "protocol", "shard", "cluster", "buffers.rs", "id.rs", "limits.rs", "plant.rs"];

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "nothing in {dir}");
    found
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
    before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_in(path: &Path, module: &str) -> bool {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module);
    path.starts_with(module)
}

#[test]
fn the_pure_half_does_no_io() {
    let banned = [
        "monoio::",
        "std::net",
        "std::fs",
        "std::thread",
        "std::time",
        "Instant",
        "SystemTime",
        "rustix",
        "socket2",
        "crate::net",
        "crate::http",
        "crate::server",
        "crate::mailbox",
        "crate::config",
        "crate::redis",
        "tokio",
        "println!",
    ];
    for (path, text) in sources("src") {
        if !PURE.iter().any(|module| is_in(&path, module)) || path.ends_with("tests.rs") {
            continue;
        }
        for word in banned {
            assert!(!code(&text).contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn arrows_point_down_only() {
    let rules: [(&str, &[&str]); 6] = [
        ("protocol", &["crate::shard", "crate::websocket"]),
        ("websocket", &["crate::shard", "crate::protocol"]),
        ("wire", &["crate::shard", "crate::protocol", "crate::websocket", "crate::id"]),
        ("cluster", &["crate::shard", "crate::net", "crate::http", "crate::websocket"]),
        ("redis", &["crate::shard", "crate::http", "crate::protocol", "crate::config", "crate::server"]),
        ("mailbox", &["crate::shard", "crate::protocol", "crate::net", "crate::id", "crate::limits"]),
    ];
    for (path, text) in sources("src") {
        for (module, banned) in rules {
            for word in banned.iter().filter(|_| is_in(&path, module)) {
                assert!(!code(&text).contains(word), "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn each_foreign_crate_is_named_in_its_place_alone() {
    let places = [
        ("monoio::", "net"),
        ("simd_json", "wire/envelope.rs"),
        ("monoio_http", "wire/http.rs"),
        ("rtrb", "mailbox"),
        ("socket2::", "net"),
        ("signal_hook", "main.rs"),
        ("redis::", "redis"),
        ("tokio::", "redis"),
        ("rustls::", "redis"),
    ];
    for (path, text) in sources("src") {
        let mut code = code(&text);
        // Modules of ours that have the name of the crate.
        for ours in ["crate::redis::", "crate::test_redis::", "super::redis::", "self::redis::", "mod redis;"]
        {
            code = code.replace(ours, "");
        }
        for (word, place) in places {
            let elsewhere = code.contains(word) && !is_in(&path, place);
            assert!(!elsewhere, "{} names {word}, which belongs to {place}", path.display());
        }
    }
}

#[test]
fn unsafe_code_lives_in_named_leaves_and_gives_its_reason() {
    let leaves = ["net/socket.rs", "net/driver.rs", "redis/bell.rs"];
    for (path, text) in sources("src") {
        if text.contains("unsafe {") {
            assert!(leaves.iter().any(|leaf| is_in(&path, leaf)), "{}", path.display());
            assert_eq!(
                text.matches("unsafe {").count(),
                text.matches("// SAFETY:").count(),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn no_file_grows_past_what_one_can_hold_in_the_head() {
    for dir in ["src", "loadgen/src"] {
        for (path, text) in sources(dir) {
            let lines = text.lines().count();
            assert!(
                lines <= FILE_LINES_MAX || path.ends_with("tests.rs"),
                "{}: {lines} lines",
                path.display()
            );
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    for dir in ["src", "loadgen/src"] {
        for (path, text) in sources(dir) {
            for word in ["todo!", "unimplemented!", "FIXME", "TODO", "XXX"] {
                assert!(!code(&text).contains(word), "{} has {word}", path.display());
            }
        }
    }
}
