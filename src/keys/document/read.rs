//! Reads one block of the text: every field by itself, so that all that is wrong is said at once and a readable
//! `revoked_at` counts whatever else is wrong.

use std::{ops::Range, str::FromStr, sync::Arc};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{End, KeyRow, OwnerRow};
use crate::{
    clock::Wall,
    fault::{Severity, nearest},
    keys::{KeyId, Kyc, OwnerId, Scopes, record::PublicPart, secret::SecretHash},
    limits::Quota,
    policy::network::Networks,
};

/// What a block turned out to be.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Key {
        id: Option<KeyId>,
        row: Option<Arc<KeyRow>>,
        revoked_at: Option<Wall>,
    },
    Owner {
        id: Option<OwnerId>,
        row: Option<Arc<OwnerRow>>,
    },
    End(Option<End>),
    /// A table of another name; it may be a key or an owner whose header is misspelt.
    Unknown {
        id: Option<Box<str>>,
    },
    /// Not TOML.
    Broken,
}

/// A block that was read. Offsets count from the header, so that it stays true when the block moves.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) entry: Entry,
    pub(super) notes: Vec<Note>,
}

/// A fault whose place counts from the block's header.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) suggestion: Option<String>,
    pub(super) severity: Severity,
}

/// The fields of a key, in the order in which they are written.
pub(super) const KEY_FIELDS: &[&str] = &[
    "id",
    "name",
    "kind",
    "prefix",
    "lookup",
    "hash",
    "owner",
    "scopes",
    "mode",
    "allow_ips",
    "limits",
    "created_at",
    "expires_at",
    "revoked_at",
    "rotated_from",
];

/// The fields of an owner, in the order in which they are written.
pub(super) const OWNER_FIELDS: &[&str] = &["id", "name", "capabilities", "kyc", "plan", "suspended_at"];

/// Reads the block that begins with its header.
pub(super) fn read(text: &str) -> Read {
    let (table, errors) = DeTable::parse_recoverable(text);
    let table = table.into_inner();
    if !errors.is_empty() {
        let notes = errors
            .iter()
            .map(|error| Note {
                offset: error.span().map_or(0, |span| span.start),
                message: format!("not TOML: {}", error.message()),
                suggestion: None,
                severity: Severity::Error,
            })
            .collect();
        return Read { entry: Entry::Broken, notes };
    }
    let mut entries = table.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        return broken("more than one table where one was expected");
    };
    match (name.get_ref().as_ref(), value.get_ref()) {
        ("key", DeValue::Array(entries)) => match entries.iter().map(Spanned::get_ref).collect::<Vec<_>>()[..] {
            [DeValue::Table(table)] => key(table),
            _ => broken("expected one [[key]]"),
        },
        ("owner", DeValue::Array(entries)) => match entries.iter().map(Spanned::get_ref).collect::<Vec<_>>()[..] {
            [DeValue::Table(table)] => owner(table),
            _ => broken("expected one [[owner]]"),
        },
        ("end", DeValue::Table(table)) => end(table),
        (name, value) => unknown(name, value),
    }
}

fn broken(message: &str) -> Read {
    let note = Note { offset: 0, message: message.to_owned(), suggestion: None, severity: Severity::Error };
    Read { entry: Entry::Broken, notes: vec![note] }
}

fn unknown(name: &str, value: &DeValue<'_>) -> Read {
    let (message, suggestion) = match name {
        "key" | "owner" => (format!("[{name}] is one table, not a list"), Some(format!("write [[{name}]]"))),
        "end" => ("[[end]] is a list, not one table".to_owned(), Some("write [end]".to_owned())),
        _ => (
            format!("unknown table `{name}`"),
            nearest(name, ["key", "owner", "end"]).map(|known| format!("did you mean `{known}`?")),
        ),
    };
    let table = match value {
        DeValue::Table(table) => Some(table),
        DeValue::Array(entries) => entries.iter().find_map(|entry| entry.get_ref().as_table()),
        _ => None,
    };
    let id = table.and_then(|table| table.get("id")).and_then(|id| id.get_ref().as_str()).map(Into::into);
    let entry = if name == "end" { Entry::End(None) } else { Entry::Unknown { id } };
    Read { entry, notes: vec![Note { offset: 0, message, suggestion, severity: Severity::Error }] }
}

