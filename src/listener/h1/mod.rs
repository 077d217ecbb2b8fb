//! HTTP/1.1 on a connection: requests read, handed to the service and answered, one after the other.
//!
//! Spoken by hand, as it is to the upstream: in memory that the connections of a thread share, with no channel between
//! the connection and the exchange, and with answers that are lines from the beginning. The grammar is the parser's that
//! hyper uses, too; framing is ours, and fuzzed beside hyper's. HTTP/2 is hyper's.

mod answer;
pub mod head;
pub mod input;

use std::{
    cell::{Cell, RefCell},
    error::Error,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, ready},
};

use ::http::{Method, Request, StatusCode, Version};
use bytes::Bytes;
use http_body::Body;
use tokio::io::AsyncWriteExt as _;

pub use self::input::Spares;
use self::{
    answer::{Asked, Encoding, Size, TooShort},
    head::{Head, Refusal},
    input::{HeadError, Input},
};
use super::{
    Service, Serving,
    answer::{Answer, AnswerHead, Fields},
    conn::{Connection, Ending, Stage},
    gather::Gathered,
    http::HEAD_ROOM,
    incoming::Incoming,
    io::{Stream, Upgraded},
    output::Output,
    serve::{Guard, Server, linger, until_ended},
};

/// What a client sends on one connection.
pub(super) type ClientInput = Input<Gathered<Stream>>;

/// How many requests that were sent ahead are answered before it is the turn of the thread's other connections.
const TURN: u32 = 16;

/// How a conversation came to its end.
#[derive(Debug)]
enum Outcome {
    /// Nothing more is asked, or answered.
    Closed,
    /// Another protocol takes over.
    Switched,
    /// What came is no request, and was told so.
    Refused,
    /// The client has gone, or an answer broke off.
    Broken,
}

impl<S: Service> Server<S> {
    /// Speaks HTTP/1.1 until either side has had enough, or another protocol takes over.
    pub(super) async fn http1(self: Rc<Self>, connection: Rc<Connection>, stream: Stream, guard: Guard) {
        connection.enter_http(false);
        let stream = Gathered::new(stream, &self.thread.outbox);
        let input = Rc::new(RefCell::new(Input::new(stream.clone(), &self.thread.spares)));
        let pace = Pace::default();
        let result = {
            let mut talk = pin!(self.talk(&connection, &input, stream.clone(), &pace));
            poll_fn(|cx| {
                connection.set_task(cx);
                pace.turn.set(0);
                if let Some(ending) = connection.ending.get()
                    && !(stream.ask(Stream::has_arrived) && connection.take_back_ending(ending))
                {
                    return Poll::Ready(Err(ending));
                }
                // First what has arrived: a request that is just coming in is not to be closed upon.
                if let Poll::Ready(ended) = talk.as_mut().poll(cx) {
                    return Poll::Ready(Ok(ended));
                }
                if pace.between.get() && connection.may_close_now() && !stream.ask(Stream::has_arrived) {
                    return Poll::Ready(Ok(Outcome::Closed));
                }
                // Where nothing can be sent any more, nothing is left to say.
                match stream.poll_rest(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(Ok(Outcome::Broken)),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                }
            })
            .await
        };
        let ahead = input.borrow_mut().close();
        drop(input);
        // What was written last, before the stream is anybody else's.
        let result = match result {
            Ok(ended) => {
                let sent = until_ended(&connection, poll_fn(|cx| stream.poll_send(cx))).await;
                connection.ending.get().filter(|_| sent.is_none()).map_or(Ok(ended), Err)
            }
            Err(ending) => Err(ending),
        };
        let unsent = stream.is_unsent();
        let Some(stream) = stream.into_inner() else { return };
        match result {
            Ok(Outcome::Switched) => {
                if let Some(upgrade) = connection.take_upgrade() {
                    connection.enter(Stage::Upgraded);
                    // Fails when nobody waits for it any more: the connection is closed by being dropped.
                    let _ = upgrade.send(Upgraded::new(stream, ahead, guard));
                }
            }
            // In the middle of an answer, to close could look like its end.
            Ok(Outcome::Closed | Outcome::Refused) if unsent => stream.reset(),
            // Closed upon what the client has sent ahead, the socket would be reset, and the answer with it.
            Ok(Outcome::Closed) if !connection.has_body.get() && ahead.is_empty() && !stream.has_arrived() => {
                let mut stream = stream;
                let _ = until_ended(&connection, stream.shutdown()).await;
            }
            Ok(Outcome::Closed | Outcome::Refused) => linger(&connection, stream).await,
            // Closed, an answer that broke off would look whole.
            Ok(Outcome::Broken) if connection.ends_by_close.get() => stream.reset(),
            Ok(Outcome::Broken) => {}
            Err(ending) => self.farewell(&connection, stream, unsent, ending).await,
        }
    }

