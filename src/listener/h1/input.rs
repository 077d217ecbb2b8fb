//! What a client sends: read into memory that the connections of a thread share, taken as heads and bodies.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use ::http::HeaderMap;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::{
    super::framing::{Framing, FramingError, Source, may_end},
    head::{self, Head, Refusal},
};

/// How much is read at once: at first, and at most, once a body proves to be large.
const LEAST_READ: usize = 8 * 1024;
const MOST_READ: usize = 64 * 1024;
/// How many pieces of memory a thread keeps for what its clients send next.
const SPARES: usize = 4;
/// How many lists of fields a thread keeps, and for how many fields there may be room in one.
const SPARE_LISTS: usize = 64;
const SPARE_FIELDS: usize = 64;
/// Room for the fields of most answers, and the largest that is kept.
const USUAL_TEXT: usize = 1024;
const SPARE_TEXT: usize = 8 * 1024;
/// That the body is welcome (RFC 9110 §15.2.1).
const INVITATION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How much of a body that nobody wants is passed over, if it has arrived.
const PASSED_OVER: usize = 64 * 1024;

/// Memory that the connections of a thread use in turn, so that idle ones cost none, and busy ones find it warm.
#[derive(Debug, Default)]
pub struct Spares {
    memory: RefCell<Vec<BytesMut>>,
    lists: RefCell<Vec<HeaderMap>>,
    texts: RefCell<Vec<Vec<u8>>>,
}

impl Spares {
    fn memory(&self) -> BytesMut {
        self.memory.borrow_mut().pop().unwrap_or_default()
    }

    fn give_memory(&self, memory: BytesMut) {
        let mut spares = self.memory.borrow_mut();
        if spares.len() < SPARES && memory.capacity() <= LEAST_READ {
            spares.push(memory);
        }
    }

    fn list(&self) -> HeaderMap {
        self.lists.borrow_mut().pop().unwrap_or_default()
    }

    /// Room for the fields of an answer.
    pub(in super::super) fn text(&self) -> Vec<u8> {
        self.texts.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(USUAL_TEXT))
    }

    pub(super) fn give_text(&self, mut text: Vec<u8>) {
        let mut texts = self.texts.borrow_mut();
        if texts.len() < SPARES && (1..=SPARE_TEXT).contains(&text.capacity()) {
            text.clear();
            texts.push(text);
        }
    }

    /// Takes back the list of a request that is over.
    pub(in super::super) fn give_list(&self, mut list: HeaderMap) {
        let mut lists = self.lists.borrow_mut();
        if lists.len() < SPARE_LISTS && (1..=SPARE_FIELDS).contains(&list.capacity()) {
            list.clear();
            lists.push(list);
        }
    }
}

/// Why no head could be read.
#[derive(Debug)]
pub enum HeadError {
    /// What came is no request.
    Refused(Refusal),
    /// The connection broke, or ended in the middle of a head.
    Broken,
}

