//! What all pages have, and the fields that all answers carry.

use askama::Template;
use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    super::{answer::Problem, store::Role},
    assets,
    form::escaped,
    visit::Visit,
};

/// No script and no style but our files, nothing of anybody else, no frame around us.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What every answer of ours says to the browser. `same-origin` and not `no-referrer`: under that, browsers send
/// `Origin: null` with our own forms.
const PROTECTION: [(HeaderName, &str); 7] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds what every answer says. What may be kept says so itself.
pub(super) async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in PROTECTION {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// What stands around a page.
#[derive(Clone, Debug)]
pub(super) struct Shell {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
    /// The room of the house that the page belongs to, for the navigation.
    pub(super) here: &'static str,
    /// Who looks; none: nobody is signed in.
    pub(super) who: Option<Looker>,
}

/// Who looks at a page.
#[derive(Clone, Debug)]
pub(super) struct Looker {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) csrf: Csrf,
}

/// The secret of a session's forms.
#[derive(Clone)]
pub(super) struct Csrf(pub(super) String);

impl std::fmt::Debug for Csrf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Csrf")
    }
}

impl Shell {
    /// For somebody who is signed in.
    pub(super) fn of(visit: &Visit, here: &'static str) -> Self {
        let operator = &visit.who.operator;
        let csrf = Csrf(visit.who.csrf.clone());
        let who = Looker { name: operator.name.clone(), role: operator.role, csrf };
        Self { who: Some(who), here, ..Self::bare() }
    }

    /// For somebody who is not.
    pub(super) fn bare() -> Self {
        Self { style: assets::style(), script: assets::script(), icon: assets::icon(), here: "", who: None }
    }

    /// Whether they may mint, change and revoke.
    pub(super) fn may_operate(&self) -> bool {
        self.who.as_ref().is_some_and(|who| who.role >= Role::Operator)
    }

    /// Whether they may all.
    pub(super) fn is_admin(&self) -> bool {
        self.who.as_ref().is_some_and(|who| who.role >= Role::Admin)
    }

    /// What their forms carry.
    pub(super) fn csrf(&self) -> &str {
        self.who.as_ref().map_or("", |who| &who.csrf.0)
    }
}

/// A page.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Result<Response, Sorry> {
    let text = template.render().map_err(|error| {
        tracing::error!(%error, "a page could not be made");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The page could not be made.")
    })?;
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    Ok(response)
}

/// On to another page of ours.
pub(super) fn go(path: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, path);
    response
}

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Sorry {
    /// Nobody is signed in; where they wanted to go.
    SignIn(String),
    /// Something else.
    Problem(Problem),
}

impl<P: Into<Problem>> From<P> for Sorry {
    fn from(problem: P) -> Self {
        Self::Problem(problem.into())
    }
}

#[derive(Template)]
#[template(path = "sorry.html", config = "src/control/ui/askama.toml")]
struct SorryPage<'a> {
    shell: Shell,
    title: &'a str,
    message: String,
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        let problem = match self {
            Self::SignIn(wanted) if wanted == "/" => return go("/sign-in"),
            Self::SignIn(wanted) => return go(&format!("/sign-in?next={}", escaped(&wanted))),
            Self::Problem(problem) => problem,
        };
        let title = match problem.status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::FORBIDDEN => "Not allowed",
            StatusCode::CONFLICT => "That does not go together",
            StatusCode::GONE => "This link is void",
            status if status.is_server_error() => "It did not work",
            _ => "That cannot be done",
        };
        let template = SorryPage { shell: Shell::bare(), title, message: problem.message.replace('`', "") };
        match page(problem.status, &template) {
            Ok(mut response) => {
                if problem.status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
            Err(_) => problem.into_response(),
        }
    }
}

/// What is answered where there is no such path: a page for people, JSON for programs.
pub async fn missing(headers: HeaderMap) -> Response {
    let wants_page = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let problem = Problem::not_found("page");
    if wants_page.is_some_and(|accept| accept.contains("text/html")) {
        protect(Sorry::Problem(problem).into_response()).await
    } else {
        problem.into_response()
    }
}
