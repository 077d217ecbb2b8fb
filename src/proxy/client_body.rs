//! The caller's body, which is let finish where nobody reads it to its end.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{task::spawn_local, time::timeout};

use super::body::BodyError;
use crate::listener::Incoming;

/// How much of a body that nobody reads is taken all the same, and for how long.
const LEFTOVER_BYTES: usize = 64 * 1024;
const LEFTOVER_TIME: Duration = Duration::from_secs(2);

/// The body of a request, as the listener reads it.
///
/// Over HTTP/2, dropping a body before its end resets the stream. Reset right behind the answer, clients that are still
/// sending lose the answer (curl 7.88: "Stream error in the HTTP/2 framing layer"), so that a refused upload would look
/// like a broken connection. What is left of a small body is therefore taken for a moment. Over HTTP/1.1 it is the
/// connection that lingers, after the answer said that it closes.
///
/// A stream that the client resets with NO_ERROR, or whose connection says goodbye so, looks to hyper like one that has
/// ended: that is meant for answers (RFC 9113 §8.1). A request ends by END_STREAM alone; without it the body broke off.
#[derive(Debug)]
pub struct ClientBody {
    /// There until it is dropped.
    incoming: Option<Incoming>,
    http2: bool,
    end: BodyEnd,
}

/// Whether all readers agree where a body ends; known without the body, which goes its own way.
///
/// Some look for the end of trailers where CR LF follows CR LF, others also where a line feed follows another: what the
/// one takes for the next request is a trailer to the other (RFC 9112 §2.2). The listener takes nothing but CR LF. All the
/// same, nothing is believed behind chunks over HTTP/1.1, unless they were seen to end, and without trailers.
#[derive(Clone, Debug)]
pub struct BodyEnd(Option<Rc<Cell<Chunks>>>);

/// What was seen of a body in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunks {
    Arriving,
    Ended,
    Trailed,
}

impl BodyEnd {
    fn of(incoming: &Incoming, http2: bool) -> Self {
        let chunked = !http2 && incoming.size_hint().exact().is_none();
        Self(chunked.then(|| Rc::new(Cell::new(Chunks::Arriving))))
    }

    /// Whether what follows it is a request to everybody, as far as was seen until now.
    pub fn is_clear(&self) -> bool {
        self.0.as_ref().is_none_or(|chunks| chunks.get() == Chunks::Ended)
    }

    fn saw(&self, frame: Option<&Frame<Bytes>>) {
        if let Some(chunks) = &self.0 {
            match frame {
                Some(frame) if frame.is_trailers() => chunks.set(Chunks::Trailed),
                None if chunks.get() == Chunks::Arriving => chunks.set(Chunks::Ended),
                Some(_) | None => {}
            }
        }
    }
}

impl ClientBody {
    /// The body of a request that came over this version.
    pub fn new(incoming: Incoming, version: http::Version) -> Self {
        let http2 = version == http::Version::HTTP_2;
        let end = BodyEnd::of(&incoming, http2);
        Self { incoming: Some(incoming), http2, end }
    }

    /// What will be known of its end.
    pub fn end(&self) -> BodyEnd {
        self.end.clone()
    }
}

impl http_body::Body for ClientBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let http2 = self.http2;
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.end.saw(Some(&frame));
                Poll::Ready(Some(Ok(frame)))
            }
            None if !http2 || incoming.is_end_stream() => {
                self.end.saw(None);
                Poll::Ready(None)
            }
            None => Poll::Ready(Some(Err(BodyError::Downstream))),
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        if self.http2 && !incoming.is_end_stream() {
            spawn_local(timeout(LEFTOVER_TIME, take_leftover(incoming)));
        }
    }
}

/// Reads what the client still sends, up to its end or as much as is taken.
async fn take_leftover(mut incoming: Incoming) {
    let mut taken = 0;
    while taken < LEFTOVER_BYTES {
        match std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            Some(Ok(frame)) => taken += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}
