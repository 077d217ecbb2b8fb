//! `README.md` beside this file: every threat and every fault has a proof, and every proof is a test that runs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// The threats and faults that Keyside knows of.
const THREATS: usize = 90;
const FAULTS: usize = 40;

struct Row {
    number: String,
    proof: String,
}

fn rows(text: &str) -> Vec<Row> {
    let cells = |line: &str| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        let (number, rest) = line.split_once(" | ")?;
        let (_, proof) = rest.rsplit_once(" | ")?;
        let is_row = number.starts_with(['T', 'F']) && number[1..].parse::<usize>().is_ok();
        is_row.then(|| Row { number: number.to_owned(), proof: proof.to_owned() })
    };
    text.lines().filter_map(cells).collect()
}

/// Where the source of a proof is; an error says why there is none.
fn source(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_from_root = ["src/", "tests/", "benches/"].iter().any(|folder| path.starts_with(folder));
    if is_from_root { root.join(path) } else { root.join("tests/it").join(path) }
}

/// Why this is no proof, if it is none.
fn fault(proof: &str) -> Option<String> {
    let Some((path, name)) = proof.split_once("::") else {
        // A script is a proof as a whole.
        return (!source(proof).is_file()).then(|| format!("{proof} is not there"));
    };
    let Ok(text) = std::fs::read_to_string(source(path)) else { return Some(format!("{path} is not there")) };
    if runs(&text, name) { None } else { Some(format!("{path} has no test {name} that always runs")) }
}

/// Whether a source has a test of this name that always runs.
fn runs(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('))
    };
    // Of a suite that runs on both stores, the tests are listed.
    let mut listed = lines.iter().skip_while(|line| **line != "on_both! {").take_while(|line| **line != "}");
    if listed.any(|line| *line == name) {
        return true;
    }
    lines.iter().enumerate().any(|(at, line)| {
        // In `proptest!`, too, a test has the attribute.
        let attributes: Vec<&&str> = lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).collect();
        let is_test = attributes.iter().any(|line| **line == "#[test]" || line.starts_with("#[tokio::test"));
        let always = !attributes.iter().any(|line| line.contains("ignore") || line.contains("cfg"));
        is_it(line) && is_test && always
    })
}

#[test]
fn every_threat_and_fault_has_a_proof() {
    let rows = rows(include_str!("README.md"));
    let numbers: Vec<&str> = rows.iter().map(|row| row.number.as_str()).collect();
    let expected: Vec<String> = (1..=THREATS)
        .map(|number| format!("T{number}"))
        .chain((1..=FAULTS).map(|number| format!("F{number}")))
        .collect();
    assert_eq!(numbers, expected);

    let mut faults = Vec::new();
    for Row { number, proof } in &rows {
        if let Some(sentence) = proof.strip_prefix("Does not apply: ") {
            if sentence.len() < 20 || !sentence.ends_with('.') {
                faults.push(format!("{number}: {sentence:?} is no reason"));
            }
            continue;
        }
        let proofs: Vec<&str> = proof.split("<br>").collect();
        if proofs.iter().collect::<BTreeSet<_>>().len() != proofs.len() {
            faults.push(format!("{number}: a proof is named twice"));
        }
        for proof in proofs {
            match proof.strip_prefix('`').and_then(|proof| proof.strip_suffix('`')) {
                Some(proof) => faults.extend(fault(proof).map(|fault| format!("{number}: {fault}"))),
                None => faults.push(format!("{number}: {proof:?} is neither a test nor a reason")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_a_test_that_always_runs_is_a_proof() {
    let text = "#[test]\nfn one() {}\n#[tokio::test]\nasync fn two() {}\n#[test]\n#[ignore = \"no\"]\nfn three() {}\nfn four() {}";
    let all = ["one", "two", "three", "four", "on"].map(|name| runs(text, name));
    assert_eq!(all, [true, true, false, false, false]);
    assert!(runs("on_both! {\n    one\n}\nfn two() {}", "one") && !runs("on_both! {\n    one\n}\nfn two() {}", "two"));
    assert!(fault("nowhere.rs::one").is_some());
    assert!(fault("benches/nowhere.py").is_some());
    assert!(fault("hostile/table.rs::only_a_test_that_always_runs_is_a_proof").is_none());
}
