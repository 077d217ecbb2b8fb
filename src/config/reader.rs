//! The reader: asks the layered document for one setting after another, and remembers what was asked.
//!
//! What nobody asked for is a misspelt field; what was asked for is the list of all settings, which the commented default
//! is held to by a test; and the answers, with their places, are what `keyside config print --effective` prints.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    layer::{Entry, Node, Place, Table, Value, find},
    value::{self, Read, Wrong},
};
use crate::fault::{Fault, nearest};

/// One setting as it is in force.
pub(super) struct Setting {
    /// Such as `listen.timeouts.idle` or `route[0].path`.
    pub(super) path: String,
    /// None when the setting is off.
    pub(super) node: Option<Node>,
}

/// What all sections of one document share.
pub(super) struct Reader<'e> {
    file: PathBuf,
    environment: &'e BTreeMap<String, String>,
    faults: RefCell<Vec<Fault>>,
    settings: RefCell<Vec<Setting>>,
    /// The places of all fields that were read, sections included.
    places: RefCell<BTreeMap<String, Place>>,
    /// The settings whose values were not accepted.
    faulty: RefCell<BTreeSet<String>>,
    known: RefCell<BTreeSet<String>>,
    /// The names that a map takes, where these are not the user's to choose: for advice alone.
    choices: RefCell<BTreeSet<String>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// What a document was found to be.
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) settings: Vec<Setting>,
    /// The paths of all settings there are, lists without index, `*` for names that are the user's.
    #[cfg_attr(not(test), expect(dead_code, reason = "the commented default is held to it"))]
    pub(super) known: BTreeSet<String>,
}

impl<'e> Reader<'e> {
    /// A reader for the document of this file, in whose folder relative paths start, and whose secrets may be in
    /// `environment`.
    pub(super) fn new(file: &Path, environment: &'e BTreeMap<String, String>) -> Self {
        Self {
            file: file.to_path_buf(),
            environment,
            faults: RefCell::default(),
            settings: RefCell::default(),
            places: RefCell::default(),
            faulty: RefCell::default(),
            known: RefCell::default(),
            choices: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Reads the whole document. Where a value is faulty the default stands in, so that all other faults are found too.
    pub(super) fn read<T>(&self, table: &Table, defaults: &Table, body: impl FnOnce(&Section<'_>) -> T) -> T {
        Section::new(self, (String::new(), String::new()), table, defaults).walk(body)
    }

    /// A fault without a place of its own.
    pub(super) fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// A fault about a setting: at the first of these paths that was typed somewhere.
    pub(super) fn about(&self, paths: &[&str], fault: Fault) {
        let places = self.places.borrow();
        let place = paths.iter().find_map(|path| places.get(*path));
        self.fault(place.map_or(fault.clone(), |place| place.mark(fault)));
    }

    /// An error about a section that the user's file may not have: in that file then, without a line.
    pub(super) fn about_section(&self, path: &str, message: &str) {
        let fault = Fault::error(message).in_file(&self.file);
        let place = self.place(path).filter(|place| place.is_users() && !place.is_variable());
        self.fault(place.map_or(fault.clone(), |place| place.mark(fault)));
    }

    /// Where a setting stands.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        self.places.borrow().get(path).cloned()
    }

    /// Whether the user's file or environment has the setting.
    pub(super) fn is_users(&self, path: &str) -> bool {
        self.places.borrow().get(path).is_some_and(Place::is_users)
    }

    /// Whether the setting's value was accepted; if not, the default stands in for it.
    pub(super) fn is_good(&self, path: &str) -> bool {
        !self.faulty.borrow().contains(path)
    }

    /// The value of an environment variable that a secret may be in.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// A path as the program opens it: relative ones start in the configuration's folder.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The file that a reference to a secret names.
    pub(super) fn referred(&self, path: &str) -> Option<PathBuf> {
        let settings = self.settings.borrow();
        let node = settings.iter().find(|setting| setting.path == path)?.node.as_ref()?;
        let file = find(value::table(node).ok()?, "file")?;
        Some(self.resolve(&value::path(&file.node).ok()?))
    }

    /// All faults, those of misspelt fields included; the advice for these needs every known name.
    pub(super) fn finish(self) -> Findings {
        let known = self.known.into_inner();
        let mut faults = self.faults.into_inner();
        let all = &known | &self.choices.into_inner();
        faults.extend(self.unknown.into_inner().into_iter().map(|unknown| unknown.into_fault(&all)));
        Findings { faults, settings: self.settings.into_inner(), known }
    }
}

/// A field that nobody asked for.
struct Unknown {
    section: String,
    entry: Entry,
    siblings: Vec<&'static str>,
}

impl Unknown {
    fn into_fault(self, known: &BTreeSet<String>) -> Fault {
        let name = &self.entry.name;
        let inside = if self.section.is_empty() { String::new() } else { format!(" in `{}`", self.section) };
        let mut fault = self.entry.place.mark(Fault::error(format!("unknown field `{name}`{inside}")));
        let same =
            |path: &str| path.rsplit_once('.').filter(|(_, last)| last == name).map(|(above, _)| above.to_owned());
        // The nearest table that has such a field: the one that shares most of the way down with this one.
        let kind = self.section.split('[').next().unwrap_or_default();
        let shared =
            |table: &String| table.split('.').zip(kind.split('.')).take_while(|(one, other)| one == other).count();
        let elsewhere = known.iter().filter_map(|path| same(path)).min_by_key(|table| std::cmp::Reverse(shared(table)));
        fault.suggestion = match (nearest(name, self.siblings.iter().copied()), elsewhere) {
            (Some(sibling), _) if self.entry.place.is_variable() => {
                Some(format!("did you mean {}?", variable(&self.section, sibling)))
            }
            (Some(sibling), _) => Some(format!("did you mean `{sibling}`?")),
            (None, Some(section)) => Some(format!("`{name}` belongs in [{section}]")),
            (None, None) if self.siblings.is_empty() => None,
            (None, None) => Some(format!("known here: {}", self.siblings.join(", "))),
        };
        fault
    }
}

/// The environment variable of a setting.
fn variable(section: &str, name: &str) -> String {
    let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
    format!("KEYSIDE_{}", path.to_uppercase().replace('.', "__"))
}

/// One table of the document.
pub(super) struct Section<'r> {
    reader: &'r Reader<'r>,
    /// Which table it is, and which kind of table: without the index of a list.
    path: String,
    kind: String,
    table: &'r Table,
    defaults: &'r Table,
    /// A dry section is walked for the names of its settings alone.
    dry: bool,
    asked: RefCell<Vec<&'static str>>,
}

static NOTHING: Table = Table::new();

impl<'r> Section<'r> {
    fn new(reader: &'r Reader<'r>, (path, kind): (String, String), table: &'r Table, defaults: &'r Table) -> Self {
        Self { reader, path, kind, table, defaults, dry: false, asked: RefCell::default() }
    }

