//! Keys of a control endpoint: followed, believed only as far as they can be, kept, and acknowledged.

mod fleet;
mod following;
mod kept;
mod lies;
mod reports;
mod staleness;

use std::time::Duration;

use crate::harness::{Builder, Control, Key, Sidecar, Upstream, eventually, get};

/// No limits: what is tested asks often.
const UNLIMITED: &str = "[limits]\nper_ip = []\nper_key = []\nfailures_per_ip = []";

/// A sidecar of this endpoint, in front of this upstream, without TLS of its own.
fn sidecar(upstream: &Upstream, control: &Control) -> Builder {
    Sidecar::in_front_of(upstream).plaintext().config(UNLIMITED).keys_of(control)
}

/// Waits until a request with this key is answered so.
async fn answers(sidecar: &Sidecar, key: &Key, status: u16) {
    eventually("the key to be answered so", async || {
        let found = sidecar.ask(get("/").key(key)).await.status;
        if found == status { Ok(()) } else { Err(found) }
    })
    .await;
}

/// What a request with this key is answered now.
#[track_caller]
fn check(sidecar: &Sidecar, key: &Key, status: u16) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        let answer = sidecar.ask(get("/").key(key)).await;
        assert_eq!(answer.status, status, "{place}: {}", answer.text());
    }
}

/// `/readyz`, with its text.
async fn readyz(sidecar: &Sidecar) -> (u16, String) {
    let answer = sidecar.admin("GET", "/readyz?verbose").await;
    (answer.status, answer.text())
}

/// Waits until `/readyz` answers so, and says so.
async fn readyz_says(sidecar: &Sidecar, status: u16, words: &str) {
    eventually("/readyz to say so", async || {
        let (found, text) = readyz(sidecar).await;
        if found == status && text.contains(words) { Ok(()) } else { Err((found, text)) }
    })
    .await;
}

const SOON: Duration = Duration::from_millis(50);
