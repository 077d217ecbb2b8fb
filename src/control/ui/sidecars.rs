//! The page of sidecars: which revision each has in force, and how far behind it is.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::{
    super::sidecars,
    page::{Shell, Sorry, go, page},
    visit::{Posted, Visit},
    words::Moment,
};
use crate::clock;

#[derive(Template)]
#[template(path = "sidecars.html", config = "src/control/ui/askama.toml")]
struct SidecarsPage {
    shell: Shell,
    revision: u64,
    rows: Vec<Row>,
}

/// A sidecar.
struct Row {
    instance: String,
    address: String,
    connected: bool,
    lives: bool,
    known: bool,
    goodbye: bool,
    revision: u64,
    lag: u64,
    last_seen: Moment,
    reads: Moment,
    writes: Moment,
    /// The later of the two.
    longest: Moment,
}

/// `GET /sidecars`
pub(super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    let now = clock::now().wall;
    let mut views = visit.desk.fleet.sidecars();
    views.sort_by(|one, other| one.sidecar.claim.instance.cmp(&other.sidecar.claim.instance));
    let row = |view: super::super::fleet::SidecarView| Row {
        address: view.sidecar.address.map(|address| address.to_string()).unwrap_or_default(),
        connected: view.connected,
        lives: view.lives,
        known: view.known,
        goodbye: view.sidecar.goodbye,
        revision: view.sidecar.revision,
        lag: view.lag,
        last_seen: Moment::new(view.sidecar.last_seen, now),
        reads: Moment::new(view.may_serve_reads_until, now),
        writes: Moment::new(view.may_serve_writes_until, now),
        longest: Moment::new(view.may_serve_reads_until.max(view.may_serve_writes_until), now),
        instance: view.sidecar.claim.instance,
    };
    let revision = visit.desk.ledger.read(|image| image.head().revision);
    let rows = views.into_iter().map(row).collect();
    page(StatusCode::OK, &SidecarsPage { shell: Shell::of(&visit, "sidecars"), revision, rows })
}

/// `POST /sidecars`: forgets one, so that receipts do not wait for it.
pub(super) async fn forget(posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, fields } = posted;
    sidecars::forget(&visit.desk, &visit.caller(), fields.one("instance")).await?;
    Ok(go("/sidecars"))
}
