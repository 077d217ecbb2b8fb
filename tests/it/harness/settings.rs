//! Pieces of configuration, laid over each other.

use toml::{Table, Value};

/// Lays `over` on `base`: tables merge, arrays of tables are appended, everything else is replaced.
pub(crate) fn overlay(base: &mut Table, over: Table) {
    for (name, value) in over {
        match (base.get_mut(&name), value) {
            (Some(Value::Table(below)), Value::Table(above)) => overlay(below, above),
            (Some(Value::Array(below)), Value::Array(above))
                if above.iter().all(Value::is_table) && !above.is_empty() =>
            {
                below.extend(above);
            }
            (_, value) => {
                base.insert(name, value);
            }
        }
    }
}

/// Reads a piece of configuration that a test wrote.
#[track_caller]
pub(crate) fn piece(text: &str) -> Table {
    text.parse().unwrap_or_else(|fault| panic!("the test's own configuration: {fault}\n{text}"))
}
