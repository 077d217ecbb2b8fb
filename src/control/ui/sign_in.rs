//! Signing in and out, and the page behind the link of the first start.

use askama::Template;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};

use super::{
    super::{
        answer::Problem,
        session::{self, Begun, form_cookie},
    },
    form::{Fields, Form},
    page::{Csrf, Shell, Sorry, go, page},
    visit::{Posted, Stranger, StrangerPosted, Visit},
};
use crate::keys::secret::Secret;

#[derive(Template)]
#[template(path = "sign_in.html", config = "src/control/ui/askama.toml")]
struct SignInPage {
    shell: Shell,
    form: Form,
    csrf: Csrf,
}

#[derive(Template)]
#[template(path = "setup.html", config = "src/control/ui/askama.toml")]
struct SetupPage {
    shell: Shell,
    form: Form,
    csrf: Csrf,
}

/// `GET /`
pub(super) async fn home(_: Visit) -> Response {
    go("/keys")
}

/// `GET /sign-in`
pub(super) async fn show(stranger: Stranger) -> Result<Response, Sorry> {
    let mut fields = Fields::default();
    fields.set("next", next(stranger.query.one("next")));
    sign_in_page(&stranger, Form::new(fields))
}

/// `POST /sign-in`
pub(super) async fn send(posted: StrangerPosted) -> Result<Response, Sorry> {
    let StrangerPosted { stranger, mut fields } = posted;
    let password = Secret::new(fields.one("password").as_bytes());
    fields.remove("password");
    let name = fields.one("name").trim();
    match session::sign_in(&stranger.desk, stranger.peer, &stranger.headers, name, password).await {
        Ok(begun) => Ok(with_cookies(go(&next(fields.one("next"))), begun.0)),
        Err(problem) => sign_in_page(&stranger, Form::wrong(fields, problem)),
    }
}

fn sign_in_page(stranger: &Stranger, form: Form) -> Result<Response, Sorry> {
    let (token, cookie) = form_cookie(&stranger.desk.settings, stranger.peer, &stranger.headers)?;
    let status = form.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let wait = form.problem.as_ref().and_then(|problem| problem.retry_after);
    let mut page = page(status, &SignInPage { shell: Shell::bare(), form, csrf: Csrf(token) })?;
    if let Some(seconds) = wait {
        page.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    Ok(with_cookies(page, cookie))
}

/// Where to go after sign-in: a page of ours, and nowhere else.
fn next(wanted: &str) -> String {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-.~?=&%@+:".contains(&byte);
    let ours = wanted.starts_with('/') && !wanted.starts_with("//") && wanted.bytes().all(good);
    let away = ["/sign-", "/setup", "/assets/"].iter().any(|start| wanted.starts_with(start));
    if ours && !away { wanted.to_owned() } else { "/keys".to_owned() }
}

/// `POST /sign-out`
pub(super) async fn out(posted: Posted) -> Result<Response, Sorry> {
    let visit = posted.visit;
    let cookies = session::sign_out(&visit.desk, visit.peer, &visit.who).await?;
    let mut response = with_cookies(go("/sign-in"), cookies);
    // What the browser has kept of us goes too.
    response.headers_mut().insert("clear-site-data", HeaderValue::from_static("\"cache\", \"storage\""));
    Ok(response)
}

/// `GET /setup?token=…`
pub(super) async fn show_setup(stranger: Stranger) -> Result<Response, Sorry> {
    if !session::setup_is_open(&stranger.desk) {
        return Err(
            Problem::new(StatusCode::GONE, "setup_used", "Somebody has set themselves up here: sign in.").into()
        );
    }
    let mut fields = Fields::default();
    fields.set("token", stranger.query.one("token"));
    setup_page(&stranger, Form::new(fields))
}

/// `POST /setup`
pub(super) async fn send_setup(posted: StrangerPosted) -> Result<Response, Sorry> {
    let StrangerPosted { stranger, mut fields } = posted;
    let password = Secret::new(fields.one("password").as_bytes());
    let same = fields.one("password") == fields.one("again");
    fields.remove("password");
    fields.remove("again");
    if !same {
        return setup_page(&stranger, Form::wrong(fields, Problem::invalid("again", "The two passwords differ.")));
    }
    let Stranger { desk, peer, headers, .. } = &stranger;
    match session::set_up(desk, *peer, headers, fields.one("token"), fields.one("name").trim(), password).await {
        Ok(Begun(cookies)) => Ok(with_cookies(go("/keys"), cookies)),
        Err(problem) if problem.field.is_some() => setup_page(&stranger, Form::wrong(fields, problem)),
        Err(problem) => Err(problem.into()),
    }
}

fn setup_page(stranger: &Stranger, form: Form) -> Result<Response, Sorry> {
    let (token, cookie) = form_cookie(&stranger.desk.settings, stranger.peer, &stranger.headers)?;
    let status = form.problem.as_ref().map_or(StatusCode::OK, |problem| problem.status);
    let page = page(status, &SetupPage { shell: Shell::bare(), form, csrf: Csrf(token) })?;
    Ok(with_cookies(page, cookie))
}

/// Adds cookies to an answer.
pub(super) fn with_cookies(mut response: Response, cookies: impl IntoIterator<Item = HeaderValue>) -> Response {
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_sign_in_one_stays_with_us() {
        assert_eq!(next("/keys?search=a%20b&owner=x"), "/keys?search=a%20b&owner=x");
        for away in
            ["", "//evil.test", "/\\evil.test", "https://evil.test", "keys", "/a\r\nb", "/sign-out", "/\t/evil.test"]
        {
            assert_eq!(next(away), "/keys", "{away}");
        }
    }
}
