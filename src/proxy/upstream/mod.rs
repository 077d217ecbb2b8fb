//! The way to the upstream: which one, a connection to it, and one exchange over that.
//!
//! A request is sent at most once. It is sent again, on a fresh connection, exactly where a kept connection had closed
//! meanwhile and took nothing of it.
//!
//! HTTP/1.1 is spoken by hand here: a request is written into one buffer and its answer read from another, with no task
//! and no channel between, which costs half of what a client library does. What the answer's framing may be, and what
//! makes a connection unfit for another request, is therefore ours to decide: see [`answer`] and [`body`].

pub mod answer;
pub mod body;
mod connect;
mod in_flight;
mod outflow;
mod places;
mod pool;
mod share;
mod trouble;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Frame;
use tokio::task::{AbortHandle, spawn_local};

pub use answer::{Answer, AnswerError, Received};
pub use body::Download;
pub use connect::{Destination, DestinationError, UpstreamStream};
pub use in_flight::{InFlight, Place};
pub use outflow::RequestFraming;
pub use pool::{CheckoutError, Pool, PooledConnection};
pub use share::Caller;

use answer::{Asked, HeadReader};
use outflow::{Outflow, OutflowError};

use super::body::{RequestBody, Upload};
use crate::clock::Mono;

/// Why an exchange with the upstream failed before its answer had begun.
#[derive(Debug)]
pub enum SendError {
    /// No connection could be had.
    Checkout(CheckoutError),
    /// The connection took no more of the request, and no answer came.
    Request(io::Error),
    /// The body of the request broke off.
    Body,
    /// The connection broke, or what came was no answer.
    Answer(AnswerError),
}

impl SendError {
    /// Whether it was time that ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Checkout(CheckoutError::Connect(error)) if error.kind() == io::ErrorKind::TimedOut)
    }
}

impl std::fmt::Display for SendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Checkout(CheckoutError::AllInUse) => f.write_str("all connections to the upstream are in use"),
            Self::Checkout(CheckoutError::Connect(error)) => write!(f, "connecting to the upstream: {error}"),
            Self::Request(error) => write!(f, "sending to the upstream: {error}"),
            Self::Body => f.write_str("the request's body broke off"),
            Self::Answer(error) => write!(f, "waiting for the upstream: {error}"),
        }
    }
}

/// A connection to the upstream while an exchange is on it. Dropped before the answer has ended, it cuts the
/// connection: half an answer is never followed by another request.
#[derive(Debug)]
pub struct Lease {
    connection: Option<PooledConnection>,
    pool: Rc<Pool>,
    upload: Option<Rc<Upload>>,
    /// The whole request had left when its answer began.
    sent: bool,
    /// Sends on what is left of a body whose answer has begun.
    sending_on: Option<SendingOn>,
    answer_ended: Cell<bool>,
    _place: Place,
}

#[derive(Debug)]
struct SendingOn {
    task: AbortHandle,
    /// All has left.
    sent: Rc<Cell<bool>>,
}

impl Lease {
    /// The last byte of the answer was taken. With `kept`, another may follow on the connection.
    pub fn answer_ended(&self, kept: bool) {
        self.answer_ended.set(kept);
    }

    /// The next piece of the answer.
    pub fn poll_frame(
        &self,
        download: &mut Download,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match &self.connection {
            Some(connection) => download.poll_frame(&mut connection.wire.borrow_mut(), cx),
            None => Poll::Ready(Some(Err(AnswerError::Ended))),
        }
    }

    /// The stream itself, and what was read of it ahead of need: another protocol takes over.
    pub fn take_stream(&self) -> Option<(UpstreamStream, Bytes)> {
        self.connection.as_ref()?.wire.borrow_mut().take_stream()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        // To its last byte, and not only taken from the caller: what is left would be the next request's beginning.
        let sent = self.sent || self.sending_on.as_ref().is_some_and(|sending_on| sending_on.sent.get());
        if let Some(sending_on) = &self.sending_on {
            sending_on.task.abort();
        }
        if self.answer_ended.get() && sent {
            self.pool.put_back(connection);
        } else {
            connection.cut();
        }
    }
}

/// One request, and how it is to be sent.
#[derive(Debug)]
pub struct Sending {
    /// The connections that it may take.
    pub pool: Rc<Pool>,
    /// Who sends it.
    pub caller: Caller,
    /// The head of the request, as it is sent.
    pub head: Vec<u8>,
    /// Its body.
    pub body: RequestBody,
    /// How the head says that the body is framed.
    pub framing: RequestFraming,
    /// What decides how the answer is read.
    pub asked: Asked,
    /// Its body, when that is streamed.
    pub upload: Option<Rc<Upload>>,
    /// What the connection is to be upgraded to: then it is a fresh one.
    pub upgrade: Option<HeaderValue>,
    /// Its place among those in flight.
    pub place: Place,
    /// When it was sent.
    pub now: Mono,
}

