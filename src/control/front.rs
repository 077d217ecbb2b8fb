//! Between the listener and the routes: a request is read to its end, within bounds, and then answered.
//!
//! The listener brings TLS, timeouts, bounds on connections and the drain; see its own room. Answers may stream for as
//! long as they like (the feed does), as long as the client takes what it is sent.
//!
//! Of a request that says nothing that is known (no token, no session, no certificate) only a small body is read, and
//! quickly, whatever came before it; and its connection makes room for others when there are too many like it, unless
//! somebody was let in by it before.

mod strangers;

use std::{
    future::poll_fn,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body::{Body as _, Frame, SizeHint};
use tower::ServiceExt as _;

use self::strangers::Strangers;
use super::{answer::Problem, caller, desk::Desk, session};
use crate::{
    clock,
    facts::client_address,
    listener::{Answer, Connection, Cut, Exchange, Incoming, Service, Serving},
    policy::network::Networks,
};

/// The largest report of a sidecar, in bytes.
const MAX_REPORT: u64 = 4 << 20;
/// What may be held of unfinished bodies at a time, over all connections.
const BUDGET: usize = 64 << 20;
/// How long a whole body may take.
const BODY: Duration = Duration::from_secs(60);
/// Where reports go.
pub const REPORT: &str = "/sync/v1/report";

/// Who asks, as far as the connection says it: an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client's address: the peer's, or what a trusted proxy says.
    pub ip: IpAddr,
    /// Whether it came over TLS, here or at a trusted proxy.
    pub secure: bool,
    /// Whether it has shown a certificate of `[sync] client_ca`.
    pub certified: bool,
}

/// Room for unfinished bodies: all threads share it.
#[derive(Clone, Debug)]
pub struct Room(Arc<Rooms>);

#[derive(Debug)]
struct Rooms {
    /// Bytes that are left.
    left: AtomicUsize,
    strangers: Strangers,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Rooms { left: AtomicUsize::new(BUDGET), strangers: Strangers::default() }))
    }
}

/// What a body holds of it.
struct Held<'r> {
    room: &'r Room,
    bytes: usize,
}

impl Held<'_> {
    /// Takes more, if there is as much.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.room.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        self.bytes += if left.is_ok() { bytes } else { 0 };
        left.is_ok()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.room.0.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// The listener's service: one for each serving thread.
#[derive(Debug)]
pub struct Front {
    /// What all handlers share: who may sync is asked before a report is read.
    pub desk: Arc<Desk>,
    /// Room for unfinished bodies.
    pub room: Room,
    /// The routes.
    pub router: Router,
    /// Whose word about the client's address is taken.
    pub trusted_proxies: Networks,
    /// The field in which they say it.
    pub client_ip_header: HeaderName,
    /// The largest body, in bytes.
    pub max_body: u64,
}

impl Service for Front {
    type Body = Streamed;

    fn serve(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Serving<Streamed> {
        Serving::Awaited(Box::pin(self.respond(connection, request)))
    }
}

impl Front {
    async fn respond(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Answer<Streamed> {
        let exchange = connection.begin(clock::mono());
        let (mut head, body) = request.into_parts();
        // Over HTTP/2 the host is the authority (RFC 9113 §8.3.1), whatever a field says.
        if let Some(host) = head.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok()) {
            head.headers.insert(header::HOST, host);
        }
        let peer = self.peer(&connection, &head);
        let comes_with_body = !body.is_end_stream() || head.headers.contains_key(header::TRANSFER_ENCODING);
        // A connection is vouched for once; a body is judged by what its own request shows.
        let known = (comes_with_body || !connection.is_vouched_for()) && self.knows(&head, peer).await;
        if known {
            connection.vouch();
        }
        let read = match self.most(&head, peer, known) {
            Ok(_) if !comes_with_body => Ok(Bytes::new()),
            Ok(max) => self.read(&exchange, body, max, known).await,
            Err(problem) => Err(problem),
        };
        let response = match read {
            Ok(body) => {
                exchange.idle();
                head.extensions.insert(peer);
                self.answer(Request::from_parts(head, Body::from(body))).await
            }
            Err(problem) => axum::response::IntoResponse::into_response(problem),
        };
        response.map(|body| Streamed { body, exchange }).into()
    }

