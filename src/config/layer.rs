//! Layers: one TOML text each – the defaults, a preset, the user's file, the environment – laid over one another with the
//! place of every value kept.

use std::{ops::Range, path::PathBuf, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::fault::Fault;

/// Where a text came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The embedded defaults.
    Default,
    /// An embedded preset.
    Preset(&'static str),
    /// The user's file.
    File(PathBuf),
    /// An environment variable; its text is the value alone.
    Environment(String),
}

/// A text and where it came from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) origin: Origin,
    pub(super) text: String,
}

/// A stretch of a source.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
}

impl Place {
    /// The fault, at this place.
    pub(super) fn mark(&self, fault: Fault) -> Fault {
        match &self.source.origin {
            Origin::Default => fault.in_file("defaults".as_ref()).at(&self.source.text, self.span.start),
            Origin::Preset(name) => {
                fault.in_file(format!("preset {name}").as_ref()).at(&self.source.text, self.span.start)
            }
            Origin::File(path) => {
                let mut fault = fault.in_file(path).at(&self.source.text, self.span.start);
                veil(&mut fault);
                fault
            }
            // The value is not shown: what stands in the wrong variable may be a secret.
            Origin::Environment(variable) => {
                Fault { message: format!("environment variable {variable}: {}", fault.message), ..fault }
            }
        }
    }

    /// Whether the user wrote it, rather than a preset or the defaults.
    pub(super) fn is_users(&self) -> bool {
        matches!(self.source.origin, Origin::File(_) | Origin::Environment(_))
    }

    /// Whether it is an embedded default.
    pub(super) fn is_default(&self) -> bool {
        self.source.origin == Origin::Default
    }

    /// Whether it is the value of an environment variable.
    pub(super) fn is_variable(&self) -> bool {
        matches!(self.source.origin, Origin::Environment(_))
    }

    /// The text itself.
    pub(super) fn text(&self) -> &str {
        self.source.text.get(self.span.clone()).unwrap_or_default()
    }
}

/// One value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) place: Place,
}

/// What a node holds. Only the types that some setting has are told apart.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(Table),
    List(Vec<Node>),
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// A type that no setting has, by its name.
    Other(&'static str),
}

impl Value {
    /// The type, as an error says it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Table(_) => "a table",
            Self::List(_) => "a list",
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Boolean(_) => "true or false",
            Self::Other(kind) => kind,
        }
    }
}

/// A table, in the order in which it was typed.
pub(super) type Table = Vec<Entry>;

/// One field of a table.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where the name stands.
    pub(super) place: Place,
    pub(super) node: Node,
}

/// The field of that name.
pub(super) fn find<'t>(table: &'t Table, name: &str) -> Option<&'t Entry> {
    table.iter().find(|entry| entry.name == name)
}

/// Reads a text. What can be understood in spite of faults of syntax is in the table.
pub(super) fn read(source: &Arc<Source>, faults: &mut Vec<Fault>) -> Table {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let whole = Place { source: Arc::clone(source), span: 0..source.text.len() };
    let mut lines = Vec::new();
    for error in errors {
        let mut message = error.message().to_owned();
        if let Some(first) = message.get(..1) {
            message = first.to_lowercase() + &message[1..];
        }
        let place = Place { span: error.span().unwrap_or(0..0), ..whole.clone() };
        let fault = place.mark(Fault::error(message));
        // What follows on a line after its first fault is the parser finding its way back.
        if !lines.contains(&fault.line) {
            lines.push(fault.line);
            faults.push(fault);
        }
    }
    entries(source, table.into_inner())
}

/// Reads one value, for an environment variable: as TOML, and where that fails, as text.
pub(super) fn read_value(source: &Arc<Source>) -> Node {
    let whole = 0..source.text.len();
    let place = || Place { source: Arc::clone(source), span: whole.clone() };
    match DeValue::parse(&source.text) {
        Ok(value) => node(source, Spanned::new(whole, value.into_inner())),
        Err(_) => Node { value: Value::Text(source.text.clone()), place: place() },
    }
}

fn entries(source: &Arc<Source>, table: DeTable<'_>) -> Table {
    table
        .into_iter()
        .map(|(name, value)| Entry {
            place: Place { source: Arc::clone(source), span: name.span() },
            name: name.into_inner().into_owned(),
            node: node(source, value),
        })
        .collect()
}

fn node(source: &Arc<Source>, spanned: Spanned<DeValue<'_>>) -> Node {
    let place = Place { source: Arc::clone(source), span: spanned.span() };
    let value = match spanned.into_inner() {
        DeValue::Table(table) => Value::Table(entries(source, table)),
        DeValue::Array(items) => Value::List(items.into_iter().map(|item| node(source, item)).collect()),
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or(Value::Other("a number beyond 64 bits"), Value::Integer),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date or time"),
    };
    Node { value, place }
}

/// References to secrets are two-faced tables: one over the other would be both. Such a table replaces, as a list does.
const REPLACED: &[&str] = &["upstream.authorization", "keys.pepper", "owner_headers.assertion.private_key"];

