//! HTTP on a connection: how it is driven, and how it ends.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use ::http::{HeaderValue, Request, StatusCode, Version, header};
use futures_util::FutureExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    Service,
    conn::{Connection, Ending, Stage},
    fickle::Fickle,
    gather::Gathered,
    http::{self, StreamExecutor},
    io::{Stream, Upgraded},
    serve::{Guard, Server, until_ended},
};

impl<S: Service> Server<S> {
    /// Speaks HTTP/1.1 until either side has had enough, or another protocol takes over.
    pub(super) async fn http1(self: Rc<Self>, connection: Rc<Connection>, stream: Stream, guard: Guard) {
        connection.enter_http(false);
        let service = {
            let (server, connection) = (Rc::clone(&self), Rc::clone(&connection));
            service_fn(move |request: Request<Incoming>| {
                connection.ends_by_close.set(request.version() == Version::HTTP_10);
                connection.has_body.set(!hyper::body::Body::is_end_stream(request.body()));
                let thread = Rc::clone(&server.thread);
                let answer = Rc::clone(&server.service).serve(Rc::clone(&connection), request);
                // An async block would hold the future of the service twice, and hyper moves all of it.
                answer.map(move |mut answer| {
                    if thread.draining() && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                    }
                    Ok::<_, Infallible>(answer)
                })
            })
        };
        let stream = Gathered::new(stream, &self.thread.outbox);
        let io = TokioIo::new(stream.clone());
        let mut hyper = http::http1(self.settings.max_header_bytes).serve_connection(io, service);
        let mut told = false;
        let result = poll_fn(|cx| {
            connection.set_task(cx);
            loop {
                if let Some(ending) = connection.ending.get()
                    && !(stream.ask(Stream::has_arrived) && connection.take_back_ending(ending))
                {
                    return Poll::Ready(Err(ending));
                }
                // First what has arrived: a request that is just coming in is not to be closed upon.
                if let Poll::Ready(result) = Pin::new(&mut hyper).poll(cx) {
                    return Poll::Ready(Ok(result));
                }
                if told || !connection.may_close_now() || stream.ask(Stream::has_arrived) {
                    return ended_by_sending(stream.poll_rest(cx));
                }
                told = true;
                Pin::new(&mut hyper).graceful_shutdown();
            }
        })
        .await;
        let hyper::server::conn::http1::Parts { io, read_buf, .. } = hyper.into_parts();
        drop(io);
        // What hyper wrote last, before the stream is anybody else's.
        let result = match result {
            Ok(ended) => {
                let sent = until_ended(&connection, poll_fn(|cx| stream.poll_send(cx))).await;
                connection.ending.get().filter(|_| sent.is_none()).map_or(Ok(ended), Err)
            }
            Err(ending) => Err(ending),
        };
        let unsent = stream.is_unsent();
        let Some(stream) = stream.into_inner() else { return };
        match result {
            Ok(Ok(())) => {
                if let Some(upgrade) = connection.take_upgrade() {
                    connection.enter(Stage::Upgraded);
                    // Fails when nobody waits for it any more: the connection is closed by being dropped.
                    let _ = upgrade.send(Upgraded::new(stream, read_buf, guard));
                } else if connection.has_body.get() {
                    linger(&connection, stream).await;
                }
            }
            Ok(Err(error)) => {
                if self.count_http1_error(&error) {
                    linger(&connection, stream).await;
                } else if connection.ends_by_close.get() {
                    // Closed, an answer that broke off would look whole.
                    stream.reset();
                }
            }
            Err(ending) => self.farewell(&connection, stream, unsent, ending).await,
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

    async fn farewell(&self, connection: &Rc<Connection>, mut stream: Stream, unsent: bool, ending: Ending) {
        const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let counters = &self.thread.counters;
        match ending {
            Ending::Head => counters.request_timeouts.add(),
            Ending::Idle => counters.idle_timeouts.add(),
            Ending::Write => counters.write_timeouts.add(),
            Ending::Cut | Ending::Drain | Ending::Handshake | Ending::Crowded => {}
        }
        match ending {
            // In the middle of an answer, to close could look like its end.
            _ if unsent => stream.reset(),
            Ending::Head => {
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
                connection.ending.set(None);
                // One try: what the socket does not take at once is not waited for.
                poll_fn(|cx| {
                    let _ = tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut stream), cx);
                    Poll::Ready(())
                })
                .await;
            }
            Ending::Write | Ending::Cut | Ending::Crowded => stream.reset(),
            Ending::Handshake => {}
        }
    }

    /// Speaks HTTP/2 until either side has had enough.
    pub(super) async fn http2(self: Rc<Self>, connection: Rc<Connection>, stream: Stream, guard: Guard) {
        connection.enter_http(true);
        let executor = StreamExecutor::new(&connection);
        let fickle = Rc::<RefCell<Fickle>>::default();
        let service = {
            let (service, connection, executor) = (Rc::clone(&self.service), Rc::clone(&connection), executor.clone());
            service_fn(move |request: Request<Incoming>| {
                executor.stream_follows();
                // Boxed where it is made: hyper moves what it is given several times before it runs.
                let answer = Box::pin(Rc::clone(&service).serve(Rc::clone(&connection), request));
                let fickle = Rc::clone(&fickle);
                answer.map(move |mut answer| {
                    fickle.borrow_mut().mark(answer.headers_mut());
                    Ok::<_, Infallible>(answer)
                })
            })
        };
        let builder = http::http2(self.settings.max_header_bytes, executor);
        let stream = Gathered::new(stream, &self.thread.outbox);
        let result = {
            let mut hyper = pin!(builder.serve_connection(TokioIo::new(stream.clone()), service));
            let mut told = false;
            poll_fn(|cx| {
                connection.set_task(cx);
                connection.begin_turn(http::TURN);
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
                        // All that its streams had to say in this turn, and not later: a client with many of them
                        // goes on asking meanwhile.
                        return ended_by_sending(stream.poll_send(cx));
                    }
                    told = true;
                    hyper.as_mut().graceful_shutdown();
                }
            })
            .await
        };
        match result {
            // The client may still be telling how much more it would take.
            Ok(Ok(())) => {
                if let Some(stream) = stream.into_inner() {
                    linger(&connection, stream).await;
                }
            }
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

/// Where nothing can be sent any more, nothing is left to say.
fn ended_by_sending<E, F>(sent: Poll<io::Result<()>>) -> Poll<Result<Result<(), E>, F>> {
    match sent {
        Poll::Ready(Err(_)) => Poll::Ready(Ok(Ok(()))),
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
    }
}

/// Whether the client broke the protocol. Connections that break off, and clients that say goodbye, are nothing to
/// count; hyper shows the difference in words only.
fn is_http2_protocol_error(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.to_string().contains("error detected: ") {
            return true;
        }
        cause = error.source();
    }
    false
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
