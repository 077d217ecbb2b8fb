//! Who may speak for an instance: whoever registered it, which shows by a secret of its own.
//!
//! Names of instances are seen in receipts and lists, and all sidecars may have the same token: so neither proves anything.
//! A sidecar of ours makes a secret when it starts, and sends it with each of its requests. One that sends none is bound to
//! the token that it came with, or to having a certificate.

use http::{HeaderMap, HeaderName, StatusCode};

use crate::control::{answer::Problem, audit, desk::Desk, fleet::NotRegistered, front::Peer, store::Claim};

/// The field with the secret.
const SECRET: HeaderName = HeaderName::from_static("keyside-instance-secret");
/// The field that names a predecessor and its secret, with a space between. It may be there several times.
const REPLACES: HeaderName = HeaderName::from_static("keyside-replaces");
/// How many predecessors may be named.
const MOST_REPLACED: usize = 32;
/// The shortest secret and the longest.
const SHORTEST: usize = 16;
const LONGEST: usize = 256;
/// The longest name of a sidecar.
const MOST_NAME: usize = 200;

/// The name that somebody claims, and by what.
pub(super) fn claim(headers: &HeaderMap, instance: String, credential: String) -> Result<Claim, Problem> {
    check(&instance)?;
    let mut fields = headers.get_all(SECRET).iter();
    let bound = match (fields.next(), fields.next()) {
        (None, _) => credential.clone(),
        (Some(secret), None) => bound(secret.as_bytes()).ok_or_else(odd)?,
        _ => return Err(odd()),
    };
    Ok(Claim { instance, bound, credential })
}

/// The predecessors that are named, each with what it would be bound to.
pub(super) fn replaced(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let read = |field: &http::HeaderValue| {
        let (instance, secret) = field.to_str().ok()?.split_once(' ')?;
        check(instance).ok()?;
        Some((instance.to_owned(), bound(secret.as_bytes())?))
    };
    let all: Option<Vec<_>> = headers.get_all(REPLACES).iter().take(MOST_REPLACED + 1).map(read).collect();
    all.filter(|all| all.len() <= MOST_REPLACED).ok_or_else(|| {
        let message = format!("Keyside-Replaces: expected NAME SECRET, at most {MOST_REPLACED} times.");
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
    })
}

/// What a name is bound to by a secret; none where that is no secret.
fn bound(secret: &[u8]) -> Option<String> {
    let plain = (SHORTEST..=LONGEST).contains(&secret.len()) && secret.iter().all(u8::is_ascii_graphic);
    plain.then(|| format!("secret:{}", audit::hex_of(secret)))
}

fn odd() -> Problem {
    let message = format!("Keyside-Instance-Secret: expected {SHORTEST} to {LONGEST} visible characters, once.");
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
}

/// What somebody is told who is not registered.
pub(super) fn refused(desk: &Desk, claim: &Claim, peer: Peer, why: NotRegistered) -> Problem {
    match why {
        NotRegistered::Store(error) => error.into(),
        NotRegistered::NotTheirs => not_theirs(desk, claim, peer),
        NotRegistered::TooMany => {
            tracing::error!(credential = claim.credential, from = %peer.ip, "too many sidecars came with one credential");
            let message = "Too many sidecars have come with this token or certificate. Forget those that are gone, or give \
                           this one a token of its own.";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_instances", message)
        }
    }
}

/// Somebody speaks for an instance that is bound to somebody else.
pub(super) fn not_theirs(desk: &Desk, claim: &Claim, peer: Peer) -> Problem {
    desk.feed.strangers.inc();
    tracing::warn!(
        instance = claim.instance, from = %peer.ip, credential = claim.credential,
        "somebody spoke for a sidecar that is bound to another secret or token"
    );
    let message = "This instance belongs to another sidecar: each process takes a name of its own, and sends with it the \
                   Keyside-Instance-Secret that it registered with.";
    Problem::new(StatusCode::FORBIDDEN, "instance_bound", message)
}

/// A sidecar's name ends up in answers, logs and pages.
fn check(instance: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if instance.is_empty() || instance.len() > MOST_NAME || !instance.bytes().all(plain) {
        let message = "Expected NAME.RANDOM: 1 to 200 letters, digits, \"-\", \"_\", \".\" and \":\".";
        return Err(Problem::invalid("instance", message));
    }
    Ok(())
}
