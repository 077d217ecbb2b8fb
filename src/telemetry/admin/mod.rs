//! The admin port: metrics, health, version, and the request to reload. Never on the data port.
//!
//! It runs on a thread that serves no client, answers one request per connection, and bounds how many connections
//! there are and how long each may take, so that slow scrapers cost nobody anything.

mod body;
mod routes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Health, Registry};

/// Connections at once, per address; more wait in the kernel's queue until one ends.
const MAX_CONNECTIONS: usize = 128;
/// From the first byte to the end of the head.
const HEAD: Duration = Duration::from_secs(5);
/// A whole connection. Prometheus gives up after 10 s by itself.
const WHOLE: Duration = Duration::from_secs(15);
/// A pause after the system ran out of descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Where the admin port is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Everything; reloading only from loopback.
    pub address: Option<SocketAddr>,
    /// `/livez` and `/readyz` alone, for a kubelet.
    pub probes: Option<SocketAddr>,
}

/// What the admin port shows.
#[derive(Clone, Debug)]
pub struct State {
    /// The metrics.
    pub registry: Arc<Registry>,
    /// Life and readiness.
    pub health: Arc<Health>,
    /// Where a request to reload goes. The receiver answers when all that can be reloaded was, or says why not.
    pub reload: mpsc::Sender<ReloadRequest>,
}

/// A request to reload everything; answer it with what was reloaded, or with why it was not.
#[derive(Debug)]
pub struct ReloadRequest(pub oneshot::Sender<Result<String, String>>);

/// Bound listeners that do not answer yet.
#[derive(Debug)]
pub struct Bound {
    admin: Option<TcpListener>,
    probes: Option<TcpListener>,
}

/// Binds what is configured, so that a taken port is a fault at start and not a silent absence.
///
/// # Errors
///
/// The address that could not be bound, and why.
pub fn bind(settings: &Settings) -> Result<Bound, BindError> {
    let bind = |address: Option<SocketAddr>| match address {
        None => Ok(None),
        Some(address) => {
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(listener)
            });
            bound.map(Some).map_err(|source| BindError { address, source })
        }
    };
    Ok(Bound { admin: bind(settings.address)?, probes: bind(settings.probes)? })
}

/// The admin port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the admin address {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

impl Bound {
    /// Where everything is served, with the port that was really bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Where the probes are served.
    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.probes.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves for as long as it is polled. Run it on a tokio runtime with I/O and time that serves no client.
    pub async fn serve(self, state: State) {
        let state = Arc::new(state);
        tokio::join!(
            listen(self.admin, Arc::clone(&state), routes::Kind::Admin),
            listen(self.probes, state, routes::Kind::Probes)
        );
    }
}

async fn listen(listener: Option<TcpListener>, state: Arc<State>, kind: routes::Kind) {
    let Some(listener) = listener else { return };
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin port does not answer"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The place first: while all are taken, connections wait in the kernel's queue and hold no descriptor here.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(_) => {
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, std::convert::Infallible>(routes::answer(request, peer.ip(), kind, &state).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_headers(64)
                .serve_connection(TokioIo::new(stream), service);
            // How a connection of the admin port ends is of no interest to anybody.
            let _ = tokio::time::timeout(WHOLE, connection).await;
            drop(place);
        });
    }
}
