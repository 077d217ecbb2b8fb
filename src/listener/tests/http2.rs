//! HTTP/2: streams side by side, those that stall, and the drain.

use std::future::Future;

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::{tls::client_config, *};

/// Runs a client against a listener with TLS.
fn run<F: Future>(change: impl FnOnce(&mut Settings), client: impl FnOnce(Arc<Peer>) -> F) {
    let certificates = Certificates::new();
    let server = Server::start(|settings| {
        settings.tls = Some(certificates.settings());
        change(settings);
    });
    let peer = Arc::new(Peer { server, certificates });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), client(peer)).await.unwrap() });
}

struct Peer {
    server: Server,
    certificates: Certificates,
}

type Tls = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

impl Peer {
    async fn tls(&self) -> Tls {
        let config = client_config(&self.certificates, &["h2"], None);
        let socket = tokio::net::TcpStream::connect(self.server.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        tls
    }

    /// A connection that is driven in the background; the other half resolves when it ends.
    async fn connect(&self) -> (SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
        // Room beyond one stream's window, so that a client's own stalled stream does not stall its others.
        let mut builder = h2::client::Builder::new();
        let (send, connection) =
            builder.initial_connection_window_size(1 << 20).handshake(self.tls().await).await.unwrap();
        (send, tokio::spawn(connection))
    }
}

async fn get(send: &mut SendRequest<Bytes>, path: &str) -> Result<String, h2::Error> {
    let request = ::http::Request::get(format!("https://localhost{path}")).body(()).unwrap();
    let mut ready = send.clone().ready().await?;
    let (answer, _) = ready.send_request(request, true)?;
    let mut body = answer.await?.into_body();
    let mut got = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        got.extend_from_slice(&piece);
    }
    Ok(String::from_utf8(got).unwrap())
}

#[test]
fn streams_run_side_by_side() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            let (mut send, _connection) = peer.connect().await;
            assert!(get(&mut send, "/facts").await.unwrap().contains("secure=true http2=true"));
            let (mut one, mut two) = (send.clone(), send.clone());
            let (one, two) = tokio::join!(get(&mut one, "/wait"), get(&mut two, "/"));
            assert_eq!((one.unwrap().as_str(), two.unwrap().as_str()), ("waited", "hello"));
        },
    );
}

#[test]
fn a_stream_that_its_client_stalls_is_reset_and_harms_no_other() {
    run(
        |settings| settings.timeouts.write = ms(300),
        async |peer: Arc<Peer>| {
            let (mut send, _connection) = peer.connect().await;
            let request = ::http::Request::get("https://localhost/endless").body(()).unwrap();
            let (answer, _) = send.send_request(request, true).unwrap();
            // Takes the window that is there, and opens it no further.
            let mut body = answer.await.unwrap().into_body();
            let began = clock::mono();
            let stalled = async {
                loop {
                    match body.data().await {
                        Some(Ok(_)) => {}
                        Some(Err(error)) => break error,
                        None => panic!("an endless answer ended"),
                    }
                }
            };
            let others = async {
                loop {
                    assert_eq!(get(&mut send.clone(), "/").await.unwrap(), "hello");
                    tokio::time::sleep(ms(20)).await;
                }
            };
            let error = tokio::select! { error = stalled => error, never = others => never };
            assert!(error.is_reset(), "{error}");
            assert!(clock::mono().since(began) >= ms(300));
            assert!(peer.server.counters.write_timeouts.get() == 1);
            assert_eq!(get(&mut send, "/").await.unwrap(), "hello");
        },
    );
}

#[test]
fn a_panic_costs_the_stream_alone() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            let (mut send, _connection) = peer.connect().await;
            for path in ["/panic", "/panic-at-once"] {
                assert!(get(&mut send, path).await.unwrap_err().is_reset());
                assert_eq!(get(&mut send, "/").await.unwrap(), "hello");
            }
        },
    );
}

#[test]
fn an_upload_that_stalls_is_cut_on_its_own_stream() {
    run(
        |settings| settings.timeouts.body = ms(300),
        async |peer: Arc<Peer>| {
            let (mut send, _connection) = peer.connect().await;
            let request = ::http::Request::post("https://localhost/upload").body(()).unwrap();
            let (answer, mut upload) = send.send_request(request, false).unwrap();
            upload.send_data(Bytes::from_static(b"begin"), false).unwrap();
            let others = async {
                loop {
                    assert_eq!(get(&mut send.clone(), "/").await.unwrap(), "hello");
                    tokio::time::sleep(ms(20)).await;
                }
            };
            let answer = tokio::select! { answer = answer => answer.unwrap(), never = others => never };
            assert_eq!(answer.status(), 504);
        },
    );
}

#[test]
fn a_cut_that_nobody_acts_on_resets_the_stream() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            let (mut send, _connection) = peer.connect().await;
            assert!(get(&mut send, "/deaf").await.unwrap_err().is_reset());
            assert_eq!(get(&mut send, "/").await.unwrap(), "hello");
        },
    );
}

