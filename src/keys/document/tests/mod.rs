//! Reading texts: what each field takes, and what comes of one that is wrong.

use std::sync::Arc;

mod cut;
mod edit;

use super::{Document, KeyRow, Parser, Why, check_name, check_new_name, moment};
use crate::keys::Mode;

const HASH: &str = "$sha256$ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// A file with every field there is, comments in odd places and every way to write a moment.
fn full(end: bool) -> String {
    let end = if end { "\n# written by commands\n[end]\nowners = 2\nkeys = 3\n" } else { "" };
    format!(
        r#"# The keys of the wallet.

# Accounting
[[owner]]
id = "svc-accounting"
name = "Accounting service account"
capabilities = ["manage_woocommerce"]
kyc = "approved"
plan = "pro"

[[owner]]
id = "shop"
plan = "free"
suspended_at = 2026-12-01T00:00:00Z

# The export runs at night.
[[key]] # nightly
id = "key_1"
name = "Accounting export script"
kind = "pair"
prefix = "ck_4f2a"
hash = "{HASH}"
owner = "svc-accounting"
scopes = ["read", "wallets:read"]
mode = "live"
limits = ["600/1m"]
created_at = 2026-11-21T00:00:00Z
expires_at = "2027-02-19T00:00:00+01:00"

[[key]]
id = "key_2"
kind = "token"
prefix = "ck_live_abc123"
hash = '{HASH}'
owner = "shop"
scopes = []
revoked_at = 2026-12-01T00:00:00Z

[[key]]
id = "key_3"
name = """
Several""" # [[key]]
kind = "token"
prefix = "ck_test_abc123"
hash = "{HASH}"
owner = "shop"
scopes = ["write"]
mode = "test"
limits = [
  "5/1m", # burst
  "100/1d",
]
expires_at = 2027-02-19T00:00:00.500Z
allow_ips = ["203.0.113.42", "2001:db8::/32"]
{end}"#
    )
    .replace("\"\"\"\nSeveral\"\"\"", "\"\"\"Several\"\"\"")
}

