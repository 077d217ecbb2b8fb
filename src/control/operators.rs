//! What can be done with operators and their tokens: admins do it.

use std::sync::Arc;

use serde_json::json;
use zeroize::Zeroize as _;

use super::{
    answer::Problem,
    audit,
    caller::{Caller, TOKEN_PREFIX},
    desk::Desk,
    keys::name,
    ledger::{Draft, Image},
    session,
    store::{AccountChange, Operator, Role, Token},
};
use crate::{
    clock::{self, Wall},
    keys::{mint, moments::expiry, secret::Secret},
};

/// The most tokens of one operator.
const TOKENS: usize = 100;

/// What is to be changed of an operator; what is not named stays.
#[derive(Clone, Debug, Default)]
pub struct OperatorChange {
    /// What they may do.
    pub role: Option<Role>,
    /// A new password; none inside: they have tokens alone.
    pub password: Option<Option<Secret>>,
}

/// A token that was made.
#[derive(Clone, Debug)]
pub struct MadeToken {
    /// What is kept of it.
    pub token: Token,
    /// The token itself, which is shown once.
    pub secret: Secret,
}

/// Lists the operators.
///
/// # Errors
///
/// The caller may not.
pub fn list(desk: &Desk, caller: &Caller) -> Result<Vec<Operator>, Problem> {
    let now = clock::now().wall;
    desk.ledger.read(|image| {
        caller.stands(image, now)?.needs(Role::Admin)?;
        Ok(image.operators().values().cloned().collect())
    })
}

/// Shows an operator: an admin sees all, and everybody themselves.
///
/// # Errors
///
/// There is none, or the caller may not.
pub fn show(desk: &Desk, caller: &Caller, name: &str) -> Result<Operator, Problem> {
    let own = caller.operator_name(desk).is_some_and(|own| own == name);
    let now = clock::now().wall;
    desk.ledger.read(|image| {
        let power = caller.stands(image, now)?;
        power.needs(if own { Role::Viewer } else { Role::Admin })?;
        find(image, name).cloned()
    })
}

/// Adds an operator; without a password, one that has tokens alone.
///
/// # Errors
///
/// There is one of this name, the password is too weak, the caller may not, or the store failed.
pub async fn create(
    desk: &Arc<Desk>,
    caller: &Caller,
    new_name: &str,
    role: Role,
    password: Option<Secret>,
) -> Result<Operator, Problem> {
    caller.needs(Role::Admin)?;
    if !session::name_is_good(new_name) {
        return Err(Problem::invalid("name", session::NAME_RULE));
    }
    let password = match password {
        Some(password) => Some(session::hash_password(desk, new_name, password).await?),
        None => None,
    };
    let (then, new_name) = (caller.clone(), new_name.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Admin)?;
        if image.operators().contains_key(&new_name) {
            return Err(Problem::conflict("exists", format!("There is an operator {new_name} already.")));
        }
        let (name, password) = (new_name.clone(), password.clone());
        let operator = Operator { name, role, password, created_at: now, tokens: Vec::new() };
        let detail = json!({ "role": role.as_str(), "password": operator.password.is_some() });
        Ok((Some(draft("operator.create", &operator.name, detail, operator.clone())), operator))
    };
    Ok(desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?.said)
}

/// Changes an operator's role or password; their sessions end.
///
/// Operators who signed in change their own password by themselves; that they know the old one is for the caller to ask.
///
/// # Errors
///
/// There is none, they are the last admin, the caller may not, or the store failed.
pub async fn change(
    desk: &Arc<Desk>,
    caller: &Caller,
    name: &str,
    change: OperatorChange,
) -> Result<Operator, Problem> {
    let OperatorChange { role, password } = change;
    let own_password = role.is_none()
        && matches!(password, Some(Some(_)))
        && caller.actor.name.strip_prefix("operator:") == Some(name);
    let needed = if own_password { Role::Viewer } else { Role::Admin };
    caller.needs(needed)?;
    let password = match password {
        Some(Some(password)) => Some(Some(session::hash_password(desk, name, password).await?)),
        Some(None) => Some(None),
        None => None,
    };
    let (then, name) = (caller.clone(), name.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(needed)?;
        let old = find(image, &name)?;
        let mut operator = old.clone();
        operator.role = role.unwrap_or(operator.role);
        operator.password = password.clone().unwrap_or(operator.password);
        if operator == *old {
            return Ok((None, operator));
        }
        if old.role == Role::Admin && operator.role != Role::Admin {
            not_the_last(image, &name)?;
        }
        let mut detail = json!({});
        if operator.role != old.role {
            detail["role"] = json!({ "before": old.role.as_str(), "after": operator.role.as_str() });
        }
        if operator.password != old.password {
            detail["password"] = if operator.password.is_some() { "changed" } else { "removed" }.into();
        }
        Ok((Some(draft("operator.change", &name, detail, operator.clone())), operator))
    };
    Ok(desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?.said)
}

