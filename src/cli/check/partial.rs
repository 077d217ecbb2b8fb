//! What can be checked although the configuration as a whole cannot be used: the files that it names where it can be
//! read, so that all faults are told at once.

use std::{fs, path::Path};

use toml::{Table, Value};

use super::{files, keyfile};
use crate::{fault::Fault, listener::tls};

/// Checks the key file and the certificate by themselves. What cannot be found is passed over: the faults of the
/// configuration come first.
pub(super) fn check(path: &Path, faults: &mut Vec<Fault>) {
    let Some(table) = fs::read_to_string(path).ok().and_then(|text| text.parse::<Table>().ok()) else { return };
    let folder = path.parent().unwrap_or(Path::new(""));
    let named = |section: &Value, name: &str| Some(folder.join(section.get(name)?.as_str()?));

    let file = table.get("keys").and_then(|keys| named(keys, "file")).unwrap_or_else(|| folder.join("keys.toml"));
    if file.is_file() {
        keyfile::check_alone(&file, faults);
    }
    certificate(path, &table, faults);
}

/// Checks the certificate that a configuration shows to clients, by itself.
pub(super) fn certificate(path: &Path, table: &Table, faults: &mut Vec<Fault>) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let named = |section: &Value, name: &str| Some(folder.join(section.get(name)?.as_str()?));
    let settings = table.get("listen").and_then(|listen| listen.get("tls")).and_then(|section| {
        let (certificate, private_key) = (named(section, "certificate")?, named(section, "private_key")?);
        Some(tls::Settings {
            certificate,
            private_key,
            client_ca: named(section, "client_ca"),
            client_certificate_required: true,
        })
    });
    if let Some(fault) = settings.as_ref().and_then(files::unusable) {
        faults.push(fault.in_file(path));
    }
}
