//! A serving thread: its loop, and the life of a connection on it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    sync::{Notify, mpsc},
    task::LocalSet,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Counters, Service, Settings,
    accept::{Accepted, AddressTicket, Gate, Ticket},
    conn::{Connection, Ending, Stage},
    crowd::Caps,
    drain::{Member, Order},
    io::{Stream, Wire},
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
    pub(super) caps: Caps,
}

/// Serves until the drain is over.
pub(super) fn run<S: Service>(runtime: &Runtime, start: ServingThread, factory: &dyn Fn(usize) -> Rc<S>) {
    // Local tasks die with the set, so what is still open at the end of the loop is cut here.
    LocalSet::new().block_on(runtime, serve(start, factory));
}

/// What the connections of a thread are served with.
pub(super) struct Server<S> {
    pub(super) service: Rc<S>,
    pub(super) thread: Rc<Thread>,
    pub(super) settings: Settings,
    reloader: Option<Arc<Reloader>>,
    gate: Arc<Gate>,
    /// Told when a connection closes during the drain.
    closed: Notify,
}

/// How long those that are cut at the end of the drain have to say so.
const LAST_WORDS: Duration = Duration::from_millis(50);

async fn serve<S: Service>(start: ServingThread, factory: &dyn Fn(usize) -> Rc<S>) {
    let ServingThread { index, mut incoming, mut member, load, settings, tuning, reloader, gate, counters, caps } =
        start;
    let asked = Arc::clone(&member.asked);
    let thread = Rc::new(Thread::new(settings.timeouts, tuning, counters, load, asked, caps));
    let service = factory(index);
    let server = Rc::new(Server { service, thread, settings, reloader, gate, closed: Notify::new() });
    let thread = &server.thread;
    tokio::task::spawn_local(Rc::clone(&thread.outbox).send());

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
    let all_closed = || async {
        while !thread.is_empty() {
            server.closed.notified().await;
        }
    };
    if cut > 0 {
        let _ = tokio::time::timeout(LAST_WORDS, all_closed()).await;
    }
    // An answer whose client takes nothing does not learn of it. One that ends by closing would look whole.
    thread.end_all();
    let _ = tokio::time::timeout(LAST_WORDS, all_closed()).await;
    thread.outbox.close();
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
        // Whoever waits to take the connection over learns that there is none any more: the waiting one holds an exchange,
        // and with it the connection that the other end of his channel is in.
        drop(self.connection.take_upgrade());
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
        self.thread.make_room(&connection);
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
        let (stream, is_http2) = match &self.reloader {
            None => (Stream::Plain(wire), false),
            Some(reloader) => {
                let Some(tls) = self.handshake(&connection, reloader, wire).await else { return };
                connection.set_secure(tls.get_ref().1.peer_certificates().is_some());
                let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                (Stream::Tls(Box::new(tls)), is_http2)
            }
        };
        // Boxed, so that the task of an HTTP/1 connection is not as large as that of an HTTP/2 one.
        if is_http2 {
            Box::pin(self.http2(connection, stream, guard)).await;
        } else {
            self.http1(connection, stream, guard).await;
        }
    }

    async fn handshake(&self, connection: &Rc<Connection>, reloader: &Reloader, wire: Wire) -> Option<TlsStream<Wire>> {
        connection.enter(Stage::Handshake);
        let counters = &self.thread.counters;
        let _place = self.thread.handshake(connection);
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
                if connection.ending.get() == Some(Ending::Handshake) {
                    counters.handshakes_timeout.add();
                }
                None
            }
        }
    }
}

/// What comes of `future`, or nothing when the tick ends the connection first.
pub(super) async fn until_ended<F: Future>(connection: &Connection, future: F) -> Option<F::Output> {
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
pub(super) async fn linger(connection: &Rc<Connection>, mut stream: Stream) {
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