/// What has come from a client, and more of it.
#[derive(Debug)]
pub struct Input<T> {
    /// Gone once no HTTP is spoken any more.
    stream: Option<T>,
    spares: Rc<Spares>,
    /// The connection's own task. The body may be read by another one.
    task: Option<Waker>,
    buffer: BytesMut,
    /// How much of it was looked at and holds no whole head.
    looked_at: usize,
    /// How much the next read makes room for.
    read_size: usize,
    /// What is still to come of the request's body.
    body: Framing,
    /// Which request of the connection it belongs to.
    request: u64,
    /// What is still to be said before the body is read: that it is welcome.
    invitation: &'static [u8],
    /// Whether the client waits for that, or may have waited for it until the answer came.
    uninvited: bool,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Input<T> {
    /// Of which nothing was read.
    pub fn new(stream: T, spares: &Rc<Spares>) -> Self {
        Self {
            stream: Some(stream),
            spares: Rc::clone(spares),
            task: None,
            buffer: BytesMut::new(),
            looked_at: 0,
            read_size: LEAST_READ,
            body: Framing::Ended,
            request: 0,
            invitation: b"",
            uninvited: false,
        }
    }

    /// Nothing more is read. Gives what was read ahead. It wakes nobody: who reads the body in another task has to end
    /// with the answer.
    pub fn close(&mut self) -> Bytes {
        self.stream = None;
        std::mem::take(&mut self.buffer).freeze()
    }

    /// Ready once the next head is there, or, with nothing, the client has closed its side.
    pub fn poll_head(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Head>, HeadError>> {
        self.remember(cx);
        loop {
            if self.may_hold_a_head() {
                match head::take(&mut self.buffer, most, || self.spares.list()) {
                    Ok(Some(head)) => {
                        self.looked_at = 0;
                        return Poll::Ready(Ok(Some(head)));
                    }
                    Ok(None) => self.looked_at = self.buffer.len(),
                    Err(refusal) => return Poll::Ready(Err(HeadError::Refused(refusal))),
                }
            }
            if self.buffer.len() > most {
                return Poll::Ready(Err(HeadError::Refused(Refusal::TooLarge)));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if !self.holds_a_beginning() => return Poll::Ready(Ok(None)),
                Ok(0) | Err(_) => return Poll::Ready(Err(HeadError::Broken)),
                Ok(_) => {}
            }
        }
    }

    /// Whether to look for a head: not again, byte by byte, at one that comes slowly.
    fn may_hold_a_head(&mut self) -> bool {
        if self.looked_at == 0 {
            return !self.buffer.is_empty();
        }
        let looked_at = std::mem::replace(&mut self.looked_at, self.buffer.len());
        may_end(&self.buffer, looked_at)
    }

    /// A request begins, with this body.
    pub fn begin(&mut self, body: Framing, expects_continue: bool) -> u64 {
        self.body = body;
        self.invitation = if expects_continue { INVITATION } else { b"" };
        self.uninvited = expects_continue;
        self.request += 1;
        self.request
    }

    /// The answer begins: it is too late to invite the body, but to say to its end what was begun. With false, the client
    /// may still have waited for that, and may now send the body or leave it.
    pub fn answered(&mut self) -> (&'static [u8], bool) {
        let rest = std::mem::take(&mut self.invitation);
        let begun = rest.len() < INVITATION.len();
        (if begun { rest } else { b"" }, !self.uninvited || self.body.is_ended())
    }

    /// The exchange is over. False: what follows in the input is not the next request, or may not be.
    pub fn end(&mut self, cx: &mut Context<'_>) -> bool {
        self.request += 1;
        let mut passed_over = 0;
        while !self.body.is_ended() && !self.uninvited && passed_over < PASSED_OVER {
            match self.poll_piece(cx) {
                Poll::Ready(Some(Ok(frame))) => passed_over += frame.data_ref().map_or(0, Bytes::len),
                Poll::Ready(Some(Err(_))) | Poll::Pending => return false,
                Poll::Ready(None) => {}
            }
        }
        if self.read_size > LEAST_READ {
            self.read_size = LEAST_READ;
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
        }
        self.body.is_ended()
    }

    /// Ready when the client has gone while its answer is awaited. What it sends ahead is left where it is, all but
    /// the first read of it.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.body.is_ended() || !self.buffer.is_empty() {
            return Poll::Pending;
        }
        self.remember(cx);
        match ready!(self.poll_fill(cx)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    fn remember(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }

    /// Whether a part of the next head has come. Empty lines before it are none (RFC 9112 §2.2).
    pub fn holds_a_beginning(&self) -> bool {
        self.buffer.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, FramingError>>> {
        let mut body = std::mem::take(&mut self.body);
        let polled = body.poll_frame(self, cx);
        self.body = body;
        polled
    }

    /// The next piece of the body of this request.
    pub fn poll_body(
        &mut self,
        request: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FramingError>>> {
        if request != self.request || self.stream.is_none() {
            return Poll::Ready(Some(Err(FramingError::Ended)));
        }
        while !self.invitation.is_empty() {
            let Some(stream) = &mut self.stream else { break };
            match ready!(Pin::new(stream).poll_write(cx, self.invitation)) {
                Ok(0) => return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::WriteZero).into()))),
                Ok(bytes) => {
                    self.invitation = &self.invitation[bytes..];
                    self.uninvited = !self.invitation.is_empty();
                }
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        let polled = self.poll_piece(cx);
        if self.body.is_ended()
            && let Some(task) = &self.task
            && !task.will_wake(cx.waker())
        {
            // From now on the connection's own task looks whether the client goes.
            task.wake_by_ref();
        }
        polled
    }

    /// What is still to come of the body of this request; nothing once it is over.
    pub fn body(&self, request: u64) -> Option<&Framing> {
        (request == self.request).then_some(&self.body)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Source for Input<T> {
    fn input(&self) -> &[u8] {
        &self.buffer
    }

    fn consume(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
    }

    fn take(&mut self, most: u64) -> Bytes {
        let bytes = usize::try_from(most).unwrap_or(usize::MAX).min(self.buffer.len());
        self.buffer.split_to(bytes).freeze()
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(0)) };
        if self.buffer.capacity() == 0 {
            self.buffer = self.spares.memory();
        }
        if self.buffer.capacity() - self.buffer.len() < self.read_size / 4 {
            self.buffer.reserve(self.read_size);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        let Poll::Ready(read) = pin!(stream.read_buf(&mut self.buffer)).poll(cx) else {
            if self.buffer.is_empty() {
                self.spares.give_memory(std::mem::take(&mut self.buffer));
            }
            return Poll::Pending;
        };
        let bytes = read?;
        if bytes == room {
            self.read_size = (self.read_size * 2).min(MOST_READ);
        }
        Poll::Ready(Ok(bytes))
    }
}
