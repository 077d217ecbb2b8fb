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

use http::{HeaderValue, Request, Response};
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
    fn answered(mut self, answer: Response<Incoming>) -> (Response<Incoming>, Self) {
        if let Some(field) = answer.headers().get("keep-alive")
            && let Some(connection) = &mut self.connection
        {
            connection.heed_keep_alive(field.as_bytes());
        }
        (answer, self)
    }

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

/// One request, and how it is to be sent.
#[derive(Debug)]
pub struct Sending {
    /// The connections that it may take.
    pub pool: Rc<Pool>,
    /// The request.
    pub request: Request<RequestBody>,
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
pub async fn send(sending: Sending) -> Result<(Response<Incoming>, Lease), SendError> {
    let Sending { pool, request, upload, upgrade, place, now } = sending;
    let mut lease = Lease { connection: None, pool, upload, answer_ended: Cell::new(false), _place: place };
    // Only the usual way is part of this future; what opens connections is large, and seldom needed.
    let ready = if upgrade.is_some() { None } else { lease.pool.checkout_ready(now) };
    let (connection, kept) = match ready {
        Some(ready) => (ready, true),
        None => Box::pin(open(&lease.pool, upgrade.is_some(), now)).await?,
    };
    // Leased while it waits, so that a request given up half-way cuts the connection.
    let connection = lease.connection.insert(connection);
    match connection.sender.try_send_request(request).await {
        Ok(answer) => Ok(lease.answered(answer)),
        Err(mut error) => match error.take_message() {
            Some(unsent) if kept => Box::pin(send_again(lease, unsent)).await,
            _ => Err(SendError::Exchange(error.into_error())),
        },
    }
}

/// The second and last attempt, on a fresh connection.
async fn send_again(mut lease: Lease, request: Request<RequestBody>) -> Result<(Response<Incoming>, Lease), SendError> {
    let fresh = lease.pool.checkout_fresh().await.map_err(SendError::Checkout)?;
    let connection = lease.connection.insert(fresh);
    match connection.sender.try_send_request(request).await {
        Ok(answer) => Ok(lease.answered(answer)),
        Err(error) => Err(SendError::Exchange(error.into_error())),
    }
}

async fn open(pool: &Rc<Pool>, fresh: bool, now: Mono) -> Result<(PooledConnection, bool), SendError> {
    if fresh {
        return Ok((pool.checkout_fresh().await.map_err(SendError::Checkout)?, false));
    }
    pool.checkout(now).await.map_err(SendError::Checkout)
}
