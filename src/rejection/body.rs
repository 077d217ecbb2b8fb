//! The bodies of refusals, one shape per format. Written by hand: four shapes of a few members each.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};

use super::{Format, Reason, Rejection, json::Json, template};

static PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
static JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A rendered refusal: what the caller's format makes of a row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// The status; WooCommerce's dialect changes some.
    pub status: StatusCode,
    /// The media type.
    pub content_type: &'static HeaderValue,
    /// The bytes. To HEAD they are not sent, but their length is told.
    pub bytes: Bytes,
}

/// Renders a refusal in the given format.
///
/// All failed authentications give the same bytes but for the request id: what only one of them could say is left out
/// here, wherever it came from. The id is text in UTF-8. Most refusals say nothing but their row of the table, and cost a copy of what was
/// rendered before.
pub fn render(rejection: &Rejection, format: Format, request_id: &[u8], method: &Method) -> Body {
    let hint = rejection.hint.as_deref().filter(|_| !rejection.reason.is_failed_authentication());
    if hint.is_none() && rejection.violated.is_empty() && rejection.scope.is_none() {
        return template::of(rejection.reason, format, method).body(request_id);
    }
    let Json { status, content_type, bytes, .. } = written(rejection, hint, format, request_id, method);
    Body { status, content_type, bytes: bytes.into() }
}

/// What a format makes of a refusal.
pub(super) fn written(
    rejection: &Rejection,
    hint: Option<&str>,
    format: Format,
    request_id: &[u8],
    method: &Method,
) -> Json {
    let row = rejection.reason.row();
    match format {
        Format::Problem => problem(rejection, hint, request_id),
        Format::WordPress => wordpress(rejection.reason.status(), row.code, row.sentence, hint),
        Format::WooCommerce => {
            let answer = woocommerce(rejection.reason, method, rejection.scope.as_deref());
            // Its sentence on a permission says already which one is lacking.
            let hint = hint.filter(|_| rejection.reason != Reason::InsufficientScope);
            wordpress(answer.status, answer.code, answer.message, hint)
        }
        Format::Envelope => {
            let mut json = Json::new(&JSON, rejection.reason.status());
            json.raw("{\"success\":false,\"error\":{\"code\":").string(row.code);
            json.raw(",\"message\":").sentence(row.sentence, hint).raw("}}");
            json
        }
    }
}

/// What a problem is beyond its status, where that is registered with IANA (RFC 9457 §4.2).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// RFC 9457, with `code` and `request_id`.
fn problem(rejection: &Rejection, hint: Option<&str>, request_id: &[u8]) -> Json {
    let status = rejection.reason.status();
    let row = rejection.reason.row();
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => QUOTA_EXCEEDED,
        StatusCode::SERVICE_UNAVAILABLE => REDUCED_CAPACITY,
        _ => "about:blank",
    };
    let title = status.canonical_reason().unwrap_or("Error");
    let mut json = Json::new(&PROBLEM_JSON, status);
    json.raw("{\"type\":").string(kind);
    json.raw(",\"title\":").string(title);
    json.raw(",\"status\":").raw(status.as_str());
    json.raw(",\"detail\":").sentence(row.sentence, hint);
    json.raw(",\"code\":").string(row.code);
    json.raw(",\"request_id\":\"").request_id(request_id).raw("\"");
    if !rejection.violated.is_empty() {
        json.raw(",\"violated-policies\":[");
        for (place, policy) in rejection.violated.iter().enumerate() {
            json.raw(if place == 0 { "" } else { "," }).string(policy);
        }
        json.raw("]");
    }
    json.raw("}");
    json
}

/// What WordPress makes of a `WP_Error`.
fn wordpress(status: StatusCode, code: &str, message: &str, hint: Option<&str>) -> Json {
    let mut json = Json::new(&JSON, status);
    json.raw("{\"code\":").string(code);
    json.raw(",\"message\":").sentence(message, hint);
    json.raw(",\"data\":{\"status\":").raw(status.as_str()).raw("}}");
    json
}

