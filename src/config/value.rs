//! Values: a typed text becomes a value, or says what it should have been.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use super::layer::{Node, Place, Table, Value};
use crate::fault::{Fault, nearest};

/// A value that is not accepted: where, what is wrong, what would be right.
#[derive(Debug)]
pub(super) struct Wrong {
    place: Place,
    message: String,
    suggestion: Option<String>,
    hidden: bool,
}

impl Wrong {
    /// This node is not accepted.
    pub(super) fn new(node: &Node, message: impl Into<String>) -> Self {
        Self::at(&node.place, message)
    }

    /// This place is not accepted.
    pub(super) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into(), suggestion: None, hidden: false }
    }

    /// With advice.
    pub(super) fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Without the line: it holds a secret.
    pub(super) fn hide(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// As a fault of the setting at `path`.
    pub(super) fn into_fault(self, path: &str) -> Fault {
        let mut fault = self.place.mark(Fault::error(format!("`{path}`: {}", self.message)));
        fault.suggestion = self.suggestion;
        if self.hidden {
            fault.source_line.clear();
        }
        fault
    }
}

/// What a reader of a value gives: the value, or all that is wrong with it.
pub(super) type Read<T> = Result<T, Vec<Wrong>>;

fn wrong<T>(node: &Node, message: impl Into<String>) -> Read<T> {
    Err(vec![Wrong::new(node, message)])
}

fn wrong_type<T>(node: &Node, expected: &str) -> Read<T> {
    wrong(node, format!("expected {expected}, not {}", node.value.kind()))
}

/// The text of a node; what an environment variable holds is a text too where it reads as something else.
pub(super) fn text(node: &Node) -> Read<String> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Boolean(_) | Value::Other(_) if node.place.is_variable() => {
            Ok(node.place.text().to_owned())
        }
        _ => wrong_type(node, "a text in quotes"),
    }
}

/// A text that says something.
pub(super) fn word(node: &Node) -> Read<Box<str>> {
    match text(node)? {
        text if text.is_empty() => wrong(node, "must not be empty"),
        text if text.chars().any(char::is_control) => wrong(node, "must not hold control characters"),
        text => Ok(text.into()),
    }
}

/// A text that is read by its type.
pub(super) fn parsed<T: FromStr<Err: Display>>(node: &Node) -> Read<T> {
    text(node)?.trim().parse().map_err(|error: T::Err| vec![Wrong::new(node, error.to_string())])
}

/// A text that is read by its type, which says nothing useful when it fails.
pub(super) fn parsed_as<T: FromStr>(expected: &'static str) -> impl Fn(&Node) -> Read<T> {
    move |node| text(node)?.trim().parse().map_err(|_| vec![Wrong::new(node, format!("expected {expected}"))])
}

/// One of a few words.
pub(super) fn choice<T: Clone>(choices: &[(&'static str, T)]) -> impl Fn(&Node) -> Read<T> {
    let choices = choices.to_vec();
    move |node| {
        let text = text(node)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
            return Ok(value.clone());
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let error = Wrong::new(node, format!("expected {}", either(&names)));
        Err(vec![match nearest(&text.to_lowercase(), choices.iter().map(|(name, _)| *name)) {
            Some(name) => error.suggest(format!("did you mean \"{name}\"?")),
            None => error,
        }])
    }
}

/// `a, b or c`.
fn either(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} or {last}", all.join(", ")),
    }
}

/// True or false.
pub(super) fn boolean(node: &Node) -> Read<bool> {
    match node.value {
        Value::Boolean(boolean) => Ok(boolean),
        Value::Text(ref text) if text.parse::<bool>().is_ok() => {
            Err(vec![Wrong::new(node, "expected true or false, not a text").suggest(format!("without quotes: {text}"))])
        }
        _ => wrong_type(node, "true or false"),
    }
}

/// A whole number within a range.
pub(super) fn integer<T: TryFrom<i64> + Display + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&Node) -> Read<T> {
    move |node| match node.value {
        Value::Integer(integer) => match T::try_from(integer) {
            Ok(value) if range.contains(&value) => Ok(value),
            _ => wrong(node, format!("expected {} to {}, not {integer}", range.start(), range.end())),
        },
        _ => wrong_type(node, "a whole number"),
    }
}

