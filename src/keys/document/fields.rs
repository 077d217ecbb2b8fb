//! The fields of a key or an owner, whatever notation they come in: each is read by itself, so that all that is wrong is
//! said at once.

use std::{borrow::Cow, str::FromStr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::read::Note;
use crate::{
    clock::Wall,
    fault::{Severity, nearest},
    keys::{Kyc, Scopes, record::PublicPart, secret::SecretHash},
    limits::Quota,
    policy::network::Networks,
};

/// A table of fields. Places count in bytes from where the entry begins; a notation without places says 0.
pub(super) trait Table {
    /// Its values.
    type Value: Node;

    fn field(&self, name: &str) -> Option<&Self::Value>;
    fn names(&self) -> impl Iterator<Item = (&str, usize)>;
}

/// One value.
pub(super) trait Node: Sized {
    /// Where it begins.
    fn place(&self) -> usize;
    /// Its type, as people call it.
    fn kind(&self) -> &'static str;
    fn text(&self) -> Option<&str>;
    fn items(&self) -> Option<Vec<&Self>>;
    fn count(&self) -> Option<usize>;
    /// The text of a moment.
    fn moment(&self) -> Option<Cow<'_, str>>;
}

impl<'t> Table for DeTable<'t> {
    type Value = Spanned<DeValue<'t>>;

    fn field(&self, name: &str) -> Option<&Self::Value> {
        self.get(name)
    }

    fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.keys().map(|name| (name.get_ref().as_ref(), name.span().start))
    }
}

impl Node for Spanned<DeValue<'_>> {
    fn place(&self) -> usize {
        self.span().start
    }

    fn kind(&self) -> &'static str {
        self.get_ref().type_str()
    }

    fn text(&self) -> Option<&str> {
        self.get_ref().as_str()
    }

    fn items(&self) -> Option<Vec<&Self>> {
        match self.get_ref() {
            DeValue::Array(items) => Some(items.iter().collect()),
            _ => None,
        }
    }

    fn count(&self) -> Option<usize> {
        match self.get_ref() {
            DeValue::Integer(count) => usize::from_str_radix(count.as_str(), count.radix()).ok(),
            _ => None,
        }
    }

    fn moment(&self) -> Option<Cow<'_, str>> {
        match self.get_ref() {
            DeValue::Datetime(moment) => Some(moment.to_string().into()),
            DeValue::String(text) => Some(text.as_ref().into()),
            _ => None,
        }
    }
}

/// What is wrong with a value, and where within the block when that is not the value as a whole.
type Wrong = (Option<usize>, String);

/// The fields of one table; what is wrong with them gathers in `notes`.
pub(super) struct Fields<'a, T> {
    table: &'a T,
    pub(super) notes: Vec<Note>,
}

impl<'a, T: Table> Fields<'a, T> {
    /// Notes every field that is not `known`: it may be a restriction that was misspelt.
    pub(super) fn new(table: &'a T, entry: &str, known: &[&str]) -> Self {
        let mut fields = Self { table, notes: Vec::new() };
        for (name, place) in table.names() {
            if !known.contains(&name) {
                fields.unknown_field(name, place, entry, known);
            }
        }
        fields
    }