    /// Walks a section, then keeps what it held that nobody asked for.
    fn walk<T>(self, body: impl FnOnce(&Section<'r>) -> T) -> T {
        let result = body(&self);
        let siblings = self.asked.into_inner();
        for entry in self.table.iter().filter(|entry| !siblings.contains(&entry.name.as_str())) {
            let unknown = Unknown { section: self.path.clone(), entry: entry.clone(), siblings: siblings.clone() };
            self.reader.unknown.borrow_mut().push(unknown);
        }
        result
    }

    /// The shared reader.
    pub(super) fn reader(&self) -> &'r Reader<'r> {
        self.reader
    }

    /// The field as it was typed, whatever it holds.
    pub(super) fn entry(&self, name: &str) -> Option<&'r Entry> {
        find(self.table, name)
    }

    /// The whole path of a field.
    pub(super) fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// An error about a field, or about the section where the field was not typed.
    pub(super) fn error(&self, name: &str, message: impl Into<String>) {
        if !self.dry {
            let fault = Fault::error(format!("`{}`: {}", self.path_of(name), message.into()));
            self.reader.about(&[&self.path_of(name), &self.path], fault);
        }
    }

    /// The value of a setting that may be off; the empty text turns it off.
    pub(super) fn optional<T>(&self, name: &'static str, read: impl Fn(&Node) -> Read<T>) -> Option<T> {
        self.ask(name);
        let entry = self.entry(name).filter(|entry| !matches!(&entry.node.value, Value::Text(text) if text.is_empty()));
        self.note(self.path_of(name), entry.map(|entry| &entry.node));
        self.accept(&self.path_of(name), read(&entry?.node))
    }

    /// The value of a setting that always has one.
    pub(super) fn required<T>(&self, name: &'static str, read: impl Fn(&Node) -> Read<T>) -> T {
        self.ask(name);
        let entry = self.entry(name);
        self.note(self.path_of(name), entry.map(|entry| &entry.node));
        entry
            .and_then(|entry| self.accept(&self.path_of(name), read(&entry.node)))
            .or_else(|| read(&find(self.defaults, name)?.node).ok())
            .unwrap_or_else(|| panic!("the embedded defaults hold a good `{}`, as a test proves", self.path_of(name)))
    }

