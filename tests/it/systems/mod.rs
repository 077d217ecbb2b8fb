//! The key systems that Keyside must serve: each one's document, sentence by sentence, against its preset.
//!
//! A test that proves something says so in doc lines right above it: `/// [row] "a sentence in our own words"`, where
//! the row is one of the table of systems, as [`CELLS`] has it. [`every_cell_is_proven`] reads the modules and fails
//! where a cell of the table has no such line, or a line stands on no test. Keys are minted by the real command with
//! the preset's configuration, so that their shapes are proven as well.

mod agreement;
mod first_steps;
mod hygiene;
mod life;
mod payment_links;
mod proof;
mod service;
mod wallet;
mod web3pay;
mod wontopos;
mod woocommerce;

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;

use self::proof::{Proof, proofs};
use crate::harness::{key_file, keyside};

/// A key system, and the modules that prove what is said of it: their names, in a folder `folder/name`, and their
/// texts.
struct System {
    name: &'static str,
    modules: &'static [(&'static str, &'static str)],
}

/// The systems, in the order of the table's columns.
const SYSTEMS: [System; 5] = [
    System {
        name: "S1 wallet",
        modules: &[
            ("wallet", include_str!("wallet/mod.rs")),
            ("wallet/access", include_str!("wallet/access.rs")),
            ("wallet/commands", include_str!("wallet/commands.rs")),
            ("wallet/life", include_str!("wallet/life.rs")),
            ("wallet/limits", include_str!("wallet/limits.rs")),
            ("wallet/readings", include_str!("wallet/readings.rs")),
        ],
    },
    System {
        name: "S2 WooCommerce",
        modules: &[
            ("woocommerce", include_str!("woocommerce/mod.rs")),
            ("woocommerce/access", include_str!("woocommerce/access.rs")),
            ("woocommerce/answers", include_str!("woocommerce/answers.rs")),
            ("woocommerce/clients", include_str!("woocommerce/clients.rs")),
            ("woocommerce/commands", include_str!("woocommerce/commands.rs")),
            ("woocommerce/credentials", include_str!("woocommerce/credentials.rs")),
            ("woocommerce/life", include_str!("woocommerce/life.rs")),
            ("woocommerce/readings", include_str!("woocommerce/readings.rs")),
        ],
    },
    System { name: "S3 web3pay", modules: &[("web3pay", include_str!("web3pay.rs"))] },
    System { name: "S4 payment links", modules: &[("payment_links", include_str!("payment_links.rs"))] },
    System { name: "S5 Wontopos", modules: &[("wontopos", include_str!("wontopos.rs"))] },
];

/// Every row of the table of systems, and how many proofs each system's cell asks for at the least: none where it is
/// empty. `note` is no row but the notes below the table, each of which is to be proven for every system that it names.
const CELLS: &[(&str, [usize; 5])] = &[
    ("what it is", [1, 1, 1, 1, 1]),
    ("credential", [1, 1, 1, 1, 1]),
    ("key shape", [1, 1, 1, 1, 1]),
    ("mode / environment", [1, 1, 1, 1, 1]),
    ("permission model", [1, 1, 1, 1, 1]),
    ("owner", [1, 1, 1, 1, 1]),
    ("IP whitelist", [1, 0, 0, 0, 0]),
    ("limits", [1, 0, 0, 0, 1]),
    ("secret at rest", [1, 1, 1, 0, 1]),
    ("list shows", [1, 1, 1, 1, 0]),
    ("revoke", [1, 1, 1, 1, 1]),
    ("delete", [1, 0, 0, 0, 0]),
    ("rotate", [1, 1, 1, 1, 1]),
    ("errors", [1, 1, 1, 1, 1]),
    ("management API", [1, 1, 1, 1, 1]),
    ("advice the product should turn into help", [1, 1, 1, 1, 1]),
    ("note", [4, 2, 1, 1, 1]),
];

