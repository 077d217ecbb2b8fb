//! Bodies, in both directions: streamed, never collected, watched for progress and bounded.

use std::{
    cell::Cell,
    error::Error,
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};

use super::{
    client_body::ClientBody,
    live::Local,
    record::Record,
    upstream::{Download, Lease},
};
use crate::{
    clock,
    listener::{Answer, Cut, Exchange, IncomingError},
};

/// Why a body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The caller sent more than is accepted.
    TooLarge,
    /// The caller's connection broke.
    Downstream,
    /// What the caller sent is no body: its chunks cannot be read in one way.
    Unclear,
    /// The upstream's answer broke off.
    Upstream,
    /// The exchange was cut: a timeout, a revoked key or the end of the drain.
    Cut(Cut),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the body is larger than is accepted",
            Self::Downstream => "the caller's connection broke",
            Self::Unclear => "the body's framing cannot be read",
            Self::Upstream => "the upstream's answer broke off",
            Self::Cut(_) => "the exchange was cut",
        })
    }
}

impl Error for BodyError {}

impl From<IncomingError> for BodyError {
    fn from(error: IncomingError) -> Self {
        match error {
            IncomingError::Malformed => Self::Unclear,
            IncomingError::Broken => Self::Downstream,
        }
    }
}

/// How the body of one request is coming along; shared by the stream and the pipeline.
#[derive(Debug)]
pub struct Upload {
    exchange: Exchange,
    ended: Cell<bool>,
    failure: Cell<Option<BodyError>>,
    bytes: Cell<u64>,
    max_bytes: u64,
    response_timeout: Duration,
    /// Whether the client is awaited now, and not the upstream.
    awaiting_client: Cell<bool>,
    /// Whether the answer has begun: from then on nobody is timed by this side.
    answered: Cell<bool>,
}

impl Upload {
    /// A body that has not begun.
    pub fn new(exchange: Exchange, max_bytes: u64, response_timeout: Duration) -> Rc<Self> {
        Rc::new(Self {
            exchange,
            ended: Cell::new(false),
            failure: Cell::new(None),
            bytes: Cell::new(0),
            max_bytes,
            response_timeout,
            awaiting_client: Cell::new(false),
            answered: Cell::new(false),
        })
    }

    /// Says that the head of the answer is there.
    pub fn answered(&self) {
        self.answered.set(true);
    }

    /// How long the upstream may take without any progress.
    pub fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Why it broke off, if it did.
    pub fn failure(&self) -> Option<BodyError> {
        self.failure.get()
    }

    /// How many bytes came so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    fn fail(&self, error: BodyError) -> BodyError {
        self.failure.set(Some(error));
        error
    }

    /// More was asked for, and the client has sent nothing: it is the client who is awaited, once.
    fn await_client(&self) {
        if !self.answered.get() && !self.awaiting_client.replace(true) {
            self.exchange.await_client_body(clock::mono());
        }
    }

    /// A piece came. Until the next one is asked for, the upstream is awaited to take it.
    fn progress(&self) {
        self.awaiting_client.set(false);
        if !self.answered.get() {
            self.exchange.await_upstream_progress(clock::mono().plus(self.response_timeout));
        }
    }

    fn end(&self) {
        if !self.ended.replace(true) && !self.answered.get() {
            self.exchange.await_upstream(clock::mono().plus(self.response_timeout));
        }
    }
}

/// What the upstream gets as the body of a request.
#[derive(Debug)]
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// A form that was read because it had to be judged.
    Judged(Option<Bytes>),
    /// The caller's body as it comes.
    Stream(StreamedRequest),
}

