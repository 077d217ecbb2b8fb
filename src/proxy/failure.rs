//! What went wrong between us and the upstream, and whose fault it was: the caller is told by that.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use super::{
    body::{BodyError, Upload},
    upstream::{CheckoutError, SendError},
};
use crate::{
    listener::{Cut, Exchange},
    rejection::{Reason, Rejection},
};

/// Why nothing came back from the upstream.
pub(super) enum Failure {
    Cut(Cut),
    Send(SendError),
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        Self::Send(error)
    }
}

impl Failure {
    /// Whose fault it was decides what the caller is told.
    pub(super) fn rejection(self, upload: Option<&Upload>) -> Rejection {
        if let Some(rejection) = upload.and_then(Upload::failure).and_then(bad_body) {
            return rejection;
        }
        match self {
            Self::Cut(Cut::BodyTimeout | Cut::WriteTimeout) => Reason::RequestTimeout.into(),
            Self::Cut(Cut::ResponseTimeout) => Reason::UpstreamTimeout.into(),
            Self::Cut(Cut::Revoked) => Reason::Revoked.into(),
            Self::Cut(Cut::Drain) => {
                Rejection::from(Reason::Overloaded).retry_after(1).note("cut: the time to finish was over")
            }
            Self::Send(SendError::Checkout(CheckoutError::AllInUse)) => {
                Rejection::from(Reason::Overloaded).retry_after(1).note("all connections to the upstream are in use")
            }
            Self::Send(error) if error.is_timeout() => Rejection::from(Reason::UpstreamTimeout).note(error.to_string()),
            Self::Send(error) => Rejection::from(Reason::UpstreamUnreachable).note(error.to_string()),
        }
    }
}

/// What the caller is told whose body broke off, unless that was not their fault.
pub(super) fn bad_body(error: BodyError) -> Option<Rejection> {
    match error {
        BodyError::TooLarge => Some(Reason::BodyTooLarge.into()),
        BodyError::Downstream => Some(Rejection::from(Reason::RequestTimeout).note("the caller's body broke off")),
        BodyError::Unclear => Some(Reason::AmbiguousFraming.into()),
        BodyError::Upstream | BodyError::Cut(_) => None,
    }
}

pub(super) fn bad_answer(note: &'static str) -> Rejection {
    Rejection::from(Reason::UpstreamUnreachable).note(note)
}

/// Waits for the future or the exchange's cut, whichever comes first.
pub(super) async fn or_cut<T>(
    exchange: &Exchange,
    mut future: Pin<&mut impl Future<Output = Result<T, SendError>>>,
) -> Result<T, Failure> {
    poll_fn(|cx: &mut Context<'_>| match exchange.poll_cut(cx) {
        Poll::Ready(cut) => {
            // The caller is told; that answer has a time of its own.
            exchange.act_on_cut();
            Poll::Ready(Err(Failure::Cut(cut)))
        }
        Poll::Pending => future.as_mut().poll(cx).map_err(Failure::Send),
    })
    .await
}
