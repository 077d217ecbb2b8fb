//! One's own account: the password, and who one is.

use askama::Template;
use axum::response::Response;
use http::StatusCode;

use super::{
    super::{answer::Problem, session},
    form::{Fields, Form},
    page::{Shell, Sorry, go, page},
    sign_in::with_cookies,
    visit::{Posted, Visit},
};
use crate::keys::secret::Secret;

#[derive(Template)]
#[template(path = "account.html", config = "src/control/ui/askama.toml")]
struct AccountPage {
    shell: Shell,
    form: Form,
    changed: bool,
}

/// `GET /account`
pub(super) async fn show(visit: Visit) -> Result<Response, Sorry> {
    let changed = visit.query.one("done") == "password";
    page(StatusCode::OK, &AccountPage { shell: Shell::of(&visit, "account"), form: Form::default(), changed })
}

/// `POST /account`: another password.
pub(super) async fn send(posted: Posted) -> Result<Response, Sorry> {
    let Posted { visit, fields } = posted;
    let current = Secret::new(fields.one("current").as_bytes());
    let new = Secret::new(fields.one("password").as_bytes());
    let done = if fields.one("password") == fields.one("again") {
        session::change_password(&visit.desk, visit.peer, &visit.headers, &visit.who, current, new).await
    } else {
        Err(Problem::invalid("again", "The two passwords differ."))
    };
    match done {
        Ok(begun) => Ok(with_cookies(go("/account?done=password"), begun.0)),
        Err(problem) => {
            let status = problem.status;
            let form = Form::wrong(Fields::default(), problem);
            page(status, &AccountPage { shell: Shell::of(&visit, "account"), form, changed: false })
        }
    }
}
