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
    Begun, NAME_RULE, actor, begin, hash_password, name_is_good, password,
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
    password::judge(name, &password)?;
    // Before the password is hashed: whoever has no link makes nobody wait.
    let digest = audit::hex(token);
    let store = Arc::clone(desk.ledger.store());
    let take = digest.clone();
    // Once it is taken this goes on to its end, also where nobody waits for the answer: else the link would be lost.
    let (own, first) = (Arc::clone(desk), name.to_owned());
    let setting_up = tokio::spawn(async move {
        if !own.ledger.run(async move { store.take_setup(&take).await }).await? {
            own.failures.count(peer.ip);
            tracing::warn!(client.address = %peer.ip, "somebody came with a set-up link that is not in force");
            return Err(used());
        }
        let made = make(&own, peer, first, password).await;
        if made.is_err() {
            // The link did nothing: it goes on to be good. Where that fails too, the next start shows a new one.
            let store = Arc::clone(own.ledger.store());
            let restored = own.ledger.run(async move { store.set_setup(&digest).await }).await;
            if let Err(error) = restored {
                tracing::warn!(%error, "the set-up link is void: start the control plane again for a new one");
            }
        }
        made
    });
    let operator = setting_up.await.map_err(|_| ended())??;
    begin(desk, peer, headers, &operator).await
}

/// Writes down the first operator.
async fn make(desk: &Arc<Desk>, peer: Peer, name: String, password: Secret) -> Result<Operator, Problem> {
    let hash = hash_password(desk, &name, password).await?;
    let written = desk.ledger.write(actor(peer, &name), move |image, now| {
        if somebody(image) {
            return Err(used());
        }
        // One with tokens alone, which would become an admin's; nobody here may say that they should.
        if image.operators().contains_key(&name) {
            let message = "There is an operator of this name already, for programs: choose another name.";
            return Err(Problem::invalid("name", message));
        }
        let operator = Operator {
            name: name.clone(),
            role: Role::Admin,
            password: Some(hash.clone()),
            created_at: now,
            tokens: Vec::new(),
        };
        let draft = Draft {
            action: "operator.setup",
            subject: name.clone(),
            detail: json!({ "role": Role::Admin.as_str() }),
            accounts: vec![AccountChange::Operator(operator.clone())],
            ..Draft::default()
        };
        Ok((Some(draft), operator))
    });
    Ok(written.await?.said)
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

fn ended() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Something went wrong. Try again.")
}
