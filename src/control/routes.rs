//! THE LIST: every path of the control plane, and the room that answers it.
//!
//! | path | room |
//! |---|---|
//! | `/v1/…` | `api`: the management API, for programs |
//! | `/sync/v1/…` | `feed`: what sidecars sync from |
//! | all else | `ui`: the admin pages, for people |

use std::sync::Arc;

use axum::Router;
use http::StatusCode;

use super::{answer::Problem, api, desk::Desk, feed, ui};

/// All routes.
pub fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .merge(api::routes(&desk))
        .merge(feed::routes())
        .merge(ui::routes())
        .fallback(ui::missing)
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not accepted here.")
        })
        .with_state(desk)
}
