//! Environment variables as settings: `KEYSIDE_LISTEN__ADDRESS` is `listen.address`.
//!
//! Only names that hold two underscores, and `KEYSIDE_PRESET`, are settings: Kubernetes gives containers variables such
//! as `KEYSIDE_PORT` for a service that is called `keyside`.

use std::{collections::BTreeMap, sync::Arc};

use super::layer::{Entry, Node, Origin, Place, Source, Table, Value, overlay, read_value};

const PREFIX: &str = "KEYSIDE_";

/// The variables that are settings, as a table. A variable that names no setting is found when the table is read.
pub(super) fn read(variables: &BTreeMap<String, String>) -> Table {
    let mut table = Table::new();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix(PREFIX) else { continue };
        if !name.contains("__") && name != "PRESET" {
            continue;
        }
        let source = Arc::new(Source { origin: Origin::Environment(variable.clone()), text: value.clone() });
        let place = Place { span: 0..value.len(), source: Arc::clone(&source) };
        let mut node = read_value(&source);
        for name in name.to_lowercase().rsplit("__") {
            let entry = Entry { name: name.to_owned(), place: place.clone(), node };
            node = Node { value: Value::Table(vec![entry]), place: place.clone() };
        }
        if let Value::Table(entries) = node.value {
            overlay(&mut table, entries, "");
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::layer::find;

    fn read_all(variables: &[(&str, &str)]) -> Table {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        read(&variables)
    }

    #[test]
    fn two_underscores_go_down() {
        let table = read_all(&[("KEYSIDE_LISTEN__TIMEOUTS__IDLE", "5s"), ("KEYSIDE_LISTEN__MAX_BODY", "1KiB")]);
        let Value::Table(listen) = &find(&table, "listen").unwrap().node.value else { panic!("no table") };
        assert!(find(listen, "timeouts").is_some());
        assert!(find(listen, "max_body").is_some());
    }

    #[test]
    fn what_others_set_is_no_setting() {
        let others = [("KEYSIDE_PORT", "tcp://10.0.0.1:80"), ("KEYSIDE_SERVICE_HOST", "10.0.0.1"), ("LISTEN__X", "1")];
        assert!(read_all(&others).is_empty());
        assert!(find(&read_all(&[("KEYSIDE_PRESET", "x")]), "preset").is_some());
    }
}