/// Sends a request and waits for the head of the answer. Dropping the future cuts the connection.
///
/// # Errors
///
/// See [`SendError`].
pub async fn send(sending: Box<Sending>) -> Result<(Box<Answer>, Lease), SendError> {
    end_of_turn().await;
    let Sending { pool, caller, head, body, framing, asked, upload, upgrade, place, now } = *sending;
    let mut lease = Lease {
        connection: None,
        pool,
        upload,
        sent: false,
        sending_on: None,
        answer_ended: Cell::new(false),
        _place: place,
    };
    // Only the usual way is part of this future; what opens connections is large, and seldom needed.
    let kept = if upgrade.is_some() { None } else { lease.pool.checkout_kept(caller, now) };
    let (connection, mut kept) = match kept {
        Some(kept) => (kept, true),
        None => Box::pin(open(&lease.pool, caller, upgrade.is_some())).await?,
    };
    // Leased while it waits, so that a request given up half-way cuts the connection.
    let connection = lease.connection.insert(connection);
    connection.wire.borrow_mut().push_head(head);
    let mut outflow = Outflow::new(body, framing);
    loop {
        let broken = match lease.converse(&mut outflow, asked).await {
            Ok(answer) => {
                lease.sent = outflow.is_done();
                if !lease.sent {
                    lease.send_on(outflow);
                }
                return Ok((answer, lease));
            }
            Err(broken) => broken,
        };
        let error = match broken {
            Broken::Unsent(_) if kept => {
                kept = false;
                Box::pin(lease.move_to_fresh(caller)).await?;
                continue;
            }
            Broken::Unsent(error) => SendError::Request(error),
            Broken::Failed(error) => error,
        };
        if let SendError::Request(error) | SendError::Answer(AnswerError::Io(error)) = &error {
            lease.pool.destination().tell(error);
        }
        return Err(error);
    }
}

/// Lets the other connections of the thread come first, so that the requests of one turn leave one after the other, and
/// find the upstream awake: that costs 4 % less than to wake it for each.
async fn end_of_turn() {
    let mut came = false;
    poll_fn(|cx| {
        if came {
            return Poll::Ready(());
        }
        came = true;
        // Behind all that are ready already.
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn open(pool: &Rc<Pool>, caller: Caller, fresh: bool) -> Result<(PooledConnection, bool), SendError> {
    if fresh {
        return Ok((pool.checkout_fresh(caller).await.map_err(SendError::Checkout)?, false));
    }
    pool.checkout(caller).await.map_err(SendError::Checkout)
}

/// Why no answer came on a connection.
enum Broken {
    /// The connection took nothing of the request, so that another may be tried.
    Unsent(io::Error),
    Failed(SendError),
}

impl Lease {
    /// Sends the request and reads the head of the answer, both at once: an answer may come before the request has
    /// been sent to its end, and after the upstream has ceased to read it.
    async fn converse(&mut self, outflow: &mut Outflow, asked: Asked) -> Result<Box<Answer>, Broken> {
        let Some(connection) = &mut self.connection else { return Err(Broken::Failed(AnswerError::Ended.into())) };
        let mut reader = HeadReader::default();
        let mut refused = None;
        let answer = poll_fn(|cx| {
            let wire = &mut *connection.wire.borrow_mut();
            if refused.is_none() && !outflow.is_done() {
                match outflow.poll(wire, cx) {
                    Poll::Pending | Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(OutflowError::Unsent(error))) => return Poll::Ready(Err(Broken::Unsent(error))),
                    Poll::Ready(Err(OutflowError::Body)) => return Poll::Ready(Err(Broken::Failed(SendError::Body))),
                    // It may have answered before it ceased to read.
                    Poll::Ready(Err(OutflowError::Broken(error))) => refused = Some(error),
                }
            }
            reader.poll(wire, asked, cx).map_err(|error| match refused.take() {
                Some(refused) => Broken::Failed(SendError::Request(refused)),
                None => Broken::Failed(error.into()),
            })
        })
        .await?;
        if let Some(timeout) = answer.keep_alive {
            connection.heed_keep_alive(timeout);
        }
        Ok(answer)
    }

    /// Takes the request, of which nothing was sent, to a fresh connection.
    async fn move_to_fresh(&mut self, caller: Caller) -> Result<(), SendError> {
        let closed = self.connection.take();
        let head = closed.and_then(|closed| closed.wire.borrow_mut().take_unsent());
        let Some(head) = head else { return Err(AnswerError::Ended.into()) };
        let fresh = self.pool.checkout_fresh(caller).await.map_err(SendError::Checkout)?;
        fresh.wire.borrow_mut().push_head(head);
        self.connection = Some(fresh);
        Ok(())
    }

    /// Sends on what is left of the request while its answer is passed on: the caller may read that as late as they
    /// want. The exchange now waits for them to do so, so the upload has a timer of its own.
    fn send_on(&mut self, mut outflow: Outflow) {
        let (Some(connection), Some(upload)) = (&self.connection, &self.upload) else { return };
        let (wire, upload) = (Rc::clone(&connection.wire), Rc::clone(upload));
        let sent = Rc::<Cell<bool>>::default();
        let all_sent = Rc::clone(&sent);
        let task = spawn_local(async move {
            loop {
                let before = upload.bytes();
                let sending = poll_fn(|cx| outflow.poll(&mut wire.borrow_mut(), cx));
                match tokio::time::timeout(upload.response_timeout(), sending).await {
                    Ok(Ok(())) => return all_sent.set(true),
                    Ok(Err(OutflowError::Unsent(_) | OutflowError::Broken(_))) => return,
                    Err(_) if upload.bytes() > before => {}
                    // Not a whole message, so not a whole exchange either; and one that goes on for ever is none.
                    Ok(Err(OutflowError::Body)) | Err(_) => return wire.borrow_mut().cut(),
                }
            }
        });
        self.sending_on = Some(SendingOn { task: task.abort_handle(), sent });
    }
}

impl From<AnswerError> for SendError {
    fn from(error: AnswerError) -> Self {
        Self::Answer(error)
    }
}
