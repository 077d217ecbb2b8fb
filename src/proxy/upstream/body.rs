//! The body of an answer, read as its head says that it is framed.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{answer::AnswerError, wire::Wire};
use crate::listener::framing::Framing;

/// The body of an answer while it is taken from its connection.
#[derive(Debug)]
pub struct Download {
    framing: Framing,
    kept: bool,
}

impl Download {
    /// With `kept`, the connection can be used again, once the body has ended by itself.
    pub(super) fn new(framing: Framing, kept: bool) -> Self {
        Self { kept: kept && !matches!(framing, Framing::UntilClose), framing }
    }

    /// Whether the last byte has been taken.
    pub fn is_end_stream(&self) -> bool {
        self.framing.is_ended()
    }

    /// Whether it has ended, and another answer may follow on the connection.
    pub fn leaves_connection(&self) -> bool {
        self.kept && self.is_end_stream()
    }

    /// How much is still to come.
    pub fn size_hint(&self) -> SizeHint {
        self.framing.size_hint()
    }

    /// The next piece.
    ///
    /// # Errors
    ///
    /// See [`AnswerError`].
    pub fn poll_frame(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        self.framing.poll_frame(wire, cx)
    }
}
