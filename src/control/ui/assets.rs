//! The files that pages refer to, all in the binary. Each has its content's hash in its name, and so may be kept for ever.

use std::sync::LazyLock;

use axum::{
    body::Body,
    extract::Path,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, header};

use super::super::{answer::Problem, audit::hex};

struct Asset {
    name: String,
    kind: &'static str,
    text: &'static str,
}

impl Asset {
    fn new(name: &str, end: &str, kind: &'static str, text: &'static str) -> Self {
        Self { name: format!("{name}-{}.{end}", &hex(text)[..16]), kind, text }
    }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("style", "css", "text/css; charset=utf-8", include_str!("assets/style.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("script", "js", "text/javascript; charset=utf-8", include_str!("assets/script.js")));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg")));

/// The path of the style sheet.
pub(super) fn style() -> String {
    format!("/assets/{}", STYLE.name)
}

/// The path of the script.
pub(super) fn script() -> String {
    format!("/assets/{}", SCRIPT.name)
}

/// The path of the icon.
pub(super) fn icon() -> String {
    format!("/assets/{}", ICON.name)
}

/// `GET /assets/{name}`
pub(super) async fn show(Path(name): Path<String>) -> Response {
    let Some(asset) = [&STYLE, &SCRIPT, &ICON].into_iter().find(|asset| asset.name == name) else {
        return Problem::not_found("file").into_response();
    };
    let mut response = Response::new(Body::from(asset.text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    response
}
