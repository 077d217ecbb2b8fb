//! A key in words: what people are told of it, by commands, pages and the API alike.

use super::{
    document::{KeyRow, OwnerRow},
    record::PublicPart,
};

/// Capabilities that let their holder do everything at an upstream.
const ADMINISTRATOR: &[&str] = &["administrator", "manage_options", "admin", "root", "superuser", "super_admin", "*"];

/// The capability that makes an owner an administrator, if one does.
pub fn administrator(owner: &OwnerRow) -> Option<&str> {
    let is = |held: &&str| ADMINISTRATOR.iter().any(|name| held.eq_ignore_ascii_case(name));
    owner.capabilities.iter().map(|held| &**held).find(is)
}

/// What a key will be able to do, in one plain sentence.
pub fn sentence(row: &KeyRow) -> String {
    let mut does = Vec::new();
    let mut names = Vec::new();
    for scope in row.scopes.iter() {
        match scope {
            "read" | "write" => does.push(scope),
            "read_write" => does.push("read and write"),
            name => names.push(name),
        }
    }
    let using = format!("use {}", and(&names));
    if !names.is_empty() {
        does.push(&using);
    }
    if does.is_empty() {
        does.push("do only what needs no scope");
    }
    let mode = row.mode.map(|mode| format!(" in {} mode", mode.as_str())).unwrap_or_default();
    let from = match row.allow_ips.iter().map(|network| network.to_string()).collect::<Vec<_>>() {
        any if any.is_empty() => "from any address".to_owned(),
        these => format!("from {} only", and(&these)),
    };
    let limits = match &row.limits {
        Some(limits) => {
            let limits: Vec<_> = limits.iter().map(ToString::to_string).collect();
            format!(", within {}", and(&limits))
        }
        None => String::new(),
    };
    let until = match row.expires_at {
        Some(at) => format!("until {at}"),
        None => "until it is revoked".to_owned(),
    };
    format!("This key may {} for {}{mode}, {from}{limits}, {until}.", does.join(", and "), row.owner)
}

fn and<T: AsRef<str>>(words: &[T]) -> String {
    match words {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", first.join(", "), last.as_ref())
        }
    }
}

/// The public part as it is shown.
pub fn prefix(row: &KeyRow) -> Option<&str> {
    match &row.public {
        PublicPart::Clear(prefix) => Some(prefix),
        PublicPart::Digest { .. } => None,
    }
}
