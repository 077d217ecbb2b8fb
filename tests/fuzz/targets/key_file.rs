//! A key document is read the same with and without what is remembered of the last one, and an edit changes what it is
//! asked to change and no other byte.
//!
//! An input: the text of a key file.

#![no_main]

use std::{collections::HashSet, sync::Arc};

use keyside::{
    clock::Wall,
    keys::document::{
        Document, KeyRow, Parser,
        edit::{Draft, List, key_fields, moment, text as quoted},
    },
};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut parser = Parser::default();
    let Ok(document) = parser.parse(text.as_bytes()) else { return edit_at_random(text) };
    let again = parser.parse(text.as_bytes()).expect("it was good a moment ago");
    assert_same(&again, &document);
    assert!(
        document.revoked.keys().all(|id| { document.keys.iter().all(|row| row.id != *id || row.revoked_at.is_some()) })
    );
    let ids: HashSet<_> = document.keys.iter().map(|row| &row.id).collect();
    assert_eq!(ids.len(), document.keys.len(), "two keys of one id");
    if !document.faults.is_empty() {
        return edit_at_random(text);
    }
    for row in &document.keys {
        revoke(text, row, &document, &mut parser);
    }
    if let Some(row) = document.keys.first() {
        add_and_remove(text, row, &document);
    }
    let mut sealed = Draft::new(text);
    sealed.seal();
    let after = read(sealed.text());
    assert_eq!((&after.keys, &after.owners), (&document.keys, &document.owners));
    let end = after.end.expect("an end");
    assert_eq!((end.keys, end.owners), (after.keys.len(), after.owners.len()));
});

/// A revocation is written and taken back: one field changes, and then every byte is what it was.
fn revoke(text: &str, row: &Arc<KeyRow>, document: &Document, parser: &mut Parser) {
    let at = Wall::from_unix_millis(1_900_000_000_000);
    let mut draft = Draft::new(text);
    assert!(draft.set(List::Keys, row.id.as_str(), "revoked_at", Some(&moment(at))));
    let after = read(draft.text());
    assert_same(&parser.parse(draft.text().as_bytes()).expect("a good text"), &after);
    assert_eq!((&after.owners, after.keys.len()), (&document.owners, document.keys.len()));
    for (now, before) in after.keys.iter().zip(&document.keys) {
        let revoked = KeyRow { revoked_at: Some(at), ..(**before).clone() };
        assert_eq!(**now, if before.id == row.id { revoked } else { (**before).clone() });
    }
    if row.revoked_at.is_none() {
        assert!(draft.set(List::Keys, row.id.as_str(), "revoked_at", None));
        let left = draft.text();
        // At the very end of a text, the line end that the field needed may stay.
        assert!(left == text || left.trim_end_matches(['\r', '\n']) == text, "{left:?}");
    }
}

/// A key is added and removed: the others stay.
fn add_and_remove(text: &str, row: &KeyRow, document: &Document) {
    let id = "added_by_the_fuzzer";
    let mut fields = key_fields(row);
    fields[0].1 = quoted(id);
    fields.retain(|(name, _)| *name != "rotated_from");
    for (name, value) in &mut fields {
        if matches!(*name, "prefix" | "lookup") {
            (*name, *value) = ("prefix", quoted("ck_added_by_the_fuzzer"));
        }
    }
    let mut draft = Draft::new(text);
    draft.add(List::Keys, &fields);
    assert!(draft.text().len() > text.len());
    draft.seal();
    let after = Parser::default().parse(draft.text().as_bytes()).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(after.keys.len() + after.quarantined, document.keys.len() + 1);
    assert!(draft.remove(List::Keys, id));
    draft.seal();
    let after = read(draft.text());
    assert_eq!((&after.keys, &after.owners), (&document.keys, &document.owners));
}

fn read(text: &str) -> Document {
    match Parser::default().parse(text.as_bytes()) {
        Ok(document) if document.faults.is_empty() => document,
        Ok(document) => panic!("{:?} in {text}", document.faults),
        Err(refused) => panic!("{refused} in {text}"),
    }
}

fn assert_same(one: &Document, other: &Document) {
    let parts = |document: &Document| format!("{document:?}");
    assert_eq!((&one.keys, &one.owners, &one.digest), (&other.keys, &other.owners, &other.digest));
    let sorted = |document: &Document| {
        let mut letters = parts(document).into_bytes();
        letters.sort_unstable();
        letters
    };
    // The order of a map may differ, and nothing else.
    assert_eq!(sorted(one), sorted(other));
}

/// An edit of a text with faults may miss what it looks for, but does not panic.
fn edit_at_random(text: &str) {
    let mut draft = Draft::new(text);
    draft.set(List::Keys, "key_1", "name", Some(&quoted("x")));
    draft.set(List::Owners, "shop", "plan", None);
    draft.remove(List::Keys, "key_2");
    draft.seal();
}
