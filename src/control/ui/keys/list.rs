//! The list of keys.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::{
    super::{
        super::keys::{self, Filter, Listed},
        form::{Fields, Form},
        page::{Shell, Sorry, page},
        visit::Visit,
        words::{Badge, Moment, OLD, Spark, badges, short_prefix},
    },
    days_of, replaced, today,
};
use crate::{
    clock::{self, Wall},
    keys::{Mode, Standing},
};

/// Keys on a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "keys.html", config = "src/control/ui/askama.toml")]
struct ListPage {
    shell: Shell,
    form: Form,
    rows: Vec<Row>,
    total: usize,
    filtered: bool,
    scopes: Vec<String>,
    modes: bool,
    first: Option<String>,
    next: Option<String>,
    csv: String,
}

/// A key in the list.
struct Row {
    id: String,
    path: String,
    name: String,
    prefix: String,
    mode: &'static str,
    scopes: String,
    owner: String,
    owner_path: String,
    last_used: Option<Moment>,
    last_ip: String,
    created: Option<Moment>,
    expires: Option<Moment>,
    badges: Vec<Badge>,
    spark: Spark,
}

/// What is asked for. What cannot be read asks for nothing.
pub(super) fn filter(query: &Fields) -> Filter {
    let some = |name: &str| query.some(name).map(str::to_owned);
    Filter {
        search: some("search"),
        owner: some("owner"),
        mode: match query.one("environment") {
            "live" => Some(Mode::Live),
            "test" => Some(Mode::Test),
            _ => None,
        },
        status: Standing::ALL.into_iter().find(|standing| standing.as_str() == query.one("status")),
        scope: some("scope"),
        minted_by: some("minted_by"),
        unused_for: (query.one("unused") == "90d").then_some(OLD),
    }
}

/// `GET /keys`
pub(in super::super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    let now = clock::now().wall;
    let filter = filter(&visit.query);
    let cursor = visit.query.some("after");
    let listed = keys::list(&visit.desk, &visit.caller(), &filter, cursor, ROWS)?;
    let ids = listed.rows.iter().map(|listed| listed.row.id.clone()).collect();
    let mut days = days_of(&visit.desk, ids, now).await?;
    let replaced = replaced(&visit.desk, listed.rows.iter().map(|listed| &*listed.row));
    let row = |one: &Listed| {
        let days = days.remove(&one.row.id).unwrap_or_default();
        row(one, replaced.contains(&one.row.id), &Spark::new(&days, today(now)), now)
    };
    let rows = listed.rows.iter().map(row).collect();
    let mut fields = visit.query.clone();
    fields.remove("after");
    let to = |fields: &Fields, path: &str| format!("{path}?{}", fields.query());
    let (first, csv) = (cursor.map(|_| to(&fields, "/keys")), to(&fields, "/keys.csv"));
    let next = listed.next.map(|next| {
        let mut fields = fields.clone();
        fields.set("after", next);
        to(&fields, "/keys")
    });
    let offers = &visit.desk.settings.offers;
    let mut scopes: Vec<String> = offers.iter().flat_map(|offer| offer.scopes.iter().cloned()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    let list = ListPage {
        shell: Shell::of(&visit, "keys"),
        modes: offers.iter().any(|offer| offer.modes),
        filtered: filter != Filter::default(),
        form: Form::new(fields),
        total: listed.total,
        rows,
        scopes,
        first,
        next,
        csv,
    };
    page(StatusCode::OK, &list)
}

fn row(listed: &Listed, replaced: bool, spark: &Spark, now: Wall) -> Row {
    let key = &listed.row;
    let moment = |at: Wall| Moment::new(at, now);
    Row {
        id: key.id.to_string(),
        path: super::super::form::escaped(key.id.as_str()),
        name: key.name.to_string(),
        prefix: short_prefix(key),
        mode: key.mode.map_or("–", Mode::as_str),
        scopes: key.scopes.to_string(),
        owner: key.owner.to_string(),
        owner_path: super::super::form::escaped(key.owner.as_str()),
        last_used: listed.usage.last_used_at.map(moment),
        last_ip: listed.usage.last_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        created: key.created_at.map(moment),
        expires: key.expires_at.map(moment),
        badges: badges(listed, replaced, now),
        spark: spark.clone(),
    }
}
