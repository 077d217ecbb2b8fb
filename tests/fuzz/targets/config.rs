//! A configuration that is read can be printed, and what is printed is read as the same one.
//!
//! An input: the text of a configuration file.

#![no_main]

use std::path::Path;

use keyside::config::{self, Loaded};

libfuzzer_sys::fuzz_target!(|text: &str| {
    // A configuration names files for secrets; none of this machine is one.
    if ["/dev", "/proc", "/sys", "/etc", "/tmp"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    let Ok(loaded) = read(text) else { return };
    let printed = loaded.effective.to_string();
    // The preset's routes are printed; they must not be added a second time.
    let alone = printed.replace("routes_from_preset = true ", "routes_from_preset = false");
    let again = read(&alone).unwrap_or_else(|faults| panic!("{faults}\n\nin\n\n{alone}"));
    let values = |printed: &str| printed.parse::<toml::Table>().unwrap_or_else(|why| panic!("{why} in\n{printed}"));
    assert_eq!(values(&again.effective.to_string()), values(&alone));
    assert_eq!(settings(&again), settings(&loaded));
});

fn read(text: &str) -> Result<Loaded, config::Faults> {
    config::load_text(text, Path::new("/nowhere/at/all/keyside.toml"), [])
}

/// What is in force, as far as it can be shown.
fn settings(loaded: &Loaded) -> String {
    let config = &loaded.config;
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        config.listener,
        config.facts,
        config.credential,
        config.limits,
        config.upstream,
        config.owner_headers,
        config.max_body,
        config.health_path,
        config.shutdown,
        config.keys
    )
}
