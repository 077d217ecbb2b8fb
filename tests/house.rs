//! The rules of the house: what `src/README.md` says of the rooms is what the code does.
//!
//! The source is read as text, without comments, strings and tests. That is less than a compiler knows, but it is fast,
//! and it sees every path that begins at `crate`, which is how one room names another here.
//!
//! `UPDATE=1 cargo test --test house` writes the table of refusals of the map anew. The edges are for a person to write:
//! a new one is a decision.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use keyside::rejection;

/// The longest a file may be.
const MAX_LINES: usize = 500;

/// Files that are longer, and how long they may be. The list and its numbers only shrink.
const LONG: &[(&str, usize)] = &[];

/// How many edges of the map may break its own rules. The number only shrinks.
const EXCEPTIONS: usize = 0;

/// The longest `main.rs` may be: it tells the story in a screen.
const MAX_MAIN_LINES: usize = 40;

/// Systems whose ways of using keys are known. They are data in `config/presets`, and no code depends on one.
const KEY_SYSTEMS: &[&str] =
    &["wallet", "woocommerce", "web3pay", "wontopos", "payment-links", "payment_links", "wkwp"];

/// Where a key system may be named: its dialect of refusals, the setting that chooses the dialect, the list of presets.
const MAY_NAME_KEY_SYSTEMS: &[&str] = &["rejection/", "config/preset.rs", "config/upstream.rs", "cli/demo/"];

/// The ways to read time.
const CLOCKS: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"];

/// Rooms whose functions return at once: nothing in them waits.
const NEVER_WAIT: &[&str] = &["clock", "credential", "facts", "fault", "limits", "policy", "rejection"];

/// A source file, outside of tests.
struct Source {
    /// From `src`, with slashes.
    path: String,
    /// As it is in the file.
    text: String,
    /// Without comments, the contents of strings, and test modules; all lines stay where they are.
    code: String,
}

impl Source {
    /// The room: the first module below the crate. `main` and `lib` are the roots.
    fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// How many modules lie between the crate's root and this file's content.
    fn depth(&self) -> usize {
        let parts = self.path.split('/').count();
        match self.path.rsplit('/').next() {
            Some("lib.rs" | "main.rs") => 0,
            Some("mod.rs") => parts - 1,
            _ => parts,
        }
    }