/// The caller's body on its way to the upstream.
#[derive(Debug)]
pub struct StreamedRequest {
    /// The body as it is read.
    pub incoming: ClientBody,
    /// How it is coming along.
    pub upload: Rc<Upload>,
    /// The settings, which say what trailers pass.
    pub local: Rc<Local>,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Judged(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Judged(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Judged(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(stream) => stream.incoming.size_hint(),
        }
    }
}

impl StreamedRequest {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let upload = &self.upload;
        if let Some(failure) = upload.failure.get() {
            return Poll::Ready(Some(Err(failure)));
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                upload.await_client();
                Poll::Pending
            }
            Poll::Ready(None) => {
                upload.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(upload.fail(error)))),
            Poll::Ready(Some(Ok(frame))) => {
                upload.progress();
                let frame = match frame.into_data() {
                    Ok(bytes) => {
                        let total = upload.bytes.get().saturating_add(bytes.len() as u64);
                        upload.bytes.set(total);
                        if total > upload.max_bytes {
                            // The connection to the upstream is cut without the last chunk: it never sees a whole
                            // message.
                            return Poll::Ready(Some(Err(upload.fail(BodyError::TooLarge))));
                        }
                        Frame::data(bytes)
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(mut trailers) => {
                            self.local.live.rules.clean_trailers(&mut trailers);
                            // Nothing follows, and nobody asks whether something does.
                            upload.end();
                            Frame::trailers(trailers)
                        }
                        Err(frame) => frame,
                    },
                };
                // Nobody asks again after the last byte of a body of known length.
                if self.incoming.is_end_stream() {
                    upload.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

/// What a caller gets as the body of an answer. Dropping it ends the exchange and writes the record.
#[derive(Debug)]
pub enum Body {
    /// Bytes of our own making.
    Own {
        /// The bytes, until they are sent.
        bytes: Option<Bytes>,
        /// Written when the answer is done.
        record: Option<Box<Record>>,
        /// Ends with the answer.
        exchange: Option<Exchange>,
    },
    /// The upstream's answer as it comes.
    Upstream(Box<StreamedAnswer>),
}

/// The upstream's answer on its way to the caller.
#[derive(Debug)]
pub struct StreamedAnswer {
    /// The body as it is read from the upstream.
    pub download: Download,
    /// The connection that it comes on; given back when the answer has ended, cut otherwise.
    pub lease: Lease,
    /// What is awaited of whom.
    pub exchange: Exchange,
    /// The settings, which say what trailers pass.
    pub local: Rc<Local>,
    /// Written when the answer is done.
    pub record: Box<Record>,
}

/// The upstream's answer, to be streamed.
pub(super) struct Forwarded {
    pub(super) status: StatusCode,
    pub(super) answer: Answer<Download>,
    pub(super) lease: Lease,
}

impl Forwarded {
    /// Begins to stream it; the record is written when it has ended.
    pub(super) fn complete(self, mut record: Box<Record>, exchange: &Exchange, local: &Rc<Local>) -> Answer<Body> {
        record.answered(self.status.as_u16());
        let exchange = exchange.clone();
        let (lease, local) = (self.lease, Rc::clone(local));
        self.answer.map(|download| {
            let mut answer = StreamedAnswer { download, lease, exchange, local, record };
            if answer.download.is_end_stream() {
                answer.end();
            }
            Body::Upstream(Box::new(answer))
        })
    }
}

impl Body {
    /// An answer of our own.
    pub fn own(bytes: impl Into<Bytes>, record: Box<Record>, exchange: Exchange) -> Self {
        let bytes = bytes.into();
        Self::Own { bytes: (!bytes.is_empty()).then_some(bytes), record: Some(record), exchange: Some(exchange) }
    }

    /// Nothing, of an exchange that goes on elsewhere.
    pub fn none() -> Self {
        Self::Own { bytes: None, record: None, exchange: None }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own { bytes, record, exchange } => Poll::Ready(bytes.take().map(|bytes| {
                if let Some(record) = record {
                    record.sent(bytes.len());
                }
                if let Some(exchange) = exchange {
                    exchange.await_client_read(exchange.connection().coarse_now());
                }
                Ok(Frame::data(bytes))
            })),
            Self::Upstream(answer) => answer.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { bytes, .. } => bytes.is_none(),
            Self::Upstream(answer) => answer.download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Upstream(answer) => answer.download.size_hint(),
        }
    }
}

/// Nobody asks again while the caller takes nothing, so the last word is said here: what was handed on to its
/// end may still be cut.
impl Drop for StreamedAnswer {
    fn drop(&mut self) {
        if let Some(cut) = self.exchange.cut() {
            self.record.cut(cut);
        }
    }
}

impl StreamedAnswer {
    /// The last byte of the answer has been taken from the upstream.
    pub fn end(&mut self) {
        self.lease.answer_ended(self.download.leaves_connection());
        self.record.answer_ended();
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(cut) = self.exchange.poll_cut(cx) {
            return Poll::Ready(Some(Err(BodyError::Cut(cut))));
        }
        match self.lease.poll_frame(&mut self.download, cx) {
            Poll::Pending => {
                self.exchange.idle();
                Poll::Pending
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(_))) => {
                self.record.upstream_broke();
                Poll::Ready(Some(Err(BodyError::Upstream)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                // Until the next frame is asked for, it is the caller who is awaited.
                self.exchange.await_client_read(self.exchange.connection().coarse_now());
                if self.download.is_end_stream() {
                    self.end();
                }
                let frame = match frame.into_data() {
                    Ok(bytes) => {
                        self.record.sent(bytes.len());
                        Frame::data(bytes)
                    }
                    Err(frame) => match frame.into_trailers() {
                        Ok(mut trailers) => {
                            self.local.live.rules.clean_trailers(&mut trailers);
                            Frame::trailers(trailers)
                        }
                        Err(frame) => frame,
                    },
                };
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}