/// What WooCommerce answers in a case like this one.
struct WooCommerce {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

/// WooCommerce's own codes and statuses, where it has any. Its clients know a key without the permission as a 401.
///
/// The scope that was missing says more than the method: where one method overrides another, both must be allowed, and
/// either may be the one that is not.
fn woocommerce(reason: Reason, method: &Method, lacking: Option<&str>) -> WooCommerce {
    let unauthorized = |message| WooCommerce {
        status: StatusCode::UNAUTHORIZED,
        code: "woocommerce_rest_authentication_error",
        message,
    };
    match reason {
        Reason::MissingCredentials => cannot(StatusCode::UNAUTHORIZED, method),
        Reason::PermissionDenied => cannot(StatusCode::FORBIDDEN, method),
        Reason::Malformed
        | Reason::UnknownKey
        | Reason::WrongSecret
        | Reason::Revoked
        | Reason::Expired
        | Reason::OwnerSuspended => unauthorized("Consumer key or secret is invalid."),
        Reason::MethodNotAllowed => unauthorized("Unknown request method."),
        Reason::InsufficientScope => unauthorized(match (lacking, method) {
            (Some("read"), _) | (None, &(Method::GET | Method::HEAD)) => {
                "The API key provided does not have read permissions."
            }
            _ => "The API key provided does not have write permissions.",
        }),
        Reason::RouteNotAllowed => unauthorized("The provided API key cannot be used to access this endpoint."),
        Reason::AmbiguousFraming
        | Reason::AmbiguousHost
        | Reason::AmbiguousFieldName
        | Reason::AmbiguousMethod
        | Reason::AmbiguousPath
        | Reason::RequestTimeout
        | Reason::BodyTooLarge
        | Reason::UriTooLong
        | Reason::HeadersTooLarge
        | Reason::IpLimit
        | Reason::AmbiguousCredentials
        | Reason::FailureLimit
        | Reason::ForbiddenCallerIp
        | Reason::ModeMismatch
        | Reason::KycRequired
        | Reason::KeyLimit
        | Reason::OwnerLimit
        | Reason::KeysUnavailable
        | Reason::Overloaded
        | Reason::UpstreamUnreachable
        | Reason::UpstreamTimeout
        | Reason::Internal => {
            WooCommerce { status: reason.status(), code: reason.row().code, message: reason.row().sentence }
        }
    }
}

/// What a stranger, or a user without the capability, cannot do. Which of a collection's or an item's sentences
/// WooCommerce would choose depends on its route; clients look at the code.
fn cannot(status: StatusCode, method: &Method) -> WooCommerce {
    let (code, message) = match *method {
        Method::POST => ("woocommerce_rest_cannot_create", "Sorry, you are not allowed to create resources."),
        Method::PUT | Method::PATCH => {
            ("woocommerce_rest_cannot_edit", "Sorry, you are not allowed to edit this resource.")
        }
        Method::DELETE => ("woocommerce_rest_cannot_delete", "Sorry, you are not allowed to delete this resource."),
        _ => ("woocommerce_rest_cannot_view", "Sorry, you cannot list resources."),
    };
    WooCommerce { status, code, message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{super::TABLE, *};

    const FORMATS: [Format; 4] = [Format::Problem, Format::WordPress, Format::WooCommerce, Format::Envelope];

    #[track_caller]
    fn check(rejection: impl Into<Rejection>, format: Format, method: Method, expected: (u16, Value)) {
        let body = render(&rejection.into(), format, b"req-1", &method);
        assert_eq!((body.status.as_u16(), serde_json::from_slice(&body.bytes).unwrap()), expected);
        let content_type = if format == Format::Problem { "application/problem+json" } else { "application/json" };
        assert_eq!(body.content_type, content_type);
    }

    #[test]
    fn a_problem_is_one_of_rfc_9457() {
        check(
            Reason::RouteNotAllowed,
            Format::Problem,
            Method::GET,
            (
                403,
                json!({
                    "type": "about:blank", "title": "Forbidden", "status": 403, "detail": "No key may use this method on this path.",
                    "code": "route_not_allowed", "request_id": "req-1",
                }),
            ),
        );
    }

    #[test]
    fn a_used_up_limit_has_a_registered_type_and_names_its_policies() {
        let mut rejection = Rejection::from(Reason::KeyLimit);
        rejection.violated = vec!["key-60s".into(), "key-1d".into()];
        check(
            rejection,
            Format::Problem,
            Method::GET,
            (
                429,
                json!({
                    "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                    "title": "Too Many Requests", "status": 429,
                    "detail": "This key has used up its allowance. Wait as long as Retry-After says.",
                    "code": "too_many_requests", "request_id": "req-1", "violated-policies": ["key-60s", "key-1d"],
                }),
            ),
        );
    }

    #[test]
    fn a_hint_follows_the_sentence() {
        let rejection = || Rejection::from(Reason::AmbiguousFieldName).hint("The field is \"a_b\".");
        let message = "A field name holds something other than letters, digits and hyphens. The field is \"a_b\".";
        check(
            rejection(),
            Format::WordPress,
            Method::GET,
            (
                400,
                json!({
                    "code": "bad_request", "message": message, "data": {"status": 400},
                }),
            ),
        );
        check(
            rejection(),
            Format::Envelope,
            Method::GET,
            (
                400,
                json!({
                    "success": false, "error": {"code": "bad_request", "message": message},
                }),
            ),
        );
    }

    #[test]
    fn wordpress_has_our_codes_and_statuses() {
        check(
            Reason::InsufficientScope,
            Format::WordPress,
            Method::GET,
            (
                403,
                json!({
                    "code": "insufficient_scope", "message": "This key lacks the scope that this request needs.", "data": {"status": 403},
                }),
            ),
        );
    }

    #[track_caller]
    fn check_woocommerce(reason: Reason, method: &str, status: u16, code: &str, message: &str) {
        let expected = json!({ "code": code, "message": message, "data": { "status": status } });
        check(reason, Format::WooCommerce, Method::from_bytes(method.as_bytes()).unwrap(), (status, expected));
    }

    #[test]
    fn woocommerce_tells_a_stranger_what_cannot_be_done() {
        let missing = Reason::MissingCredentials;
        check_woocommerce(missing, "GET", 401, "woocommerce_rest_cannot_view", "Sorry, you cannot list resources.");
        check_woocommerce(missing, "HEAD", 401, "woocommerce_rest_cannot_view", "Sorry, you cannot list resources.");
        check_woocommerce(
            missing,
            "POST",
            401,
            "woocommerce_rest_cannot_create",
            "Sorry, you are not allowed to create resources.",
        );
        check_woocommerce(
            missing,
            "PUT",
            401,
            "woocommerce_rest_cannot_edit",
            "Sorry, you are not allowed to edit this resource.",
        );
        check_woocommerce(
            missing,
            "PATCH",
            401,
            "woocommerce_rest_cannot_edit",
            "Sorry, you are not allowed to edit this resource.",
        );
        check_woocommerce(
            missing,
            "DELETE",
            401,
            "woocommerce_rest_cannot_delete",
            "Sorry, you are not allowed to delete this resource.",
        );
    }

    #[test]
    fn woocommerce_tells_a_user_without_the_capability_the_same_with_403() {
        check_woocommerce(
            Reason::PermissionDenied,
            "GET",
            403,
            "woocommerce_rest_cannot_view",
            "Sorry, you cannot list resources.",
        );
        check_woocommerce(
            Reason::PermissionDenied,
            "POST",
            403,
            "woocommerce_rest_cannot_create",
            "Sorry, you are not allowed to create resources.",
        );
    }

    #[test]
    fn woocommerce_answers_a_key_without_the_permission_with_401() {
        let code = "woocommerce_rest_authentication_error";
        let scope = Reason::InsufficientScope;
        check_woocommerce(scope, "GET", 401, code, "The API key provided does not have read permissions.");
        check_woocommerce(scope, "HEAD", 401, code, "The API key provided does not have read permissions.");
        check_woocommerce(scope, "POST", 401, code, "The API key provided does not have write permissions.");
        check_woocommerce(scope, "DELETE", 401, code, "The API key provided does not have write permissions.");
        check_woocommerce(
            Reason::RouteNotAllowed,
            "GET",
            401,
            code,
            "The provided API key cannot be used to access this endpoint.",
        );
    }

    #[test]
    fn woocommerce_names_the_permission_that_is_lacking_whatever_the_method() {
        for (scope, named) in [("read", "read"), ("write", "write")] {
            let mut rejection = Rejection::from(Reason::InsufficientScope).hint("It needs another scope.");
            rejection.scope = Some(scope.into());
            let message = format!("The API key provided does not have {named} permissions.");
            let code = "woocommerce_rest_authentication_error";
            for method in [Method::GET, Method::POST, Method::OPTIONS] {
                let body = render(&rejection, Format::WooCommerce, b"req-1", &method);
                let body: Value = serde_json::from_slice(&body.bytes).unwrap();
                assert_eq!(body, json!({ "code": code, "message": message, "data": { "status": 401 } }), "{method}");
            }
        }
    }

    #[test]
    fn woocommerce_knows_no_other_method() {
        let code = "woocommerce_rest_authentication_error";
        check_woocommerce(Reason::MethodNotAllowed, "PURGE", 401, code, "Unknown request method.");
    }

    #[test]
    fn woocommerce_answers_every_failed_credential_alike() {
        for row in TABLE.iter().filter(|row| row.reason.is_failed_authentication()) {
            check_woocommerce(
                row.reason,
                "POST",
                401,
                "woocommerce_rest_authentication_error",
                "Consumer key or secret is invalid.",
            );
        }
    }

    #[test]
    fn woocommerce_has_our_codes_where_it_has_none() {
        check_woocommerce(
            Reason::ForbiddenCallerIp,
            "GET",
            403,
            "forbidden_caller_ip",
            Reason::ForbiddenCallerIp.row().sentence,
        );
        check_woocommerce(Reason::Overloaded, "GET", 503, "overloaded", Reason::Overloaded.row().sentence);
    }

    #[test]
    fn failed_authentications_are_the_same_byte_for_byte() {
        for format in FORMATS {
            let bodies: Vec<_> = TABLE
                .iter()
                .filter(|row| row.reason.is_failed_authentication())
                .map(|row| {
                    let rejection = Rejection::from(row.reason).hint(row.label).note(row.label);
                    let body = render(&rejection, format, b"req-1", &Method::GET);
                    (body.status, body.content_type, body.bytes)
                })
                .collect();
            assert_eq!(bodies.len(), 6);
            assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{format:?}");
        }
    }

    #[test]
    fn every_row_renders_in_every_format_with_the_status_it_says() {
        for row in TABLE {
            for format in FORMATS {
                let body = render(&row.reason.into(), format, b"req-1", &Method::GET);
                let value: Value = serde_json::from_slice(&body.bytes).unwrap();
                let status = value.get("status").or_else(|| value.pointer("/data/status"));
                assert!(status.is_none_or(|status| *status == body.status.as_u16()), "{value}");
                if format != Format::WooCommerce {
                    assert_eq!(body.status.as_u16(), row.status);
                    let code = value.get("code").or_else(|| value.pointer("/error/code")).unwrap();
                    assert_eq!(code, row.code);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_request_adds_stays_in_its_string(hint in ".{0,40}", id in ".{0,20}", policy in ".{0,20}") {
            let mut rejection = Rejection::from(Reason::AmbiguousPath).hint(hint.as_str());
            rejection.violated = vec![policy.as_str().into()];
            let body = render(&rejection, Format::Problem, id.as_bytes(), &Method::GET);
            let value: Value = serde_json::from_slice(&body.bytes).unwrap();
            let detail = format!("{} {hint}", Reason::AmbiguousPath.row().sentence);
            prop_assert_eq!(&value["detail"], &Value::from(detail));
            prop_assert_eq!(&value["request_id"], &Value::from(id));
            prop_assert_eq!(&value["violated-policies"][0], &Value::from(policy));
        }
    }
}
