//! The pages of owners: whom keys act for.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::{
    super::{
        answer::Problem,
        owners::{self, NewOwner, Owned, OwnerChange},
        store::Role,
    },
    form::{Fields, Form, escaped},
    keys::end::changed_by,
    page::{Shell, Sorry, go, page},
    visit::{Posted, Visit, WAIT},
    words::Moment,
};
use crate::{
    clock,
    keys::{Kyc, document},
};

/// Owners on a page.
const ROWS: usize = 50;

#[derive(Template)]
#[template(path = "owners.html", config = "src/control/ui/askama.toml")]
struct ListPage {
    shell: Shell,
    form: Form,
    rows: Vec<Row>,
    total: usize,
    next: Option<String>,
}

/// An owner.
struct Row {
    id: String,
    path: String,
    name: String,
    capabilities: String,
    kyc: &'static str,
    plan: String,
    keys: usize,
    active: usize,
    suspended: Option<Moment>,
}

#[derive(Template)]
#[template(path = "owner_new.html", config = "src/control/ui/askama.toml")]
struct NewPage {
    shell: Shell,
    form: Form,
    choices: Choices,
}

#[derive(Template)]
#[template(path = "owner.html", config = "src/control/ui/askama.toml")]
struct OwnerPage {
    shell: Shell,
    form: Form,
    owner: Row,
    warnings: Vec<String>,
    choices: Choices,
    /// The revision by which it was changed just now.
    done: Option<u64>,
}

/// What may be chosen.
struct Choices {
    kyc: [&'static str; 3],
    plans: Vec<String>,
    capabilities: String,
}

impl Choices {
    fn of(visit: &Visit) -> Self {
        let offers = &visit.desk.settings.offers;
        let all = |pick: fn(&super::super::settings::Offer) -> &Vec<String>| {
            let mut all: Vec<String> = offers.iter().flat_map(|offer| pick(offer).iter().cloned()).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        Self {
            kyc: ["none", "pending", "approved"],
            plans: all(|offer| &offer.plans),
            capabilities: all(|offer| &offer.capabilities).join(", "),
        }
    }
}

fn row(owned: &Owned) -> Row {
    let row = &owned.row;
    let now = clock::now().wall;
    Row {
        id: row.id.to_string(),
        path: escaped(row.id.as_str()),
        name: row.name.as_deref().unwrap_or_default().to_owned(),
        capabilities: row.capabilities.join(", "),
        kyc: document::kyc_str(row.kyc),
        plan: row.plan.as_deref().unwrap_or_default().to_owned(),
        keys: owned.keys,
        active: owned.active,
        suspended: row.suspended_at.map(|at| Moment::new(at, now)),
    }
}

/// `GET /owners`
pub(super) async fn list(visit: Visit) -> Result<Response, Sorry> {
    let (search, after) = (visit.query.some("search"), visit.query.some("after"));
    let found = owners::list(&visit.desk, &visit.caller(), search, after, ROWS)?;
    let mut fields = visit.query.clone();
    let next = found.next.map(|next| {
        fields.set("after", next);
        format!("/owners?{}", fields.query())
    });
    let list = ListPage {
        shell: Shell::of(&visit, "owners"),
        form: Form::new(fields),
        rows: found.rows.iter().map(row).collect(),
        total: found.total,
        next,
    };
    page(StatusCode::OK, &list)
}

/// `GET /owners/new`
pub(super) async fn show_new(visit: Visit) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Operator)?;
    let mut fields = Fields::default();
    fields.set("kyc", "none");
    fields.set("id", visit.query.one("id"));
    let choices = Choices::of(&visit);
    page(StatusCode::OK, &NewPage { shell: Shell::of(&visit, "owners"), form: Form::new(fields), choices })
}

/// `POST /owners/new`
pub(super) async fn send_new(posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, fields } = posted;
    let made = match kyc(&fields) {
        Ok(kyc) => {
            let new = NewOwner {
                id: fields.one("id").trim().to_owned(),
                name: fields.some("name").map(str::to_owned),
                capabilities: fields.list("capabilities"),
                kyc,
                plan: fields.some("plan").map(str::to_owned),
            };
            owners::create(&visit.desk, &visit.caller(), new).await
        }
        Err(problem) => Err(problem),
    };
    match made {
        Ok(owned) => Ok(go(&format!("/owner?id={}", escaped(owned.row.id.as_str())))),
        Err(problem) => {
            let (status, choices) = (problem.status, Choices::of(&visit));
            let form = Form::wrong(fields, problem);
            page(status, &NewPage { shell: Shell::of(&visit, "owners"), form, choices })
        }
    }
}

fn kyc(fields: &Fields) -> Result<Kyc, Problem> {
    document::kyc(fields.one("kyc")).map_err(|why| Problem::invalid("kyc", why))
}

/// `GET /owner?id=…`: ids may hold slashes.
pub(super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    let owned = owners::show(&visit.desk, &visit.caller(), visit.query.one("id"))?;
    let mut fields = Fields::default();
    fields.set("name", owned.row.name.as_deref().unwrap_or_default());
    fields.set("capabilities", owned.row.capabilities.join("\n"));
    fields.set("kyc", document::kyc_str(owned.row.kyc));
    fields.set("plan", owned.row.plan.as_deref().unwrap_or_default());
    let done = changed_by(&visit, &["owner.change", "owner.unsuspend"], "owner", owned.row.id.as_str()).await;
    owner_page(&visit, Form::new(fields), &owned, done)
}

fn owner_page(visit: &Visit, form: Form, owned: &Owned, done: Option<u64>) -> Result<Response, Sorry> {
    let status = form.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let owner = OwnerPage {
        shell: Shell::of(visit, "owners"),
        form,
        owner: row(owned),
        warnings: owned.warnings.clone(),
        choices: Choices::of(visit),
        done,
    };
    page(status, &owner)
}

/// `POST /owner`: changes, suspends, lifts that, or deletes.
pub(super) async fn send(posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, fields } = posted;
    let (caller, id) = (visit.caller(), fields.one("id").to_owned());
    caller.needs(Role::Operator)?;
    let there = owners::show(&visit.desk, &caller, &id)?;
    let change = match fields.one("do") {
        "delete" => {
            let receipt = owners::delete(&visit.desk, &caller, &id, WAIT).await?;
            return Ok(go(&format!("/receipts/{}?owner={}", receipt.revision, escaped(&id))));
        }
        "suspend" => Ok(OwnerChange { suspended: Some(true), ..OwnerChange::default() }),
        "lift" => Ok(OwnerChange { suspended: Some(false), ..OwnerChange::default() }),
        _ => kyc(&fields).map(|kyc| OwnerChange {
            name: Some(fields.some("name").map(str::to_owned)),
            capabilities: Some(fields.list("capabilities")),
            kyc: Some(kyc),
            plan: Some(fields.some("plan").map(str::to_owned)),
            suspended: None,
        }),
    };
    let changed = match change {
        Ok(change) => owners::change(&visit.desk, &caller, &id, change, WAIT).await,
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(receipt) if fields.one("do") == "suspend" => {
            Ok(go(&format!("/receipts/{}?owner={}", receipt.revision, escaped(&id))))
        }
        Ok(receipt) => Ok(go(&format!("/owner?id={}&changed={}", escaped(&id), receipt.revision))),
        Err(problem) => owner_page(&visit, Form::wrong(fields, problem), &there, None),
    }
}
