//! The admin pages: made by the server, complete without a script, and with no door to keys, owners and operators but the
//! operations that the API has too.
//!
//! | file | holds |
//! |---|---|
//! | `visit` | who looks at a page or sends a form; every form is checked before its handler runs |
//! | `form` | what was typed, and what is wrong with it |
//! | `page` | what all pages have, and the fields that all answers carry |
//! | `words` | moments, hints and small drawings, for people |
//! | `keys` | the list, minting, one key and what can be done with it |
//!
//! A GET changes nothing. A secret is in one answer, to the form that made it, and in no address.

mod account;
mod assets;
mod audit;
mod form;
mod keys;
mod operators;
mod owners;
mod page;
mod sidecars;
mod sign_in;
mod visit;
mod words;

use std::sync::Arc;

use axum::{
    Router,
    middleware::map_response,
    routing::{get, post},
};

use super::desk::Desk;

/// THE LIST of pages.
pub fn routes() -> Router<Arc<Desk>> {
    Router::new()
        .route("/", get(sign_in::home))
        .route("/sign-in", get(sign_in::show).post(sign_in::send))
        .route("/sign-out", post(sign_in::out))
        .route("/setup", get(sign_in::show_setup).post(sign_in::send_setup))
        .route("/keys", get(keys::list::show))
        .route("/keys.csv", get(keys::csv::show))
        .route("/keys/new", get(keys::mint::show).post(keys::mint::send))
        .route("/keys/sentence", post(keys::mint::sentence))
        .route("/keys/{id}", get(keys::detail::show))
        .route("/keys/{id}/first-use", get(keys::detail::first_use))
        .route("/keys/{id}/change", get(keys::change::show).post(keys::change::send))
        .route("/keys/{id}/rotate", get(keys::rotate::show).post(keys::rotate::send))
        .route("/keys/{id}/revoke", get(keys::end::show_revoke).post(keys::end::send_revoke))
        .route("/keys/{id}/delete", get(keys::end::show_delete).post(keys::end::send_delete))
        .route("/receipts/{revision}", get(keys::end::receipt))
        .route("/owners", get(owners::list))
        .route("/owners/new", get(owners::show_new).post(owners::send_new))
        .route("/owner", get(owners::show).post(owners::send))
        .route("/sidecars", get(sidecars::show).post(sidecars::forget))
        .route("/audit", get(audit::show))
        .route("/operators", get(operators::list))
        .route("/operators/new", get(operators::show_new).post(operators::send_new))
        .route("/operators/{name}", get(operators::show).post(operators::send))
        .route("/account", get(account::show).post(account::send))
        .route("/assets/{name}", get(assets::show))
        .layer(map_response(page::protect))
}

pub use page::missing;
