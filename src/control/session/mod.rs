//! Who is signed in to the admin pages: sessions, passwords, the first set-up, and whether a form was sent by our own page.
//!
//! A session is 256 random bits in a cookie; the store knows its SHA-256 alone. It begins anew at each sign-in, so that
//! nobody can plant one, and ends in the store: when it was not used for a while, after a time whatever its use, at
//! sign-out, and when the operator, their role or their password changes.
//!
//! Guesses are counted for strangers by address and by account, and apart from them for each browser that the operator has
//! signed in with. Of several control planes on one store, all know sessions and browsers; the counts are each one's own.

mod cookie;
mod device;
mod origin;
mod password;
mod setup;
#[cfg(test)]
mod tests;
mod throttle;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

pub use self::{
    cookie::{form_cookie, form_token},
    password::{NAME_RULE, Passwords, name_is_good},
    setup::{open as setup_is_open, set_up},
};
use self::{
    origin::same_origin,
    password::{Verdict, Whose},
    throttle::Throttle,
};
use super::{
    answer::Problem,
    audit,
    desk::Desk,
    front::Peer,
    ledger::{Actor, Draft},
    store::{AccountChange, Operator, Session, StoreError},
};
use crate::{
    clock::{self, Now, Wall},
    keys::secret::Secret,
};

/// How long before a session's last use is noted again, as a part of the time after which it would end.
const NOTE_AFTER: i64 = 20;

/// What sign-in keeps in memory.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Hashes and checks passwords, a few at a time.
    pub passwords: Arc<Passwords>,
    throttle: Throttle,
}

/// Who is signed in.
#[derive(Clone)]
pub struct SignedIn {
    /// The operator, as they are now.
    pub operator: Operator,
    /// The secret that their forms carry.
    pub csrf: String,
    /// Names the session in the store.
    pub digest: String,
}

/// Shows nothing that would let anybody in.
impl std::fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedIn").field("operator", &self.operator).finish_non_exhaustive()
    }
}

/// A session has begun: the cookies that the answer sets.
#[derive(Debug)]
pub struct Begun(pub Vec<HeaderValue>);

/// Who is signed in, if anybody is. A store that cannot be read lets nobody in.
pub async fn signed_in(desk: &Desk, headers: &HeaderMap) -> Option<SignedIn> {
    find(desk, headers).await.ok().flatten()
}

/// Who is signed in.
///
/// # Errors
///
/// The store cannot be read.
pub async fn find(desk: &Desk, headers: &HeaderMap) -> Result<Option<SignedIn>, Problem> {
    find_at(desk, headers, clock::now().wall).await
}

async fn find_at(desk: &Desk, headers: &HeaderMap, now: Wall) -> Result<Option<SignedIn>, Problem> {
    let Some(value) = cookie::session(&desk.settings, headers) else { return Ok(None) };
    let digest = audit::hex(&value);
    let found = {
        let (store, digest) = (Arc::clone(desk.ledger.store()), digest.clone());
        desk.ledger.run(async move { store.session(&digest).await }).await?
    };
    let Some(session) = found else { return Ok(None) };
    let operator = desk.ledger.read(|image| image.operators().get(&session.operator).cloned());
    let pages = &desk.settings.pages;
    let over = now >= session.seen_at.plus(pages.session_idle) || now >= session.created_at.plus(pages.session_max);
    let Some(operator) = operator.filter(|operator| !over && operator.password.is_some()) else {
        end_in_store(desk, digest).await?;
        return Ok(None);
    };
    let idle = i64::try_from(pages.session_idle.as_millis()).unwrap_or(i64::MAX);
    if now.unix_millis().saturating_sub(session.seen_at.unix_millis()) >= idle / NOTE_AFTER {
        let (store, digest) = (Arc::clone(desk.ledger.store()), digest.clone());
        desk.ledger.run(async move { store.see_session(&digest, now).await }).await?;
    }
    Ok(Some(SignedIn { operator, csrf: session.csrf, digest }))
}

/// Refuses a form that does not come from our own page of this very session. To be called before anything is done.
///
/// # Errors
///
/// It was sent by another site, or without the session's secret.
pub fn check_form(desk: &Desk, peer: Peer, headers: &HeaderMap, who: &SignedIn, sent: &str) -> Result<(), Problem> {
    same_origin(desk.settings.public_url.as_deref(), peer, headers)?;
    if bool::from(who.csrf.as_bytes().ct_eq(sent.as_bytes())) { Ok(()) } else { Err(stale()) }
}

