use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{Format, Reason, Rejection};

/// A rendered refusal: what the caller's format makes of a row of the table.
#[derive(Debug)]
pub struct Body {
    /// The status; WooCommerce's dialect changes some.
    pub status: StatusCode,
    /// The media type.
    pub content_type: HeaderValue,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What a problem of type 429 or 503 is, beyond its status (registered with IANA for RFC 9457 §4.2).
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";

/// Renders a refusal in the given format; `method` words the answers of the WooCommerce dialect.
pub fn render(rejection: &Rejection, format: Format, request_id: &str, method: &Method) -> Body {
    let row = rejection.reason.row();
    let status = rejection.reason.status();
    let detail = match &rejection.hint {
        Some(hint) => format!("{} {hint}", row.sentence),
        None => row.sentence.to_owned(),
    };
    let (status, value) = match format {
        Format::Problem => (status, problem(rejection, status, &detail, request_id)),
        Format::WordPress => (status, wordpress(row.code, &detail, status)),
        Format::WooCommerce => woocommerce(rejection, status, &detail, method),
        Format::Envelope => (status, json!({ "success": false, "error": { "code": row.code, "message": detail } })),
    };
    let content_type = match format {
        Format::Problem => HeaderValue::from_static("application/problem+json"),
        Format::WordPress | Format::WooCommerce | Format::Envelope => HeaderValue::from_static("application/json"),
    };
    Body { status, content_type, bytes: value.to_string().into_bytes() }
}

/// RFC 9457, with `code` and `request_id`.
fn problem(rejection: &Rejection, status: StatusCode, detail: &str, request_id: &str) -> Value {
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => QUOTA_EXCEEDED,
        StatusCode::SERVICE_UNAVAILABLE => REDUCED_CAPACITY,
        _ => "about:blank",
    };
    let mut problem = Map::new();
    problem.insert("type".into(), kind.into());
    problem.insert("title".into(), status.canonical_reason().unwrap_or("Error").into());
    problem.insert("status".into(), status.as_u16().into());
    problem.insert("detail".into(), detail.into());
    problem.insert("code".into(), rejection.reason.row().code.into());
    problem.insert("request_id".into(), request_id.into());
    if !rejection.violated.is_empty() {
        let names = rejection.violated.iter().map(|name| Value::from(&**name)).collect();
        problem.insert("violated-policies".into(), Value::Array(names));
    }
    Value::Object(problem)
}

fn wordpress(code: &str, message: &str, status: StatusCode) -> Value {
    json!({ "code": code, "message": message, "data": { "status": status.as_u16() } })
}

/// The codes and statuses that its own server answers with, so that its clients find what they know.
fn woocommerce(rejection: &Rejection, status: StatusCode, detail: &str, method: &Method) -> (StatusCode, Value) {
    const FAILED: &str = "woocommerce_rest_authentication_error";
    let writes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let (status, code, message) = match rejection.reason {
        Reason::MissingCredentials => {
            let (code, message) = cannot(method);
            (StatusCode::UNAUTHORIZED, code, message.to_owned())
        }
        reason if reason.is_failed_authentication() => {
            (StatusCode::UNAUTHORIZED, FAILED, "Consumer key or secret is invalid.".to_owned())
        }
        // Its server answers 401 here, and its clients look for that.
        Reason::InsufficientScope => {
            let verb = if writes { "write" } else { "read" };
            (StatusCode::UNAUTHORIZED, FAILED, format!("The API key provided does not have {verb} permissions."))
        }
        Reason::PermissionDenied => {
            let (code, message) = cannot(method);
            (StatusCode::FORBIDDEN, code, message.to_owned())
        }
        Reason::MethodNotAllowed => (StatusCode::UNAUTHORIZED, FAILED, "Unknown request method.".to_owned()),
        Reason::RouteNotAllowed => (
            StatusCode::UNAUTHORIZED,
            FAILED,
            "The provided API key cannot be used to access this endpoint.".to_owned(),
        ),
        _ => (status, rejection.reason.row().code, detail.to_owned()),
    };
    (status, wordpress(code, &message, status))
}

/// What may not be done, by the method.
fn cannot(method: &Method) -> (&'static str, &'static str) {
    match *method {
        Method::POST => ("woocommerce_rest_cannot_create", "Sorry, you are not allowed to create resources."),
        Method::PUT | Method::PATCH => {
            ("woocommerce_rest_cannot_edit", "Sorry, you are not allowed to edit this resource.")
        }
        Method::DELETE => ("woocommerce_rest_cannot_delete", "Sorry, you are not allowed to delete this resource."),
        _ => ("woocommerce_rest_cannot_view", "Sorry, you cannot list resources."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::TABLE;

    #[track_caller]
    fn check(reason: Reason, format: Format, method: Method, status: u16, expected: &str) {
        let body = render(&reason.into(), format, "id-1", &method);
        assert_eq!((body.status.as_u16(), String::from_utf8(body.bytes).unwrap().as_str()), (status, expected));
    }

    #[test]
    fn each_format_has_its_shape() {
        check(
            Reason::UnknownKey,
            Format::Problem,
            Method::GET,
            401,
            r#"{"type":"about:blank","title":"Unauthorized","status":401,"detail":"The API key is not accepted.","code":"invalid_credentials","request_id":"id-1"}"#,
        );
        check(
            Reason::KycRequired,
            Format::WordPress,
            Method::POST,
            403,
            r#"{"code":"kyc_required","message":"The owner of this key has no approved KYC.","data":{"status":403}}"#,
        );
        check(
            Reason::ModeMismatch,
            Format::Envelope,
            Method::GET,
            403,
            r#"{"success":false,"error":{"code":"mode_mismatch","message":"This key belongs to another mode than this host."}}"#,
        );
        check(
            Reason::InsufficientScope,
            Format::WooCommerce,
            Method::PUT,
            401,
            r#"{"code":"woocommerce_rest_authentication_error","message":"The API key provided does not have write permissions.","data":{"status":401}}"#,
        );
        check(
            Reason::MissingCredentials,
            Format::WooCommerce,
            Method::GET,
            401,
            r#"{"code":"woocommerce_rest_cannot_view","message":"Sorry, you cannot list resources.","data":{"status":401}}"#,
        );
    }

    #[test]
    fn failed_authentications_are_alike_in_every_format() {
        for format in [Format::Problem, Format::WordPress, Format::WooCommerce, Format::Envelope] {
            let alike: Vec<_> = TABLE
                .iter()
                .filter(|row| row.reason.is_failed_authentication())
                .map(|row| render(&row.reason.into(), format, "id", &Method::POST).bytes)
                .collect();
            assert!(alike.len() >= 6 && alike.windows(2).all(|pair| pair[0] == pair[1]), "{format:?}");
        }
    }

    #[test]
    fn a_hint_is_escaped() {
        let rejection = Rejection::from(Reason::AmbiguousFieldName).hint("\"a\u{7}\\b\"");
        let body = render(&rejection, Format::Problem, "id", &Method::GET);
        let parsed: Value = serde_json::from_slice(&body.bytes).unwrap();
        assert!(parsed["detail"].as_str().unwrap().ends_with("\"a\u{7}\\b\""));
    }
}