    /// Answers one request after the other.
    async fn talk(
        &self,
        connection: &Rc<Connection>,
        input: &Rc<RefCell<ClientInput>>,
        mut stream: Gathered<Stream>,
        pace: &Pace,
    ) -> Outcome {
        let most = self.settings.max_header_bytes.saturating_add(HEAD_ROOM);
        let mut output = Output::default();
        loop {
            others_first(&pace.turn).await;
            pace.between.set(true);
            let head = poll_fn(|cx| input.borrow_mut().poll_head(most, cx)).await;
            pace.between.set(false);
            let head = match head {
                Ok(Some(head)) => head,
                Ok(None) => return Outcome::Closed,
                Err(HeadError::Broken) => return Outcome::Broken,
                Err(HeadError::Refused(refusal)) => return self.refuse(refusal, output, &mut stream).await,
            };
            let (request, mut asked) = receive(head, connection, input);
            let answer = match Rc::clone(&self.service).serve(Rc::clone(connection), request) {
                Serving::Answered(answer) => answer,
                Serving::Awaited(mut answer) => {
                    let answer = poll_fn(|cx| match answer.as_mut().poll(cx) {
                        Poll::Ready(answer) => Poll::Ready(Some(answer)),
                        Poll::Pending => input.borrow_mut().poll_gone(cx).map(|()| None),
                    });
                    match answer.await {
                        Some(answer) => answer,
                        None => return Outcome::Broken,
                    }
                }
            };
            // Who was not asked for a body may send it or leave it (RFC 9110 §10.1.1): what follows could be either.
            let (invitation, invited) = input.borrow_mut().answered();
            output.text().extend_from_slice(invitation);
            asked.keep_alive &= invited && !self.thread.draining();
            let Answer { head, body } = answer;
            let (lines, start, said) = answer::write_head(head, size(&body), &asked, &self.thread.date());
            self.thread.spares.give_text(output.push_lines(lines, start));
            if send(body, said.framing, &mut output, &mut stream, input).await.is_err() {
                return Outcome::Broken;
            }
            if said.switches {
                return Outcome::Switched;
            }
            if let Some(memory) = output.take_memory() {
                self.thread.spares.give_text(memory);
            }
            if !said.keep_alive || !poll_fn(|cx| Poll::Ready(input.borrow_mut().end(cx))).await {
                return Outcome::Closed;
            }
            connection.await_head(input.borrow().holds_a_beginning());
        }
    }

    /// Answers what is no request.
    async fn refuse(&self, refusal: Refusal, mut output: Output, stream: &mut Gathered<Stream>) -> Outcome {
        let counters = &self.thread.counters;
        let (status, counter) = match refusal {
            Refusal::Malformed => (StatusCode::BAD_REQUEST, &counters.ambiguous_framing),
            Refusal::TooLarge => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &counters.headers_too_large),
            Refusal::TargetTooLong => (StatusCode::URI_TOO_LONG, &counters.uri_too_long),
        };
        counter.add();
        let head = AnswerHead { status, reason: None, fields: Fields::default() };
        let asked = Asked { method: Method::GET, version: Version::HTTP_11, takes_trailers: false, keep_alive: false };
        let (lines, start, _) = answer::write_head(head, Size::Exactly(0), &asked, &self.thread.date());
        let _ = output.push_lines(lines, start);
        match poll_fn(|cx| output.poll_write(stream, cx)).await {
            Ok(()) => Outcome::Refused,
            Err(_) => Outcome::Broken,
        }
    }

    async fn farewell(&self, connection: &Rc<Connection>, mut stream: Stream, unsent: bool, ending: Ending) {
        const TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let counters = &self.thread.counters;
        match ending {
            Ending::Head => counters.request_timeouts.add(),
            Ending::Idle => counters.idle_timeouts.add(),
            Ending::Write => counters.write_timeouts.add(),
            Ending::Cut | Ending::Drain | Ending::Handshake | Ending::Crowded => {}
        }
        match ending {
            // In the middle of an answer, to close could look like its end.
            _ if unsent => stream.reset(),
            Ending::Head => {
                connection.ending.set(None);
                connection.enter(Stage::Lingering);
                let _ = until_ended(connection, async {
                    let _ = stream.write_all(TIMEOUT).await;
                    let _ = stream.flush().await;
                    let _ = stream.shutdown().await;
                })
                .await;
                linger(connection, stream).await;
            }
            Ending::Idle | Ending::Drain => {
                connection.ending.set(None);
                // One try: what the socket does not take at once is not waited for.
                poll_fn(|cx| {
                    let _ = tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut stream), cx);
                    Poll::Ready(())
                })
                .await;
            }
            Ending::Write | Ending::Cut | Ending::Crowded => stream.reset(),
            Ending::Handshake => {}
        }
    }
}

