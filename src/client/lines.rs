//! An answer line by line, and how fresh each line provably is.
//!
//! A process that was stopped, or kept from running, finds on waking what came meanwhile: old news that look as if they
//! had just come. So a line is only as fresh as the last moment at which nothing of the stream was waiting to be read.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::HeaderMap;
use hyper::body::Incoming;
use tokio::time::{Sleep, sleep};

use super::{ClientError, wire::Connection};
use crate::clock::{self, Moment};

/// How long a line may be.
pub const MAX_LINE: usize = 1024 * 1024;

/// The lines of one answer.
#[derive(Debug)]
pub struct Lines {
    connection: Connection,
    /// The fields of the answer.
    pub headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
    most: u64,
    left: u64,
    idle: Duration,
    /// Over when no line came for so long, however often it was waited for.
    silence: Pin<Box<Sleep>>,
    /// When nothing was waiting to be read.
    drained: Moment,
    ended: bool,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Without its line break.
    pub text: Bytes,
    /// It was not there before.
    pub fresh: Moment,
}

impl Lines {
    pub(super) fn new(connection: Connection, headers: HeaderMap, body: Incoming, most: u64, idle: Duration) -> Self {
        Self {
            connection,
            headers,
            body,
            buffer: BytesMut::new(),
            searched: 0,
            most,
            left: most,
            idle,
            silence: Box::pin(sleep(idle)),
            drained: Moment::default(),
            ended: false,
        }
    }

    /// Says that what comes was asked for at this moment: it cannot be older.
    pub fn asked_at(&mut self, moment: Moment) {
        self.drained = moment;
    }

    /// The next line; none at the end. What follows the last line break is no line.
    ///
    /// # Errors
    ///
    /// No whole line came in time, the stream broke, or it is larger than it may be. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<Line>, ClientError> {
        poll_fn(|cx| match self.poll_line(cx) {
            Poll::Ready(line) => Poll::Ready(line),
            Poll::Pending => self.silence.as_mut().poll(cx).map(|()| Err(ClientError::Late("the next line"))),
        })
        .await
    }

    /// A line that is already here.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next).
    pub fn next_now(&mut self) -> Result<Option<Line>, ClientError> {
        poll_fn(|cx| self.poll_line(cx)).now_or_never().unwrap_or(Ok(None))
    }

    /// Whether the end was reached.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Line>, ClientError>> {
        // A body that has nothing yet tells the connection that it wants more, which then may find it in a buffer: only
        // twice nothing is nothing.
        let mut nothing = 0;
        // Before the socket is asked: what comes later than this is younger.
        let mut asked = clock::moment();
        loop {
            if let Some(line) = self.take_line()? {
                self.silence = Box::pin(sleep(self.idle));
                return Poll::Ready(Ok(Some(line)));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match self.connection.poll_piece(&mut self.body, cx) {
                Poll::Ready(Some(piece)) => {
                    let piece = piece?;
                    let Some(left) = self.left.checked_sub(piece.len() as u64) else {
                        return Poll::Ready(Err(ClientError::TooLarge { what: "the answer", most: self.most }));
                    };
                    self.left = left;
                    self.buffer.extend_from_slice(&piece);
                    (nothing, asked) = (0, clock::moment());
                }
                Poll::Ready(None) => self.ended = true,
                Poll::Pending if nothing < 1 => nothing += 1,
                Poll::Pending => {
                    // The beginning of a line is as old as it is, whenever the rest comes.
                    if self.buffer.is_empty() && self.connection.is_drained() {
                        self.drained = asked;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn take_line(&mut self) -> Result<Option<Line>, ClientError> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let length = self.searched + found.unwrap_or(self.buffer.len() - self.searched);
        if length > MAX_LINE {
            return Err(ClientError::TooLarge { what: "a line", most: MAX_LINE as u64 });
        }
        self.searched = if found.is_some() { 0 } else { length };
        if found.is_none() {
            return Ok(None);
        }
        let mut text = self.buffer.split_to(length + 1).freeze();
        text.truncate(length);
        if text.ends_with(b"\r") {
            text.truncate(length - 1);
        }
        if !self.buffer.has_remaining() {
            // A large buffer is not kept for the small lines that follow.
            self.buffer = BytesMut::new();
        }
        Ok(Some(Line { text, fresh: self.drained }))
    }
}
