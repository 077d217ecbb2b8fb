//! The feed: what sidecars sync from, and where they report. Anyone may implement either side; what is said stands in the
//! manual.
//!
//! | path | gives |
//! |---|---|
//! | `GET /sync/v1/keys` | the whole set, one row a line; torn without its last line |
//! | `GET /sync/v1/changes` | changes as they are written, and heartbeats while the store confirms that there are no others |
//! | `POST /sync/v1/report` | takes acknowledgements and use |
//!
//! Whoever is sent anything is registered before it is read (see [`fleet`](super::fleet)), and what is read is no older
//! than that. Nobody is told that a set is the newest unless the store said so within five seconds.
//!
//! Two fields of ours, which a sidecar of somebody else need not send, say who speaks (see `instance`):
//! `Keyside-Instance-Secret: SECRET` with every request, and `Keyside-Replaces: NAME SECRET` for each process whose state
//! folder the sidecar has taken over.

mod changes;
mod gate;
mod instance;
mod report;
#[cfg(test)]
mod tests;
mod whole;

use std::{net::IpAddr, sync::Arc};

use axum::{
    Extension, Router,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

pub use self::gate::Feed;
use super::{
    answer::Problem,
    desk::Desk,
    fleet::Asker,
    front::{Peer, REPORT},
    store::Claim,
};

/// Text is handed out in pieces of at most this size, as the listener asks.
const PIECE: usize = 64 * 1024;
/// How long a sidecar that says nothing of it serves what it has.
const DEFAULT_STALE: u64 = 24 * 60 * 60;
/// The longest digest, and the longest name of an epoch.
const MOST_DIGEST: usize = 128;

/// The routes of the feed.
pub fn routes() -> Router<Arc<Desk>> {
    Router::new().route("/sync/v1/keys", get(keys)).route("/sync/v1/changes", get(changes)).route(REPORT, post(report))
}

/// Who asks for a set.
#[derive(Debug, Deserialize)]
struct Asking {
    instance: String,
    max_stale: Option<u64>,
    max_stale_write: Option<u64>,
}

/// From where on changes are asked for.
#[derive(Debug, Deserialize)]
struct Since {
    instance: String,
    max_stale: Option<u64>,
    max_stale_write: Option<u64>,
    epoch: String,
    since: u64,
    digest: String,
}

async fn keys(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<Asking>, QueryRejection>,
) -> Result<Response, Problem> {
    let credential = desk.feed.admit(&desk.failures, &headers, peer)?;
    let Query(asking) = query.map_err(bad_query)?;
    let claim = instance::claim(&headers, asking.instance, credential)?;
    let asker = asker(&desk, claim, &headers, peer.ip, [asking.max_stale, asking.max_stale_write])?;
    let attached =
        desk.fleet.register(&asker).await.map_err(|why| instance::refused(&desk, &asker.claim, peer, why))?;
    desk.ledger.refresh().await?;
    Ok(lines(whole::stream(&desk, attached)))
}

async fn changes(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    query: Result<Query<Since>, QueryRejection>,
) -> Result<Response, Problem> {
    let credential = desk.feed.admit(&desk.failures, &headers, peer)?;
    let Query(from) = query.map_err(bad_query)?;
    let claim = instance::claim(&headers, from.instance, credential)?;
    let asker = asker(&desk, claim, &headers, peer.ip, [from.max_stale, from.max_stale_write])?;
    if from.epoch.len() > MOST_DIGEST || from.digest.len() > MOST_DIGEST {
        return Err(Problem::invalid("digest", "An epoch and a digest have at most 128 characters."));
    }
    if *desk.draining().borrow() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "This one is going away: ask another."));
    }
    let attached = desk.fleet.attach(&asker).await.map_err(|why| instance::refused(&desk, &asker.claim, peer, why))?;
    // Whoever was not known was not waited for, so what it is told must be the newest there is.
    desk.ledger.refresh().await?;
    let position = changes::Position { epoch: from.epoch, revision: from.since, digest: from.digest };
    if !position.fits(&desk) {
        let message = "This history has no such revision: take the whole set again.";
        return Err(Problem::new(StatusCode::GONE, "gone", message));
    }
    Ok(lines(changes::stream(desk, attached, position)))
}

async fn report(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let credential = desk.feed.admit(&desk.failures, &headers, peer)?;
    let answer = report::take(&desk, &headers, credential, peer, &body).await?;
    let mut response = axum::Json(answer).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn asker(
    desk: &Desk,
    claim: Claim,
    headers: &HeaderMap,
    address: IpAddr,
    [reads, writes]: [Option<u64>; 2],
) -> Result<Asker, Problem> {
    let most = desk.settings.sync.max_stale.as_secs();
    let limit = |field: &'static str, seconds: Option<u64>| match seconds.unwrap_or(DEFAULT_STALE) {
        seconds if seconds <= most => Ok(seconds),
        seconds => {
            let advice = "lower max_stale and max_stale_write of the sidecar, or raise max_stale in [sync] here";
            let message = format!("{seconds} seconds without a word of us are too long, {most} is the most: {advice}.");
            tracing::warn!(instance = claim.instance, from = %address, "{message}");
            Err(Problem::invalid(field, message))
        }
    };
    let (max_stale, max_stale_write) = (limit("max_stale", reads)?, limit("max_stale_write", writes)?);
    let replaces = instance::replaced(headers)?;
    Ok(Asker { claim, replaces, address, max_stale, max_stale_write })
}

fn bad_query(rejection: QueryRejection) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", rejection.body_text())
}

/// An answer of lines.
fn lines(stream: impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static) -> Response {
    let mut response = Response::new(axum::body::Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