/// Where a conversation is.
#[derive(Default)]
struct Pace {
    /// How many requests were looked for in this turn.
    turn: Cell<u32>,
    /// Whether all that was asked has been answered, and all of that handed on.
    between: Cell<bool>,
}

/// Lets the thread's other connections come first, once enough was answered in this turn.
async fn others_first(turn: &Cell<u32>) {
    if turn.replace(turn.get() + 1) < TURN {
        return;
    }
    poll_fn(|cx| {
        if turn.get() == 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The request as the service gets it, and what of it decides how it is answered.
fn receive(head: Head, connection: &Connection, input: &Rc<RefCell<ClientInput>>) -> (Request<Incoming>, Asked) {
    let Head { request, framing, keep_alive, expects_continue, takes_trailers } = head;
    let (method, version) = (request.method().clone(), request.version());
    connection.ends_by_close.set(version == Version::HTTP_10);
    connection.has_body.set(!framing.is_ended());
    let is_empty = framing.is_ended();
    let number = input.borrow_mut().begin(framing, expects_continue);
    let body = if is_empty { Incoming::empty() } else { Incoming::http1(input, number) };
    (request.map(|()| body), Asked { method, version, takes_trailers, keep_alive })
}

fn size(body: &impl Body) -> Size {
    if body.is_end_stream() { Size::Exactly(0) } else { body.size_hint().exact().map_or(Size::Unknown, Size::Exactly) }
}

/// An answer broke off, or nobody takes it.
struct BrokeOff;

impl From<TooShort> for BrokeOff {
    fn from(TooShort: TooShort) -> Self {
        Self
    }
}

/// Sends the output, and the body behind it as it comes. The body is let go of with its last piece, which may still be
/// on its way then.
async fn send<B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>>(
    body: B,
    mut framing: Encoding,
    output: &mut Output,
    stream: &mut Gathered<Stream>,
    input: &RefCell<ClientInput>,
) -> Result<(), BrokeOff> {
    // Of one that has ended nothing is asked, not even whether it was cut meanwhile.
    let mut body = pin!((framing != Encoding::Bodiless && !body.is_end_stream()).then_some(body));
    poll_fn(|cx| {
        loop {
            let Some(rest) = body.as_mut().as_pin_mut() else {
                return output.poll_write(stream, cx).map_err(|_| BrokeOff);
            };
            if output.is_full() {
                ready!(output.poll_write(stream, cx)).map_err(|_| BrokeOff)?;
            }
            let ended = match rest.poll_frame(cx) {
                Poll::Pending => {
                    if let Poll::Ready(Err(_)) = output.poll_write(stream, cx) {
                        return Poll::Ready(Err(BrokeOff));
                    }
                    return input.borrow_mut().poll_gone(cx).map(|()| Err(BrokeOff));
                }
                Poll::Ready(Some(Err(error))) => {
                    let error = error.into();
                    tracing::debug!(%error, "an answer broke off");
                    return Poll::Ready(Err(BrokeOff));
                }
                Poll::Ready(None) => framing.end(None, output)?,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => {
                        let is_last = body.as_ref().as_pin_ref().is_some_and(|body| body.is_end_stream());
                        framing.push(piece, is_last, output)?
                    }
                    Err(frame) => framing.end(frame.into_trailers().ok(), output)?,
                },
            };
            if ended {
                body.set(None);
            }
        }
    })
    .await
}
