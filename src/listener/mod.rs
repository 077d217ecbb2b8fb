//! The listener: sockets, TLS, PROXY headers, HTTP framing, timeouts and the drain. It knows no key.
//!
//! One accept thread hands each connection to the serving thread with the least to do; from there on nothing of it
//! crosses cores. A [`Service`] is handed each request together with its [`Connection`], begins an [`Exchange`] and
//! tells it whom it waits for; one tick of the thread enforces all timeouts.
//!
//! What never becomes a request (unclear framing, heads too large or too slow) is answered bare and counted in
//! [`Counters`].

mod accept;
mod answer;
pub mod conn;
mod counters;
mod crowd;
mod drain;
mod exchange;
mod fickle;
pub mod framing;
mod gather;
pub mod h1;
mod h2;
mod http;
mod incoming;
mod io;
pub mod output;
pub mod proxy_protocol;
mod serve;
#[cfg(test)]
mod tests;
mod timers;
pub mod tls;

use std::{io::Error, net::SocketAddr, pin::Pin, rc::Rc, time::Duration};

use ::http::Request;
use bytes::Bytes;
use http_body::Body;

pub use self::{
    accept::{Bound, Listener, bind, counted_address, raise_descriptor_limit},
    answer::{Answer, Fields, OurField},
    conn::Connection,
    counters::{Count, Counters},
    drain::{Drained, Handle},
    exchange::{Cut, Exchange},
    incoming::{Incoming, IncomingError},
    io::Upgraded,
    timers::Tuning,
};
use crate::policy::network::Networks;

/// What the listener is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens. Port 0 takes any free one.
    pub addresses: Vec<SocketAddr>,
    /// TLS; absent: plaintext, HTTP/1.1 only.
    pub tls: Option<tls::Settings>,
    /// Whether every connection must begin with a PROXY header.
    pub proxy_protocol: bool,
    /// From whom a PROXY header is taken, and whom `max_connections_per_ip` does not concern.
    pub trusted_proxies: Networks,
    /// Connections at a time; beyond, they are closed at accept.
    pub max_connections: usize,
    /// Connections at a time from one address (IPv6: one /64); 0 means no limit.
    pub max_connections_per_ip: usize,
    /// Connections at a time that the service has not [vouched](Connection::vouch) for. When one more comes, the oldest of
    /// them is ended. None: as many as there may be at all.
    pub max_strangers: Option<usize>,
    /// How long a client may acknowledge nothing of what it was sent, or have no room for more, before it counts as gone;
    /// no shorter than it may take for an answer. None: as the system says, which may be a quarter of an hour.
    pub max_unacknowledged: Option<Duration>,
    /// The largest head that becomes a request. The parser takes somewhat more, so that the refusal is a full answer.
    pub max_header_bytes: usize,
    /// How long a client may take for what.
    pub timeouts: Timeouts,
}

/// How long a client may take for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a head, from its first byte to its last; for the first one, from when the connection was ready.
    pub header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For the request's body, without progress; not a total.
    pub body: Duration,
    /// For taking the answer, without progress; not a total.
    pub write: Duration,
}

/// How the sidecar goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSettings {
    /// How long new work is still taken after the signal.
    pub delay: Duration,
    /// How long after that what runs may take to finish.
    pub grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
        }
    }
}

/// What answers requests. One per serving thread.
pub trait Service: 'static {
    /// The body of its answers. It must hold the [`Exchange`] until its end.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static;

    /// Answers a request. Begin the exchange ([`Connection::begin`]) before this returns, or when the answer is polled
    /// for the first time.
    ///
    /// While the connection drains, the listener adds `Connection: close` by itself. A panic costs the connection
    /// (HTTP/2: the stream), not the thread.
    fn serve(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Serving<Self::Body>;
}

/// How a request is answered.
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is made; a box would cost what it is to save"
)]
pub enum Serving<B> {
    /// Without waiting for anybody, as nearly every refusal is: this costs no future, of which a connection would keep
    /// the memory and a thread with many of them find it cold.
    Answered(Answer<B>),
    /// In time.
    Awaited(Pin<Box<dyn Future<Output = Answer<B>>>>),
}

/// Why the listener could not start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// An address could not be listened at.
    #[error("cannot listen at {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: Error,
    },
    /// There is no address to listen at.
    #[error("no address to listen at")]
    NoAddress,
    /// The certificate, its key or the client CA cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A thread could not be started.
    #[error("cannot start the thread {name}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the system said.
        #[source]
        source: Error,
    },
}
