//! The pages of operators: who may use the control plane. For admins.

use askama::Template;
use axum::{extract::Path, response::Response};
use http::StatusCode;

use super::{
    super::{
        answer::Problem,
        operators::{self, OperatorChange},
        store::{Operator, Role},
    },
    form::{Fields, Form, escaped},
    page::{Shell, Sorry, go, page},
    visit::{Posted, Visit},
    words::Moment,
};
use crate::{clock, keys::secret::Secret};

#[derive(Template)]
#[template(path = "operators.html", config = "src/control/ui/askama.toml")]
struct ListPage {
    shell: Shell,
    rows: Vec<Row>,
}

/// An operator.
struct Row {
    name: String,
    path: String,
    role: &'static str,
    signs_in: bool,
    tokens: usize,
    created: Moment,
}

#[derive(Template)]
#[template(path = "operator_new.html", config = "src/control/ui/askama.toml")]
struct NewPage {
    shell: Shell,
    form: Form,
    roles: [Role; 3],
}

#[derive(Template)]
#[template(path = "operator.html", config = "src/control/ui/askama.toml")]
struct OperatorPage {
    shell: Shell,
    form: Form,
    operator: Row,
    roles: [Role; 3],
    tokens: Vec<TokenRow>,
    /// A token that was made just now; shown once.
    made: Option<String>,
    done: bool,
}

/// A token of an operator.
struct TokenRow {
    id: String,
    name: String,
    created: Moment,
    expires: Option<Moment>,
}

fn row(operator: &Operator) -> Row {
    Row {
        name: operator.name.clone(),
        path: escaped(&operator.name),
        role: operator.role.as_str(),
        signs_in: operator.password.is_some(),
        tokens: operator.tokens.len(),
        created: Moment::new(operator.created_at, clock::now().wall),
    }
}

/// `GET /operators`
pub(super) async fn list(visit: Visit) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Admin)?;
    let rows = visit.desk.ledger.read(|image| image.operators().values().map(row).collect());
    page(StatusCode::OK, &ListPage { shell: Shell::of(&visit, "operators"), rows })
}

/// `GET /operators/new`
pub(super) async fn show_new(visit: Visit) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Admin)?;
    let mut fields = Fields::default();
    fields.set("role", Role::Viewer.as_str());
    page(StatusCode::OK, &NewPage { shell: Shell::of(&visit, "operators"), form: Form::new(fields), roles: Role::ALL })
}

/// `POST /operators/new`
pub(super) async fn send_new(posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, mut fields } = posted;
    let password = password(&mut fields);
    let name = fields.one("name").trim().to_owned();
    let made = match role(&fields) {
        Ok(role) => operators::create(&visit.desk, &visit.caller(), &name, role, password).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(_) => Ok(go("/operators")),
        Err(problem) => {
            let status = problem.status;
            let form = Form::wrong(fields, problem);
            page(status, &NewPage { shell: Shell::of(&visit, "operators"), form, roles: Role::ALL })
        }
    }
}

fn password(fields: &mut Fields) -> Option<Secret> {
    let typed = fields.one("password");
    let secret = (!typed.is_empty()).then(|| Secret::new(typed.as_bytes()));
    fields.remove("password");
    secret
}

fn role(fields: &Fields) -> Result<Role, Problem> {
    fields.one("role").parse().map_err(|_| Problem::invalid("role", "The role is viewer, operator or admin."))
}

/// `GET /operators/{name}`
pub(super) async fn show(visit: Visit, Path(name): Path<String>) -> Result<Response, Sorry> {
    visit.caller().needs(Role::Admin)?;
    let done = !visit.query.one("done").is_empty();
    operator_page(&visit, &name, Form::default(), None, done)
}

fn operator_page(
    visit: &Visit,
    name: &str,
    mut form: Form,
    made: Option<String>,
    done: bool,
) -> Result<Response, Sorry> {
    let operator = visit.desk.ledger.read(|image| image.operators().get(name).cloned());
    let operator = operator.ok_or_else(|| Problem::not_found("operator"))?;
    if form.value("role").is_empty() {
        form.fields.set("role", operator.role.as_str());
    }
    let now = clock::now().wall;
    let token = |token: &super::super::store::Token| TokenRow {
        id: token.id.clone(),
        name: token.name.clone(),
        created: Moment::new(token.created_at, now),
        expires: token.expires_at.map(|at| Moment::new(at, now)),
    };
    let status = form.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let shown = OperatorPage {
        shell: Shell::of(visit, "operators"),
        form,
        operator: row(&operator),
        roles: Role::ALL,
        tokens: operator.tokens.iter().map(token).collect(),
        made,
        done,
    };
    page(status, &shown)
}

/// `POST /operators/{name}`: role, password, tokens, removal.
pub(super) async fn send(Path(name): Path<String>, posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, mut fields } = posted;
    let (desk, caller) = (&visit.desk, visit.caller());
    caller.needs(Role::Admin)?;
    let password = password(&mut fields);
    let change = |change: OperatorChange| operators::change(desk, &caller, &name, change);
    let done = match fields.one("do") {
        "role" => match role(&fields) {
            Ok(role) => change(OperatorChange { role: Some(role), password: None }).await.map(drop),
            Err(problem) => Err(problem),
        },
        "password" => match password {
            Some(new) => change(OperatorChange { role: None, password: Some(Some(new)) }).await.map(drop),
            None => Err(Problem::invalid("password", "Type the new password.")),
        },
        "token" => {
            let expires = fields.some("expires_at");
            match operators::create_token(desk, &caller, &name, fields.one("token_name").trim(), expires).await {
                Ok(made) => {
                    let token = String::from_utf8_lossy(made.secret.expose()).into_owned();
                    return operator_page(&visit, &name, Form::default(), Some(token), false);
                }
                Err(mut problem) => {
                    if problem.field == Some("name") {
                        problem.field = Some("token_name");
                    }
                    Err(problem)
                }
            }
        }
        "remove_token" => operators::delete_token(desk, &caller, &name, fields.one("id")).await,
        "remove" => {
            operators::delete(desk, &caller, &name).await?;
            return Ok(go("/operators"));
        }
        _ => Err(Problem::invalid("do", "It is not said what to do.")),
    };
    match done {
        Ok(()) => Ok(go(&format!("/operators/{}?done=1", escaped(&name)))),
        Err(problem) => operator_page(&visit, &name, Form::wrong(fields, problem), None, false),
    }
}
