//! A new key: the form, and the one page that shows its secret.

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};

use super::{
    super::{
        super::{
            answer::Problem,
            keys::{self, Made, NewKey, sentence as describe},
            session,
            settings::Offer,
            store::Role,
        },
        form::{Fields, Form, escaped},
        page::{Shell, Sorry, page},
        visit::{Posted, Visit},
    },
    Reveal,
    end::Told,
    picker::{self, COMBOS, Combo, EXAMPLES, OwnerSays, Picker},
};
use crate::keys::Mode;

#[derive(Template)]
#[template(path = "key_new.html", config = "src/control/ui/askama.toml")]
struct MintPage {
    shell: Shell,
    form: Form,
    offers: Vec<String>,
    modes: bool,
    plans: String,
    combos: &'static [Combo],
    examples: &'static [&'static str],
    picker: Picker,
    owners: Vec<(String, String)>,
    owner: OwnerSays,
    preview: String,
    my_address: String,
}

/// The page that shows a secret; the only one.
#[derive(Template)]
#[template(path = "key_made.html", config = "src/control/ui/askama.toml")]
pub(super) struct MadePage {
    shell: Shell,
    title: &'static str,
    path: String,
    name: String,
    prefix: String,
    sentence: String,
    warnings: Vec<String>,
    reveal: Option<Reveal>,
    /// For a rotated key: the old one.
    rotated_from: Option<String>,
    /// For a rotated key: until when the old one works.
    old: Option<String>,
    /// Where the old one has ended: which sidecars have that.
    told: Option<Told>,
}

impl MadePage {
    pub(super) fn new(visit: &Visit, made: &Made, offer: Option<&str>, old: Option<String>) -> Self {
        let reveal = made.secret.as_ref().map(|secret| Reveal::new(&visit.desk, &made.row, offer, secret));
        Self {
            shell: Shell::of(visit, "keys"),
            title: if reveal.is_some() { "Copy the secret now" } else { "This key was made already" },
            path: escaped(made.row.id.as_str()),
            name: made.row.name.to_string(),
            prefix: super::super::words::short_prefix(&made.row),
            sentence: describe(&made.row),
            warnings: made.warnings.clone(),
            reveal,
            rotated_from: made.row.rotated_from.as_ref().map(|id| escaped(id.as_str())),
            old,
            told: None,
        }
    }

    /// The same, with which sidecars have the end of the old key.
    pub(super) fn with(self, told: Option<Told>) -> Self {
        Self { told, ..self }
    }
}

/// `GET /keys/new`
pub(in super::super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Operator)?;
    let offer = offer(&visit, visit.query.some("preset"))?;
    let mut form = Form::new(Fields::default());
    if let Some(owner) = visit.query.some("owner") {
        form.fields.set("owner", owner);
    }
    let combo = visit.query.some("combo").and_then(|id| COMBOS.iter().find(|combo| combo.id == id));
    picker::begin(&mut form, offer, combo);
    // The same form makes one key, however often it is sent.
    form.fields.set("once", session::random()?);
    page(StatusCode::OK, &mint_page(&visit, form, offer))
}

fn offer<'a>(visit: &'a Visit, name: Option<&str>) -> Result<&'a Offer, Problem> {
    visit.desk.settings.offer(name).ok_or_else(|| Problem::invalid("preset", "There is no such kind of key."))
}

fn mint_page(visit: &Visit, form: Form, offer: &Offer) -> MintPage {
    MintPage {
        shell: Shell::of(visit, "keys"),
        offers: visit.desk.settings.offers.iter().map(|offer| offer.name.clone()).collect(),
        modes: offer.modes,
        plans: offer.plans.join(", "),
        combos: &COMBOS,
        examples: &EXAMPLES,
        picker: Picker::new(offer),
        owners: picker::owners(&visit.desk),
        owner: OwnerSays::of(&visit.desk, form.value("owner")),
        preview: picker::preview(&form),
        my_address: visit.peer.ip.to_string(),
        form,
    }
}

/// `POST /keys/new`: mints; or, by its other buttons, only fills in the form.
pub(in super::super) async fn send(posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, mut fields } = posted;
    visit.caller().needs(Role::Operator)?;
    let preset = fields.some("preset").map(str::to_owned);
    let offer = offer(&visit, preset.as_deref())?;
    let action = fields.one("do").to_owned();
    fields.remove("do");
    match action.as_str() {
        "my_address" => {
            let mut there = fields.list("allow_ips");
            there.push(visit.peer.ip.to_string());
            there.dedup();
            fields.set("allow_ips", there.join("\n"));
            return page(StatusCode::OK, &mint_page(&visit, Form::new(fields), offer));
        }
        "preview" => return page(StatusCode::OK, &mint_page(&visit, Form::new(fields), offer)),
        _ => {}
    }
    let new = NewKey {
        name: fields.one("name").trim().to_owned(),
        offer: preset.clone(),
        kind: None,
        mode: mode(fields.one("environment")),
        scopes: fields.all("permissions"),
        owner: fields.some("owner").map(str::to_owned),
        allow_ips: fields.list("allow_ips"),
        limits: fields.list("limits"),
        expires_at: fields.some("expires_at").map(str::to_owned),
    };
    let once = fields.some("once").map(|once| format!("page-{once}"));
    match keys::create(&visit.desk, &visit.caller(), new, once.as_deref()).await {
        Ok(made) => page(StatusCode::OK, &MadePage::new(&visit, &made, preset.as_deref(), None)),
        Err(problem) => {
            let status = problem.status;
            page(status, &mint_page(&visit, Form::wrong(fields, problem), offer))
        }
    }
}

pub(super) fn mode(text: &str) -> Option<Mode> {
    match text {
        "live" => Some(Mode::Live),
        "test" => Some(Mode::Test),
        _ => None,
    }
}

/// `POST /keys/sentence`: what the key that is typed will be able to do. Changes nothing.
pub(in super::super) async fn sentence(posted: Posted) -> Response {
    let owner = OwnerSays::of(&posted.visit.desk, posted.fields.one("owner"));
    let form = Form::new(posted.fields);
    let mut response =
        serde_json::json!({ "sentence": picker::preview(&form), "warning": owner.warning }).to_string().into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