/// Lays `upper` over `lower`: tables merge, everything else replaces.
pub(super) fn overlay(lower: &mut Table, upper: Table, path: &str) {
    for entry in upper {
        let below = lower.iter_mut().find(|below| below.name == entry.name);
        let path = if path.is_empty() { entry.name.clone() } else { format!("{path}.{}", entry.name) };
        match below {
            None => lower.push(entry),
            Some(below) => match (&mut below.node.value, entry.node.value) {
                (Value::Table(lower), Value::Table(upper)) if !REPLACED.contains(&path.as_str()) => {
                    overlay(lower, upper, &path);
                    below.place = entry.place;
                    below.node.place = entry.node.place;
                }
                (_, value) => {
                    below.node = Node { value, place: entry.node.place };
                    below.place = entry.place;
                }
            },
        }
    }
}

/// Takes what may be an inline secret out of the line that a fault shows: the faults of a configuration are read aloud, in
/// terminals, tickets and the logs of build machines.
fn veil(fault: &mut Fault) {
    const WORDS: [&str; 6] = ["authori", "passw", "pepper", "secret", "credential", "bearer"];
    let line = &fault.source_line;
    let Some((name, value)) = line.split_once('=') else { return };
    let lower = name.to_lowercase();
    let telling = WORDS.iter().any(|word| lower.contains(word)) && !lower.contains("prefix");
    let choice = lower.trim() == "other_authorization";
    let inner = value.trim_start().strip_prefix('{').unwrap_or_default().trim_start();
    let reference = inner.starts_with("file") || inner.starts_with("env");
    let user_info = value.split_once("://").is_some_and(|(_, rest)| rest.split('/').next().unwrap_or("").contains('@'));
    if (telling && !choice && !reference) || user_info {
        fault.source_line = format!("{}= …", name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { origin: Origin::File("keyside.toml".into()), text: text.into() })
    }

    fn table(text: &str) -> Table {
        let mut faults = Vec::new();
        let table = read(&source(text), &mut faults);
        assert_eq!(faults, []);
        table
    }

    /// What a table says, flat.
    fn show(table: &Table) -> String {
        let shown: Vec<_> = table
            .iter()
            .map(|entry| match &entry.node.value {
                Value::Table(table) => format!("{}{{{}}}", entry.name, show(table)),
                _ => format!("{}={}", entry.name, entry.node.place.text()),
            })
            .collect();
        shown.join(" ")
    }

    #[track_caller]
    fn check(lower: &str, upper: &str, expected: &str) {
        let mut merged = table(lower);
        overlay(&mut merged, table(upper), "");
        assert_eq!(show(&merged), expected);
    }

    #[test]
    fn tables_merge_and_lists_replace() {
        check("[a]\nx = 1\ny = [1, 2]\n", "[a]\ny = [3]\nz = 4\n", "a{x=1 y=[3] z=4}");
        check("a = 1\n", "[a]\nx = 1\n", "a{x=1}");
        check("[a.b]\nx = 1\n", "a = { b = { y = 2 } }\n", "a{b{x=1 y=2}}");
    }

    #[test]
    fn references_to_secrets_replace() {
        check("[keys]\npepper = { file = \"a\" }\n", "[keys]\npepper = { env = \"B\" }\n", "keys{pepper{env=\"B\"}}");
    }

    #[test]
    fn all_faults_of_syntax_are_found_and_the_rest_is_read() {
        let mut faults = Vec::new();
        let table = read(&source("a = = 1\nb = 2\nc = \"x\ne = 3\n"), &mut faults);
        let lines: Vec<_> = faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [1, 3]);
        assert!(find(&table, "b").is_some() && find(&table, "e").is_some());
    }

    #[test]
    fn values_of_variables_are_toml_or_else_text() {
        let read = |text: &str| read_value(&source(text)).value;
        assert!(matches!(read("true"), Value::Boolean(true)));
        assert!(matches!(read("[1]"), Value::List(_)));
        assert!(matches!(read("{ file = \"a\" }"), Value::Table(_)));
        assert!(matches!(read("127.0.0.1:80"), Value::Text(text) if text == "127.0.0.1:80"));
        assert!(matches!(read("\"x\""), Value::Text(text) if text == "x"));
        assert!(matches!(read(""), Value::Text(text) if text.is_empty()));
    }

    #[test]
    fn a_fault_never_shows_what_may_be_a_secret() {
        #[track_caller]
        fn check(line: &str, expected: &str) {
            let place = Place { source: source(line), span: 0..1 };
            assert_eq!(place.mark(Fault::error("x")).source_line, expected);
        }
        check("authorization = \"Bearer x\"", "authorization = …");
        check("pepper = \"x\"", "pepper = …");
        check("url = \"http://user:word@host\"", "url = …");
        check("url = \"http://host/@\"", "url = \"http://host/@\"");
        check("pepper = { fiel = \"x\" }", "pepper = …");
        check("pepper = { file = 1 }", "pepper = { file = 1 }");
        check("other_authorization = \"pas\"", "other_authorization = \"pas\"");
    }
}
