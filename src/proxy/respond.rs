//! Answers of our own: refusals from the table, and the health path.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header};

use super::{body::Body, headers::X_REQUEST_ID, live::Live, record::Record};
use crate::{
    limits::Readings,
    listener::Exchange,
    rejection::{self, Reason, Rejection},
};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// How many different fields a refusal has at most.
const MOST_FIELDS: usize = 12;

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

/// Answers with a refusal, to the request whose fields these were.
pub(super) fn refuse(
    mut rejection: Rejection,
    live: &Live,
    mut record: Box<Record>,
    exchange: Exchange,
    readings: &Readings,
    afterwards: Afterwards,
    fields: HeaderMap,
) -> Response<Body> {
    let request_id = record.request_id();
    let method = record.method();
    // A refusal that tells what cannot be done tells it of what would have been done.
    let would = record.effective_method();
    let rendered = rejection::render(&rejection, live.errors, request_id.map_or(b"", |id| id.as_bytes()), would);
    let mut headers = emptied(fields);
    headers.insert(header::CONTENT_TYPE, rendered.content_type.clone());
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if let Some(request_id) = request_id {
        headers.insert(X_REQUEST_ID, request_id.header_value());
    }
    headers.insert(PROXY_STATUS, proxy_status(rejection.reason));
    if rendered.status == StatusCode::UNAUTHORIZED {
        let failed = rejection.reason.is_failed_authentication();
        for challenge in if failed { &live.challenges_after_failure } else { &live.challenges } {
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

/// The map of an answer is the request's own, emptied: that saves three allocations, and a fourth one where hyper reads
/// the next request into it. One that is too small would grow, and one that a caller made large would stay so.
fn emptied(mut fields: HeaderMap) -> HeaderMap {
    if (MOST_FIELDS..=2 * MOST_FIELDS).contains(&fields.capacity()) {
        fields.clear();
        fields
    } else {
        HeaderMap::with_capacity(MOST_FIELDS)
    }
}

/// Answers the health path: 200, or 503 while the connection drains.
pub(super) fn health(
    mut record: Box<Record>,
    exchange: Exchange,
    draining: bool,
    afterwards: Afterwards,
) -> Response<Body> {
    let (status, text) =
        if draining { (StatusCode::SERVICE_UNAVAILABLE, "draining\n") } else { (StatusCode::OK, "ok\n") };
    record.answered(status.as_u16());
    let request_id = record.request_id().map(crate::facts::RequestId::header_value);
    let text = if *record.method() == Method::HEAD { "" } else { text };
    let close = afterwards == Afterwards::Close && record.version() < Version::HTTP_2;
    let mut response = Response::new(Body::own(text, record, exchange));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    if let Some(request_id) = request_id {
        headers.insert(X_REQUEST_ID, request_id);
    }
    if close {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing of a request with so many fields is left; `expected` is for how many fields there is room then.
    #[track_caller]
    fn check(fields: usize, expected: usize) {
        let mut headers = HeaderMap::new();
        for number in 0..fields {
            let name = HeaderName::try_from(format!("x-field-{number}")).unwrap();
            headers.append(&name, HeaderValue::from_static("secret"));
            headers.append(&name, HeaderValue::from_static("secret"));
        }
        let emptied = emptied(headers);
        assert!(emptied.is_empty() && emptied.iter().next().is_none() && !emptied.contains_key("x-field-0"));
        assert_eq!(emptied.capacity(), expected, "after {fields} fields");
    }

    #[test]
    fn a_map_of_the_right_size_is_emptied_and_any_other_left() {
        check(0, 12);
        check(5, 12);
        check(11, 12);
        check(20, 24);
        check(25, 12);
        check(90, 12);
    }
}
