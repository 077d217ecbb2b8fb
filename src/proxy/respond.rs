//! Answers of our own: refusals from the table, and the health path.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use super::{body::Body, live::Live, record::Record};
use crate::{
    limits::{FIELD_NAMES, Readings},
    listener::{Answer, Exchange, Fields, OurField},
    rejection::{self, Reason, Rejection},
};

static CONTENT_TYPE: OurField = OurField::new("content-type: ");
static CACHE_CONTROL: OurField = OurField::new("cache-control: ");
static PROXY_STATUS: OurField = OurField::new("proxy-status: ");
/// The id that caller, upstream and operator share.
pub(super) static X_REQUEST_ID: OurField = OurField::new("x-request-id: ");
/// The rate-limit fields, in the order of the table they are from.
static RATE_LIMITS: [OurField; FIELD_NAMES.len()] = {
    let [a, b, c, d, e] = FIELD_NAMES;
    [OurField::new(a), OurField::new(b), OurField::new(c), OurField::new(d), OurField::new(e)]
};
const NO_STORE: &str = "no-store";

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
    afterwards: Afterwards,
) -> Answer<Body> {
    let request_id = record.request_id();
    let method = record.method();
    // A refusal that tells what cannot be done tells it of what would have been done.
    let would = record.effective_method();
    let rendered = rejection::render(&rejection, live.errors, request_id.map_or(b"", |id| id.as_bytes()), would);
    let mut fields = exchange.connection().fields();
    fields.put_ours(&CONTENT_TYPE, rendered.content_type);
    fields.put_word(&CACHE_CONTROL, NO_STORE);
    if let Some(request_id) = request_id {
        fields.put_ours(&X_REQUEST_ID, request_id.header_value());
    }
    fields.put_word(&PROXY_STATUS, proxy_status(rejection.reason));
    if rendered.status == StatusCode::UNAUTHORIZED {
        let failed = rejection.reason.is_failed_authentication();
        for challenge in if failed { &live.challenges_after_failure } else { &live.challenges } {
            fields.put(header::WWW_AUTHENTICATE, challenge.clone());
        }
    }
    if let Some(scope) = &rejection.scope
        && live.credential.bearer
        && let Ok(challenge) =
            HeaderValue::try_from(format!("Bearer realm=\"API\", error=\"insufficient_scope\", scope=\"{scope}\""))
    {
        fields.put(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = rejection.retry_after {
        fields.put(header::RETRY_AFTER, seconds.into());
    }
    if rejection.reason == Reason::MethodNotAllowed {
        // A method that is never taken is refused before anybody has looked for a route (RFC 9110 §15.5.6).
        let allow = rejection.allow.take().unwrap_or_else(|| live.policy.allow().clone());
        fields.put(header::ALLOW, allow);
    }
    put_readings(&record.readings, live, &mut fields);

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

/// Says what remains.
pub(super) fn put_readings(readings: &Readings, live: &Live, fields: &mut Fields) {
    readings.write(live.limit_headers, |lines, names| fields.put_lines(lines, &RATE_LIMITS[names]));
}

/// Says that the answer is the proxy's own, and of which kind (RFC 9209 §2.3).
fn proxy_status(reason: Reason) -> &'static str {
    match reason {
        Reason::UpstreamUnreachable => "keyside; error=destination_unavailable",
        Reason::UpstreamTimeout => "keyside; error=http_response_timeout",
        Reason::Internal => "keyside; error=proxy_internal_error",
        Reason::KeysUnavailable | Reason::Overloaded => "keyside; error=proxy_internal_response",
        _ => "keyside; error=http_request_denied",
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
    fields.put_word(&CONTENT_TYPE, "text/plain");
    fields.put_word(&CACHE_CONTROL, NO_STORE);
    if let Some(request_id) = record.request_id() {
        fields.put_ours(&X_REQUEST_ID, request_id.header_value());
    }
    if afterwards == Afterwards::Close {
        fields.close();
    }
    let text = if *record.method() == Method::HEAD { "" } else { text };
    Answer::new(status, fields, Body::own(text, record, exchange))
}
