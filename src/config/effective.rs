//! Every setting with where it came from, as `keyside config print --effective` shows it.

use std::fmt;

use super::{
    layer::{Place, Value},
    reader::{Setting, quote_key},
};
use crate::fault::Fault;

/// Every setting that is in force, with where it came from. Its `Display` is TOML.
///
/// Secrets are never in it: a configuration holds references to them alone.
#[derive(Debug)]
pub struct Effective(Vec<Row>);

#[derive(Debug)]
struct Row {
    /// Such as `listen.address`, or `path` within a route.
    name: String,
    /// Which `[[route]]` it belongs to.
    route: Option<String>,
    value: Option<String>,
    place: Option<Place>,
}

impl Row {
    fn origin(&self) -> String {
        self.place.as_ref().map_or_else(|| "default".into(), Place::origin)
    }
}

impl Effective {
    pub(super) fn new(settings: Vec<Setting>) -> Self {
        let rows = settings.into_iter().map(|setting| {
            let (route, name) = match setting.path.split_once("].") {
                Some((route, name)) => (Some(route.to_owned()), name.to_owned()),
                None => (None, setting.path),
            };
            Row {
                name,
                route,
                value: setting.node.as_ref().map(|node| show(&node.value)),
                place: setting.node.map(|node| node.place),
            }
        });
        // What a route does not say is not a setting in force but the absence of one.
        Self(rows.filter(|row| row.route.is_none() || row.value.is_some()).collect())
    }

    /// The settings outside routes that are on: their paths, their values as TOML, and where they came from.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, String)> {
        self.0
            .iter()
            .filter(|row| row.route.is_none())
            .filter_map(|row| Some((&*row.name, row.value.as_deref()?, row.origin())))
    }

    /// The fault, at the place where this setting, or the first of this section, was typed; as it is where nobody typed
    /// it.
    #[must_use]
    pub fn mark(&self, setting: &str, fault: Fault) -> Fault {
        let (route, setting) = match setting.split_once("].") {
            Some((route, setting)) => (Some(route), setting),
            None => (None, setting),
        };
        let is_it = |row: &&Row| {
            let rest = row.name.strip_prefix(setting).filter(|_| row.route.as_deref() == route);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut places = self.0.iter().filter(is_it).filter_map(|row| row.place.as_ref());
        match places.find(|place| !place.is_default()) {
            Some(place) => place.mark(fault),
            None => fault,
        }
    }
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WIDTH: usize = 60;
        // Routes last: after the head of a list of tables, TOML takes nothing for the document itself.
        let mut head = None;
        for row in
            self.0.iter().filter(|row| row.route.is_none()).chain(self.0.iter().filter(|row| row.route.is_some()))
        {
            if row.route.is_some() && row.route != head {
                head.clone_from(&row.route);
                writeln!(f, "\n[[route]]")?;
            }
            match &row.value {
                Some(value) => writeln!(f, "{:WIDTH$} # {}", format!("{} = {value}", row.name), row.origin())?,
                None => writeln!(f, "{:WIDTH$} # {}", format!("# {} is off", row.name), row.origin())?,
            }
        }
        Ok(())
    }
}

/// A value as TOML.
fn show(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let fields: Vec<_> =
                table.iter().map(|field| format!("{} = {}", quote_key(&field.name), show(&field.node.value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::List(items) => {
            let items: Vec<_> = items.iter().map(|item| show(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::Integer(integer) => integer.to_string(),
        Value::Boolean(boolean) => boolean.to_string(),
        Value::Other(kind) => format!("\"{kind}\""),
    }
}