    /// Whether somebody is let in by what this request shows. What they may is decided, and what fails is counted, by
    /// whoever answers it.
    async fn knows(&self, head: &Parts, peer: Peer) -> bool {
        let headers = &head.headers;
        peer.certified
            || self.desk.feed.knows(headers)
            || caller::knows(&self.desk, headers, peer)
            || (headers.contains_key(header::COOKIE) && session::signed_in(&self.desk, headers).await.is_some())
    }

    /// Reads a body to its end, in the time that it has.
    async fn read(&self, exchange: &Exchange, body: Incoming, max: u64, known: bool) -> Result<Bytes, Problem> {
        let reading = read_body(exchange, body, max, &self.room);
        if known {
            return tokio::time::timeout(BODY, reading).await.unwrap_or_else(|_| Err(late()));
        }
        let mut place = self.room.0.strangers.enter();
        tokio::select! {
            biased;
            read = tokio::time::timeout(strangers::TIME, reading) => read.unwrap_or_else(|_| Err(late())),
            () = place.is_over() => Err(overloaded()),
        }
    }

    /// How much this request may send. Of a report, only who may sync sends anything.
    fn most(&self, head: &Parts, peer: Peer, known: bool) -> Result<u64, Problem> {
        if head.uri.path() == REPORT {
            self.desk.feed.admit(&self.desk.failures, &head.headers, peer)?;
            return Ok(self.max_body.max(MAX_REPORT));
        }
        Ok(if known { self.max_body } else { self.max_body.min(strangers::MOST) })
    }

    fn peer(&self, connection: &Connection, head: &Parts) -> Peer {
        let ip = client_address(&head.headers, connection.peer(), &self.trusted_proxies, &self.client_ip_header);
        let proxied = self.trusted_proxies.contains(connection.peer());
        let told = || head.headers.get("x-forwarded-proto").is_some_and(|proto| proto.as_bytes() == b"https");
        Peer { ip, secure: connection.secure() || (proxied && told()), certified: connection.certified() }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let head = request.method() == http::Method::HEAD;
        let response = match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        if head { response.map(|_| Body::empty()) } else { response }
    }
}

/// Reads a body to its end.
async fn read_body(exchange: &Exchange, mut body: Incoming, max: u64, room: &Room) -> Result<Bytes, Problem> {
    let too_large = || {
        let message = format!("The body is larger than {max} bytes.");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    if body.size_hint().lower() > max {
        return Err(too_large());
    }
    let broken = || Problem::new(StatusCode::BAD_REQUEST, "bad_request", "The body broke off.");
    let mut read = BytesMut::new();
    let mut held = Held { room, bytes: 0 };
    loop {
        exchange.await_client_body(clock::mono());
        let next = poll_fn(|cx| match exchange.poll_cut(cx) {
            Poll::Ready(cut) => Poll::Ready(Err(cut)),
            Poll::Pending => Pin::new(&mut body).poll_frame(cx).map(Ok),
        });
        match next.await {
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    if read.len() as u64 + data.len() as u64 > max {
                        return Err(too_large());
                    }
                    if !held.take(data.len()) {
                        return Err(overloaded());
                    }
                    read.extend_from_slice(&data);
                }
            }
            Ok(Some(Err(_))) => return Err(broken()),
            Ok(None) => return Ok(read.freeze()),
            Err(Cut::BodyTimeout) => {
                exchange.act_on_cut();
                return Err(late());
            }
            Err(_) => {
                exchange.act_on_cut();
                return Err(broken());
            }
        }
    }
}

fn late() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "The body did not arrive in time.")
}

fn overloaded() -> Problem {
    let message = "Too much is being sent at the moment. Try again.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
}

/// The body of an answer; holds the exchange until its end.
pub struct Streamed {
    body: Body,
    exchange: Exchange,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(cut) = self.exchange.poll_cut(cx) {
            return Poll::Ready(Some(Err(axum::Error::new(std::io::Error::other(format!("cut: {cut:?}"))))));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            // The client is to take it; while there is nothing for it, it is not waited for.
            Poll::Ready(Some(Ok(_))) => self.exchange.await_client_read(clock::mono()),
            _ => self.exchange.idle(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
