//! The way to the upstream: which one, a connection to it, and one exchange over that.
//!
//! A request is sent at most once. It is sent again, on a fresh connection, exactly where hyper hands the message
//! back unsent because a kept connection had closed meanwhile.

mod connect;
mod pool;

use std::{
    cell::Cell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{Request, Response};
use hyper::body::Incoming;

pub use connect::{Destination, DestinationError, UpstreamStream};
pub use pool::{CheckoutError, Pool, PooledConnection};

use super::body::{RequestBody, Upload};
use crate::clock::Mono;

/// How many requests are on their way to the upstream, over all serving threads.
#[derive(Debug)]
pub struct InFlight {
    current: AtomicUsize,
    max: usize,
}

impl InFlight {
    /// Nothing is on its way, and no more than `max` ever will be.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { current: AtomicUsize::new(0), max })
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// A place, unless all are taken.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        if self.current.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.current.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place(Arc::clone(self)))
    }
}

/// A place among the requests on their way; given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<InFlight>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.current.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why an exchange with the upstream failed before its answer had begun.
#[derive(Debug)]
pub enum SendError {
    /// No connection could be had.
    Checkout(CheckoutError),
    /// The connection broke, or what came was no answer.
    Exchange(hyper::Error),
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
            Self::Exchange(error) => {
                write!(f, "talking to the upstream: {error}")?;
                let mut source = std::error::Error::source(error);
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
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
    answer_ended: Cell<bool>,
    _place: Place,
}

impl Lease {
    /// Says that the last byte of the answer was taken.
    pub fn answer_ended(&self) {
        self.answer_ended.set(true);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let upload_ended = self.upload.as_ref().is_none_or(|upload| upload.has_ended());
        if self.answer_ended.get() && upload_ended {
            self.pool.put_back(connection);
        } else {
            connection.cut();
        }
    }
}

/// How one request is to be sent.
#[derive(Debug)]
pub struct Sending {
    /// Its body, when that is streamed.
    pub upload: Option<Rc<Upload>>,
    /// Whether the connection is to be upgraded: then it is a fresh one.
    pub upgrade: bool,
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
pub async fn send(
    pool: &Rc<Pool>,
    mut request: Request<RequestBody>,
    sending: Sending,
) -> Result<(Response<Incoming>, Lease), SendError> {
    // Only the usual way is part of this future; what opens connections is large, and seldom needed.
    let ready = if sending.upgrade { None } else { pool.checkout_ready(sending.now) };
    let (mut next, mut kept) = match ready {
        Some(ready) => (ready, true),
        None if sending.upgrade => (Box::pin(pool.checkout_fresh()).await.map_err(SendError::Checkout)?, false),
        None => Box::pin(pool.checkout(sending.now)).await.map_err(SendError::Checkout)?,
    };
    let Sending { upload, place, .. } = sending;
    let mut lease =
        Lease { connection: None, pool: Rc::clone(pool), upload, answer_ended: Cell::new(false), _place: place };
    loop {
        // Leased while it waits, so that a request given up half-way cuts the connection.
        let connection = lease.connection.insert(next);
        match connection.sender.try_send_request(request).await {
            Ok(answer) => {
                if let Some(field) = answer.headers().get("keep-alive") {
                    connection.heed_keep_alive(field.as_bytes());
                }
                return Ok((answer, lease));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if kept => {
                    request = unsent;
                    next = Box::pin(pool.checkout_fresh()).await.map_err(SendError::Checkout)?;
                    kept = false;
                }
                _ => return Err(SendError::Exchange(error.into_error())),
            },
        }
    }
}
