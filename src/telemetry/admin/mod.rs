//! The admin port: metrics, health, version, and the request to reload. Never on the data port.
//!
//! It runs on a thread that serves no client, answers one request per connection, and bounds how many connections
//! there are and how long each may take, so that slow scrapers cost nobody anything.

mod body;
mod routes;

pub(crate) use body::Text;

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
pub const MAX_CONNECTIONS: usize = 64;
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

/// Metrics, in Prometheus's text format.
pub trait Render: std::fmt::Debug + Send + Sync {
    /// All of them, as they are now.
    fn render(&self) -> String;
}

impl Render for Registry {
    fn render(&self) -> String {
        Self::render(self)
    }
}

/// What the admin port shows.
#[derive(Clone, Debug)]
pub struct State {
    /// The metrics.
    pub registry: Arc<dyn Render>,
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An admin port and a probes port on loopback, and who answers requests to reload.
    async fn with_ports<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr, SocketAddr, Arc<Health>) -> F) {
        let any = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let bound = bind(&Settings { address: any, probes: any }).unwrap();
        let (admin, probes) = (bound.address().unwrap(), bound.probes_address().unwrap());
        let health = Arc::new(Health::new());
        let (reload, mut asked) = mpsc::channel::<ReloadRequest>(1);
        let state = State { registry: Arc::new(Registry::new()), health: Arc::clone(&health), reload };
        let answering = async {
            let mut count = 0;
            while let Some(ReloadRequest(answer)) = asked.recv().await {
                count += 1;
                let _ =
                    answer.send(if count == 1 { Ok("keys: revision 7".into()) } else { Err("line 3: torn".into()) });
            }
        };
        tokio::select! {
            () = test(admin, probes, health) => {}
            () = bound.serve(state) => {}
            () = answering => {}
        }
    }

    /// Sends raw bytes, reads to the end.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn check(address: SocketAddr, request: &str, status: u16, text: &str) {
        let (line, fields) = request.split_once('\n').unwrap_or((request, "Host: localhost:9090"));
        let fields = fields.replace('\n', "\r\n");
        let answer = ask(address, &format!("{line} HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(answer.contains(text), "{request}: {answer}");
    }

    #[tokio::test]
    async fn every_route_answers() {
        with_ports(|admin, probes, health| async move {
            check(admin, "GET /livez", 200, "\r\n\r\nok\n").await;
            check(admin, "GET /readyz", 503, "[-]keys failed: not loaded yet\n").await;
            check(probes, "GET /readyz", 503, "readyz check failed\n").await;
            health.set_keys(Ok::<_, &str>(()));
            health.set_listening(true);
            for port in [admin, probes] {
                check(port, "GET /livez", 200, "ok\n").await;
                check(port, "GET /readyz", 200, "\r\n\r\nok\n").await;
                check(port, "GET /readyz?verbose", 200, "[+]keys ok\n[+]listening ok\n").await;
                check(port, "POST /readyz", 405, "allow: GET, HEAD\r\n").await;
                check(port, "GET /nothing", 404, "not found\n").await;
            }
            check(admin, "GET /healthz", 200, "ok\n").await;
            check(admin, "GET /metrics", 200, "keyside_requests_total{outcome=\"allowed\"} 0\n").await;
            check(admin, "GET /metrics", 200, "content-type: text/plain; version=0.0.4; charset=utf-8\r\n").await;
            check(admin, "GET /version", 200, concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"")).await;
            check(admin, "DELETE /metrics", 405, "allow: GET, HEAD\r\n").await;
            check(admin, "GET /.well-known/jwks.json", 404, "not found").await;
            for path in ["/metrics", "/version", "/healthz", "/-/reload", "/.well-known/jwks.json"] {
                check(probes, &format!("GET {path}"), 404, "not found").await;
            }
            check(probes, "POST /-/reload", 404, "not found").await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_head_gets_the_fields_and_no_body() {
        with_ports(|admin, _, _| async move {
            let answer = ask(admin, "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
            assert!(answer.contains("content-length: "), "{answer}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_reload_answers_when_it_is_done() {
        with_ports(|admin, _, _| async move {
            check(admin, "GET /-/reload", 405, "allow: POST\r\n").await;
            check(admin, "POST /-/reload", 200, "keys: revision 7\n").await;
            check(admin, "POST /-/reload\nHost: [::1]:9090\nSec-Fetch-Site: none", 422, "line 3: torn\n").await;
        })
        .await;
    }

    #[tokio::test]
    async fn a_web_page_cannot_reload() {
        with_ports(|admin, _, _| async move {
            for fields in [
                "Host: evil.example",
                "Host: evil.example:9090",
                "Host: localhost.evil.example",
                "Host: 10.0.0.1",
                "Host: localhost\nOrigin: http://localhost:3000",
                "Host: localhost\nOrigin: null",
                "Host: localhost\nSec-Fetch-Site: cross-site",
                "Host: localhost\nSec-Fetch-Site: same-site",
                "X-No-Host: 1",
                "Host: localhost\nHost: localhost",
            ] {
                check(admin, &format!("POST /-/reload\n{fields}"), 403, "reload").await;
            }
        })
        .await;
    }

    #[test]
    fn only_loopback_may_reload() {
        let headers = http::HeaderMap::from_iter([(http::header::HOST, http::HeaderValue::from_static("localhost"))]);
        for (peer, allowed) in
            [("127.0.0.1", true), ("127.8.9.1", true), ("::1", true), ("::ffff:127.0.0.1", true), ("10.0.0.1", false)]
        {
            assert_eq!(routes::may_reload(peer.parse().unwrap(), &headers).is_ok(), allowed, "{peer}");
        }
    }

    #[tokio::test]
    async fn slow_readers_do_not_keep_others_waiting() {
        with_ports(|admin, _, _| async move {
            let mut sleepers = Vec::new();
            for _ in 0..MAX_CONNECTIONS / 2 {
                let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                sleepers.push(stream);
            }
            check(admin, "GET /livez", 200, "ok").await;
        })
        .await;
    }
}
