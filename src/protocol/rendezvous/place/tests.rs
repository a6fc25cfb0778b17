//! URLs of protocols.md section 2.

use super::*;

#[test]
fn a_url_names_a_place() {
    let path = format!("/{}", "0123456789abcdefABCDEF0123456789".repeat(2));
    let connection = path.as_bytes()[1..].try_into().expect("64 digits");
    for (query, source) in [
        ("source=wallet&target=extension", Role::Wallet),
        ("target=wallet&source=extension", Role::Extension),
        ("x&source=%77allet&t=1&%74arget=extension&source=extension&target=", Role::Wallet),
    ] {
        let expected = Place { connection, source, target: source.other() };
        assert_eq!(place(&path, Some(query)), Ok(expected), "{query}");
    }
}

#[test]
fn a_wrong_url_is_refused_for_the_first_of_its_reasons() {
    let path = format!("/{}", "f".repeat(64));
    for (query, reason) in [
        (None, "missing target"),
        (Some(""), "missing target"),
        (Some("source=wallet"), "missing target"),
        (Some("target&source=x"), "missing target"),
        (Some("target=&target=wallet&source=extension"), "missing target"),
        (Some("target=Wallet"), "invalid target"),
        (Some("target=wallet+&source="), "invalid target"),
        (Some("target=%ff&source=wallet"), "invalid target"),
        (Some("target=wallet"), "missing source"),
        (Some("target=wallet&source="), "missing source"),
        (Some("target=wallet&source=server"), "invalid source"),
        (Some("target=wallet&source=wallet"), "source and target needs to be different"),
        (Some("source=extension&target=extension"), "source and target needs to be different"),
    ] {
        assert_eq!(place(&path, query), Err(reason), "{query:?}");
    }
}

#[test]
fn a_connection_path_is_a_slash_and_64_hex_digits() {
    let digits = "f".repeat(64);
    for path in [
        String::new(),
        "/".to_owned(),
        digits.clone(),
        format!("/{}", &digits[1..]),
        format!("/{digits}f"),
        format!("/{digits}/"),
        format!("//{digits}"),
        format!("/{}g", &digits[1..]),
        format!("/%66{}", &digits[1..]),
        format!("/{}é", &digits[2..]),
    ] {
        assert!(!is_connection_path(&path), "{path}");
        let good = Some("source=wallet&target=extension");
        assert_eq!(place(&path, good), Err("missing connectionId in path"), "{path}");
        assert_eq!(place(&path, None), Err("missing connectionId in path"), "the path is checked first");
    }
    assert!(is_connection_path(&format!("/{digits}")));
}

#[test]
fn a_query_with_a_role_means_rendezvous() {
    for (query, expected) in [
        (None, false),
        (Some(""), false),
        (Some("x=source&y=target"), false),
        (Some("Source=wallet&targets=wallet"), false),
        (Some("source"), true),
        (Some("target="), true),
        (Some("x=1&%73ource=nobody"), true),
    ] {
        assert_eq!(has_roles(query), expected, "{query:?}");
    }
}
