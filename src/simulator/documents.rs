//! The ids and documents that introductions and pipes are about, as URLs, messages and the server spell them.

use super::chance::Chance;

/// One id or document.
#[derive(Debug)]
pub(super) struct Name {
    /// As a segment of a path.
    in_path: [&'static str; 2],
    /// As a value in a query.
    in_query: &'static str,
    /// As a client writes it in JSON.
    in_json: [&'static str; 2],
    /// As the server writes it in JSON.
    pub(super) from_server: &'static str,
}

/// Peers.
pub(super) const IDS: [Name; 4] = [
    Name { in_path: ["A", "%41"], in_query: "A", in_json: ["\"A\"", r#""\u0041""#], from_server: "A" },
    Name { in_path: ["B", "B"], in_query: "%42", in_json: ["\"B\"", "\"B\""], from_server: "B" },
    Name {
        in_path: ["A%2FB", "%41%2fB"],
        in_query: "A/B",
        in_json: ["\"A/B\"", r#""A\/B""#],
        from_server: "A/B",
    },
    Name {
        in_path: ["q%22%C3%A9", "q%22%c3%a9"],
        in_query: "q%22%C3%A9",
        in_json: [r#""q\"é""#, r#""q\u0022\u00e9""#],
        from_server: r#"q\"é"#,
    },
];

/// Documents.
pub(super) const DOCUMENTS: [Name; 3] = [
    Name {
        in_path: ["doc1", "d%6Fc1"],
        in_query: "doc1",
        in_json: ["\"doc1\"", r#""d\u006fc1""#],
        from_server: "doc1",
    },
    Name {
        in_path: ["DOC1", "DOC1"],
        in_query: "DOC1",
        in_json: ["\"DOC1\"", "\"DOC1\""],
        from_server: "DOC1",
    },
    Name {
        in_path: ["o%C3%B6%20%5C", "o%c3%b6%20%5c"],
        in_query: "o%C3%B6+%5C",
        in_json: [r#""oö \\""#, r#""o\u00F6 \u005c""#],
        from_server: r"oö \\",
    },
];

impl Name {
    pub(super) fn in_path(&self, chance: &mut Chance) -> &'static str {
        chance.pick(&self.in_path)
    }

    pub(super) fn in_query(&self) -> &'static str {
        self.in_query
    }

    pub(super) fn in_json(&self, chance: &mut Chance) -> &'static str {
        chance.pick(&self.in_json)
    }
}