/// A file or folder; relative to the configuration's folder, which the reader adds.
pub(super) fn path(node: &Node) -> Read<PathBuf> {
    let text = text(node)?;
    if text.is_empty() || text.contains('\0') { wrong(node, "expected the path of a file") } else { Ok(text.into()) }
}

/// A list, each of whose items is read alike; all faulty items are reported, each at its place.
pub(super) fn list<T>(item: impl Fn(&Node) -> Read<T>) -> impl Fn(&Node) -> Read<Vec<T>> {
    move |node| match &node.value {
        Value::List(items) => all(items.iter().map(&item)),
        Value::Text(_) => Err(vec![
            Wrong::new(node, "expected a list, not a text").suggest(format!("[{}]", quoted(node.place.text()))),
        ]),
        _ => wrong_type(node, "a list"),
    }
}

/// A list, or one item that stands for a list of one.
pub(super) fn one_or_list<T>(item: impl Fn(&Node) -> Read<T>) -> impl Fn(&Node) -> Read<Vec<T>> {
    move |node| match &node.value {
        Value::List(items) => all(items.iter().map(&item)),
        _ => Ok(vec![item(node)?]),
    }
}

/// The values of all, or all faults.
pub(super) fn all<T>(reads: impl Iterator<Item = Read<T>>) -> Read<Vec<T>> {
    let mut values = Vec::new();
    let mut wrongs = Vec::new();
    for read in reads {
        match read {
            Ok(value) => values.push(value),
            Err(more) => wrongs.extend(more),
        }
    }
    if wrongs.is_empty() { Ok(values) } else { Err(wrongs) }
}

fn quoted(text: &str) -> String {
    if text.starts_with(['"', '\'']) { text.to_owned() } else { format!("\"{text}\"") }
}

/// The table of a node.
pub(super) fn table(node: &Node) -> Read<&Table> {
    match &node.value {
        Value::Table(table) => Ok(table),
        _ => wrong_type(node, "a table"),
    }
}

const DURATION_SHAPE: &str = "a duration with its unit, such as \"500ms\", \"30s\", \"5m\", \"12h\" or \"90d\"";
const SIZE_SHAPE: &str = "a size with its unit, such as \"512B\", \"16KiB\" or \"10MiB\"";

/// A duration within a range.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Read<Duration> {
    move |node| {
        if let Value::Integer(integer) = node.value {
            let error = Wrong::new(node, format!("expected {DURATION_SHAPE}, not a bare number"));
            return Err(vec![error.suggest(format!("\"{integer}s\" if seconds are meant"))]);
        }
        let text = match &node.value {
            Value::Text(text) => text,
            _ => return wrong_type(node, DURATION_SHAPE),
        };
        match parse_duration(text) {
            Some(value) if range.contains(&value) => Ok(value),
            Some(_) => {
                wrong(node, format!("expected {} to {}", print_duration(*range.start()), print_duration(*range.end())))
            }
            None => wrong(node, format!("expected {DURATION_SHAPE}")),
        }
    }
}

/// A whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// The shortest text that [`parse_duration`] reads back; parts of a millisecond are left out.
pub fn print_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (size, unit) in [(24 * 60 * 60 * 1000, "d"), (60 * 60 * 1000, "h"), (60 * 1000, "m"), (1000, "s")] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    if millis == 0 { "0s".into() } else { format!("{millis}ms") }
}

/// A size within a range, in bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Read<u64> {
    move |node| {
        if let Value::Integer(integer) = node.value {
            let error = Wrong::new(node, format!("expected {SIZE_SHAPE}, not a bare number"));
            return Err(vec![error.suggest(format!("\"{integer}B\" if bytes are meant"))]);
        }
        let text = match &node.value {
            Value::Text(text) => text,
            _ => return wrong_type(node, SIZE_SHAPE),
        };
        match parse_size(text) {
            Some(value) if range.contains(&value) => Ok(value),
            Some(_) => wrong(node, format!("expected {} to {}", print_size(*range.start()), print_size(*range.end()))),
            None => wrong(node, format!("expected {SIZE_SHAPE}")),
        }
    }
}

