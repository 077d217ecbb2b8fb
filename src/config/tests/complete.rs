//! What must be complete: the commented default, the presets, the examples, the list of effective values.

use super::*;

#[test]
fn every_setting_is_in_the_commented_default_and_no_other() {
    let source = Arc::new(Source { origin: Origin::Default, text: uncommented(DEFAULT) });
    let mut faults = Vec::new();
    let table = layer::read(&source, &mut faults);
    assert!(faults.is_empty(), "{faults:?}");

    let environment = BTreeMap::new();
    let reader = Reader::new(Path::new(""), &environment);
    let _ = reader.read(&table, &default_table(), |root| read(root, None, Path::new("")));
    let findings = reader.finish();
    let misspelt: Vec<_> = findings.faults.iter().filter(|fault| fault.message.contains("unknown field")).collect();
    assert!(misspelt.is_empty(), "settings that nobody reads: {misspelt:?}");

    let mut there = BTreeSet::new();
    paths(&table, "", &mut there);
    let missing: Vec<_> = findings.known.iter().filter(|path| !there.contains(*path)).collect();
    assert!(missing.is_empty(), "settings that the commented default does not show: {missing:?}");
}

/// The default with all that is commented out in force.
pub(super) fn uncommented(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", setting_of(line).unwrap_or(line))).collect()
}

/// A setting that is commented out: "#" and no space.
fn setting_of(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|first: char| !first.is_whitespace() && first != '#'))
}

pub(super) fn paths(table: &Table, above: &str, there: &mut BTreeSet<String>) {
    for entry in table {
        let path = if above.is_empty() { entry.name.clone() } else { format!("{above}.{}", entry.name) };
        if ["hosts", "upstream.modes", "limits.plans"].contains(&above) {
            there.insert(format!("{above}.*"));
        }
        match &entry.node.value {
            Value::Table(inner) => paths(inner, &path, there),
            Value::List(items) => {
                for item in items {
                    if let Value::Table(inner) = &item.value {
                        paths(inner, &path, there);
                    }
                }
            }
            _ => {}
        }
        there.insert(path);
    }
}

#[test]
fn the_commented_default_is_what_is_in_force() {
    let empty = good("");
    let whole =
        read_with(DEFAULT, &[("KEYSIDE_LISTEN__PLAINTEXT", "true"), ("KEYSIDE_LISTEN__ADDRESS", "127.0.0.1:8443")]);
    let whole = whole.unwrap();
    assert_eq!(whole.warnings.iter().filter(|warning| !warning.message.contains("is never read")).count(), 0);
    let values = |loaded: &Loaded| {
        let rows = loaded.effective.iter().filter(|(path, ..)| !path.starts_with("listen."));
        rows.map(|(path, value, _)| format!("{path} = {value}")).collect::<Vec<_>>()
    };
    assert_eq!(values(&empty), values(&whole));
}

#[test]
fn every_preset_loads_without_a_warning() {
    for name in preset_names() {
        let config = good(&format!("preset = \"{name}\"\n"));
        assert_eq!(compact(&config.warnings), [""; 0], "{name}");
        assert_eq!(config.config.preset, Some(name));
        assert!(!config.config.policy.routes.is_empty(), "{name}");
    }
}

#[test]
fn the_example_of_a_key_file_is_one() {
    let text = include_bytes!("../../../config/keys.toml");
    let document = crate::keys::document::Parser::default().parse(text).unwrap();
    assert_eq!(document.faults, []);
    assert_eq!((document.owners.len(), document.keys.len()), (1, 1));
    assert!(document.end.is_some());
}

#[test]
fn every_preset_file_is_embedded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/presets");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut names: Vec<_> = preset_names().map(|name| format!("{name}.toml")).collect();
    files.sort();
    names.sort();
    assert_eq!(files, names);
}

#[test]
fn effective_values_say_where_they_came_from() {
    let text = "preset = \"web3pay\"\n[listen]\nplaintext = true\naddress = \"127.0.0.1:8443\"\n";
    let loaded = read_with(text, &[("KEYSIDE_SHUTDOWN__GRACE", "1s")]).unwrap();
    let row = |wanted: &str| {
        loaded.effective.iter().find(|(path, ..)| *path == wanted).map(|(_, value, origin)| format!("{value} {origin}"))
    };
    assert_eq!(row("listen.plaintext").as_deref(), Some("true keyside.toml:3"));
    assert_eq!(row("credentials.header").as_deref(), Some("\"X-API-Key\" preset web3pay"));
    assert_eq!(row("shutdown.grace").as_deref(), Some("\"1s\" environment KEYSIDE_SHUTDOWN__GRACE"));
    assert_eq!(row("shutdown.delay").as_deref(), Some("\"5s\" default"));
    assert_eq!(row("upstream.authorization"), None);
}

#[test]
fn effective_values_are_a_configuration_of_the_same_effect() {
    for name in preset_names() {
        let first = good(&format!("preset = \"{name}\"\n")).effective.to_string();
        let text = first.replace(&format!("preset = \"{name}\""), "");
        let again = read_with(&text, &[]).unwrap_or_else(|faults| panic!("{faults}")).effective.to_string();
        let less_origins = |text: &str| {
            let value = |line: &str| line.rsplit_once(" # ").map_or(line, |(value, _)| value).trim_end().to_owned();
            text.lines().map(value).filter(|line| !line.contains("preset")).collect::<Vec<_>>()
        };
        assert_eq!(less_origins(&again), less_origins(&first), "{name}");
    }
}
