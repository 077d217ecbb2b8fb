//! A serving thread: its loop, and the life of a connection on it.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use ::http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    sync::{Notify, mpsc},
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Counters, Service, Settings,
    accept::{Accepted, AddressTicket, Gate, Ticket},
    conn::{Connection, Ending, Stage},
    drain::{Member, Order},
    http::{self, StreamExecutor},
    io::{Stream, Upgraded, Wire},
    proxy_protocol,
    timers::{Load, Thread, Tuning},
    tls::Reloader,
};
use crate::clock;

/// What a serving thread is started with.
pub(super) struct ServingThread {
    pub(super) index: usize,
    pub(super) incoming: mpsc::UnboundedReceiver<Accepted>,
    pub(super) member: Member,
    pub(super) load: Arc<Load>,
    pub(super) settings: Settings,
    pub(super) tuning: Tuning,
    pub(super) reloader: Option<Arc<Reloader>>,
    pub(super) gate: Arc<Gate>,
    pub(super) counters: Arc<Counters>,
}

/// Serves until the drain is over.
pub(super) fn run<S: Service>(runtime: &Runtime, start: ServingThread, factory: &dyn Fn(usize) -> Rc<S>) {
    // Local tasks die with the set, so what is still open at the end of the loop is cut here.
    LocalSet::new().block_on(runtime, serve(start, factory));
}

/// What the connections of a thread are served with.
struct Server<S> {
    service: Rc<S>,
    thread: Rc<Thread>,
    settings: Settings,
    reloader: Option<Arc<Reloader>>,
    gate: Arc<Gate>,
    /// Told when a connection closes during the drain.
    closed: Notify,
}

async fn serve<S: Service>(start: ServingThread, factory: &dyn Fn(usize) -> Rc<S>) {
    let ServingThread { index, mut incoming, mut member, load, settings, tuning, reloader, gate, counters } = start;
    let thread = Rc::new(Thread::new(settings.timeouts, tuning, counters, load));
    let service = factory(index);
    let server = Rc::new(Server { service, thread, settings, reloader, gate, closed: Notify::new() });
    let thread = &server.thread;

    let mut tick = interval(tuning.tick);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut order = Order::Serve;
    let mut open = true;
    while order < Order::Cut && (order == Order::Serve || open || !thread.is_empty()) {
        // The order matters: neither a flood of connections nor of ticks may hide the rest.
        tokio::select! {
            biased;
            next = member.order_after(order) => {
                order = next;
                thread.set_now(clock::mono());
                thread.drain();
            }
            // A thread without connections sleeps.
            _ = tick.tick(), if !thread.is_empty() => thread.tick(clock::mono()),
            () = server.closed.notified(), if order == Order::Drain => {}
            accepted = incoming.recv(), if open => match accepted {
                Some(accepted) => {
                    thread.set_now(clock::mono());
                    server.take(accepted);
                }
                None => open = false,
            },
        }
    }

    // Whoever holds an exchange learns that it is cut, and gets one turn to say so.
    let cut = thread.cut_all();
    member.cut(cut);
    thread.counters.exchanges_cut.add_many(cut as u64);
    if cut > 0 {
        tokio::time::sleep(tuning.tick.min(std::time::Duration::from_millis(50))).await;
    }
}

/// A connection's bookkeeping, undone when dropped.
pub(super) struct Guard {
    connection: Rc<Connection>,
    _ticket: Ticket,
    _address: Option<AddressTicket>,
    closed: Rc<dyn Closed>,
}

/// Who wants to know that a connection has closed.
trait Closed {
    fn closed(&self);
}

impl<S> Closed for Server<S> {
    fn closed(&self) {
        self.closed.notify_one();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let thread = &self.connection.thread;
        if std::thread::panicking() {
            thread.counters.panics.add();
        }
        thread.unregister(&self.connection);
        thread.load.connection_closed();
        self.closed.closed();
    }
}

impl<S: Service> Server<S> {
    fn take(self: &Rc<Self>, accepted: Accepted) {
        let Accepted { socket, peer, local, ticket } = accepted;
        let stage = if self.settings.proxy_protocol {
            Stage::ProxyHeader
        } else if self.reloader.is_some() {
            Stage::Handshake
        } else {
            Stage::Http
        };
        let connection = Connection::new(&self.thread, peer, local, stage);
        let mut guard = Guard {
            connection: Rc::clone(&connection),
            _ticket: ticket,
            _address: None,
            closed: Rc::clone(self) as Rc<dyn Closed>,
        };
        if self.gate.counts_at_accept() && !self.admit_address(&mut guard) {
            return;
        }
        let Ok(socket) = TcpStream::from_std(socket) else {
            self.thread.counters.accept_errors.add();
            return;
        };
        let server = Rc::clone(self);
        tokio::task::spawn_local(async move { server.connection(connection, socket, guard).await });
    }

