//! The listener over real sockets, with a small service behind it. What belongs to one function alone stands beside it.

mod caps;
mod drain;
mod http1;
mod http2;
mod service;
mod timeouts;
mod tls;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;

use self::service::TestService;
use super::{Counters, Listener, Settings, Timeouts, Tuning, bind, tls as tls_room};
use crate::{
    clock::{self, Mono},
    keys::record::KeyState,
};

/// How late anything may be on a busy machine before a test calls it wrong.
const SLACK: Duration = Duration::from_secs(3);

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Nothing runs out unless a test shortens it.
pub(super) fn settings() -> Settings {
    let long = Duration::from_secs(30);
    Settings {
        addresses: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        tls: None,
        proxy_protocol: false,
        trusted_proxies: Default::default(),
        max_connections: 1000,
        max_connections_per_ip: 0,
        max_strangers: None,
        max_unacknowledged: None,
        max_header_bytes: 16 * 1024,
        timeouts: Timeouts { handshake: long, header: long, idle: long, body: long, write: long },
    }
}

fn tuning() -> Tuning {
    Tuning { tick: ms(20), linger: ms(300), drain_patience: ms(200) }
}

struct Server {
    listener: Listener,
    counters: Arc<Counters>,
    /// The key that `/key` watches.
    key: Arc<KeyState>,
    address: SocketAddr,
}

impl Server {
    fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::start_with(&settings, tuning(), 1)
    }

    fn start_with(settings: &Settings, tuning: Tuning, threads: usize) -> Self {
        let counters = Arc::<Counters>::default();
        let key = Arc::<KeyState>::default();
        let bound = bind(settings).unwrap().with_tuning(tuning);
        let address = bound.local_addrs()[0];
        let service_key = Arc::clone(&key);
        let listener = bound
            .start(
                threads,
                move |index| Rc::new(TestService { index, key: Arc::clone(&service_key) }),
                Arc::clone(&counters),
            )
            .unwrap();
        Self { listener, counters, key, address }
    }

    fn connect(&self) -> Client {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { socket, began: clock::mono() }
    }

    /// Waits until a number is what it should be.
    #[track_caller]
    fn wait_for(&self, what: &str, number: impl Fn(&Counters) -> u64, expected: u64) {
        let began = clock::mono();
        loop {
            let got = number(&self.counters);
            if got == expected {
                return;
            }
            assert!(clock::mono().since(began) < SLACK, "{what}: {got}, not {expected}");
            std::thread::sleep(ms(5));
        }
    }
}

/// A client that sends bytes as it likes.
struct Client {
    socket: TcpStream,
    began: Mono,
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    fn get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }

    /// One answer with a Content-Length: head and body.
    #[track_caller]
    fn answer(&mut self) -> String {
        let mut got = Vec::new();
        let mut byte = [0];
        let mut missing = None;
        loop {
            if missing == Some(0) {
                return String::from_utf8(got).unwrap();
            }
            assert!(self.socket.read(&mut byte).unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&got));
            got.push(byte[0]);
            match &mut missing {
                Some(missing) => *missing -= 1,
                None if got.ends_with(b"\r\n\r\n") => {
                    let head = String::from_utf8_lossy(&got).to_ascii_lowercase();
                    let length = head.split_once("content-length: ").map_or("0", |(_, rest)| rest);
                    missing = Some(length.split("\r\n").next().unwrap().parse::<usize>().unwrap());
                }
                None => {}
            }
        }
    }

    /// Everything until the connection is closed or reset.
    fn rest(&mut self) -> String {
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => got.extend_from_slice(&buffer[..bytes]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("the connection stayed open after {:?}", String::from_utf8_lossy(&got))
                }
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    fn restart_watch(&mut self) {
        self.began = clock::mono();
    }

    /// That the connection, or whatever was last waited for, ended when it should have.
    #[track_caller]
    fn check_watch(&self, limit: Duration) {
        let took = clock::mono().since(self.began);
        assert!(took >= limit, "too early: {took:?} instead of {limit:?}");
        assert!(took < limit + SLACK, "too late: {took:?} instead of {limit:?}");
    }
}

/// A folder with a certificate authority, and a certificate of it for `localhost`.
struct Certificates {
    folder: TempDir,
    authority: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new([]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let this = Self { folder: TempDir::new().unwrap(), authority };
        std::fs::write(this.path("ca.crt"), this.authority.pem()).unwrap();
        this.issue();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate and its key over the old ones.
    fn issue(&self) {
        let (certificate, key) = self.pair();
        std::fs::write(self.path("tls.crt"), certificate).unwrap();
        std::fs::write(self.path("tls.key"), key).unwrap();
    }

    fn pair(&self) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.authority).unwrap().pem(), key.serialize_pem())
    }

    fn settings(&self) -> tls_room::Settings {
        tls_room::Settings {
            certificate: self.path("tls.crt"),
            private_key: self.path("tls.key"),
            client_ca: None,
            client_certificate_required: true,
        }
    }
}
