//! What was typed: fields of a query or of a form, and what is wrong with them.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::super::answer::Problem;

/// All that has a meaning in a query, or may not stand there.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'+')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'/')
    .add(b'?');

/// Names and values, as they were sent (`application/x-www-form-urlencoded`).
#[derive(Clone, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads fields; none where one of them is no text.
    pub(super) fn read(text: &str) -> Option<Self> {
        let decode = |part: &str| {
            let part = part.replace('+', " ");
            percent_decode_str(&part).decode_utf8().ok().map(|text| text.replace("\r\n", "\n"))
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        pairs.collect::<Option<Vec<_>>>().map(Self)
    }

    /// The value of a field; empty where there is none.
    pub(super) fn one(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The value of a field, without white space around it; none where that is nothing.
    pub(super) fn some(&self, name: &str) -> Option<&str> {
        Some(self.one(name).trim()).filter(|value| !value.is_empty())
    }

    /// The values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// What stands in a field, as a list: separated by commas, spaces or lines.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        let parts = self.one(name).split(|char: char| char == ',' || char == ';' || char.is_whitespace());
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// Puts a value in the place of all there were.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.0.push((name.to_owned(), value.into()));
    }

    /// Adds a value.
    pub(super) fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Takes a field away.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    /// As a query, without what is empty.
    pub(super) fn query(&self) -> String {
        let pairs = self.0.iter().filter(|(_, value)| !value.is_empty());
        pairs.map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect::<Vec<_>>().join("&")
    }
}

/// Names alone: a value may be a password.
impl std::fmt::Debug for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// A text as a part of a path or a query.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A form, as a page shows it: what was typed, and what is wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Form {
    pub(super) fields: Fields,
    pub(super) problem: Option<Problem>,
}

impl Form {
    pub(super) fn new(fields: Fields) -> Self {
        Self { fields, problem: None }
    }

    /// A form that comes back.
    pub(super) fn wrong(fields: Fields, problem: Problem) -> Self {
        Self { fields, problem: Some(problem) }
    }

    /// What stands in a field.
    pub(super) fn value(&self, name: &str) -> &str {
        self.fields.one(name)
    }

    /// Whether a box is ticked, or a line chosen.
    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.fields.0.iter().any(|(key, there)| key == name && there == value)
    }

    /// Whether this is what is chosen where one of a list has to be.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.value(name) == value
    }

    /// Whether something is wrong with a field.
    pub(super) fn is_wrong(&self, name: &str) -> bool {
        self.problem.as_ref().is_some_and(|problem| problem.field == Some(name))
    }

    /// What is wrong, for people: the API's fields are set off by backticks.
    pub(super) fn message(&self) -> String {
        self.problem.as_ref().map(|problem| problem.message.replace('`', "")).unwrap_or_default()
    }

    /// The field that is wrong, if it is one.
    pub(super) fn field(&self) -> &str {
        self.problem.as_ref().and_then(|problem| problem.field).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_browsers_write_them() {
        let fields = Fields::read("a=1+2%2B3&b=&a=x%0D%0Ay&c&%C3%A4=%E2%82%AC").expect("fields");
        assert_eq!(fields.all("a"), ["1 2+3", "x\ny"]);
        assert_eq!((fields.one("b"), fields.one("c"), fields.one("d"), fields.one("ä")), ("", "", "", "€"));
        assert_eq!(fields.query(), "a=1%202%2B3&a=x%0Ay&%C3%A4=%E2%82%AC");
        assert!(Fields::read("a=%FF").is_none());
    }

    #[test]
    fn lists_are_typed_in_any_way() {
        let mut fields = Fields::default();
        fields.set("ips", " 203.0.113.42, 198.51.100.0/24;\n2001:db8::/32\t,, ");
        assert_eq!(fields.list("ips"), ["203.0.113.42", "198.51.100.0/24", "2001:db8::/32"]);
    }

    #[test]
    fn no_value_is_shown_to_whoever_debugs() {
        let fields = Fields::read("password=hunter2").expect("fields");
        assert_eq!(format!("{fields:?}"), "[\"password\"]");
    }
}