fn key(table: &DeTable<'_>) -> Read {
    let mut fields = Fields::new(table, "key", KEY_FIELDS);
    let id = fields.required("id", Fields::parsed::<KeyId>);
    let name = fields.optional("name", Fields::name).unwrap_or_default();
    let kind = fields.required("kind", Fields::parsed);
    let public = fields.public_part();
    let hash = fields.required("hash", Fields::hash);
    let owner = fields.required("owner", Fields::parsed);
    let scopes = fields.required("scopes", Fields::scopes);
    let mode = fields.optional("mode", Fields::parsed);
    let allow_ips = fields.optional("allow_ips", Fields::networks).unwrap_or_default();
    let limits = fields.optional("limits", Fields::quotas);
    let created_at = fields.optional("created_at", Fields::moment);
    let expires_at = fields.optional("expires_at", Fields::moment);
    let revoked_at = fields.optional("revoked_at", Fields::moment);
    let rotated_from = fields.optional("rotated_from", Fields::parsed);
    let good = fields.is_good();
    let row = match (good, &id, kind, public, hash, owner, scopes) {
        (true, Some(id), Some(kind), Some(public), Some(hash), Some(owner), Some(scopes)) => Some(Arc::new(KeyRow {
            id: id.clone(),
            name,
            kind,
            public,
            hash,
            owner,
            scopes,
            mode,
            allow_ips,
            limits,
            created_at,
            expires_at,
            revoked_at,
            rotated_from,
        })),
        _ => None,
    };
    Read { entry: Entry::Key { id, row, revoked_at }, notes: fields.notes }
}

fn owner(table: &DeTable<'_>) -> Read {
    let mut fields = Fields::new(table, "owner", OWNER_FIELDS);
    let id = fields.required("id", Fields::parsed::<OwnerId>);
    let name = fields.optional("name", Fields::name);
    let capabilities = fields.optional("capabilities", Fields::words).unwrap_or_default();
    let kyc = fields.optional("kyc", Fields::kyc).unwrap_or_default();
    let plan = fields.optional("plan", Fields::name);
    let suspended_at = fields.optional("suspended_at", Fields::moment);
    let row = match (fields.is_good(), &id) {
        (true, Some(id)) => Some(Arc::new(OwnerRow {
            id: id.clone(),
            name,
            capabilities: capabilities.into(),
            kyc,
            plan,
            suspended_at,
        })),
        _ => None,
    };
    Read { entry: Entry::Owner { id, row }, notes: fields.notes }
}

fn end(table: &DeTable<'_>) -> Read {
    let mut fields = Fields::new(table, "end", &["owners", "keys"]);
    let owners = fields.required("owners", Fields::count);
    let keys = fields.required("keys", Fields::count);
    let end = match (fields.is_good(), owners, keys) {
        (true, Some(owners), Some(keys)) => Some(End { owners, keys }),
        _ => None,
    };
    Read { entry: Entry::End(end), notes: fields.notes }
}

type Value<'t> = Spanned<DeValue<'t>>;
/// What is wrong with a value, and where within the block when that is not the value as a whole.
type Wrong = (Option<Range<usize>>, String);

/// The fields of one table; what is wrong with them gathers in `notes`.
struct Fields<'a, 't> {
    table: &'a DeTable<'t>,
    notes: Vec<Note>,
}

impl<'a, 't> Fields<'a, 't> {
    /// Notes every field that is not `known`: it may be a restriction that was misspelt.
    fn new(table: &'a DeTable<'t>, entry: &str, known: &[&str]) -> Self {
        let mut fields = Self { table, notes: Vec::new() };
        for name in table.keys() {
            if !known.contains(&name.get_ref().as_ref()) {
                fields.unknown_field(name, entry, known);
            }
        }
        fields
    }

    fn unknown_field(&mut self, name: &Spanned<DeString<'_>>, entry: &str, known: &[&str]) {
        let suggestion = match nearest(name.get_ref(), known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("a {entry} has {}", known.join(", ")),
        };
        self.note(name.span().start, format!("unknown field `{}`", name.get_ref()), Some(suggestion));
    }

    fn note(&mut self, offset: usize, message: String, suggestion: Option<String>) {
        self.notes.push(Note { offset, message, suggestion, severity: Severity::Error });
    }

    fn is_good(&self) -> bool {
        self.notes.iter().all(|note| note.severity != Severity::Error)
    }

