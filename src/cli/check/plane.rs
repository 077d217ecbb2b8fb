//! `control.toml`: the configuration of the control plane, checked as that of a sidecar is. Its store is not opened: a
//! check changes nothing and needs nobody.

use std::{fs, path::Path};

use toml::Table;

use super::{files, partial};
use crate::{clock::Wall, config::control::load, control::store::Place, fault::Fault};

/// What stands in no other configuration.
const ITS_OWN: [&str; 6] = ["store", "sync", "pages", "setup", "presets", "audit"];

/// Whether this is the configuration of a control plane: by what stands in it, else by its name.
pub(super) fn is_one(path: &Path) -> bool {
    let table = fs::read_to_string(path).ok().and_then(|text| text.parse::<Table>().ok());
    let has = |names: &[&str]| table.as_ref().is_some_and(|table| names.iter().any(|name| table.contains_key(*name)));
    let named = path.file_name().is_some_and(|name| name == "control.toml");
    !has(&["upstream", "route", "preset"]) && (has(&ITS_OWN) || named)
}

/// Everything that is wrong with it and with the files that it names; warnings included.
pub(super) fn examine(path: &Path, environment: impl IntoIterator<Item = (String, String)>, now: Wall) -> Vec<Fault> {
    let loaded = match load(path, environment) {
        Ok(loaded) => loaded,
        Err(crate::config::Faults(mut faults)) => {
            if let Some(table) = fs::read_to_string(path).ok().and_then(|text| text.parse::<Table>().ok()) {
                partial::certificate(path, &table, &mut faults);
            }
            return faults;
        }
    };
    let mut faults = loaded.warnings.clone();
    let mut about = |setting: &str, fault: Fault| faults.push(loaded.effective.mark(setting, fault));
    if let Some(settings) = &loaded.settings.listener.tls {
        let is_of_sync = !settings.client_certificate_required;
        let client_ca = if is_of_sync { "sync.client_ca" } else { "listen.tls.client_ca" };
        files::listen(settings, client_ca, now, &mut about);
    }
    for (setting, file) in loaded.secret_files() {
        if let Some(fault) = files::open_to_all(file) {
            about(setting, fault);
        }
    }
    if let Place::Sqlite(file) = &loaded.settings.store
        && let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        let fault = Fault::error(format!("`store.url`: there is no folder {}", folder.display()));
        about("store.url", fault.suggest(format!("mkdir -p {}", folder.display())));
    }
    faults
}