/// The same for a form that is sent by somebody who is not signed in yet.
///
/// # Errors
///
/// It was sent by another site, or without the secret of the page.
pub fn check_first_form(desk: &Desk, peer: Peer, headers: &HeaderMap, sent: &str) -> Result<(), Problem> {
    same_origin(desk.settings.public_url.as_deref(), peer, headers)?;
    let expected = cookie::form(&desk.settings, headers).map(|value| form_token(&value)).ok_or_else(stale)?;
    if bool::from(expected.as_bytes().ct_eq(sent.as_bytes())) { Ok(()) } else { Err(stale()) }
}

fn stale() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "stale_form",
        "This form is too old, or did not come from this page: nothing was done. Load the page again, and send it once more.",
    )
}

/// Lets an operator in who knows the password. The session of this browser that there was ends.
///
/// # Errors
///
/// The name or the password is wrong, and it is not said which; or there were too many attempts.
pub async fn sign_in(
    desk: &Arc<Desk>,
    peer: Peer,
    headers: &HeaderMap,
    name: &str,
    password: Secret,
) -> Result<Begun, Problem> {
    let operator = checked(desk, peer, headers, name, password, Whose::Strangers, clock::now()).await?;
    // Should the entry fail, nobody was told the cookie of the session.
    let begun = begin(desk, peer, headers, &operator).await?;
    note(desk, peer, &operator.name, "session.begin", Value::Null).await?;
    Ok(begun)
}

/// The operator of this name, if this is the password. Takes as long when there is no such operator. `whose` is what is
/// known of who asks, but for their browser.
async fn checked(
    desk: &Desk,
    peer: Peer,
    headers: &HeaderMap,
    name: &str,
    password: Secret,
    whose: Whose,
    now: Now,
) -> Result<Operator, Problem> {
    let wrong = || Problem::new(StatusCode::UNAUTHORIZED, "wrong_password", "The name or the password is wrong.");
    // Taken before the password is looked at, so that attempts at the same time count.
    let device = device::known(desk, headers, name).await?.map(|device| device.digest);
    let attempt = desk.sessions.throttle.take(peer.ip, name, device, now.mono).map_err(too_many)?;
    let before = desk.ledger.read(|image| image.operators().get(name).cloned());
    let known = before.is_some();
    let stored = before.as_ref().and_then(|operator| operator.password.clone());
    let passwords = Arc::clone(&desk.sessions.passwords);
    let whose = if attempt.is_known() { Whose::Known } else { whose };
    let verdict = desk.ledger.run(async move { Ok(passwords.check(whose, stored, password).await) }).await?;
    match (verdict, before) {
        (Verdict::Right, Some(before)) => {
            // While it was checked, the operator may have been removed, or may have got another password.
            let operator = desk.ledger.read(|image| image.operators().get(name).cloned());
            let operator = operator.filter(|operator| operator.password == before.password).ok_or_else(wrong)?;
            desk.sessions.throttle.give_back(&attempt);
            Ok(operator)
        }
        (Verdict::Busy, _) => {
            desk.sessions.throttle.give_back_unchecked(&attempt);
            Err(busy())
        }
        _ => {
            // The name itself is not logged: people type passwords there.
            tracing::warn!(client.address = %peer.ip, known, "sign-in refused");
            Err(wrong())
        }
    }
}

fn busy() -> Problem {
    let message = "Too many passwords are being checked at the moment. Try again.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message)
}

fn too_many(wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let (minutes, rest) = (seconds / 60, seconds % 60);
    let message = format!(
        "Too many attempts. Try again in {minutes} min {rest} s, or now from a browser that you have signed in with before."
    );
    let refusal = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", message);
    Problem { retry_after: Some(seconds), ..refusal }
}

