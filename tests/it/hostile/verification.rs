//! Secrets, hashes and revocations under attack.

mod chosen_names;
mod floods;
mod races;
mod stored;

use crate::harness::{Key, Sidecar, Upstream};

/// A sidecar without limits but those that are given.
async fn sidecar(upstream: &Upstream, limits: &str, keys: &[&Key]) -> Sidecar {
    let config = format!("[limits]\nper_ip = []\nper_key = []\n{limits}");
    Sidecar::in_front_of(upstream).plaintext().config(&config).keys(keys.iter().copied()).start().await
}

/// A pair by a name that a person chose.
fn named(name: &str) -> Key {
    let mut key = Key::pair(name);
    key.public = name.into();
    key
}

/// How many secrets were hashed in this way.
async fn hashed(sidecar: &Sidecar, path: &str) -> f64 {
    sidecar.metrics().await.get("keyside_verifications_total", &[("path", path)]).unwrap_or(0.0)
}

/// How many secrets were hashed slowly, for a key or for the look of it.
async fn slowly_hashed(sidecar: &Sidecar) -> f64 {
    hashed(sidecar, "argon2id").await + hashed(sidecar, "bcrypt").await + hashed(sidecar, "decoy").await
}
