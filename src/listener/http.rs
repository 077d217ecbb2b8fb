//! How hyper is set up for HTTP/2. Every limit is named here, since its defaults may change under us.
//!
//! Pings are hyper's, since only it can send them; all other timeouts are the tick's.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt as _;
use hyper::{rt::Executor, server::conn::http2};
use hyper_util::rt::TokioTimer;

use super::{conn::Connection, exchange::StreamTask};

/// Streams that a client may have open at a time.
const STREAMS: u32 = 100;
/// What a client may send ahead on one stream: 64 KiB, and on all of them together, so that a stream whose upstream
/// takes nothing stalls no other.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;
/// What is kept per stream for a client that takes nothing.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams reset by the client before they were looked at (rapid reset), and by us for the client's errors
/// (made-you-reset); beyond, the connection is closed.
const PENDING_RESETS: usize = 20;
const LOCAL_RESETS: usize = 1024;
/// How often a client is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// What the parser takes beyond the largest head allowed, so that the refusal of a head that is a little too large is
/// a full answer with a request id.
pub(super) const HEAD_ROOM: usize = 8 * 1024;
/// How much of an HTTP/2 connection is read in one turn. hyper goes on for as long as something comes, and a client may
/// send frames that cost work and ask for nothing (PING, SETTINGS, PRIORITY): 32 KiB are some 3500 of them, and then it
/// is the turn of the thread's other connections.
pub(super) const TURN: usize = 32 * 1024;

pub(super) fn http2(max_header_bytes: usize, executor: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let header_list = u32::try_from(max_header_bytes.saturating_add(HEAD_ROOM)).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(executor);
    builder
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_list)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .max_send_buf_size(SEND_BUFFER)
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG);
    builder
}

/// Runs each HTTP/2 stream as a task of this thread, which can be ended from outside: while a client takes nothing,
/// hyper does not poll the answer's body, so that the body could not end itself.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    connection: Rc<Connection>,
    /// Set by the service just before hyper hands over the task of the stream it was called for.
    next: Rc<Cell<bool>>,
}

impl StreamExecutor {
    pub(super) fn new(connection: &Rc<Connection>) -> Self {
        Self { connection: Rc::clone(connection), next: Rc::default() }
    }

    /// The next task is a stream's.
    pub(super) fn stream_follows(&self) {
        self.next.set(true);
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        if !self.next.take() {
            tokio::task::spawn_local(future.map(drop));
            return;
        }
        let connection = Rc::clone(&self.connection);
        let task = Rc::<StreamTask>::default();
        tokio::task::spawn_local(async move {
            let mut future = pin!(future);
            poll_fn(move |cx| {
                if task.poll_ended(cx) {
                    return Poll::Ready(());
                }
                if task.begun.get() {
                    return future.as_mut().poll(cx).map(drop);
                }
                connection.set_stream(Some(Rc::clone(&task)));
                let polled = future.as_mut().poll(cx).map(drop);
                connection.set_stream(None);
                polled
            })
            .await;
        });
    }
}
