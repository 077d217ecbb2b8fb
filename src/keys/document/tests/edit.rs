//! Edits: what is touched, and what stays.

use super::{full, one_key, parse};
use crate::keys::{
    Mode,
    document::{
        KeyRow, OwnerRow, Parser,
        edit::{Draft, List, key_fields, list, owner_fields, text},
    },
};

#[test]
fn an_added_entry_reads_back_and_keeps_what_was_there() {
    let text = full(true);
    let document = parse(&text);
    let mut draft = Draft::new(text.clone());
    let row = KeyRow {
        id: "key_9".parse().unwrap(),
        public: crate::keys::record::PublicPart::Clear("ck_9".into()),
        ..(*document.keys[2]).clone()
    };
    let owner = OwnerRow { id: "new".parse().unwrap(), ..(*document.owners[1]).clone() };
    draft.add(List::Keys, &key_fields(&row));
    draft.add(List::Owners, &owner_fields(&owner));
    draft.seal();
    let after = parse(draft.text());
    assert_eq!((after.owners.len(), after.keys.len(), after.faults.len()), (3, 4, 0));
    assert_eq!((&*after.owners[2], after.keys[3].public.clone()), (&owner, row.public.clone()));
    let mut written = (*after.keys[3]).clone();
    // Moments are written to the second.
    written.expires_at = row.expires_at;
    assert_eq!(written, row);
    // Every line that was there still is, in order; only the counts changed.
    let mut lines = draft.text().lines();
    for line in text.lines().filter(|line| !line.starts_with("owners = ") && !line.starts_with("keys = ")) {
        assert!(lines.any(|there| there == line), "{line} is gone from\n{}", draft.text());
    }
}

#[track_caller]
fn check_edit(before: &str, edit: impl FnOnce(&mut Draft), after: &str) {
    let mut draft = Draft::new(before);
    edit(&mut draft);
    assert_eq!(draft.text(), after);
}

#[test]
fn a_field_is_set_in_place_or_in_the_usual_order() {
    let before = "[[key]]\nid = \"a\" # one\nkind = 'pair'  # two\nrevoked_at = 1\n";
    check_edit(
        before,
        |draft| assert!(draft.set(List::Keys, "a", "kind", Some(&text("token")))),
        "[[key]]\nid = \"a\" # one\nkind = \"token\"  # two\nrevoked_at = 1\n",
    );
    check_edit(
        before,
        |draft| assert!(draft.set(List::Keys, "a", "scopes", Some(&list(["read"])))),
        "[[key]]\nid = \"a\" # one\nkind = 'pair'  # two\nscopes = [\"read\"]\nrevoked_at = 1\n",
    );
    check_edit(
        before,
        |draft| assert!(draft.set(List::Keys, "a", "kind", None)),
        "[[key]]\nid = \"a\" # one\nrevoked_at = 1\n",
    );
    check_edit(
        "[[key]]\nid = \"\\u0061\"\n",
        |draft| assert!(draft.set(List::Keys, "a", "name", Some(&text("x")))),
        "[[key]]\nid = \"\\u0061\"\nname = \"x\"\n",
    );
    check_edit(before, |draft| assert!(!draft.set(List::Owners, "a", "kind", None)), before);
    check_edit(
        "[[key]]\r\nid = \"a\"",
        |draft| assert!(draft.set(List::Keys, "a", "name", Some(&text("x")))),
        "[[key]]\r\nid = \"a\"\r\nname = \"x\"",
    );
    check_edit(
        "[[key]]\r\nid = \"a\"\r\n\r\n[end]\r\n",
        |draft| assert!(draft.set(List::Keys, "a", "name", Some(&text("x")))),
        "[[key]]\r\nid = \"a\"\r\nname = \"x\"\r\n\r\n[end]\r\n",
    );
}

/// Fields that stay the same stay as they were written, however that was.
#[test]
fn a_changed_key_keeps_what_stays() {
    let before = one_key("name   = 'a' # A\nallow_ips = [\n  '10.0.0.1', # office\n]\nlimits = [ '5/1m' ]\n");
    let from = parse(&before).keys[0].clone();
    check_edit(&before, |draft| draft.change(&from, &from), &before);
    let to = KeyRow { allow_ips: Default::default(), name: "b".into(), mode: Some(Mode::Live), ..(*from).clone() };
    let mut draft = Draft::new(before.clone());
    draft.change(&from, &to);
    assert_eq!(*parse(draft.text()).keys[0], to, "{}", draft.text());
    assert!(draft.text().contains("name   = \"b\" # A\n") && draft.text().contains("limits = [ '5/1m' ]\n"));
    assert!(!draft.text().contains("office") && !draft.text().contains("allow_ips"), "{}", draft.text());
}

#[test]
fn a_removed_entry_takes_its_comment_along() {
    check_edit(
        "# File\n[[key]]\nid = \"a\"\n\n# B\n[[key]]\nid = \"b\"\n\n# End\n[end]\nkeys = 2\nowners = 0\n",
        |draft| {
            assert!(draft.remove(List::Keys, "b"));
            draft.seal();
        },
        "# File\n[[key]]\nid = \"a\"\n\n# End\n[end]\nkeys = 1\nowners = 0\n",
    );
    check_edit(
        "# File\n[[key]]\nid = \"a\"\n\n[[key]]\nid = \"b\"\n",
        |draft| assert!(draft.remove(List::Keys, "a")),
        "# File\n[[key]]\nid = \"b\"\n",
    );
}

#[test]
fn entries_are_added_apart() {
    let add = |draft: &mut Draft| {
        draft.add(List::Keys, &[("id", text("a"))]);
        draft.add(List::Owners, &[("id", text("o"))]);
        draft.seal();
    };
    let entries = "[[owner]]\nid = \"o\"\n\n[[key]]\nid = \"a\"\n\n[end]\nowners = 1\nkeys = 1\n";
    check_edit("", add, entries);
    check_edit("# Keys", add, &format!("# Keys\n\n{entries}"));
    check_edit("[end]\nowners = 0\nkeys = 0\n", add, entries);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parsing_never_panics(typed in "(\\[\\[key\\]\\]|\\[\\[owner\\]\\]|\\[end\\]|id|=|\"|'|\\[|\\]|#|é|2027-02-19| |\n){0,30}") {
            let _ = Parser::default().parse(typed.as_bytes());
            let mut draft = Draft::new(typed);
            draft.set(List::Keys, "a", "name", Some(&text("x")));
            draft.remove(List::Owners, "a");
            draft.add(List::Keys, &[]);
            draft.seal();
        }

        /// What a line holds may be anything: it is cut, mangled or repeated, and nothing gets looser.
        #[test]
        fn a_name_reads_back(name in "\\PC{0,40}") {
            let mut draft = Draft::new(one_key(""));
            draft.set(List::Keys, "key_1", "name", Some(&text(&name)));
            prop_assert_eq!(&*parse(draft.text()).keys[0].name, &*name);
        }
    }
}
