//! The envelope of the management API: `{"success":true,"data":…}` or `{"success":false,"error":{"code","message"}}`.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::{ledger::WriteError, store::StoreError};

/// A refusal, as the caller is told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status.
    pub status: StatusCode,
    /// For programs.
    pub code: &'static str,
    /// For people: what is wrong, and what to do.
    pub message: String,
    /// The field of the request that is wrong, where it is one.
    pub field: Option<&'static str>,
    /// In how many seconds to ask again.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A refusal.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None, retry_after: None }
    }

    /// The request is not what it should be.
    pub fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", message) }
    }

    /// There is no such thing.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
    }

    /// The caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// Nobody is signed in.
    pub fn unauthorized() -> Self {
        let message = "Send an operator's token as \"Authorization: Bearer …\", or sign in.";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// Too many attempts failed.
    pub fn too_many(seconds: u64) -> Self {
        let message = format!("Too many attempts from this address failed. Try again in {seconds} s.");
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", message);
        Self { retry_after: Some(seconds), ..refusal }
    }

    /// It does not go together with what is there.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// As JSON.
    pub fn body(&self) -> Value {
        let mut error = json!({ "code": self.code, "message": self.message });
        if let (Some(field), Value::Object(error)) = (self.field, &mut error) {
            error.insert("field".to_owned(), field.into());
        }
        json!({ "success": false, "error": error })
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let unavailable = |message: &str| Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", message);
        tracing::error!(%error, "the store refused");
        match error {
            StoreError::Full(_) => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "store_full",
                "There is no room left in the store: nothing was changed.",
            ),
            StoreError::Unknown(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "outcome_unknown",
                "The store broke off: look whether it was done before you ask again.",
            ),
            StoreError::Astray(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_went_back",
                "The store has lost what was written to it before, as after a failover to a replica that lagged. Nothing is \
                 changed until that is back, or a new history is begun. The log says more.",
            ),
            StoreError::Another(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_is_another",
                "The store is another one than the one that is served, as that of another installation: its keys are not ours. \
                 Nothing is changed until the right one is back. The log says more.",
            ),
            StoreError::Damaged(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "store_damaged",
                "The store is damaged: nothing was changed. The log says more.",
            ),
            StoreError::Conflict | StoreError::Unavailable(_) | StoreError::Newer { .. } => {
                unavailable("The store cannot be used now: nothing was changed. Try again.")
            }
        }
    }
}

impl From<WriteError<Self>> for Problem {
    fn from(error: WriteError<Self>) -> Self {
        match error {
            WriteError::Refused(problem) => problem,
            WriteError::Store(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json_response(self.status, &self.body());
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"keyside\""));
        }
        let again = self.retry_after.or((self.status == StatusCode::SERVICE_UNAVAILABLE).then_some(1));
        if let Some(seconds) = again {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Data in the envelope.
pub fn data(status: StatusCode, data: &impl Serialize) -> Response {
    json_response(status, &json!({ "success": true, "data": data }))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // Answers hold names, addresses and, once, a secret: no cache is to keep them.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