/// Removes an operator, with tokens and sessions.
///
/// # Errors
///
/// There is none, they are the last admin, the caller may not, or the store failed.
pub async fn delete(desk: &Arc<Desk>, caller: &Caller, name: &str) -> Result<(), Problem> {
    caller.needs(Role::Admin)?;
    let (then, name) = (caller.clone(), name.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Admin)?;
        let operator = find(image, &name)?;
        if operator.role == Role::Admin {
            not_the_last(image, &name)?;
        }
        let draft = Draft {
            action: "operator.delete",
            subject: name.clone(),
            detail: json!({ "role": operator.role.as_str() }),
            accounts: vec![AccountChange::DeletedOperator(name.clone())],
            ..Draft::default()
        };
        Ok((Some(draft), ()))
    };
    desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(())
}

/// Makes a token for an operator: 256 random bits, of which a digest is kept.
///
/// # Errors
///
/// There is no such operator, they have too many, the caller may not, or the store failed.
pub async fn create_token(
    desk: &Arc<Desk>,
    caller: &Caller,
    operator: &str,
    token_name: &str,
    expires_at: Option<&str>,
) -> Result<MadeToken, Problem> {
    caller.needs(Role::Admin)?;
    let token_name = name("name", token_name)?;
    let wrong = |why: &str| Problem::invalid("expires_at", format!("`expires_at`: {why}."));
    let expiry = expires_at.map(|text| expiry(text).map_err(|why| wrong(&why))).transpose()?;
    let failed = |error: mint::MintError| {
        tracing::error!(%error, "a token could not be made");
        Problem::new(http::StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The token could not be made.")
    };
    let mut text = mint::random_token(TOKEN_PREFIX).map_err(failed)?;
    let (digest, secret) = (audit::hex(&text), Secret::new(text.as_bytes()));
    text.zeroize();
    let id = mint::key_id(clock::now().wall).map_err(failed)?.as_str().replacen("key_", "tok_", 1);
    let (then, holder) = (caller.clone(), operator.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Admin)?;
        let mut operator = find(image, &holder)?.clone();
        operator.tokens.retain(|token| token.expires_at.is_none_or(|at| at > now));
        if operator.tokens.len() >= TOKENS {
            return Err(Problem::conflict("too_many", format!("{holder} has {TOKENS} tokens: remove one first.")));
        }
        let expires_at = match expiry {
            Some(expiry) => Some(expiry.from(now).ok_or_else(|| wrong("it lies in the past"))?),
            None => None,
        };
        let token =
            Token { id: id.clone(), name: token_name.to_string(), digest: digest.clone(), created_at: now, expires_at };
        let at = expires_at.map(|at| at.to_string());
        let detail = json!({ "token": token.id, "name": token.name, "expires_at": at });
        operator.tokens.push(token.clone());
        Ok((Some(draft("operator.token.create", &holder, detail, operator)), token))
    };
    let token = desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?.said;
    Ok(MadeToken { token, secret })
}

/// Removes a token.
///
/// # Errors
///
/// There is none, the caller may not, or the store failed.
pub async fn delete_token(desk: &Arc<Desk>, caller: &Caller, operator: &str, id: &str) -> Result<(), Problem> {
    caller.needs(Role::Admin)?;
    let (then, holder, id) = (caller.clone(), operator.to_owned(), id.to_owned());
    let judge = move |image: &Image, now: Wall| {
        then.stands(image, now)?.needs(Role::Admin)?;
        let mut operator = find(image, &holder)?.clone();
        let Some(index) = operator.tokens.iter().position(|token| token.id == id) else {
            return Err(Problem::not_found("token"));
        };
        let token = operator.tokens.remove(index);
        let detail = json!({ "token": token.id, "name": token.name });
        Ok((Some(draft("operator.token.delete", &holder, detail, operator)), ()))
    };
    desk.ledger.write(caller.actor.clone(), judge).await.map_err(Problem::from)?;
    Ok(())
}

fn draft(action: &'static str, subject: &str, detail: serde_json::Value, operator: Operator) -> Draft {
    let accounts = vec![AccountChange::Operator(operator)];
    Draft { action, subject: subject.to_owned(), detail, accounts, ..Draft::default() }
}

fn find<'a>(image: &'a Image, name: &str) -> Result<&'a Operator, Problem> {
    image.operators().get(name).ok_or_else(|| Problem::not_found("operator"))
}

/// Somebody must be able to say who the operators are.
fn not_the_last(image: &Image, name: &str) -> Result<(), Problem> {
    let other = image.operators().values().any(|other| other.role == Role::Admin && other.name != name);
    let message = "This is the last admin: make somebody else one first.";
    if other { Ok(()) } else { Err(Problem::conflict("last_admin", message)) }
}