    fn admit_address(&self, guard: &mut Guard) -> bool {
        match self.gate.admit_address(guard.connection.peer()) {
            Ok(ticket) => {
                guard._address = ticket;
                true
            }
            Err(()) => {
                self.thread.counters.refused.add();
                false
            }
        }
    }

    /// The life of a connection, from its first byte to its last.
    async fn connection(self: Rc<Self>, connection: Rc<Connection>, mut socket: TcpStream, mut guard: Guard) {
        if self.settings.proxy_protocol {
            let Some(Ok(header)) = until_ended(&connection, proxy_protocol::read(&mut socket)).await else {
                self.thread.counters.proxy_header_refused.add();
                return;
            };
            connection.set_proxied(header.client, header.secure);
            if !self.admit_address(&mut guard) {
                return;
            }
        }
        let wire = Wire::new(socket, &connection);
        let Some(reloader) = &self.reloader else {
            return self.http1(connection, Stream::Plain(wire), guard).await;
        };
        let Some(tls) = self.handshake(&connection, reloader, wire).await else { return };
        connection.set_secure();
        let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = Stream::Tls(Box::new(tls));
        // Boxed, so that the task of an HTTP/1 connection is not as large as that of an HTTP/2 one.
        if is_http2 {
            Box::pin(self.http2(connection, stream, guard)).await
        } else {
            self.http1(connection, stream, guard).await
        }
    }

    async fn handshake(
        &self,
        connection: &Rc<Connection>,
        reloader: &Reloader,
        wire: Wire,
    ) -> Option<tokio_rustls::server::TlsStream<Wire>> {
        connection.enter(Stage::Handshake);
        let counters = &self.thread.counters;
        let _place = self.thread.handshake();
        let handshake = Box::pin(TlsAcceptor::from(reloader.config()).accept(wire));
        match until_ended(connection, handshake).await {
            Some(Ok(tls)) => {
                counters.handshakes_ok.add();
                Some(tls)
            }
            Some(Err(error)) => {
                counters.handshakes_failed.add();
                tracing::debug!(peer = %connection.peer(), %error, "TLS handshake failed");
                None
            }
            None => {
                counters.handshakes_timeout.add();
                None
            }
        }
    }