/// A key with these lines in place of, or beside, those that a key must have.
fn one_key(lines: &str) -> String {
    let mut text = "[[key]]\n".to_owned();
    for (field, value) in [
        ("id", "\"key_1\""),
        ("kind", "\"pair\""),
        ("prefix", "\"ck_1\""),
        ("hash", &format!("\"{HASH}\"")),
        ("owner", "\"svc\""),
        ("scopes", "[\"read\"]"),
    ] {
        if !lines.lines().any(|line| line.trim_start_matches('-').starts_with(&format!("{field} "))) {
            text.push_str(&format!("{field} = {value}\n"));
        }
    }
    for line in lines.lines().filter(|line| !line.starts_with('-')) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[track_caller]
fn parse(text: &str) -> Document {
    match Parser::default().parse(text.as_bytes()) {
        Ok(document) => document,
        Err(refused) => panic!("{refused}"),
    }
}

/// The key of this entry is set aside, with this as the first fault.
#[track_caller]
fn check_bad(lines: &str, fault: &str) {
    let document = parse(&one_key(lines));
    assert_eq!(document.keys, []);
    assert_eq!(document.quarantined, 1);
    assert_eq!(document.faults[0].message, fault);
    let ids: Vec<_> = document.set_aside.iter().map(|id| id.as_str()).collect();
    assert_eq!(ids, if lines.contains("-id ") { vec![] } else { vec!["key_1"] });
}

#[track_caller]
fn check_good(lines: &str) -> KeyRow {
    let document = parse(&one_key(lines));
    assert_eq!(document.faults, []);
    (*document.keys[0]).clone()
}

#[track_caller]
fn check_refused(text: &str, why: Why, fault: &str) {
    let refused = Parser::default().parse(text.as_bytes()).expect_err("must be refused");
    assert_eq!((refused.why, &*refused.faults[0].message), (why, fault));
}

#[test]
fn every_field_is_read() {
    let document = parse(&full(true));
    assert_eq!(document.faults, []);
    assert_eq!((document.owners.len(), document.keys.len()), (2, 3));
    let key = &document.keys[0];
    assert_eq!(
        (&*key.name, key.owner.as_str(), key.mode),
        ("Accounting export script", "svc-accounting", Some(Mode::Live))
    );
    assert_eq!(key.scopes.to_string(), "read wallets:read");
    assert_eq!(key.expires_at.unwrap().to_string(), "2027-02-18T23:00:00Z");
    assert_eq!(document.keys[2].limits.as_ref().unwrap().len(), 2);
    assert_eq!(document.keys[2].allow_ips.iter().count(), 2);
    assert_eq!(document.keys[2].expires_at.unwrap().to_string(), "2027-02-19T00:00:00.5Z");
    assert_eq!(document.revoked.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["key_2"]);
    assert_eq!(&*document.owners[0].capabilities, [Box::from("manage_woocommerce")]);
}

#[test]
fn a_bad_field_sets_its_key_aside() {
    check_bad("-id ", "`id` is missing");
    check_bad(
        "id = \"key 1\"\n-id ",
        "`id`: must be printable ASCII without spaces: it is sent to the upstream in a header",
    );
    check_bad("kind = \"pear\"", "`kind`: expected \"pair\" or \"token\"");
    check_bad("kind = 1", "`kind`: expected a string, not a integer");
    check_bad("-prefix ", "`prefix` is missing");
    check_bad("prefix = \"a:b\"", "`prefix`: expected printable ASCII without spaces and colons");
    check_bad(
        "lookup = \"hmac-sha256:wc-api:00\"\n-prefix ",
        "`lookup`: expected \"hmac-sha256:KEY:HEX\" with 64 hex digits",
    );
    check_bad(
        &format!("lookup = \"hmac-sha256:wc-api:{:064}\"", 0),
        "`prefix` and `lookup` are both there; one names the key",
    );
    check_bad("-hash ", "`hash` is missing");
    check_bad("-owner ", "`owner` is missing");
    check_bad("-scopes ", "`scopes` is missing");
    check_bad("mode = \"prod\"", "`mode`: expected \"live\" or \"test\"");
    check_bad("limits = []", "`limits`: an empty list; leave the field out for the limits of the plan");
    check_bad("limits = \"5/1m\"", "`limits`: expected a list of strings, not a string");
    check_bad(
        "expires_at = 2027-02-19",
        "`expires_at`: expected a moment with its offset, such as 2027-02-19T00:00:00Z",
    );
    check_bad(
        "expires_at = 2027-02-19T00:00:00",
        "`expires_at`: expected a moment with its offset, such as 2027-02-19T00:00:00Z",
    );
    check_bad("expires_at = \"soon\"", "`expires_at`: expected a moment with its offset, such as 2027-02-19T00:00:00Z");
    check_bad("expire_at = 2027-02-19T00:00:00Z", "unknown field `expire_at`");
    check_bad("name = \"\\u001b[31m\"", "`name`: must not hold control characters");
    check_bad("[key.more]\na = 1", "unknown field `more`");
}

#[test]
fn a_malformed_address_sets_the_key_aside() {
    let document = parse(&one_key("allow_ips = [\"203.0.113.42\", \"10.0.0.0/33\"]"));
    assert_eq!((document.keys.len(), document.set_aside.len()), (0, 1));
    assert_eq!((document.faults[0].line, document.faults[0].column), (8, 30));
    assert!(check_good("allow_ips = []").allow_ips.is_empty());
}

#[test]
fn a_misspelt_field_is_suggested_with_its_place() {
    let document = parse(&one_key("scope = [\"read\"]\n-scopes "));
    let fault = document.faults.iter().find(|fault| fault.message == "unknown field `scope`").unwrap();
    assert_eq!(
        fault.to_string(),
        "7:1: unknown field `scope`\n  |\n7 | scope = [\"read\"]\n  | ^\n  = help: did you mean `scopes`?"
    );
}

#[test]
fn a_stored_hash_is_not_shown() {
    let document = parse(&one_key("hash = \"$2y$05$CCCCCCCCCCCCCCCCCCCCC\""));
    assert_eq!(document.faults[0].source_line, "hash = \"$…");
    let refused = Parser::default().parse(b"[[key]]\nhash = \"$argon2id$v=19$secret").unwrap_err();
    assert!(!refused.to_string().contains("secret"), "{refused}");
}

#[test]
fn a_readable_revocation_counts_whatever_else_is_wrong() {
    let document = parse(&one_key("revoked_at = 2026-12-01T00:00:00Z\nnonsense = 1"));
    assert_eq!((document.keys.len(), document.revoked.len(), document.set_aside.len()), (0, 1, 1));
}

#[test]
fn what_is_there_twice_is_not_accepted() {
    let document = parse(&(one_key("") + &one_key("prefix = \"ck_2\"\nrevoked_at = 2026-12-01T00:00:00Z")));
    assert_eq!((document.keys.len(), document.set_aside.len(), document.quarantined), (0, 1, 2));
    assert_eq!(document.revoked.len(), 1);
    let document = parse(&(one_key("") + &one_key("id = \"key_2\"")));
    assert_eq!((document.keys.len(), document.set_aside.len()), (0, 2));
    let document = parse("[[owner]]\nid = \"svc\"\n[[owner]]\nid = \"svc\"\n");
    assert_eq!((document.owners.len(), document.owners_set_aside.len()), (1, 1));
}

#[test]
fn an_owner_with_a_bad_entry_is_suspended() {
    let document = parse("[[owner]]\nid = \"svc\"\nsuspended = true\n");
    let owner = &document.owners[0];
    assert!(owner.suspended_at.is_some() && owner.capabilities.is_empty());
    assert_eq!((document.quarantined, document.owners_set_aside.len()), (1, 1));
}

#[test]
fn an_entry_under_a_misspelt_header_is_set_aside() {
    let document =
        parse(&(one_key("").replace("[[key]]", "[[kye]]") + "[[onwer]]\nid = \"svc\"\n[key]\nid = \"key_3\"\n"));
    assert_eq!((document.keys.len(), document.quarantined), (0, 3));
    assert!(document.set_aside.iter().any(|id| id.as_str() == "key_1"));
    assert!(document.owners.iter().any(|owner| owner.id.as_str() == "svc" && owner.suspended_at.is_some()));
    assert_eq!(document.faults[0].suggestion.as_deref(), Some("did you mean `key`?"));
    assert_eq!(document.faults[2].suggestion.as_deref(), Some("write [[key]]"));
}

#[test]
fn what_is_not_toml_or_torn_is_refused() {
    check_refused("[[key]]\nid = \n", Why::NotToml, "not TOML: string values must be quoted, expected literal string");
    check_refused(
        "id = \"key_1\"\n[[key]]\n",
        Why::NotToml,
        "unknown field `id` outside of [[key]], [[owner]] and [end]",
    );
    check_refused("[[key]]\nid = 1\nid = 1\n", Why::NotToml, "not TOML: duplicate key");
    check_refused("[end]\nowners = 0\nkeys = 0\n[end]\nowners = 0\nkeys = 0\n", Why::NotToml, "a second [end]");
    check_refused(
        "[end]\nowners = 0\nkeys = 1\n",
        Why::Torn,
        "torn: [end] says 0 owners and 1 keys, and there are 0 and 0",
    );
    check_refused("[end]\nowners = 0\n", Why::Torn, "`keys` is missing");
    check_refused("[[owner]]\nsuspended_at = 2026-12-01T00:00:00Z\n", Why::Torn, "`id` is missing");
    let refused = Parser::default().parse(b"[[key]]\n\xff").unwrap_err();
    assert_eq!((refused.why, refused.faults[0].line), (Why::NotToml, 2));
}

#[test]
fn a_byte_order_mark_is_no_fault() {
    assert_eq!(parse(&format!("\u{feff}{}", one_key(""))).keys.len(), 1);
    assert_eq!(parse(&format!("\u{feff}# Keys\n\n{}", one_key("")).replace('\n', "\r\n")).keys.len(), 1);
}

#[test]
fn all_broken_blocks_are_reported_at_once() {
    let refused = Parser::default().parse(b"[[key]]\na = x\n[[key]]\nb = 1\n[[key]]\nc = y\n").unwrap_err();
    let lines: Vec<_> = refused.faults.iter().map(|fault| fault.line).filter(|line| *line % 2 == 0).collect();
    assert!(lines.contains(&2) && lines.contains(&6), "{refused}");
}

#[test]
fn unchanged_blocks_are_the_same_rows() {
    let mut parser = Parser::default();
    let text = full(true);
    let first = parser.parse(text.as_bytes()).unwrap();
    let moved = format!("# one more line\n{}", text.replace("key_3", "key_4"));
    let second = parser.parse(moved.as_bytes()).unwrap();
    assert!(Arc::ptr_eq(&first.keys[0], &second.keys[0]) && Arc::ptr_eq(&first.owners[1], &second.owners[1]));
    assert!(!Arc::ptr_eq(&first.keys[2], &second.keys[2]));
    // A refused text between them forgets nothing.
    parser.parse(b"[[key]]\n").unwrap();
    parser.parse(b"x").unwrap_err();
}

#[test]
fn faults_of_remembered_blocks_move_with_them() {
    let mut parser = Parser::default();
    let text = one_key("nonsense = 1");
    let first = parser.parse(text.as_bytes()).unwrap();
    let second = parser.parse(format!("\n\n{text}").as_bytes()).unwrap();
    assert_eq!(first.faults[0].line + 2, second.faults[0].line);
}

#[test]
fn moments_need_their_offset() {
    for good in ["2027-02-19T00:00:00Z", "2027-02-19t00:00:00z", "2027-02-19T00:00:00.25+05:30", "2027-02-19 00:00:00Z"]
    {
        assert!(moment(good).is_some(), "{good}");
    }
    for bad in ["2027-02-19", "2027-02-19T00:00:00", "20270219T000000Z", "2027-02-19T00:00:00+00:00[UTC]", "", "é"] {
        assert!(moment(bad).is_none(), "{bad}");
    }
}

/// What people write for "never" is later than the calendar knows.
#[test]
fn the_last_moments_of_all_are_moments() {
    for last in
        ["9999-12-31T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999999-11:00", "9999-12-30T22:00:01Z"]
    {
        assert_eq!(moment(last), Some(jiff::Timestamp::MAX.into()), "{last}");
    }
    assert!(moment("9999-12-30T21:00:00Z").unwrap() < jiff::Timestamp::MAX.into());
    for bad in ["9999-12-32T00:00:00Z", "9999-12-31T24:01:00Z", "9999-12-31T00:00:00", "10000-01-01T00:00:00Z"] {
        assert!(moment(bad).is_none(), "{bad}");
    }
}

/// Two keys whose names look the same have the same name; what a file has already is taken as it is.
#[test]
fn a_new_name_holds_nothing_that_is_not_seen() {
    for good in ["Export", "Buchhaltung – Ausfuhr", "会計", "Учёт", "تصدير", "é (e\u{301})", "🚀"] {
        assert_eq!(check_new_name(good), Ok(()), "{good}");
    }
    let unseen = "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}\u{200b}\u{200d}\u{ad}\u{a0}\u{2003}\u{feff}\u{fe0f}\u{3164}\u{2028}\u{e0041}";
    for char in unseen.chars() {
        let name = format!("Export{char}");
        assert!(check_name(&name).is_ok() && check_new_name(&name).is_err(), "{:x}", u32::from(char));
    }
    assert!(check_new_name("tab\t").is_err() && check_new_name(&"x".repeat(201)).is_err());
}