/// A whole number and one of `B`, `KiB`, `MiB`, `GiB`, or of the decimal `kB`, `KB`, `MB`, `GB`.
fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" | "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn print_size(bytes: u64) -> String {
    for (size, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= size && bytes.is_multiple_of(size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    format!("{bytes}B")
}

/// Digits, optional spaces, a unit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::layer::{Origin, Source, read_value};

    fn node(text: &str) -> Node {
        read_value(&Arc::new(Source { origin: Origin::File("f".into()), text: text.into() }))
    }

    #[track_caller]
    fn check<T: std::fmt::Debug>(read: Read<T>, expected: &str) {
        let shown = match read {
            Ok(value) => format!("{value:?}"),
            Err(wrongs) => wrongs
                .into_iter()
                .map(|wrong| match wrong.suggestion {
                    Some(suggestion) => format!("{} ({suggestion})", wrong.message),
                    None => wrong.message,
                })
                .collect::<Vec<_>>()
                .join("; "),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn durations_have_a_unit() {
        let read = duration(Duration::from_millis(1)..=Duration::from_secs(86_400));
        check(read(&node("\"500ms\"")), "500ms");
        check(read(&node("\"30s\"")), "30s");
        check(read(&node("\"2 m\"")), "120s");
        check(read(&node("\"24h\"")), "86400s");
        check(read(&node("\"1d\"")), "86400s");
        check(read(&node("\"2d\"")), "expected 1ms to 1d");
        check(read(&node("\"0s\"")), "expected 1ms to 1d");
        check(
            read(&node("30")),
            &format!("expected {DURATION_SHAPE}, not a bare number (\"30s\" if seconds are meant)"),
        );
        for bad in ["\"30\"", "\"s\"", "\"-1s\"", "\"1.5s\"", "\"1s1s\"", "\"30 sec\"", "\"99999999999999999d\""] {
            check(read(&node(bad)), &format!("expected {DURATION_SHAPE}"));
        }
        check(read(&node("true")), &format!("expected {DURATION_SHAPE}, not true or false"));
    }

    #[test]
    fn durations_print_as_they_are_read() {
        for text in ["0s", "1ms", "90s", "1m", "1h", "36h", "90d"] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        let read = size(1..=1 << 30);
        check(read(&node("\"512B\"")), "512");
        check(read(&node("\"16KiB\"")), "16384");
        check(read(&node("\"10 MB\"")), "10000000");
        check(read(&node("\"1GiB\"")), "1073741824");
        check(read(&node("\"2GiB\"")), "expected 1B to 1GiB");
        check(read(&node("\"16k\"")), &format!("expected {SIZE_SHAPE}"));
        check(read(&node("7")), &format!("expected {SIZE_SHAPE}, not a bare number (\"7B\" if bytes are meant)"));
    }

    #[test]
    fn numbers_keep_their_range() {
        check(integer(1..=128u8)(&node("64")), "64");
        check(integer(1..=128u8)(&node("0")), "expected 1 to 128, not 0");
        check(integer(1..=128u8)(&node("-1")), "expected 1 to 128, not -1");
        check(integer(1..=128u8)(&node("300")), "expected 1 to 128, not 300");
        check(integer(1..=128u8)(&node("1.5")), "expected a whole number, not a number with a fraction");
    }

    #[test]
    fn choices_are_suggested() {
        let read = choice(&[("finish", 1), ("cut", 2)]);
        check(read(&node("\"cut\"")), "2");
        check(read(&node("\"Cut\"")), "expected \"finish\" or \"cut\" (did you mean \"cut\"?)");
        check(read(&node("\"zebra\"")), "expected \"finish\" or \"cut\"");
    }

    #[test]
    fn every_faulty_item_is_reported() {
        let read = list(integer(1..=9u8));
        check(read(&node("[1, 2]")), "[1, 2]");
        check(read(&node("[1, 20, \"x\"]")), "expected 1 to 9, not 20; expected a whole number, not a text");
        check(list(word)(&node("\"x\"")), "expected a list, not a text ([\"x\"])");
        check(one_or_list(word)(&node("\"x\"")), "[\"x\"]");
    }

    #[test]
    fn booleans_are_not_texts() {
        check(boolean(&node("true")), "true");
        check(boolean(&node("\"true\"")), "expected true or false, not a text (without quotes: true)");
    }

    proptest::proptest! {
        #[test]
        fn reading_a_unit_never_panics(text in ".{0,12}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