/// What is not proven, and what claims to be a proof and is none. A system's place is its column.
fn faults<'s>(systems: impl IntoIterator<Item = (usize, &'s System)>, cells: &[(&str, [usize; 5])]) -> Vec<String> {
    let mut faults = Vec::new();
    for (column, System { name, modules }) in systems {
        let mut found: Vec<Proof> = Vec::new();
        for (module, text) in *modules {
            match proofs(text) {
                Ok(proofs) => found.extend(proofs),
                Err(wrong) => faults.extend(wrong.into_iter().map(|wrong| format!("{module}: {wrong}"))),
            }
        }
        for Proof { row, test, .. } in &found {
            if !cells.iter().any(|(known, _)| known == row) {
                faults.push(format!("{name}: {test} proves [{row}], which is no row"));
            }
        }
        for (row, needed) in cells {
            let mut sentences: Vec<_> = found.iter().filter(|proof| proof.row == *row).map(|p| &p.sentence).collect();
            sentences.sort();
            sentences.dedup();
            if sentences.len() < needed[column] {
                faults.push(format!("{name}: [{row}] has {} of {} proofs", sentences.len(), needed[column]));
            }
        }
    }
    faults
}

/// A cell of the table without a test, or a claim without one, fails here.
#[test]
fn every_cell_is_proven() {
    let faults = faults(SYSTEMS.iter().enumerate(), CELLS);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // What is no module of the crate never runs, whatever it claims.
    for (module, _) in SYSTEMS.iter().flat_map(|system| system.modules) {
        let (text, name) = match module.split_once('/') {
            None => (include_str!("mod.rs"), *module),
            Some((folder, name)) => {
                let mut all = SYSTEMS.iter().flat_map(|system| system.modules);
                let door = all.find(|(module, _)| *module == folder).expect("the folder's own module");
                (door.1, name)
            }
        };
        assert!(text.contains(&format!("\nmod {name};\n")), "{module} is listed, and nowhere declared");
    }
}

/// What stands in a preset as an example is one: with the marks of a comment taken away it is a configuration.
#[tokio::test]
async fn the_examples_in_presets_are_right() {
    let mut examples = 0;
    for preset in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/presets")).unwrap() {
        let path = preset.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let is_example = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && *line != "#";
        examples += text.lines().filter(is_example).count();
        let switched_on: Vec<_> = text.lines().map(|line| if is_example(&line) { &line[1..] } else { line }).collect();
        let folder = TempDir::with_prefix("keyside-it-").unwrap();
        let file = folder.path().join("keyside.toml");
        let own = "[listen]\nplaintext = true\naddress = \"127.0.0.1:8443\"\n";
        std::fs::write(&file, format!("{}\n{own}", switched_on.join("\n"))).unwrap();
        let keys = folder.path().join("keys.toml");
        std::fs::write(&keys, key_file([])).unwrap();
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
        let ended = keyside(["check", "--config", file.to_str().unwrap()]).await;
        assert!(ended.status == 0 && ended.stderr.contains("no warnings"), "{path:?}: {}", ended.stderr);
    }
    assert!(examples > 10, "{examples}");
}

/// The names of the systems and the cells of the table in this text, as they are kept here.
fn table_of(text: &str) -> (Vec<&str>, Vec<(String, [usize; 5])>) {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let header = rows.next().expect("a table");
    let names = header.trim_start_matches("| ").split(" | ").collect();
    let mut cells: Vec<(String, [usize; 5])> = rows
        .map(|row| {
            let (row, cells) = row.split_once(" | ").unwrap();
            let needed: Vec<_> = cells.split(" | ").map(|cell| usize::from(cell.trim() != "–")).collect();
            (row.to_owned(), needed.try_into().unwrap_or_else(|_| panic!("{row}: not a cell for each system")))
        })
        .collect();
    let (_, notes) = text.split_once("\nNotes").expect("notes below the table");
    let named = |name: &str| notes.split("\n- ").skip(1).filter(|note| note.contains(name)).count();
    cells.push(("note".into(), ["S1", "S2", "S3", "S4", "S5"].map(named)));
    (names, cells)
}