/// Pings are no requests.
#[test]
fn a_connection_without_streams_is_closed() {
    run(
        |settings| settings.timeouts.idle = ms(300),
        async |peer: Arc<Peer>| {
            let (mut send, mut connection) = handshake(peer.tls().await).await.unwrap();
            let mut pings = connection.ping_pong().unwrap();
            let connection = tokio::spawn(connection);
            assert_eq!(get(&mut send, "/").await.unwrap(), "hello");
            let began = clock::mono();
            let pinging = async {
                while pings.ping(h2::Ping::opaque()).await.is_ok() {
                    tokio::time::sleep(ms(20)).await;
                }
            };
            pinging.await;
            let _ = connection.await.unwrap();
            let took = clock::mono().since(began);
            assert!(took >= ms(300) && took < ms(300) + SLACK, "{took:?}");
            peer.server.wait_for("idle timeouts", |counters| counters.idle_timeouts.get(), 1);
            peer.server.wait_for("connections", |counters| counters.connections.get(), 0);
        },
    );
}

#[test]
fn a_preface_that_never_comes_is_waited_for_no_longer_than_a_head() {
    run(
        |settings| settings.timeouts.header = ms(300),
        async |peer: Arc<Peer>| {
            let mut tls = peer.tls().await;
            let began = clock::mono();
            let mut got = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut tls, &mut got).await;
            assert!(clock::mono().since(began) >= ms(250));
            peer.server.wait_for("connections", |counters| counters.connections.get(), 0);
        },
    );
}

#[test]
fn a_drain_says_goaway_and_lets_streams_finish() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            let (mut send, connection) = peer.connect().await;
            let (mut idle, idle_connection) = peer.connect().await;
            get(&mut idle, "/").await.unwrap();
            let handle = peer.server.listener.handle();
            let waiting = get(&mut send, "/wait");
            let draining = async {
                tokio::time::sleep(ms(100)).await;
                handle.drain(ms(0), ms(10_000)).await
            };
            let (waited, drained) = tokio::join!(waiting, draining);
            assert_eq!(waited.unwrap(), "waited");
            assert_eq!(drained.cut, 0);
            drop((send, idle));
            connection.await.unwrap().unwrap();
            idle_connection.await.unwrap().unwrap();
        },
    );
}

/// It would, by hyper's own graceful shutdown (hyper#4171).
#[test]
fn a_preface_that_never_comes_does_not_hold_the_drain() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            let _tls = peer.tls().await;
            let began = clock::mono();
            let drained = peer.server.listener.handle().drain(ms(0), ms(15_000)).await;
            assert_eq!(drained.cut, 0);
            assert!(clock::mono().since(began) < SLACK);
        },
    );
}

#[test]
fn a_stream_that_does_not_finish_is_cut_by_the_drain() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            let (mut send, _connection) = peer.connect().await;
            let handle = peer.server.listener.handle();
            let draining = async {
                tokio::time::sleep(ms(100)).await;
                handle.drain(ms(0), ms(300)).await
            };
            let (got, drained) = tokio::join!(get(&mut send, "/key"), draining);
            assert_eq!(drained.cut, 1);
            assert_eq!(got.unwrap(), "Drain");
        },
    );
}

/// Rapid reset (CVE-2023-44487): the connection is ended, and the thread serves on.
#[test]
fn a_flood_of_resets_ends_its_connection() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut tls = peer.tls().await;
            tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
            tls.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            // :method GET, :scheme https, :path /, :authority a
            let head = [0x82, 0x87, 0x84, 0x41, 0x01, b'a'];
            let mut flood = Vec::new();
            for stream in (1..4000u32).step_by(2) {
                flood.extend([0, 0, head.len() as u8, 1, 5]);
                flood.extend(stream.to_be_bytes());
                flood.extend(head);
                flood.extend([0, 0, 4, 3, 0]);
                flood.extend(stream.to_be_bytes());
                flood.extend([0, 0, 0, 8]);
            }
            let _ = tls.write_all(&flood).await;
            let mut got = Vec::new();
            let _ = tls.read_to_end(&mut got).await;
            peer.server.wait_for("connections", |counters| counters.connections.get(), 0);
            assert_eq!(get(&mut peer.connect().await.0, "/").await.unwrap(), "hello");
        },
    );
}

#[test]
fn broken_framing_is_counted_and_a_goodbye_is_not() {
    run(
        |_| {},
        async |peer: Arc<Peer>| {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
            const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
            // GOAWAY with an error of the client's own.
            const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
            // DATA on a stream that never began.
            const DATA: &[u8] = &[0, 0, 1, 0, 0, 0, 0, 0, 1, b'x'];
            for (bytes, counted) in [
                ([PREFACE, SETTINGS, GOAWAY].concat(), 0),
                (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 1),
                ([PREFACE, SETTINGS, DATA].concat(), 2),
            ] {
                let mut tls = peer.tls().await;
                tls.write_all(&bytes).await.unwrap();
                if counted == 0 {
                    tls.shutdown().await.unwrap();
                }
                let mut got = Vec::new();
                let _ = tls.read_to_end(&mut got).await;
                peer.server.wait_for("connections", |counters| counters.connections.get(), 0);
                peer.server.wait_for("counted", |counters| counters.ambiguous_framing.get(), counted);
            }
        },
    );
}
