//! HTTP/2 on a connection, by hyper: how it is driven, and how it ends.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::Poll,
};

use ::http::Request;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::{
    Service, Serving,
    answer::Answer,
    conn::{Connection, Ending, Stage},
    fickle::Fickle,
    gather::Gathered,
    http::{self, StreamExecutor},
    incoming::Incoming,
    io::Stream,
    serve::{Guard, Server, linger},
};

impl<S: Service> Server<S> {
    /// Speaks HTTP/2 until either side has had enough.
    pub(super) async fn http2(self: Rc<Self>, connection: Rc<Connection>, stream: Stream, guard: Guard) {
        connection.enter_http(true);
        let executor = StreamExecutor::new(&connection);
        let fickle = Rc::<RefCell<Fickle>>::default();
        let service = {
            let (service, connection, executor) = (Rc::clone(&self.service), Rc::clone(&connection), executor.clone());
            service_fn(move |request: Request<hyper::body::Incoming>| {
                executor.stream_follows();
                let (service, connection) = (Rc::clone(&service), Rc::clone(&connection));
                let fickle = Rc::clone(&fickle);
                // Boxed where it is made: hyper moves what it is given several times before it runs. It begins in the
                // task of the stream, by which the exchange comes to know it.
                Box::pin(async move {
                    let Answer { head, body } = match service.serve(connection, request.map(Incoming::http2)) {
                        Serving::Answered(answer) => answer,
                        Serving::Awaited(answer) => answer.await,
                    };
                    let mut answer = head.into_response(body);
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
