//! Answers of our own: refusals from the table, and the health path.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use super::{body::Body, headers::X_REQUEST_ID, live::Live, record::Record};
use crate::{
    limits::Readings,
    listener::Exchange,
    rejection::{self, Reason, Rejection},
};

static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What becomes of the connection after a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Afterwards {
    /// The request was read to its end.
    Keep,
    /// Something of the request was not read: nothing behind it can be trusted to be a request.
    Close,
}

/// Answers with a refusal.
pub(super) fn refuse(
    mut rejection: Rejection,
    live: &Live,
    mut record: Box<Record>,
    exchange: Exchange,
    readings: &Readings,
    afterwards: Afterwards,
) -> Response<Body> {
    let request_id = record.request_id();
    let method = record.method();
    let rendered = rejection::render(&rejection, live.errors, request_id.map_or("", |id| id.as_str()), method);
    let mut headers = HeaderMap::with_capacity(12);
    headers.insert(header::CONTENT_TYPE, rendered.content_type.clone());
    headers.insert(header::CACHE_CONTROL, NO_STORE.clone());
    if let Some(request_id) = request_id {
        headers.insert(X_REQUEST_ID, request_id.header_value());
    }
    headers.insert(&PROXY_STATUS, proxy_status(rejection.reason).clone());
    if rendered.status == StatusCode::UNAUTHORIZED {
        for challenge in &live.challenges {
            headers.append(header::WWW_AUTHENTICATE, challenge.clone());
        }
    }
    if let Some(scope) = &rejection.scope
        && live.credential.bearer
        && let Ok(challenge) =
            HeaderValue::try_from(format!("Bearer realm=\"API\", error=\"insufficient_scope\", scope=\"{scope}\""))
    {
        headers.append(header::WWW_AUTHENTICATE, challenge);
    }
    if let Some(seconds) = rejection.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if rejection.reason == Reason::MethodNotAllowed {
        // A method that is never taken is refused before anybody has looked for a route (RFC 9110 §15.5.6).
        let allow = rejection.allow.take().unwrap_or_else(|| live.policy.allow().clone());
        headers.insert(header::ALLOW, allow);
    }
    readings.write(live.limit_headers, &mut headers);

    // To HEAD goes the head alone, with the length that the body would have had (RFC 9110 §9.3.2).
    let bytes = if *method == Method::HEAD {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(rendered.bytes.len()));
        Bytes::new()
    } else {
        rendered.bytes
    };
    if afterwards == Afterwards::Close && record.version() < Version::HTTP_2 {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    record.refused(&mut rejection, rendered.status.as_u16());
    let mut response = Response::new(Body::own(bytes, record, exchange));
    *response.status_mut() = rendered.status;
    *response.headers_mut() = headers;
    response
}

/// Says that the answer is the proxy's own, and of which kind (RFC 9209 §2.3).
fn proxy_status(reason: Reason) -> &'static HeaderValue {
    static UNAVAILABLE: HeaderValue = HeaderValue::from_static("keyside; error=destination_unavailable");
    static TIMEOUT: HeaderValue = HeaderValue::from_static("keyside; error=http_response_timeout");
    static INTERNAL_ERROR: HeaderValue = HeaderValue::from_static("keyside; error=proxy_internal_error");
    static INTERNAL_RESPONSE: HeaderValue = HeaderValue::from_static("keyside; error=proxy_internal_response");
    static DENIED: HeaderValue = HeaderValue::from_static("keyside; error=http_request_denied");
    match reason {
        Reason::UpstreamUnreachable => &UNAVAILABLE,
        Reason::UpstreamTimeout => &TIMEOUT,
        Reason::Internal => &INTERNAL_ERROR,
        Reason::KeysUnavailable | Reason::Overloaded => &INTERNAL_RESPONSE,
        _ => &DENIED,
    }
}

/// Answers the health path: 200, or 503 while the connection drains.
pub(super) fn health(mut record: Box<Record>, exchange: Exchange, draining: bool) -> Response<Body> {
    let (status, text) =
        if draining { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } else { (StatusCode::OK, "ok\n") };
    record.answered(status.as_u16());
    let request_id = record.request_id().map(crate::facts::RequestId::header_value);
    let text = if *record.method() == Method::HEAD { "" } else { text };
    let mut response = Response::new(Body::own(text, record, exchange));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, NO_STORE.clone());
    if let Some(request_id) = request_id {
        headers.insert(X_REQUEST_ID, request_id);
    }
    response
}
