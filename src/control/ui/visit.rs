//! Who looks at a page, or sends a form. A handler that takes [`Posted`] runs only when the form was sent by our own page
//! of this very session.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, to_bytes},
    extract::{FromRequest, FromRequestParts},
};
use http::{HeaderMap, Method, Request, StatusCode, header, request::Parts};

use super::{
    super::{
        answer::Problem,
        caller::Caller,
        desk::Desk,
        front::Peer,
        session::{self, SignedIn},
    },
    form::Fields,
    page::Sorry,
};

/// The largest form, in bytes.
const MAX_FORM: usize = 256 << 10;
/// How long a page waits for sidecars to acknowledge.
pub(super) const WAIT: Duration = Duration::from_secs(2);

/// Somebody who is signed in looks at a page.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) desk: Arc<Desk>,
    pub(super) peer: Peer,
    pub(super) headers: HeaderMap,
    pub(super) query: Fields,
    pub(super) who: SignedIn,
}

impl Visit {
    /// As the operations know them.
    pub(super) fn caller(&self) -> Caller {
        Caller::operator(&self.who.operator, Some(self.peer.ip))
    }
}

/// Somebody who is signed in sends a form, and it was checked that they do.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) visit: Visit,
    pub(super) fields: Fields,
}

/// Somebody looks at a page for those who are not signed in.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) desk: Arc<Desk>,
    pub(super) peer: Peer,
    pub(super) headers: HeaderMap,
    pub(super) query: Fields,
}

/// Somebody who is not signed in sends a form, and it was checked that it is ours.
#[derive(Debug)]
pub(super) struct StrangerPosted {
    pub(super) stranger: Stranger,
    pub(super) fields: Fields,
}

impl FromRequestParts<Arc<Desk>> for Stranger {
    type Rejection = Sorry;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Sorry> {
        if !desk.settings.pages.enabled {
            return Err(Problem::not_found("page").into());
        }
        let Ok(Extension(peer)) = Extension::<Peer>::from_request_parts(parts, desk).await else {
            return Err(bad("It is not known who asks.").into());
        };
        let query =
            Fields::read(parts.uri.query().unwrap_or_default()).ok_or_else(|| bad("The address is no text."))?;
        Ok(Self { desk: Arc::clone(desk), peer, headers: parts.headers.clone(), query })
    }
}

impl FromRequestParts<Arc<Desk>> for Visit {
    type Rejection = Sorry;

    async fn from_request_parts(parts: &mut Parts, desk: &Arc<Desk>) -> Result<Self, Sorry> {
        let Stranger { desk, peer, headers, query } = Stranger::from_request_parts(parts, desk).await?;
        match session::find(&desk, &headers).await? {
            Some(who) => Ok(Self { desk, peer, headers, query, who }),
            None if parts.method == Method::GET || parts.method == Method::HEAD => {
                Err(Sorry::SignIn(parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()))
            }
            None => {
                let message = "You are not signed in any more: nothing was done. Sign in, and send it again.";
                Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into())
            }
        }
    }
}

impl FromRequest<Arc<Desk>> for Posted {
    type Rejection = Sorry;

    async fn from_request(request: Request<Body>, desk: &Arc<Desk>) -> Result<Self, Sorry> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, desk).await?;
        let mut fields = form(&parts, body).await?;
        session::check_form(desk, visit.peer, &visit.headers, &visit.who, fields.one("csrf"))?;
        fields.remove("csrf");
        Ok(Self { visit, fields })
    }
}

impl FromRequest<Arc<Desk>> for StrangerPosted {
    type Rejection = Sorry;

    async fn from_request(request: Request<Body>, desk: &Arc<Desk>) -> Result<Self, Sorry> {
        let (mut parts, body) = request.into_parts();
        let stranger = Stranger::from_request_parts(&mut parts, desk).await?;
        let mut fields = form(&parts, body).await?;
        session::check_first_form(desk, stranger.peer, &stranger.headers, fields.one("csrf"))?;
        fields.remove("csrf");
        Ok(Self { stranger, fields })
    }
}

async fn form(parts: &Parts, body: Body) -> Result<Fields, Problem> {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/x-www-form-urlencoded") {
        let message = "A form is sent as application/x-www-form-urlencoded.";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    }
    let bytes = to_bytes(body, MAX_FORM).await.map_err(|_| bad("The form is too large, or broke off."))?;
    let text = std::str::from_utf8(&bytes).ok();
    text.and_then(Fields::read).ok_or_else(|| bad("The form is no text."))
}

fn bad(message: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_request", message)
}