    async fn http1(self: Rc<Self>, connection: Rc<Connection>, stream: Stream, guard: Guard) {
        connection.enter_http(false);
        let service = {
            let (server, connection) = (Rc::clone(&self), Rc::clone(&connection));
            service_fn(move |request: Request<Incoming>| {
                connection.has_body.set(!hyper::body::Body::is_end_stream(request.body()));
                let thread = Rc::clone(&server.thread);
                let answer = Rc::clone(&server.service).serve(Rc::clone(&connection), request);
                async move {
                    let mut answer = answer.await;
                    if thread.draining() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let mut hyper = http::http1(self.settings.max_header_bytes).serve_connection(TokioIo::new(stream), service);
        let mut told = false;
        let result = poll_fn(|cx| {
            connection.set_task(cx);
            loop {
                if let Some(ending) = connection.ending.get() {
                    return Poll::Ready(Err(ending));
                }
                // First what has arrived: a request that is just coming in is not to be closed upon.
                if let Poll::Ready(result) = Pin::new(&mut hyper).poll(cx) {
                    return Poll::Ready(Ok(result));
                }
                if told || !connection.may_close_after_this() {
                    return Poll::Pending;
                }
                told = true;
                Pin::new(&mut hyper).graceful_shutdown();
            }
        })
        .await;
        let parts = hyper.into_parts();
        let stream = parts.io.into_inner();
        match result {
            Ok(Ok(())) => {
                if let Some(upgrade) = connection.take_upgrade() {
                    connection.enter(Stage::Upgraded);
                    // Fails when nobody waits for it any more: the connection is closed by being dropped.
                    let _ = upgrade.send(Upgraded::new(stream, parts.read_buf, guard));
                } else if connection.has_body.get() {
                    linger(&connection, stream).await;
                }
            }
            Ok(Err(error)) => {
                if self.count_http1_error(&error) {
                    linger(&connection, stream).await;
                }
            }
            Err(ending) => self.farewell(&connection, stream, ending).await,
        }
    }

    /// Counts what hyper refused by itself. True: it answered, and the client should get to read that.
    fn count_http1_error(&self, error: &hyper::Error) -> bool {
        let counters = &self.thread.counters;
        if error.is_parse_too_large() {
            // hyper keeps the difference to itself, but for its text.
            if error.to_string().contains("URI") { &counters.uri_too_long } else { &counters.headers_too_large }.add();
        } else if error.is_parse() {
            counters.ambiguous_framing.add();
        } else {
            return false;
        }
        true
    }

    async fn farewell(&self, connection: &Rc<Connection>, mut stream: Stream, ending: Ending) {
        const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let counters = &self.thread.counters;
        match ending {
            Ending::Head => {
                counters.request_timeouts.add();
                connection.ending.set(None);
                connection.enter(Stage::Lingering);
                let _ = until_ended(connection, async {
                    let _ = stream.write_all(TIMEOUT).await;
                    let _ = stream.flush().await;
                    let _ = stream.shutdown().await;
                })
                .await;
                linger(connection, stream).await;
            }
            Ending::Idle | Ending::Drain => {
                if ending == Ending::Idle {
                    counters.idle_timeouts.add();
                }
                connection.ending.set(None);
                // One try: what the socket does not take at once is not waited for.
                poll_fn(|cx| {
                    let _ = tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut stream), cx);
                    Poll::Ready(())
                })
                .await;
            }
            Ending::Write => {
                counters.write_timeouts.add();
                stream.reset();
            }
            Ending::Cut => stream.reset(),
            Ending::Handshake => {}
        }
    }

    async fn http2(self: Rc<Self>, connection: Rc<Connection>, stream: Stream, guard: Guard) {
        connection.enter_http(true);
        let executor = StreamExecutor::new(&connection);
        let service = {
            let (service, connection, executor) = (Rc::clone(&self.service), Rc::clone(&connection), executor.clone());
            service_fn(move |request: Request<Incoming>| {
                executor.stream_follows();
                let answer = Rc::clone(&service).serve(Rc::clone(&connection), request);
                async move { Ok::<_, Infallible>(answer.await) }
            })
        };
        let builder = http::http2(self.settings.max_header_bytes, executor);
        let mut hyper = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut told = false;
        let result = poll_fn(|cx| {
            connection.set_task(cx);
            loop {
                match connection.ending.get() {
                    // Idle connections are told before they are closed, by the last poll below.
                    Some(Ending::Idle) if !told => {
                        connection.ending.set(None);
                        connection.enter(Stage::Lingering);
                        self.thread.counters.idle_timeouts.add();
                        hyper.as_mut().graceful_shutdown();
                        told = true;
                    }
                    Some(ending) => return Poll::Ready(Err(ending)),
                    None => {}
                }
                if let Poll::Ready(result) = hyper.as_mut().poll(cx) {
                    return Poll::Ready(Ok(result));
                }
                if told || !self.thread.draining() {
                    return Poll::Pending;
                }
                told = true;
                hyper.as_mut().graceful_shutdown();
            }
        })
        .await;
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if is_http2_protocol_error(&error) {
                    self.thread.counters.ambiguous_framing.add();
                }
            }
            Err(Ending::Write) => self.thread.counters.write_timeouts.add(),
            Err(_) => {}
        }
        drop(guard);
    }
}

/// Whether the client broke the protocol; connections that break off are nothing to count.
fn is_http2_protocol_error(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    let is_io = |error: &(dyn std::error::Error + 'static)| error.downcast_ref::<std::io::Error>().is_some();
    let mut cause = error.source();
    let mut deepest = None;
    while let Some(error) = cause {
        if is_io(error) {
            return false;
        }
        deepest = Some(error);
        cause = error.source();
    }
    deepest.is_some()
}

/// What comes of `future`, or nothing when the tick ends the connection first.
async fn until_ended<F: Future>(connection: &Connection, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        connection.set_task(cx);
        if connection.ending.get().is_some() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(cx).map(Some)
    })
    .await
}

/// How much a client may go on sending after its answer.
const LINGER_BYTES: usize = 1024 * 1024;

/// Reads and throws away for a moment what the client still sends: closing with unread bytes would reset the
/// connection, and the reset may overtake the answer (RFC 9112 §9.6).
async fn linger(connection: &Rc<Connection>, mut stream: Stream) {
    if connection.ended_by_client() {
        return;
    }
    connection.enter(Stage::Lingering);
    let reading = async {
        let _ = stream.shutdown().await;
        let mut scratch = vec![0; 16 * 1024];
        let mut read = 0;
        while read < LINGER_BYTES {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => break,
                Ok(bytes) => read += bytes,
            }
        }
    };
    let _ = until_ended(connection, reading).await;
}