/// Where the table itself lies beside the project, a new row or cell there is missed here.
#[test]
fn the_cells_are_those_of_the_table() {
    let read = |text: &str| {
        let (names, cells) = table_of(text);
        assert_eq!(names, SYSTEMS.map(|system| system.name));
        cells
    };
    let ours: Vec<(String, [usize; 5])> = CELLS.iter().map(|(row, needed)| ((*row).to_owned(), *needed)).collect();
    // Printed and read again, so that reading is tested where there is no such file, too.
    let cell = |needed: &usize| if *needed == 0 { "–" } else { "some thing" };
    let printed: String = CELLS[..CELLS.len() - 1]
        .iter()
        .map(|(row, needed)| format!("| {row} | {} |\n", needed.iter().map(cell).collect::<Vec<_>>().join(" | ")))
        .collect();
    let head = format!("| | {} |\n|---|---|---|---|---|---|\n", SYSTEMS.map(|system| system.name).join(" | "));
    let notes =
        "\nNotes\n- S1's.\n- S1.\n- S4 and S3, S1 too.\n- S5's.\n- The S1 and\n  S2 presets.\n- The S2 tests.\n";
    assert_eq!(read(&format!("# Systems\n\n{head}{printed}{notes}")), ours);
    let more = printed.replacen("–", "something", 1);
    assert_ne!(read(&format!("{head}{more}{notes}")), ours);
    assert_ne!(read(&format!("{head}{printed}| new row | a | b | c | d | e |\n{notes}")), ours);
    assert_ne!(read(&format!("{head}{printed}{notes}- A note on S5.\n")), ours);

    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/key-systems.md");
    if table.exists() {
        assert_eq!(read(&std::fs::read_to_string(table).unwrap()), ours);
    }
}

/// A proof that is missing, misspelt, or on no test that runs is found.
#[test]
fn what_is_not_proven_is_found() {
    const GOOD: &str = "/// What it does.\n/// [owner] \"The account.\"\n/// [note] \"One.\"\n\
                        /// [note] \"Two,\n/// told on two lines.\"\n\
                        #[tokio::test]\nasync fn owners() {\n}\n";
    const CELLS: &[(&str, [usize; 5])] = &[("owner", [1, 0, 0, 0, 0]), ("note", [2, 0, 0, 0, 0])];
    let of = |text: String| {
        let modules: &'static [(&str, &str)] = Vec::leak(vec![("module", &*String::leak(text))]);
        faults([(0, &System { name: "S1", modules })], CELLS)
    };
    assert_eq!(of(GOOD.into()), [""; 0]);
    let rows = [
        ("[owner]", "[Owner]", "S1: owners proves [Owner], which is no row"),
        ("[owner]", "[Owner]", "S1: [owner] has 0 of 1 proofs"),
        ("/// [owner] \"The account.\"\n", "", "S1: [owner] has 0 of 1 proofs"),
        ("One.", "Two, told on two lines.", "S1: [note] has 1 of 2 proofs"),
        ("[tokio::test]", "[expect(dead_code)]", "module: line 6: owners is no test"),
        ("[tokio::test]", "[tokio::test]\n#[ignore]", "module: line 6: owners does not always run"),
        ("[tokio::test]", "[tokio::test]\n#[cfg(windows)]", "module: line 6: owners does not always run"),
        ("async fn", "\nconst X: u8 = 0;\nasync fn", "module: line 6: no test follows"),
        ("async fn owners() {\n}\n", "", "module: line 6: no test follows"),
        ("\"The account.\"", "The account.", "module: line 2: a proof reads [row] \"sentence\""),
        ("\"The account.\"", "\"\"", "module: line 2: a proof reads [row] \"sentence\""),
        ("two lines.\"", "two lines.", "module: line 4: a proof reads [row] \"sentence\""),
    ];
    for (from, to, fault) in rows {
        assert!(GOOD.contains(from), "{from}");
        let found = of(GOOD.replacen(from, to, 1));
        assert!(found.iter().any(|found| found == fault), "{from} -> {to}: {found:?} and no {fault}");
    }
    // A cell is its system's own; what is empty in the table may be proven all the same.
    let empty = System { name: "S1", modules: &[] };
    assert_eq!(faults([(0, &empty), (4, &empty)], CELLS).len(), 2);
    let full = System { name: "S5", modules: &[("module", GOOD)] };
    assert_eq!(faults([(4, &full)], CELLS), [""; 0]);
}
