//! Browsers that an operator has signed in with: OWASP's device cookies.
//!
//! Whoever guesses at passwords from elsewhere uses up what strangers may try, and does not keep the operator out of a
//! browser of theirs: that has a count of its own. The cookie lets nobody in. It is 256 random bits, of which the store
//! keeps a digest, for one operator alone and until their password changes; so all control planes on one store know it.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;

use super::{
    super::{answer::Problem, audit, desk::Desk},
    cookie,
};
use crate::clock::{self, Wall};

/// For how long after the last sign-in a browser is known.
pub(super) const KNOWN: Duration = Duration::from_secs(180 * 86_400);

/// A browser that an operator has signed in with.
pub(super) struct Device {
    /// The cookie's value.
    pub(super) value: String,
    /// What the store knows of it.
    pub(super) digest: String,
}

/// The browser that asks, if the operator of this name has signed in with it. Looked for in the same way whether there is
/// such an operator or not.
pub(super) async fn known(desk: &Desk, headers: &HeaderMap, name: &str) -> Result<Option<Device>, Problem> {
    let Some(value) = cookie::device(&desk.settings, headers) else { return Ok(None) };
    let digest = audit::hex(&value);
    let now = clock::now().wall.unix_millis();
    let since = Wall::from_unix_millis(now.saturating_sub(i64::try_from(KNOWN.as_millis()).unwrap_or(i64::MAX)));
    let whose = {
        let (store, digest) = (Arc::clone(desk.ledger.store()), digest.clone());
        desk.ledger.run(async move { store.device(&digest, since).await }).await?
    };
    Ok(whose.filter(|whose| whose == name).map(|_| Device { value, digest }))
}
