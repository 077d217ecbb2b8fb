//! Cut and shrunken texts: what is not believed.

use std::sync::Arc;

use super::{full, one_key, parse};
use crate::keys::document::{Care, Document, KeyRow, LastGood, OwnerRow, Parser, Why};

fn last_good(text: &str) -> LastGood {
    LastGood { document: parse(text), text: text.into() }
}

/// What would be put into force: none when the last good version stays.
fn accept(last: &LastGood, text: &[u8]) -> Option<Document> {
    let document = Parser::default().parse(text).ok()?;
    last.judge(&document, text, Care::Careful).ok().map(|()| document)
}

/// No key may do more, and none may do what it could not.
#[track_caller]
fn assert_not_looser(new: &Document, old: &Document) {
    let owner = |document: &Document, key: &KeyRow| -> Option<Arc<OwnerRow>> {
        document.owners.iter().find(|owner| owner.id == key.owner).cloned()
    };
    for key in &new.keys {
        let before = old.keys.iter().find(|row| row.id == key.id).expect("no new key");
        let without_comfort = |row: &KeyRow| KeyRow {
            name: "".into(),
            created_at: None,
            rotated_from: None,
            minted_by: None,
            ..row.clone()
        };
        assert_eq!(without_comfort(key), without_comfort(before));
        match (owner(new, key), owner(old, key)) {
            (Some(new), Some(old)) => {
                assert!(new.suspended_at.is_some() || (old.suspended_at.is_none() && new.plan == old.plan));
                assert!(new.capabilities.iter().all(|held| old.capabilities.contains(held)));
            }
            (None, Some(old)) => assert!(old.suspended_at.is_none() && old.plan.is_none()),
            (_, None) => {}
        }
    }
}

#[test]
fn a_cut_file_with_end_is_refused_at_every_byte() {
    let text = full(true);
    let last = last_good(&text);
    for at in 0..text.trim_end().len() {
        assert!(accept(&last, &text.as_bytes()[..at]).is_none(), "cut at {at}");
    }
    assert!(accept(&last, text.trim_end().as_bytes()).is_some());
}

#[test]
fn a_file_without_end_cut_at_any_byte_is_never_looser() {
    let text = full(false);
    let last = last_good(&text);
    let (before, owners) = text.split_at(text.find("# The export").unwrap());
    let owners_last = format!("{owners}\n{before}");
    for (text, last) in [(&text, &last), (&owners_last, &last_good(&owners_last))] {
        let mut accepted = 0;
        for at in 0..=text.len() {
            if let Some(document) = accept(last, &text.as_bytes()[..at]) {
                assert_not_looser(&document, &last.document);
                accepted += 1;
            }
        }
        // Whole entries may be cut off at the end, as an operator does it.
        assert!(accepted > 1);
    }
}

#[test]
fn a_new_version_without_end_cut_at_any_byte_is_never_looser_for_known_keys() {
    let text = full(false);
    let last = last_good(&text);
    let next = text.replace("# The keys", "# All the keys");
    for at in 0..=next.len() {
        if let Some(document) = accept(&last, &next.as_bytes()[..at]) {
            assert_not_looser(&document, &last.document);
        }
    }
}

#[track_caller]
fn check_judge(last: &str, next: &str, care: Care, expected: Option<Why>) {
    let judged = last_good(last).judge(&parse(next), next.as_bytes(), care);
    assert_eq!(judged.err().map(|refused| refused.why), expected);
}

#[test]
fn without_end_a_set_that_shrank_is_refused_until_forced() {
    let keys = |count: usize| -> String {
        (0..count).map(|index| one_key(&format!("id = \"k{index}\"\nprefix = \"ck_{index}\""))).collect()
    };
    check_judge(&keys(4), "", Care::Careful, Some(Why::Shrunk));
    check_judge(&keys(4), &keys(1), Care::Careful, Some(Why::Shrunk));
    check_judge(&keys(4), &keys(2), Care::Careful, None);
    check_judge(&keys(4), &keys(1), Care::Forced, None);
    check_judge(&keys(4), "[end]\nowners = 0\nkeys = 0\n", Care::Careful, None);
    assert!(LastGood::judge_first(&parse(""), Care::Careful).is_err());
    assert!(LastGood::judge_first(&parse(""), Care::Forced).is_ok());
    assert!(LastGood::judge_first(&parse("[end]\nowners = 0\nkeys = 0\n"), Care::Careful).is_ok());
}

#[test]
fn once_there_was_an_end_there_must_be_one() {
    check_judge("[end]\nowners = 0\nkeys = 0\n", &one_key(""), Care::Careful, Some(Why::Torn));
    check_judge("[end]\nowners = 0\nkeys = 0\n", &one_key(""), Care::Forced, Some(Why::Torn));
}

#[test]
fn without_end_a_restriction_does_not_vanish_from_the_last_entry() {
    for line in [
        "allow_ips = [\"203.0.113.42\"]",
        "expires_at = 2027-02-19T00:00:00Z",
        "revoked_at = 2027-02-19T00:00:00Z",
        "limits = [\"5/1m\"]",
        "mode = \"test\"",
    ] {
        check_judge(&one_key(line), &one_key(""), Care::Careful, Some(Why::Torn));
        check_judge(&one_key(line), &one_key(""), Care::Forced, None);
        // Elsewhere than in the last entry, a cut cannot have done it.
        let other = one_key("id = \"key_2\"\nprefix = \"ck_2\"");
        check_judge(&(one_key(line) + &other), &(one_key("") + &other), Care::Careful, None);
    }
    let owner = |line: &str| format!("{}[[owner]]\nid = \"svc\"\n{line}\n", one_key(""));
    check_judge(&owner("plan = \"free\""), &owner(""), Care::Careful, Some(Why::Torn));
    check_judge(&owner("suspended_at = 2026-01-01T00:00:00Z"), &one_key(""), Care::Careful, Some(Why::Torn));
    check_judge(&owner("kyc = \"approved\""), &one_key(""), Care::Careful, None);
}
