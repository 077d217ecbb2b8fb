//! Answers of our own: refusals from the table, and the health path.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{body::Body, headers::X_REQUEST_ID, live::Live, record::Record};
use crate::{
    limits::Readings,
    listener::{Answer, Exchange},
    rejection::{self, Reason, Rejection},
};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What becomes of the connection after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// The request was read to its end.
    Keep,
    /// Something of the request was not read, or its end is not clear: nothing behind it can be trusted to be a request.
    Close,
}

impl Afterwards {
    pub(super) fn keep_if(clear: bool) -> Self {
        if clear { Self::Keep } else { Self::Close }
    }
}

/// Answers with a refusal.
pub(super) fn refuse(
    mut rejection: Rejection,
    live: &Live,
    mut record: Box<Record>,
    exchange: Exchange,
    readings: &Readings,
    afterwards: Afterwards,
) -> Answer<Body> {
    let request_id = record.request_id();
    let method = record.method();
    // A refusal that tells what cannot be done tells it of what would have been done.
    let would = record.effective_method();
    let rendered = rejection::render(&rejection, live.errors, request_id.map_or(b"", |id| id.as_bytes()), would);
    let mut fields = exchange.connection().fields();
    fields.put(&header::CONTENT_TYPE, rendered.content_type);
    fields.put(&header::CACHE_CONTROL, &NO_STORE);
    if let Some(request_id) = request_id {
        fields.put(&X_REQUEST_ID, &request_id.header_value());
    }
    fields.put(&PROXY_STATUS, &proxy_status(rejection.reason));
    if rendered.status == StatusCode::UNAUTHORIZED {
        let failed = rejection.reason.is_failed_authentication();
        for challenge in if failed { &live.challenges_after_failure } else { &live.challenges } {
            fields.put(&header::WWW_AUTHENTICATE, challenge);
        }
    }
    if let Some(scope) = &rejection.scope
        && live.credential.bearer
        && let Ok(challenge) =
            HeaderValue::try_from(format!("Bearer realm=\"API\", error=\"insufficient_scope\", scope=\"{scope}\""))
    {
        fields.put(&header::WWW_AUTHENTICATE, &challenge);
    }
    if let Some(seconds) = rejection.retry_after {
        fields.put_number(&header::RETRY_AFTER, seconds);
    }
    if rejection.reason == Reason::MethodNotAllowed {
        // A method that is never taken is refused before anybody has looked for a route (RFC 9110 §15.5.6).
        let allow = rejection.allow.take().unwrap_or_else(|| live.policy.allow().clone());
        fields.put(&header::ALLOW, &allow);
    }
    readings.write(live.limit_headers, |name, value| fields.put_text(name, value));

    // To HEAD goes the head alone, with the length that the body would have had (RFC 9110 §9.3.2).
    let bytes = if *method == Method::HEAD {
        fields.set_length(rendered.bytes.len() as u64);
        Bytes::new()
    } else {
        rendered.bytes
    };
    if afterwards == Afterwards::Close {
        fields.close();
    }
    record.refused(&mut rejection, rendered.status.as_u16());
    Answer::new(rendered.status, fields, Body::own(bytes, record, exchange))
}

/// Says that the answer is the proxy's own, and of which kind (RFC 9209 §2.3).
fn proxy_status(reason: Reason) -> HeaderValue {
    // At compile time: at run time, every byte is looked at.
    const UNAVAILABLE: HeaderValue = HeaderValue::from_static("keyside; error=destination_unavailable");
    const TIMEOUT: HeaderValue = HeaderValue::from_static("keyside; error=http_response_timeout");
    const INTERNAL_ERROR: HeaderValue = HeaderValue::from_static("keyside; error=proxy_internal_error");
    const INTERNAL_RESPONSE: HeaderValue = HeaderValue::from_static("keyside; error=proxy_internal_response");
    const DENIED: HeaderValue = HeaderValue::from_static("keyside; error=http_request_denied");
    match reason {
        Reason::UpstreamUnreachable => UNAVAILABLE,
        Reason::UpstreamTimeout => TIMEOUT,
        Reason::Internal => INTERNAL_ERROR,
        Reason::KeysUnavailable | Reason::Overloaded => INTERNAL_RESPONSE,
        _ => DENIED,
    }
}

/// Answers the health path: 200, or 503 while the connection drains.
pub(super) fn health(
    mut record: Box<Record>,
    exchange: Exchange,
    draining: bool,
    afterwards: Afterwards,
) -> Answer<Body> {
    let (status, text) =
        if draining { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } else { (StatusCode::OK, "ok\n") };
    record.answered(status.as_u16());
    let mut fields = exchange.connection().fields();
    fields.put(&header::CONTENT_TYPE, &HeaderValue::from_static("text/plain"));
    fields.put(&header::CACHE_CONTROL, &NO_STORE);
    if let Some(request_id) = record.request_id() {
        fields.put(&X_REQUEST_ID, &request_id.header_value());
    }
    if afterwards == Afterwards::Close {
        fields.close();
    }
    let text = if *record.method() == Method::HEAD { "" } else { text };
    Answer::new(status, fields, Body::own(text, record, exchange))
}