    /// Walks a table of settings, typed or not.
    pub(super) fn section<T>(&self, name: &'static str, body: impl FnOnce(&Section<'r>) -> T) -> T {
        self.ask(name);
        let path = self.path_of(name);
        let entry = self.entry(name);
        if let Some(entry) = entry.filter(|_| !self.dry) {
            self.reader.places.borrow_mut().insert(path.clone(), entry.place.clone());
        }
        let table = entry.and_then(|entry| self.accept(&path, value::table(&entry.node))).unwrap_or(&NOTHING);
        let defaults = find(self.defaults, name).and_then(|entry| value::table(&entry.node).ok()).unwrap_or(&NOTHING);
        let mut section = Section::new(self.reader, (path, join(&self.kind, name)), table, defaults);
        section.dry = self.dry;
        section.walk(body)
    }

    /// Walks each table of a list of tables.
    pub(super) fn sections<T>(&self, name: &'static str, body: impl Fn(&Section<'r>) -> T) -> Vec<T> {
        self.ask(name);
        let kind = || join(&self.kind, name);
        let Some(entry) = self.entry(name) else {
            let mut section = Section::new(self.reader, (kind(), kind()), &NOTHING, &NOTHING);
            section.dry = true;
            section.walk(&body);
            return Vec::new();
        };
        let path = self.path_of(name);
        self.accept(&path, value::list(|node| value::table(node).map(|_| ()))(&entry.node));
        let Value::List(items) = &entry.node.value else { return Vec::new() };
        let tables = items.iter().enumerate().filter_map(|(index, item)| {
            let path = format!("{path}[{index}]");
            self.reader.places.borrow_mut().insert(path.clone(), item.place.clone());
            Some(Section::new(self.reader, (path, kind()), value::table(item).ok()?, &NOTHING))
        });
        tables.map(|section| section.walk(&body)).collect()
    }

    /// The names that a map takes, where there are no others.
    pub(super) fn choices(&self, map: &str, names: &[&str]) {
        let map = join(&self.kind, map);
        self.reader.choices.borrow_mut().extend(names.iter().map(|name| join(&map, name)));
    }

    /// Reads a table whose names are the user's. `key` says what is wrong with a name.
    pub(super) fn map<K, T>(
        &self,
        name: &'static str,
        key: impl Fn(&str) -> Result<K, String>,
        read: impl Fn(&Node) -> Read<T>,
    ) -> Vec<(K, T)> {
        self.ask(name);
        self.reader.known.borrow_mut().insert(join(&join(&self.kind, name), "*"));
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let table = self.accept(&self.path_of(name), value::table(&entry.node)).unwrap_or(&NOTHING);
        let mut pairs = Vec::new();
        for entry in table {
            let path = join(&self.path_of(name), &quote_key(&entry.name));
            self.note(path.clone(), Some(&entry.node));
            let key = key(&entry.name).map_err(|why| vec![Wrong::at(&entry.place, why)]);
            if let (Some(key), Some(value)) = (self.accept(&path, key), self.accept(&path, read(&entry.node))) {
                pairs.push((key, value));
            }
        }
        pairs
    }

    /// A setting that is part of the contract and not of this build.
    pub(super) fn not_in_this_build(&self, name: &'static str, fields: &[&str]) {
        self.ask(name);
        let kind = join(&self.kind, name);
        self.reader.known.borrow_mut().extend(fields.iter().map(|field| join(&kind, field)));
        if let Some(entry) = self.entry(name) {
            let fault = Fault::error(format!("`{}` is not in this build", self.path_of(name)));
            self.reader.fault(entry.place.mark(fault));
        }
    }

    /// A reading outside the table of fields: its value, or its faults noted.
    pub(super) fn accept<T>(&self, path: &str, read: Read<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(wrongs) => {
                if !self.dry {
                    self.reader.faulty.borrow_mut().insert(path.to_owned());
                    wrongs.into_iter().for_each(|wrong| self.reader.fault(wrong.into_fault(path)));
                }
                None
            }
        }
    }

    fn ask(&self, name: &'static str) {
        self.asked.borrow_mut().push(name);
        self.reader.known.borrow_mut().insert(join(&self.kind, name));
    }

    fn note(&self, path: String, node: Option<&Node>) {
        if self.dry {
            return;
        }
        let mut places = self.reader.places.borrow_mut();
        if let Some(node) = node {
            if let Value::List(items) = &node.value {
                places.extend(items.iter().enumerate().map(|(at, item)| (format!("{path}[{at}]"), item.place.clone())));
            }
            places.insert(path.clone(), node.place.clone());
        }
        self.reader.settings.borrow_mut().push(Setting { path, node: node.cloned() });
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A name as it stands before an equals sign.
pub(super) fn quote_key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if bare { name.to_owned() } else { toml::Value::String(name.to_owned()).to_string() }
}