    /// Where the files of this file's child modules are, from `src`.
    fn children(&self) -> String {
        match self.path.as_str() {
            "lib.rs" | "main.rs" => String::new(),
            path => match path.strip_suffix("mod.rs") {
                Some(folder) => folder.to_owned(),
                None => format!("{}/", path.trim_end_matches(".rs")),
            },
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is there") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// All files of `src` that are not tests, in order.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    rust_files(&src, &mut paths);
    paths.sort();
    let mut tests = Vec::new();
    let mut sources: Vec<Source> = Vec::new();
    for path in paths {
        let text = read(&path);
        let path = path.strip_prefix(&src).expect("it was found there").to_str().expect("plain names").to_owned();
        let mut source = Source { code: bare(&text), text, path };
        let (code, modules) = without_tests(&source.code);
        source.code = code;
        tests.extend(modules.iter().map(|module| format!("{}{module}", source.children())));
        sources.push(source);
    }
    sources.retain(|source| {
        !tests.iter().any(|test| {
            source.path.strip_prefix(test.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    });
    assert!(sources.len() > 50, "the sources were not found");
    sources
}

/// The text with comments and the contents of strings and characters blanked, byte for byte.
fn bare(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let end = match rest {
            [b'/', b'/', ..] => at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => at + block_comment(rest),
            [b'"', ..] => at + string(rest),
            [b'r', b'"' | b'#', ..] if !is_word(at.checked_sub(1).map(|before| bytes[before])) => at + raw_string(rest),
            [b'b' | b'c', b'r', b'"' | b'#', ..] => at + 1 + raw_string(&rest[1..]),
            [b'\'', b'\\', ..] => at + 3 + rest[3..].iter().position(|byte| *byte == b'\'').map_or(0, |end| end + 1),
            // A character, or else the quote of a lifetime.
            [b'\'', first, ..] => {
                let width = if *first < 0x80 { 1 } else { text[at + 1..].chars().next().map_or(1, char::len_utf8) };
                if rest.get(1 + width) == Some(&b'\'') { at + width + 2 } else { at }
            }
            _ => at,
        };
        if end > at {
            blank(at, end.min(bytes.len()));
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("only whole tokens are blanked")
}

fn is_word(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a raw string; 0 for a raw identifier.
fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let mut end = vec![b'"'];
    end.resize(1 + hashes, b'#');
    let start = 2 + hashes;
    let length = rest[start..].windows(end.len()).position(|window| window == end);
    start + length.map_or(rest.len() - start, |length| length + end.len())
}

/// Bare code without what stands below `#[cfg(test)]`, and the modules that were declared there.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut out, mut modules) = (code.to_owned(), Vec::new());
    while let Some(start) = out.find(MARK) {
        let item = &out[start..];
        let open = item.find(['{', ';']).unwrap_or(item.len() - 1);
        let end = if item.as_bytes()[open] == b'{' { open + braces(&item[open..]) } else { open + 1 };
        if let Some((_, name)) = item[..open].split_once("mod ") {
            modules.push(name.trim().to_owned());
        }
        let blank: String = item[..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out.replace_range(start..start + end, &blank);
    }
    (out, modules)
}

/// The length of what stands in braces at the beginning of this code.
fn braces(code: &str) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// The rooms that this file names, each with the line of the first mention.
fn named_rooms(source: &Source) -> BTreeMap<String, usize> {
    let mut named = BTreeMap::new();
    let mut add = |path: &str, at: usize| {
        let line = source.code[..at].matches('\n').count() + 1;
        for room in heads(path) {
            named.entry(room).or_insert(line);
        }
    };
    let from_outside = if source.path == "main.rs" { "keyside::" } else { "crate::" };
    for start in [from_outside, "super::"] {
        for (at, _) in source.code.match_indices(start) {
            let before = source.code[..at].bytes().next_back();
            if is_word(before) || source.code[..at].ends_with("super::") {
                continue;
            }
            let mut path = &source.code[at + start.len()..];
            if start == "super::" {
                let mut ups = 1;
                while let Some(rest) = path.strip_prefix("super::") {
                    (ups, path) = (ups + 1, rest);
                }
                // A module that is written inside its parent's file is one deeper than its file; outside of tests there
                // is none.
                if ups < source.depth() {
                    continue;
                }
            }
            add(path, at);
        }
    }
    named
}

/// The first names of a path or a tree of paths.
fn heads(path: &str) -> Vec<String> {
    let path = path.trim_start();
    let word = |path: &str| -> String {
        path.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let Some(_) = path.strip_prefix('{') else { return vec![word(path)] };
    let tree = &path[1..braces(path) - 1];
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, byte) in tree.bytes().enumerate().chain([(tree.len(), b',')]) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b',' if depth == 0 => {
                heads.push(word(&tree[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// The map.
fn map() -> String {
    read(&root().join("src/README.md"))
}

type Edges = BTreeSet<(String, String)>;

/// A fenced block of the map: lines `room … -> room …`, each pair an edge.
fn block(map: &str, name: &str) -> Edges {
    let start = map.find(&format!("```{name}\n")).unwrap_or_else(|| panic!("the map has no block `{name}`"));
    let body = map[start..].split_once('\n').map_or("", |(_, body)| body);
    let body = body.split_once("```").expect("the block ends").0;
    let mut edges = Edges::new();
    for line in body.lines().filter(|line| !line.trim().is_empty()) {
        let (from, to) = line.split_once(" -> ").unwrap_or_else(|| panic!("not an edge: {line}"));
        for from in from.split_whitespace() {
            edges.extend(to.split_whitespace().map(|to| (from.to_owned(), to.to_owned())));
        }
    }
    edges
}

/// The edges as the map writes them, one line a room.
fn lines(edges: &Edges) -> String {
    let mut rooms: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in edges {
        rooms.entry(from).or_default().push(to);
    }
    rooms.iter().map(|(from, to)| format!("{from} -> {}\n", to.join(" "))).collect()
}

/// The rooms: the modules of the crate.
fn rooms(sources: &[Source]) -> BTreeSet<String> {
    let lib = sources.iter().find(|source| source.path == "lib.rs").expect("there is a lib.rs");
    let lines = lib.code.lines().filter_map(|line| line.trim().strip_prefix("pub mod ")?.strip_suffix(';'));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn rooms_use_the_rooms_that_the_map_lists() {
    let (sources, map) = (sources(), map());
    let rooms = rooms(&sources);
    let listed = block(&map, "edges");
    let mut used = Edges::new();
    let mut broken = Vec::new();
    for source in &sources {
        for (room, line) in named_rooms(source) {
            if room == source.room() || source.path == "lib.rs" {
                continue;
            }
            let edge = (source.room().to_owned(), room);
            if !rooms.contains(&edge.1) {
                broken.push(format!("src/{}:{line}: `{}` is no room", source.path, edge.1));
            } else if !listed.contains(&edge) {
                broken.push(format!("src/{}:{line}: {} -> {} is not listed", source.path, edge.0, edge.1));
            }
            used.insert(edge);
        }
    }
    broken.extend(listed.difference(&used).map(|(from, to)| format!("{from} -> {to} is listed and no longer used")));
    none(&format!("the map's edges are not the code's, which are\n{}", lines(&used)), &broken);
}

#[test]
fn no_listed_edge_points_outward() {
    let map = map();
    let (listed, never, exceptions) = (block(&map, "edges"), block(&map, "never"), block(&map, "exceptions"));
    let outward: Edges = listed.intersection(&never).cloned().collect();
    let edge = |(from, to): &(String, String)| format!("{from} -> {to}");
    none("an edge that must not be", &outward.difference(&exceptions).map(edge).collect::<Vec<_>>());
    none("an exception that is needed no more", &exceptions.difference(&outward).map(edge).collect::<Vec<_>>());
    assert_eq!(exceptions.len(), EXCEPTIONS, "exceptions: fewer are welcome, lower the number; more are not");
}

#[test]
fn every_room_is_on_the_map_and_says_what_it_is_for() {
    let (sources, map) = (sources(), map());
    let mut broken = Vec::new();
    for room in rooms(&sources) {
        if !map.contains(&format!("| `{room}` |")) {
            broken.push(format!("{room} has no row in the map's table of rooms"));
        }
    }
    for source in &sources {
        if !source.text.starts_with("//! ") {
            broken.push(format!("src/{} does not begin with a paragraph that says what it is for", source.path));
        }
    }
    none("rooms that do not introduce themselves", &broken);
}

#[test]
fn the_table_of_refusals_is_the_one_of_the_code() {
    const MARK: &str = "<!-- refusals -->";
    let mut table = String::from("\n| reason | status | code | what the caller is told |\n|---|---|---|---|\n");
    for row in rejection::TABLE {
        table.push_str(&format!("| `{}` | {} | `{}` | {} |\n", row.label, row.status, row.code, row.sentence));
    }
    let map = map();
    let parts: Vec<&str> = map.split(MARK).collect();
    let [before, written, after] = parts[..] else { panic!("the map has the mark {MARK} twice") };
    if written == table {
        return;
    }
    if env::var_os("UPDATE").is_some() {
        let text = format!("{before}{MARK}{table}{MARK}{after}");
        fs::write(root().join("src/README.md"), text).expect("the map can be written");
        return;
    }
    panic!("the map's table of refusals is not rejection::TABLE; `UPDATE=1 cargo test --test house` writes it anew");
}

#[test]
fn no_file_is_long() {
    let mut broken = Vec::new();
    let mut paths = Vec::new();
    let src = root().join("src");
    rust_files(&src, &mut paths);
    for path in paths {
        let lines = read(&path).lines().count();
        let path = path.strip_prefix(&src).expect("it was found there").to_str().expect("plain names");
        match LONG.iter().find(|(long, _)| *long == path) {
            Some((_, max)) if lines > *max => broken.push(format!("src/{path}: {lines} lines; it may have {max}")),
            Some(_) if lines <= MAX_LINES => broken.push(format!("src/{path}: needs its exception no more")),
            None if lines > MAX_LINES => broken.push(format!("src/{path}: {lines} lines; a file has {MAX_LINES}")),
            _ => {}
        }
    }
    let lines = read(&src.join("main.rs")).lines().count();
    if lines > MAX_MAIN_LINES {
        broken.push(format!("src/main.rs: {lines} lines; it has {MAX_MAIN_LINES}"));
    }
    none("files that do too much", &broken);
}

#[test]
fn no_code_names_a_key_system() {
    let mut broken = Vec::new();
    for source in sources() {
        if MAY_NAME_KEY_SYSTEMS.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        // Comments and strings count, too, so this reads the text as it is.
        for (number, (line, code)) in source.text.lines().zip(source.code.lines()).enumerate() {
            // Wallets are what an API may be about, and one of the systems has that name.
            let lower = line.to_ascii_lowercase().replace("wallets", "");
            let Some(name) = KEY_SYSTEMS.iter().find(|name| lower.contains(**name)) else { continue };
            // Of tests, which come last in a file, no code is left.
            let in_test = code.trim().is_empty() && source.code.lines().skip(number).all(|line| line.trim().is_empty());
            if !in_test {
                broken.push(format!("src/{}:{}: names {name}", source.path, number + 1));
            }
        }
    }
    none("key systems are data in config/presets", &broken);
}

#[test]
fn only_the_clock_reads_time() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.path != "clock.rs") {
        for (number, line) in source.code.lines().enumerate() {
            broken.extend(
                CLOCKS
                    .iter()
                    .filter(|clock| line.contains(**clock))
                    .map(|clock| format!("src/{}:{}: {clock}; take a Now", source.path, number + 1)),
            );
        }
    }
    none("time is a parameter", &broken);
}

#[test]
fn no_secret_can_be_printed() {
    let mut broken = Vec::new();
    let mut seen = false;
    for source in sources() {
        seen |= source.code.contains("Debug for Secret ");
        for (number, line) in source.code.lines().enumerate() {
            if ["Display for Secret", "Serialize for Secret", "ToString for Secret"]
                .iter()
                .any(|way| line.contains(way))
            {
                broken.push(format!("src/{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(seen, "the type of secrets is looked for under another name than it has");
    none("a secret has no text", &broken);
}

#[test]
fn what_decides_never_waits() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| NEVER_WAIT.contains(&source.room())) {
        for (number, line) in source.code.lines().enumerate() {
            if ["async fn", "async move", ".await", "thread::", "File::", "fs::"].iter().any(|wait| line.contains(wait))
            {
                broken.push(format!("src/{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    none("rooms that return at once", &broken);
}

#[test]
fn the_reader_of_source_sees_through_comments_strings_and_tests() {
    let text = r##"
use crate::{
    clock::{self, Now}, // crate::comment
    keys::{KeyRecord, verify::{Pool, Work}},
};
/* crate::block /* crate::nested */ */
const A: &str = "crate::string \" crate::more";
const B: &str = r#"crate::raw " "#;
const C: char = '"';
const D: char = '\'';
fn f<'a>(x: &'a crate::policy::Permit) -> super::super::fault::Fault { x }
#[cfg(test)]
mod tests { use crate::sidecar; }
#[cfg(test)]
mod sample;
fn g() { crate::limits::take() }
"##;
    let (code, modules) = without_tests(&bare(text));
    assert_eq!(modules, ["tests", "sample"]);
    let source = Source { path: "room/file.rs".to_owned(), text: text.to_owned(), code };
    let named = named_rooms(&source);
    assert_eq!(named.keys().collect::<Vec<_>>(), ["clock", "fault", "keys", "limits", "policy"]);
    assert_eq!(named["limits"], 16);
}
