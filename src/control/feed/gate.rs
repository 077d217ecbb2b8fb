//! Who may sync: whoever has a token of the configuration, or a certificate of the authority it names.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use prometheus::IntCounter;
use subtle::ConstantTimeEq as _;

use crate::control::{
    answer::Problem, audit, caller::Failures, front::Peer, metrics::Metrics, settings::SyncSettings, store::Revision,
    wire,
};

/// How many revisions are kept as they are sent.
const WRITTEN: usize = 256;

/// What all sidecars are sent, and who may ask for it.
#[derive(Debug)]
pub struct Feed {
    tokens: Vec<Token>,
    /// Whether a certificate of the client CA will do.
    certified: bool,
    /// How often somebody spoke for an instance that is bound to somebody else.
    pub(super) strangers: IntCounter,
    /// The newest revisions, as they are sent: each is written once, however many streams it goes to.
    written: Mutex<VecDeque<Written>>,
}

/// A token that sidecars sync with.
struct Token {
    /// SHA-256, in hexadecimal.
    digest: String,
}

/// Shows no digest.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

#[derive(Debug)]
struct Written {
    revision: u64,
    digest: String,
    lines: Bytes,
}

impl Feed {
    /// What all sidecars are sent.
    pub fn new(settings: &SyncSettings, metrics: &Metrics) -> Self {
        let token = |digest: &String| Token { digest: digest.clone() };
        let tokens = settings.tokens.iter().map(token).collect();
        let strangers = metrics.add(IntCounter::new(
            "keyside_sync_instances_refused_total",
            "Requests in the name of a sidecar's instance that is bound to somebody else",
        ));
        Self { tokens, certified: settings.certified, strangers, written: Mutex::default() }
    }

    /// Lets a sidecar in. Gives the name of its credential, which is not secret.
    ///
    /// # Errors
    ///
    /// 401 without a token that is known, and 429 from an address that has failed too often.
    pub(in crate::control) fn admit(
        &self,
        failures: &Failures,
        headers: &HeaderMap,
        peer: Peer,
    ) -> Result<String, Problem> {
        if self.certified && peer.certified {
            return Ok("certificate".to_owned());
        }
        let presented = bearer(headers).ok_or_else(|| unauthorized("Send \"Authorization: Bearer TOKEN\"."))?;
        // A token that nobody can guess is not kept out by what others at its address get wrong.
        if let Some(credential) = self.find(presented) {
            return Ok(credential);
        }
        if let Some(seconds) = failures.wait(peer.ip) {
            return Err(Problem::too_many(seconds));
        }
        failures.count(peer.ip);
        tracing::warn!(from = %peer.ip, "a sidecar with a token that is not known");
        Err(unauthorized("The token is not accepted."))
    }

    /// Whether somebody may sync by this token. Counts nothing.
    pub(in crate::control) fn knows(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|presented| self.find(presented).is_some())
    }

    /// Looks at every token, so that time tells nothing of which was nearly right.
    fn find(&self, presented: &[u8]) -> Option<String> {
        let digest = audit::hex_of(presented);
        let same = |token: &Token| bool::from(token.digest.as_bytes().ct_eq(digest.as_bytes()));
        (self.tokens.iter().filter(|token| same(token)).count() > 0).then(|| format!("token:{}", &digest[..16]))
    }

    /// The lines of a revision.
    pub(super) fn lines(&self, revision: &Arc<Revision>) -> Bytes {
        let known = |written: &Written| written.revision == revision.revision && written.digest == revision.digest;
        let mut kept = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(written) = kept.iter().rev().find(|written| known(written)) {
            return written.lines.clone();
        }
        // Under the lock: fifty streams ask for the same in one moment, and one of them writes it.
        let lines = Bytes::from(wire::lines(revision));
        kept.push_back(Written { revision: revision.revision, digest: revision.digest.clone(), lines: lines.clone() });
        while kept.len() > WRITTEN {
            kept.pop_front();
        }
        lines
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, token) = field.as_bytes().split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

fn unauthorized(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
}
