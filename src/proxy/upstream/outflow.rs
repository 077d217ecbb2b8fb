//! A request on its way out: its head, then its body as the head says that it is framed (RFC 9112 §§6.3, 7.1).

use std::{
    io::{self, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::Body as _;

use super::wire::Wire;
use crate::proxy::body::RequestBody;

/// How the upstream is told where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestFraming {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, since nobody knows how many bytes will come.
    Chunked,
}

impl RequestFraming {
    /// The framing of a body, of which nothing was taken. Asked once: over HTTP/2 a body may turn out to be empty later.
    pub fn of(body: &RequestBody) -> Self {
        if body.is_end_stream() {
            return Self::None;
        }
        body.size_hint().exact().map_or(Self::Chunked, Self::Length)
    }
}

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum OutflowError {
    /// Nothing of it was taken by the connection.
    Unsent(io::Error),
    /// The connection takes no more; an answer may still come on it.
    Broken(io::Error),
    /// The body broke off: the upstream must not take what it got for a whole message.
    Body,
}

/// A request while it is written.
#[derive(Debug)]
pub(super) struct Outflow {
    body: RequestBody,
    framing: RequestFraming,
    /// The last of the body was pushed to the connection.
    ended: bool,
    done: bool,
}

impl Outflow {
    /// A request whose head was pushed to the connection.
    pub(super) fn new(body: RequestBody, framing: RequestFraming) -> Self {
        Self { body, framing, ended: framing == RequestFraming::None, done: false }
    }

    /// Whether all of it was written.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Writes on. Nothing is taken from the caller before the connection has taken what came earlier.
    pub(super) fn poll(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<Result<(), OutflowError>> {
        loop {
            ready!(wire.poll_write(cx)).map_err(|(error, begun)| {
                if begun { OutflowError::Broken(error) } else { OutflowError::Unsent(error) }
            })?;
            if self.ended {
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.push(wire, frame)?,
                Some(Err(_)) => return Poll::Ready(Err(OutflowError::Body)),
                None => self.end(wire, None)?,
            }
        }
    }

    fn push(&mut self, wire: &mut Wire, frame: http_body::Frame<bytes::Bytes>) -> Result<(), OutflowError> {
        let piece = match frame.into_data() {
            Ok(piece) => piece,
            Err(frame) => return self.end(wire, frame.into_trailers().ok()),
        };
        if piece.is_empty() {
            // An empty chunk would be the last one.
            return Ok(());
        }
        match &mut self.framing {
            RequestFraming::None => return Err(OutflowError::Body),
            RequestFraming::Length(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(OutflowError::Body)?;
                self.ended = *left == 0;
                wire.push_piece(piece, b"");
            }
            RequestFraming::Chunked => {
                // Writing to memory does not fail.
                let _ = write!(wire.text(), "{:X}\r\n", piece.len());
                wire.push_piece(piece, b"\r\n");
            }
        }
        Ok(())
    }

    fn end(&mut self, wire: &mut Wire, trailers: Option<http::HeaderMap>) -> Result<(), OutflowError> {
        match self.framing {
            RequestFraming::None | RequestFraming::Length(0) => {}
            RequestFraming::Length(_) => return Err(OutflowError::Body),
            RequestFraming::Chunked => {
                let text = wire.text();
                text.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.iter().flat_map(http::HeaderMap::iter) {
                    text.extend_from_slice(name.as_str().as_bytes());
                    text.extend_from_slice(b": ");
                    text.extend_from_slice(value.as_bytes());
                    text.extend_from_slice(b"\r\n");
                }
                text.extend_from_slice(b"\r\n");
            }
        }
        self.ended = true;
        Ok(())
    }
}
