//! The first operator: set up once, by whoever was shown the link at the first start.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{
    super::{
        answer::Problem,
        audit,
        desk::Desk,
        front::Peer,
        ledger::{Draft, Image},
        store::{AccountChange, Operator, Role},
    },
    Begun, NAME_RULE, actor, begin, hash_password, name_is_good,
};
use crate::keys::secret::Secret;

/// Whether nobody has set themselves up yet.
pub fn open(desk: &Desk) -> bool {
    desk.ledger.read(|image| !somebody(image))
}

/// Sets up the first operator, an admin, and signs them in. The link works once.
///
/// # Errors
///
/// The link is not the newest one or was used; or the name or the password will not do, and then it can be used again.
pub async fn set_up(
    desk: &Arc<Desk>,
    peer: Peer,
    headers: &HeaderMap,
    token: &str,
    name: &str,
    password: Secret,
) -> Result<Begun, Problem> {
    if !open(desk) {
        return Err(used());
    }
    if !name_is_good(name) {
        return Err(Problem::invalid("name", NAME_RULE));
    }
    if let Some(seconds) = desk.failures.wait(peer.ip) {
        return Err(Problem::too_many(seconds));
    }
    let hash = hash_password(desk, name, password).await?;
    let digest = audit::hex(token);
    let store = Arc::clone(desk.ledger.store());
    let take = digest.clone();
    if !desk.ledger.run(async move { store.take_setup(&take).await }).await? {
        desk.failures.count(peer.ip);
        tracing::warn!(client.address = %peer.ip, "somebody came with a set-up link that is not in force");
        return Err(used());
    }
    let first = name.to_owned();
    let written = desk.ledger.write(actor(peer, name), move |image, now| {
        if somebody(image) {
            return Err(used());
        }
        // One with tokens alone, which would become an admin's; nobody here may say that they should.
        if image.operators().contains_key(&first) {
            let message = "There is an operator of this name already, for programs: choose another name.";
            return Err(Problem::invalid("name", message));
        }
        let operator = Operator {
            name: first.clone(),
            role: Role::Admin,
            password: Some(hash.clone()),
            created_at: now,
            tokens: Vec::new(),
        };
        let draft = Draft {
            action: "operator.setup",
            subject: first.clone(),
            detail: json!({ "role": Role::Admin.as_str() }),
            accounts: vec![AccountChange::Operator(operator.clone())],
            ..Draft::default()
        };
        Ok((Some(draft), operator))
    });
    match written.await {
        Ok(written) => begin(desk, peer, headers, &written.said).await,
        Err(error) => {
            // The link did nothing: it goes on to be good. Where that fails too, the next start shows a new one.
            let store = Arc::clone(desk.ledger.store());
            let restored = desk.ledger.run(async move { store.set_setup(&digest).await }).await;
            if let Err(error) = restored {
                tracing::warn!(%error, "the set-up link is void: start the control plane again for a new one");
            }
            Err(error.into())
        }
    }
}

/// Whether somebody can sign in. Operators with tokens alone cannot.
fn somebody(image: &Image) -> bool {
    image.operators().values().any(|operator| operator.password.is_some())
}

fn used() -> Problem {
    Problem::new(
        StatusCode::GONE,
        "setup_used",
        "This link was used, or is not the newest one. Sign in; or, if nobody has set themselves up, start the control \
         plane again: it shows a new link.",
    )
}
