//! What every test stands on, so that a test reads like a sentence: an upstream, a sidecar in front of it, a client.
//!
//! ```text
//! let reader = Key::pair("reader").scopes(["read"]);
//! let upstream = Upstream::start().await;
//! upstream.on("/slow", Answer::ok("at last").after(Duration::from_secs(1)));
//! let sidecar = Sidecar::in_front_of(&upstream).config("[limits]\nper_ip = [\"2/1m\"]").keys([&reader]).start().await;
//!
//! let answer = sidecar.send(H2, get("/slow").key(&reader)).await;
//! assert_eq!(answer.status, 200);
//! assert_eq!(upstream.only().field("x-key-id"), reader.id);
//! sidecar.counts("keyside_requests_total", &[("outcome", "allowed")], 1).await;
//! ```
//!
//! - [`Upstream`] keeps the exact bytes of every request and answers by a script per path ([`Answer`]).
//! - [`Sidecar`] is the real executable, over TLS on ports that the system chose, in a folder of its own, with an empty
//!   environment. `config` lays tables over the harness's own; `[[route]]`s are appended. What it prints is kept.
//! - [`Plane`](plane::Plane) is the control plane, the real executable; `Control` a control endpoint in the test's own process.
//! - [`Key`] is a row of the key file and the credential that goes with it; hashes are `sha256`, so that tests that are
//!   not about hashing are quick.
//! - [`Postgres`] is a server, for a control plane.
//! - [`Request`] is sent over [`H1`] or [`H2`], on a connection of its own or on a kept [`Connection`]; [`Wire`] is a
//!   connection for bytes that no client library would send.
//!
//! Nothing sleeps: what is waited for is an event, or a condition with a deadline ([`eventually`], [`within`]). All of
//! it dies with the value that stands for it.

mod certificates;
mod client;
mod command;
mod endpoint;
mod http1;
mod keys;
mod lines;
mod load;
mod metrics;
mod packages;
mod plane;
mod postgres;
mod process;
mod settings;
mod sidecar;
mod upstream;

use std::{fmt::Debug, time::Duration};

pub(crate) use self::{
    certificates::{Authority, Issued},
    client::{
        Connection, Received, Request, Tls,
        Version::{self, H1, H2},
        get, post, request,
    },
    command::{Ended, executable, executable_through, keyside, keyside_with_input, run},
    endpoint::{Control, Lie, NDJSON, TOKEN, answer},
    http1::Wire,
    keys::{Key, basic, hex, key_file, key_file_of},
    lines::Lines,
    load::{Load, others},
    metrics::Metrics,
    packages::{node, node_program, python},
    plane::{ADMIN_TOKEN, Minted, Plane, PlaneBuilder, SYNC_TOKEN, Stopped, api, minting},
    postgres::Server as Postgres,
    sidecar::{Builder, Sidecar},
    upstream::{Answer, End, Gate, Seen, Upstream},
};

/// Long enough for anything on a machine that does ten other things; a test that works never waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A port that was free a moment ago, for what cannot be told to take any and say which.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The future's value, or a failed test when it takes longer than anything may take.
#[track_caller]
pub(crate) fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{place}: waited {PATIENCE:?} for {what}"),
        }
    }
}

/// Asks again and again until the condition gives something; fails the test, with what it last said, when it never
/// does.
#[track_caller]
pub(crate) fn eventually<T, E: Debug>(
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            match condition().await {
                Ok(value) => return value,
                Err(last) if std::time::Instant::now() > deadline => {
                    panic!("{place}: waited {PATIENCE:?} for {what}; last: {last:?}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}
