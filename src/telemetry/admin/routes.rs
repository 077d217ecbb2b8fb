//! What the admin port answers: the list of routes.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{ReloadRequest, State, body::Text};
use crate::clock;

/// Which port was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Everything.
    Admin,
    /// Life and readiness alone.
    Probes,
}

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What the exposition format's own document asks for.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers one request. Its body is never read.
pub(super) async fn answer<B>(request: Request<B>, peer: IpAddr, kind: Kind, state: &State) -> Response<Text> {
    let (head, _) = request.into_parts();
    let read = matches!(head.method, Method::GET | Method::HEAD);
    match (kind, head.uri.path()) {
        (_, "/livez") if read => probe(&state.health.liveness(clock::mono()), "livez", is_verbose(head.uri.query())),
        (_, "/readyz") if read => probe(&state.health.readiness(), "readyz", is_verbose(head.uri.query())),
        (_, "/livez" | "/readyz") => not_this_method("GET, HEAD"),
        (Kind::Probes, _) => not_found(),
        (_, "/healthz") if read => probe(&state.health.readiness(), "healthz", is_verbose(head.uri.query())),
        (_, "/metrics") if read => respond(StatusCode::OK, METRICS, state.registry.render()),
        (_, "/version") if read => respond(StatusCode::OK, JSON, version()),
        (_, "/-/reload") if head.method == Method::POST => {
            if let Err(why) = may_reload(peer, &head.headers) {
                return respond(StatusCode::FORBIDDEN, PLAIN, format!("{why}\n"));
            }
            reload(state).await
        }
        (_, "/-/reload") => not_this_method("POST"),
        (_, "/healthz" | "/metrics" | "/version") => not_this_method("GET, HEAD"),
        _ => not_found(),
    }
}

fn is_verbose(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose="))
}

/// As Kubernetes components answer: `ok`, or all checks when asked or when one failed.
fn probe(report: &crate::telemetry::health::Report, name: &str, verbose: bool) -> Response<Text> {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verdict = if report.ok { "passed" } else { "failed" };
    let text =
        if verbose || !report.ok { format!("{}{name} check {verdict}\n", report.lines) } else { "ok\n".to_owned() };
    respond(status, PLAIN, text)
}

fn version() -> String {
    let build = serde_json::json!({
        "name": "keyside",
        "version": env!("CARGO_PKG_VERSION"),
        "revision": option_env!("KEYSIDE_REVISION"),
    });
    format!("{build}\n")
}

/// Whether this peer may ask for a reload: a local program may, a web page in a local browser may not.
///
/// A page cannot choose `Host`: under DNS rebinding it is the page's own name, not a loopback one. And it cannot
/// leave out `Origin` of a POST, nor forge `Sec-Fetch-Site`.
pub(super) fn may_reload(peer: IpAddr, headers: &HeaderMap) -> Result<(), &'static str> {
    if !peer.to_canonical().is_loopback() {
        return Err("a reload may be asked for from loopback only");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let loopback = match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) => names_loopback(host),
        _ => false,
    };
    if !loopback {
        return Err("the Host of a reload must be a loopback address or localhost");
    }
    let cross_site = headers.contains_key(header::ORIGIN)
        || headers.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin");
    if cross_site { Err("a web page may not ask for a reload") } else { Ok(()) }
}

fn names_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

async fn reload(state: &State) -> Response<Text> {
    let (answer, told) = tokio::sync::oneshot::channel();
    // A queue that is full means that reloads are under way already; a closed one, that the process ends.
    if state.reload.send(ReloadRequest(answer)).await.is_err() {
        return respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not reloading: shutting down\n".to_owned());
    }
    match told.await {
        Ok(Ok(said)) => respond(StatusCode::OK, PLAIN, format!("{}\n", said.trim_end())),
        Ok(Err(why)) => respond(StatusCode::UNPROCESSABLE_ENTITY, PLAIN, format!("{}\n", why.trim_end())),
        Err(_) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "not reloaded: shutting down\n".to_owned()),
    }
}

fn not_found() -> Response<Text> {
    respond(StatusCode::NOT_FOUND, PLAIN, "not found\n".to_owned())
}

fn not_this_method(allow: &'static str) -> Response<Text> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed\n".to_owned());
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

fn respond(status: StatusCode, content_type: HeaderValue, text: String) -> Response<Text> {
    let mut response = Response::new(Text::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
