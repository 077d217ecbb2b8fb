//! Rotating: a new secret with the same rights, and a while in which both keys work.

use askama::Template;
use axum::{extract::Path, response::Response};
use http::StatusCode;

use super::{
    super::{
        super::{
            answer::Problem,
            keys::{self, Rotation, sentence},
            session,
            store::Role,
        },
        form::{Fields, Form, escaped},
        page::{Shell, Sorry, page},
        visit::{Posted, Visit, WAIT},
    },
    detail::overlap_says,
    end::Told,
    find,
    mint::MadePage,
    over,
};
use crate::keys::{Kind, document::KeyRow, moments};

/// How long both may work: what is typed, and what it is called.
const OVERLAPS: [(&str, &str); 5] = [
    ("1h", "1 hour"),
    ("24h", "24 hours"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("0", "not at all: the old key stops now"),
];

#[derive(Template)]
#[template(path = "key_rotate.html", config = "src/control/ui/askama.toml")]
struct RotatePage {
    shell: Shell,
    form: Form,
    path: String,
    name: String,
    sentence: String,
    overlaps: &'static [(&'static str, &'static str)],
}

fn rotate_page(visit: &Visit, form: Form, row: &KeyRow) -> RotatePage {
    RotatePage {
        shell: Shell::of(visit, "keys"),
        form,
        path: escaped(row.id.as_str()),
        name: row.name.to_string(),
        sentence: sentence(row),
        overlaps: &OVERLAPS,
    }
}

/// `GET /keys/{id}/rotate`
pub(in super::super) async fn show(visit: Visit, Path(id): Path<String>) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Operator)?;
    let listed = find(&visit, &id)?;
    over(&listed)?;
    let mut fields = Fields::default();
    fields.set("overlap", "24h");
    fields.set("once", session::random()?);
    page(StatusCode::OK, &rotate_page(&visit, Form::new(fields), &listed.row))
}

/// `POST /keys/{id}/rotate`
pub(in super::super) async fn send(Path(id): Path<String>, posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, fields } = posted;
    visit.caller().needs(Role::Operator)?;
    let row = find(&visit, &id)?.row;
    let overlap = match moments::span(fields.one("overlap")) {
        Ok(overlap) => overlap,
        Err(why) => {
            let problem = Problem::invalid("overlap", why);
            return page(problem.status, &rotate_page(&visit, Form::wrong(fields, problem), &row));
        }
    };
    let idempotency = fields.some("once").map(|once| format!("page-{once}"));
    let how = Rotation { overlap, idempotency, expires_at: None, wait: WAIT };
    match keys::rotate(&visit.desk, &visit.caller(), &id, &how).await {
        Ok((made, receipt)) => {
            // Which field the key is sent in is what the offer of its kind says.
            let offers = &visit.desk.settings.offers;
            let offer = offers.iter().find(|offer| offer.kind == row.kind && row.kind == Kind::Token);
            let offer = offer.map(|offer| offer.name.clone());
            let told = overlap
                .is_zero()
                .then(|| Told::new(receipt, "no request that starts now gets through with the old key."));
            let made = MadePage::new(&visit, &made, offer.as_deref(), Some(overlap_says(overlap)));
            page(StatusCode::OK, &made.with(told))
        }
        Err(problem) => {
            let status = problem.status;
            page(status, &rotate_page(&visit, Form::wrong(fields, problem), &row))
        }
    }
}
