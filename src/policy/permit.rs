//! The proofs: who calls, and that the request may go on.
//!
//! What can be forwarded is a [`Passage`], and each of its three variants holds a value that only this room can make:
//!
//! ```compile_fail,E0451
//! # fn forge(record: std::sync::Arc<keyside::keys::KeyRecord>) -> keyside::policy::Permit {
//! keyside::policy::Permit { record }
//! # }
//! ```
//!
//! ```compile_fail,E0423
//! keyside::policy::Open(keyside::policy::OpenFor::Public);
//! ```
//!
//! ```compile_fail,E0423
//! # fn forge(rejection: keyside::rejection::Rejection) -> keyside::policy::Observed {
//! keyside::policy::Observed(rejection)
//! # }
//! ```

use std::sync::Arc;

use crate::{keys::KeyRecord, rejection::Rejection};

/// A caller whose secret was verified.
#[derive(Clone, Debug)]
pub struct Identity {
    record: Arc<KeyRecord>,
}

impl Identity {
    /// The caller is whoever holds this key. Only the stage that verified the secret against this very record may
    /// say so; `explain`, which forwards nothing, says it of the key it was asked about.
    pub fn verified(record: Arc<KeyRecord>) -> Self {
        Self { record }
    }

    /// The record whose secret was verified.
    pub fn record(&self) -> &Arc<KeyRecord> {
        &self.record
    }
}

/// The right of one request to go on in the name of a key.
#[derive(Debug)]
pub struct Permit {
    record: Arc<KeyRecord>,
}

impl Permit {
    pub(super) fn new(record: Arc<KeyRecord>) -> Self {
        Self { record }
    }

    /// The key in whose name the request goes on.
    pub fn record(&self) -> &Arc<KeyRecord> {
        &self.record
    }
}

/// The right of one request to go on without a key and without owner headers.
#[derive(Debug)]
pub struct Open(OpenFor);

/// Why a request needs no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFor {
    /// Its route is public.
    Public,
    /// Its method is one of those that pass.
    Pass,
    /// It is a CORS preflight, and these are forwarded.
    Preflight,
}

impl Open {
    pub(super) fn new(reason: OpenFor) -> Self {
        Self(reason)
    }

    /// Why the request needs no key.
    pub fn reason(&self) -> OpenFor {
        self.0
    }
}

/// The right of one request to go on, without owner headers, although it was refused: its route only observes.
#[derive(Debug)]
pub struct Observed(Rejection);

impl Observed {
    pub(super) fn new(rejection: Rejection) -> Self {
        Self(rejection)
    }

    /// What the request would have been refused with.
    pub fn rejection(&self) -> &Rejection {
        &self.0
    }
}

/// The right of one request to be forwarded.
#[derive(Debug)]
pub enum Passage {
    /// No key is needed.
    Open(Open),
    /// A key has all that is needed.
    Permitted(Permit),
    /// Something is lacking, and the route only observes.
    Observed(Observed),
}

impl Passage {
    /// The key in whose name the request goes on, if it goes on in one's.
    pub fn record(&self) -> Option<&Arc<KeyRecord>> {
        match self {
            Self::Permitted(permit) => Some(permit.record()),
            Self::Open(_) | Self::Observed(_) => None,
        }
    }
}