    fn optional<T>(&mut self, name: &str, read: impl FnOnce(&Value<'t>) -> Result<T, Wrong>) -> Option<T> {
        let value = self.table.get(name)?;
        match read(value) {
            Ok(value) => Some(value),
            Err((place, why)) => {
                self.note(place.unwrap_or(value.span()).start, format!("`{name}`: {why}"), None);
                None
            }
        }
    }

    fn required<T>(&mut self, name: &str, read: impl FnOnce(&Value<'t>) -> Result<T, Wrong>) -> Option<T> {
        if self.table.get(name).is_none() {
            self.note(0, format!("`{name}` is missing"), None);
        }
        self.optional(name, read)
    }

    /// `prefix`, or `lookup` where only a digest of the public part is known.
    fn public_part(&mut self) -> Option<PublicPart> {
        let prefix = self.optional("prefix", Self::prefix).map(PublicPart::Clear);
        let lookup = self.optional("lookup", Self::lookup);
        match (self.table.get("prefix"), self.table.get("lookup")) {
            (Some(_), Some(_)) => self.note(0, "`prefix` and `lookup` are both there; one names the key".into(), None),
            (None, None) => self.note(0, "`prefix` is missing".into(), None),
            _ => {}
        }
        prefix.or(lookup)
    }

    fn text<'v>(value: &'v Value<'t>) -> Result<&'v str, Wrong> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text),
            other => Err((None, format!("expected a string, not a {}", other.type_str()))),
        }
    }

    fn parsed<T: FromStr<Err = &'static str>>(value: &Value<'t>) -> Result<T, Wrong> {
        Self::text(value)?.parse().map_err(|why: &str| (None, why.to_owned()))
    }

    /// A name for people: it is shown in terminals and logs, so it holds nothing that those would obey.
    fn name(value: &Value<'t>) -> Result<Box<str>, Wrong> {
        let text = Self::text(value)?;
        match super::check_name(text) {
            Ok(()) => Ok(text.into()),
            Err(why) => Err((None, why.to_owned())),
        }
    }

    fn prefix(value: &Value<'t>) -> Result<Box<str>, Wrong> {
        let text = Self::text(value)?;
        // A Basic user name ends at the first colon (RFC 7617 §2).
        let good = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if good { Ok(text.into()) } else { Err((None, "expected printable ASCII without spaces and colons".into())) }
    }

    fn lookup(value: &Value<'t>) -> Result<PublicPart, Wrong> {
        let wrong = || (None, "expected \"hmac-sha256:KEY:HEX\" with 64 hex digits".to_owned());
        let (key, hex) =
            Self::text(value)?.strip_prefix("hmac-sha256:").and_then(|rest| rest.rsplit_once(':')).ok_or_else(wrong)?;
        let mut digest = [0; 32];
        if key.is_empty() || hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| wrong())?;
        }
        Ok(PublicPart::Digest { key: key.into(), digest })
    }

    fn hash(value: &Value<'t>) -> Result<SecretHash, Wrong> {
        SecretHash::parse(Self::text(value)?).map_err(|why| (None, why.to_string()))
    }

    fn list<'v>(value: &'v Value<'t>) -> Result<Vec<(Range<usize>, &'v str)>, Wrong> {
        let DeValue::Array(items) = value.get_ref() else {
            return Err((None, format!("expected a list of strings, not a {}", value.get_ref().type_str())));
        };
        items
            .iter()
            .map(|item| Self::text(item).map(|text| (item.span(), text)).map_err(|(_, why)| (Some(item.span()), why)))
            .collect()
    }

    fn scopes(value: &Value<'t>) -> Result<Scopes, Wrong> {
        let texts = Self::list(value)?;
        Scopes::parse(texts.iter().map(|(_, text)| *text))
            .map_err(|(index, why)| (Some(texts[index].0.clone()), why.to_owned()))
    }

    fn words(value: &Value<'t>) -> Result<Vec<Box<str>>, Wrong> {
        let check = |(place, text): (Range<usize>, &str)| {
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err((Some(place), "expected a word".to_owned()));
            }
            Ok(text.into())
        };
        Self::list(value)?.into_iter().map(check).collect()
    }

    fn networks(value: &Value<'t>) -> Result<Networks, Wrong> {
        let mut networks = Vec::new();
        for (place, text) in Self::list(value)? {
            networks.push(super::network(text).map_err(|why| (Some(place), why))?);
        }
        Ok(networks.into_iter().collect())
    }

    fn quotas(value: &Value<'t>) -> Result<Vec<Quota>, Wrong> {
        let texts = Self::list(value)?;
        // An empty list could mean no limit or no limits of its own; nobody should have to guess.
        if texts.is_empty() {
            return Err((None, "an empty list; leave the field out for the limits of the plan".into()));
        }
        texts.into_iter().map(|(place, text)| text.parse().map_err(|why: &str| (Some(place), why.to_owned()))).collect()
    }

    fn kyc(value: &Value<'t>) -> Result<Kyc, Wrong> {
        super::kyc(Self::text(value)?).map_err(|why| (None, why.to_owned()))
    }

    /// A moment with its offset from UTC, as TOML has it or as a string (RFC 3339).
    fn moment(value: &Value<'t>) -> Result<Wall, Wrong> {
        let why = "expected a moment with its offset, such as 2027-02-19T00:00:00Z";
        let moment = match value.get_ref() {
            DeValue::Datetime(moment) => moment.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => return Err((None, why.to_owned())),
        };
        super::moment(&moment).ok_or_else(|| (None, why.to_owned()))
    }

    fn count(value: &Value<'t>) -> Result<usize, Wrong> {
        match value.get_ref() {
            DeValue::Integer(count) => usize::from_str_radix(count.as_str(), count.radix()).ok(),
            _ => None,
        }
        .ok_or_else(|| (None, "expected a count".to_owned()))
    }
}
