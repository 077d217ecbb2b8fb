//! The first operator: made as the configuration says, or by whoever opens the link that is printed once.

use std::sync::Arc;

use super::{
    audit,
    desk::Desk,
    ledger::{Actor, Draft, WriteError},
    plane::StartError,
    store::{AccountChange, Operator, Role, Token},
};
use crate::{
    clock::Wall,
    keys::{
        mint,
        secret::{Algorithm, Secret, SecretHash},
    },
};

/// Makes the first operator. Gives the path of the set-up link, where one has to be opened by hand.
///
/// # Errors
///
/// The store failed, or the operating system gave no random bytes.
pub async fn prepare(desk: &Arc<Desk>) -> Result<Option<String>, StartError> {
    if desk.ledger.read(|image| image.operators().values().any(|operator| operator.password.is_some())) {
        return Ok(None);
    }
    let told = &desk.settings.setup;
    if told.password.is_some() || told.token.is_some() {
        make(desk, told.operator.clone(), told.password.clone(), told.token.clone()).await?;
    }
    if told.password.is_some() || !desk.settings.pages.enabled {
        return Ok(None);
    }
    let token = mint::random_token("").map_err(|error| StartError::Setup(error.to_string()))?;
    let store = Arc::clone(desk.ledger.store());
    store.set_setup(&audit::hex(&token)).await?;
    Ok(Some(format!("/setup?token={token}")))
}

/// Makes the operator that the configuration names, an admin.
async fn make(
    desk: &Arc<Desk>,
    name: String,
    password: Option<Secret>,
    token: Option<Secret>,
) -> Result<(), StartError> {
    let hash = match password {
        None => None,
        Some(password) => {
            let hashed = tokio::task::spawn_blocking(move || SecretHash::make(Algorithm::Argon2id, &password, None));
            let hashed = hashed.await.map_err(|error| StartError::Setup(error.to_string()))?;
            Some(hashed.map_err(|error| StartError::Setup(error.to_string()))?.as_phc().to_owned())
        }
    };
    let token = token.map(|token| audit::hex(&String::from_utf8_lossy(token.expose())));
    let actor = Actor { name: "system".to_owned(), from: None };
    let judge = move |image: &super::ledger::Image, now: Wall| {
        let mut operator = image.operators().get(&name).cloned().unwrap_or_else(|| Operator {
            name: name.clone(),
            role: Role::Admin,
            password: None,
            created_at: now,
            tokens: Vec::new(),
        });
        let before = operator.clone();
        operator.password = operator.password.or_else(|| hash.clone());
        if let Some(digest) = &token
            && !operator.tokens.iter().any(|token| token.digest == *digest)
        {
            operator.tokens.retain(|token| token.id != "tok_setup");
            operator.tokens.push(Token {
                id: "tok_setup".to_owned(),
                name: "from the configuration".to_owned(),
                digest: digest.clone(),
                created_at: now,
                expires_at: None,
            });
        }
        if operator == before {
            return Ok((None, ()));
        }
        let draft = Draft {
            action: "operator.create",
            subject: operator.name.clone(),
            detail: serde_json::json!({ "role": operator.role.as_str(), "by": "configuration" }),
            accounts: vec![AccountChange::Operator(operator)],
            ..Draft::default()
        };
        Ok::<_, std::convert::Infallible>((Some(draft), ()))
    };
    match desk.ledger.write(actor, judge).await {
        Ok(_) => Ok(()),
        Err(WriteError::Store(error)) => Err(error.into()),
        Err(WriteError::Refused(never)) => match never {},
    }
}