    fn unknown_field(&mut self, name: &str, place: usize, entry: &str, known: &[&str]) {
        let suggestion = match nearest(name, known.iter().copied()) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("a {entry} has {}", known.join(", ")),
        };
        self.note(place, format!("unknown field `{name}`"), Some(suggestion));
    }

    fn note(&mut self, offset: usize, message: String, suggestion: Option<String>) {
        self.notes.push(Note { offset, message, suggestion, severity: Severity::Error });
    }

    pub(super) fn is_good(&self) -> bool {
        self.notes.iter().all(|note| note.severity != Severity::Error)
    }

    pub(super) fn optional<R>(&mut self, name: &str, read: impl FnOnce(&T::Value) -> Result<R, Wrong>) -> Option<R> {
        let value = self.table.field(name)?;
        match read(value) {
            Ok(value) => Some(value),
            Err((place, why)) => {
                self.note(place.unwrap_or(value.place()), format!("`{name}`: {why}"), None);
                None
            }
        }
    }

    pub(super) fn required<R>(&mut self, name: &str, read: impl FnOnce(&T::Value) -> Result<R, Wrong>) -> Option<R> {
        if self.table.field(name).is_none() {
            self.note(0, format!("`{name}` is missing"), None);
        }
        self.optional(name, read)
    }

    /// `prefix`, or `lookup` where only a digest of the public part is known.
    pub(super) fn public_part(&mut self) -> Option<PublicPart> {
        let prefix = self.optional("prefix", Self::prefix).map(PublicPart::Clear);
        let lookup = self.optional("lookup", Self::lookup);
        match (self.table.field("prefix"), self.table.field("lookup")) {
            (Some(_), Some(_)) => self.note(0, "`prefix` and `lookup` are both there; one names the key".into(), None),
            (None, None) => self.note(0, "`prefix` is missing".into(), None),
            _ => {}
        }
        prefix.or(lookup)
    }

    fn text(value: &T::Value) -> Result<&str, Wrong> {
        value.text().ok_or_else(|| (None, format!("expected a string, not a {}", value.kind())))
    }

    pub(super) fn parsed<R: FromStr<Err = &'static str>>(value: &T::Value) -> Result<R, Wrong> {
        Self::text(value)?.parse().map_err(|why: &str| (None, why.to_owned()))
    }

    /// A name for people: it is shown in terminals and logs, so it holds nothing that those would obey.
    pub(super) fn name(value: &T::Value) -> Result<Box<str>, Wrong> {
        let text = Self::text(value)?;
        match super::check_name(text) {
            Ok(()) => Ok(text.into()),
            Err(why) => Err((None, why.to_owned())),
        }
    }

    fn prefix(value: &T::Value) -> Result<Box<str>, Wrong> {
        let text = Self::text(value)?;
        // A Basic user name ends at the first colon (RFC 7617 §2).
        let good = (1..=256).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        if good { Ok(text.into()) } else { Err((None, "expected printable ASCII without spaces and colons".into())) }
    }

    fn lookup(value: &T::Value) -> Result<PublicPart, Wrong> {
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

    pub(super) fn hash(value: &T::Value) -> Result<SecretHash, Wrong> {
        SecretHash::parse(Self::text(value)?).map_err(|why| (None, why.to_string()))
    }

    fn list(value: &T::Value) -> Result<Vec<(usize, &str)>, Wrong> {
        let items =
            value.items().ok_or_else(|| (None, format!("expected a list of strings, not a {}", value.kind())))?;
        items
            .into_iter()
            .map(|item| Self::text(item).map(|text| (item.place(), text)).map_err(|(_, why)| (Some(item.place()), why)))
            .collect()
    }

    pub(super) fn scopes(value: &T::Value) -> Result<Scopes, Wrong> {
        let texts = Self::list(value)?;
        Scopes::parse(texts.iter().map(|(_, text)| *text))
            .map_err(|(index, why)| (Some(texts[index].0), why.to_owned()))
    }

    pub(super) fn words(value: &T::Value) -> Result<Vec<Box<str>>, Wrong> {
        let check = |(place, text): (usize, &str)| {
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err((Some(place), "expected a word".to_owned()));
            }
            Ok(text.into())
        };
        Self::list(value)?.into_iter().map(check).collect()
    }

    pub(super) fn networks(value: &T::Value) -> Result<Networks, Wrong> {
        let mut networks = Vec::new();
        for (place, text) in Self::list(value)? {
            networks.push(super::network(text).map_err(|why| (Some(place), why))?);
        }
        Ok(networks.into_iter().collect())
    }

    pub(super) fn quotas(value: &T::Value) -> Result<Vec<Quota>, Wrong> {
        let texts = Self::list(value)?;
        // An empty list could mean no limit or no limits of its own; nobody should have to guess.
        if texts.is_empty() {
            return Err((None, "an empty list; leave the field out for the limits of the plan".into()));
        }
        texts.into_iter().map(|(place, text)| text.parse().map_err(|why: &str| (Some(place), why.to_owned()))).collect()
    }

    pub(super) fn kyc(value: &T::Value) -> Result<Kyc, Wrong> {
        super::kyc(Self::text(value)?).map_err(|why| (None, why.to_owned()))
    }

    /// A moment with its offset from UTC, as TOML has it or as a string (RFC 3339).
    pub(super) fn moment(value: &T::Value) -> Result<Wall, Wrong> {
        let why = "expected a moment with its offset, such as 2027-02-19T00:00:00Z";
        let moment = value.moment().ok_or_else(|| (None, why.to_owned()))?;
        super::moment(&moment).ok_or_else(|| (None, why.to_owned()))
    }

    pub(super) fn count(value: &T::Value) -> Result<usize, Wrong> {
        value.count().ok_or_else(|| (None, "expected a count".to_owned()))
    }
}
