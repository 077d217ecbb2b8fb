//! The management API, for programs: `/v1/…`.
//!
//! | file | holds |
//! |---|---|
//! | [`list`] | THE LIST of endpoints: the routes, the document and the tests read it |
//! | [`document`] | the OpenAPI document |
//! | [`body`] | reading what is sent, strictly |
//! | [`view`], `shown` | what is answered |
//! | `keys`, `owners`, `operators`, `watch` | the handlers, one a line of the list |

pub mod body;
pub mod document;
mod keys;
pub mod list;
mod operators;
mod owners;
mod shown;
#[cfg(test)]
mod tests;
pub mod view;
mod watch;

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, MatchedPath, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderValue, Method, header, request::Parts};
use prometheus::{IntCounterVec, Opts};

use super::{
    answer::Problem,
    caller::{self, Caller},
    desk::Desk,
    front::Peer,
    session,
};

/// The field by which a page of ours says that it sent the request.
const CSRF: &str = "x-csrf-token";

/// All paths of the API.
pub fn routes(desk: &Desk) -> Router<Arc<Desk>> {
    let counted = desk.metrics.add(IntCounterVec::new(
        Opts::new("keyside_control_requests_total", "Requests to the management API, by route and status"),
        &["method", "route", "status"],
    ));
    let mut routes = Router::new();
    for endpoint in list::all() {
        routes = routes.route(endpoint.path, endpoint.handler);
    }
    let document = document::text();
    let answer = move || {
        let document = document.clone();
        async move { ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document) }
    };
    routes
        .route("/v1/openapi.json", get(answer.clone()))
        .route("/openapi.json", get(answer))
        .route_layer(middleware::from_fn(move |request, next| count(counted.clone(), request, next)))
}

async fn count(counted: IntCounterVec, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = match request.method() {
        &Method::GET | &Method::HEAD => "GET",
        &Method::POST => "POST",
        &Method::PATCH => "PATCH",
        &Method::DELETE => "DELETE",
        _ => "other",
    };
    let response = next.run(request).await;
    let route = route.as_ref().map_or("", |route| route.as_str());
    counted.with_label_values(&[method, route, response.status().as_str()]).inc();
    response
}

/// Who asks: by `Authorization`, or by the session of a browser. Whoever asks by neither gets no answer.
impl FromRequestParts<Arc<Desk>> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Response> {
        find(parts, desk).await.map_err(IntoResponse::into_response)
    }
}

async fn find(parts: &Parts, desk: &Arc<Desk>) -> Result<Caller, Problem> {
    // What nobody can vouch for any more is not shown.
    desk.ledger.usable()?;
    let peer = *parts.extensions.get::<Peer>().ok_or_else(Problem::unauthorized)?;
    if let Some(found) = caller::by_authorization(desk, &parts.headers, peer) {
        return found;
    }
    let who = session::find(desk, &parts.headers).await?.ok_or_else(Problem::unauthorized)?;
    if !parts.method.is_safe() {
        let sent = parts.headers.get(CSRF).and_then(|value| value.to_str().ok()).unwrap_or_default();
        session::check_form(desk, peer, &parts.headers, &who, sent)?;
    }
    Ok(Caller::operator(&who.operator, Some(peer.ip)))
}
