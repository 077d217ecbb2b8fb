//! The body of a request, whichever version of HTTP it came over.

use std::{
    cell::RefCell,
    error::Error,
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{framing::FramingError, h1::ClientInput};

/// The body of a request, as it comes.
pub struct Incoming(Kind);

enum Kind {
    Empty,
    Http1 { input: Rc<RefCell<ClientInput>>, request: u64 },
    Http2(hyper::body::Incoming),
}

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncomingError {
    /// The connection broke, or the client took the request back.
    Broken,
    /// What came is no body: it cannot be read in one way.
    Malformed,
}

impl fmt::Display for IncomingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "the client's connection broke",
            Self::Malformed => "the body's framing cannot be read",
        })
    }
}

impl Error for IncomingError {}

impl Incoming {
    pub(super) fn http1(input: &Rc<RefCell<ClientInput>>, request: u64) -> Self {
        Self(Kind::Http1 { input: Rc::clone(input), request })
    }

    pub(super) fn http2(body: hyper::body::Incoming) -> Self {
        Self(Kind::Http2(body))
    }

    /// No body.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        match &mut self.get_mut().0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Http1 { input, request } => input.borrow_mut().poll_body(*request, cx).map_err(|error| match error {
                FramingError::Io(_) | FramingError::Ended => IncomingError::Broken,
                FramingError::Malformed(why) => {
                    tracing::debug!(why, "the body of a request cannot be read");
                    IncomingError::Malformed
                }
            }),
            Kind::Http2(body) => Pin::new(body).poll_frame(cx).map_err(|_| IncomingError::Broken),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Http1 { input, request } => input.borrow().body(*request).is_some_and(|body| body.is_ended()),
            Kind::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Http1 { input, request } => {
                input.borrow().body(*request).map_or_else(SizeHint::default, |body| body.size_hint())
            }
            Kind::Http2(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Empty => "Incoming(empty)",
            Kind::Http1 { .. } => "Incoming(HTTP/1)",
            Kind::Http2(_) => "Incoming(HTTP/2)",
        })
    }
}