/// Begins a session of this operator, as they were when their password was checked, and ends the one that this browser had.
async fn begin(desk: &Desk, peer: Peer, headers: &HeaderMap, checked: &Operator) -> Result<Begun, Problem> {
    let (value, csrf) = (random()?, random()?);
    let now = clock::now().wall;
    let operator = checked.name.clone();
    let session = Session { digest: audit::hex(&value), operator, csrf, created_at: now, seen_at: now };
    let old = cookie::session(&desk.settings, headers).map(|old| audit::hex(&old));
    // One that somebody else planted, or that was theirs under another password, is not taken over.
    let device = match device::known(desk, headers, &checked.name).await? {
        Some(known) => known.value,
        None => random()?,
    };
    let digest = audit::hex(&device);
    let (store, checked) = (Arc::clone(desk.ledger.store()), checked.clone());
    let begin = async move {
        if let Some(old) = old {
            store.end_session(&old).await?;
        }
        store.add_session(&session, &checked, &digest).await
    };
    desk.ledger.run(begin).await.map_err(|error| match error {
        StoreError::Conflict => changed_meanwhile(),
        error => error.into(),
    })?;
    Ok(Begun(cookie::begin(&desk.settings, peer, &value, &device)))
}

/// The answer to whoever knew the password until just now.
fn changed_meanwhile() -> Problem {
    Problem::conflict("changed_meanwhile", "Your account was changed meanwhile: nothing was done. Sign in again.")
}

/// Ends a session: in the store, and in the browser.
///
/// # Errors
///
/// The store cannot be written.
pub async fn sign_out(desk: &Arc<Desk>, peer: Peer, who: &SignedIn) -> Result<Vec<HeaderValue>, Problem> {
    end_in_store(desk, who.digest.clone()).await?;
    note(desk, peer, &who.operator.name, "session.end", Value::Null).await?;
    Ok(cookie::end(&desk.settings, peer))
}

async fn end_in_store(desk: &Desk, digest: String) -> Result<(), StoreError> {
    let store = Arc::clone(desk.ledger.store());
    desk.ledger.run(async move { store.end_session(&digest).await }).await
}

/// Gives an operator another password. All their sessions end, and this browser gets a new one.
///
/// # Errors
///
/// The current password is wrong, or the new one is too weak.
pub async fn change_password(
    desk: &Arc<Desk>,
    peer: Peer,
    headers: &HeaderMap,
    who: &SignedIn,
    current: Secret,
    new: Secret,
) -> Result<Begun, Problem> {
    let name = who.operator.name.clone();
    let before = checked(desk, peer, headers, &name, current, Whose::Known, clock::now());
    let before = before.await.map_err(|problem| match problem.status {
        StatusCode::UNAUTHORIZED => Problem::invalid("current", "This is not your password."),
        _ => problem,
    })?;
    let hash = hash_password(desk, &name, new).await?;
    let actor = actor(peer, &name);
    let subject = name.clone();
    let changed = desk.ledger.write(actor, move |image, _| {
        let now = image.operators().get(&subject).filter(|now| now.password == before.password);
        let now = now.ok_or_else(changed_meanwhile)?;
        let operator = Operator { password: Some(hash.clone()), ..now.clone() };
        let draft = Draft {
            action: "operator.password",
            subject: subject.clone(),
            detail: json!({}),
            accounts: vec![AccountChange::Operator(operator.clone())],
            ..Draft::default()
        };
        Ok((Some(draft), operator))
    });
    let operator = changed.await?.said;
    begin(desk, peer, headers, &operator).await
}

/// The hash of a new password, if it is a good one.
///
/// # Errors
///
/// It is too weak, or too many are being hashed.
pub async fn hash_password(desk: &Desk, name: &str, password: Secret) -> Result<String, Problem> {
    password::judge(name, &password)?;
    let passwords = Arc::clone(&desk.sessions.passwords);
    let hash = desk.ledger.run(async move { Ok(passwords.hash(password).await) }).await?;
    hash.ok_or_else(busy)
}

fn actor(peer: Peer, name: &str) -> Actor {
    Actor { name: format!("operator:{name}"), from: Some(peer.ip) }
}

/// Adds an audit entry that changes nothing else.
async fn note(desk: &Arc<Desk>, peer: Peer, name: &str, action: &'static str, detail: Value) -> Result<(), Problem> {
    let subject = name.to_owned();
    let noted = desk.ledger.write(actor(peer, name), move |_, _| {
        Ok::<_, Problem>((
            Some(Draft { action, subject: subject.clone(), detail: detail.clone(), ..Draft::default() }),
            (),
        ))
    });
    noted.await?;
    Ok(())
}

/// 256 random bits, in hexadecimal.
pub(super) fn random() -> Result<String, Problem> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The operating system gave no random bytes.")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
