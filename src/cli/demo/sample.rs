//! The sample API behind the demo: it answers with what it saw of the request, and with sample data.
//!
//! It knows nothing of keys. What a caller sees in its answers is exactly what Keyside forwards.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    pin::pin,
    thread::{self, JoinHandle},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Body;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::telemetry::admin::Text;

/// A running sample API; dropping it stops it.
pub(super) struct Sample {
    address: SocketAddr,
    running: Option<(oneshot::Sender<Infallible>, JoinHandle<()>)>,
}

impl Sample {
    /// Starts the API on any free loopback port, with a thread of its own.
    pub(super) fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("sample-api".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = listen(listener) => {}
                }
            });
        })?;
        Ok(Self { address, running: Some((stop, thread)) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

async fn listen(listener: TcpListener) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        tokio::spawn(async move {
            let service = hyper::service::service_fn(answer);
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // The sidecar closes its connections when it likes.
            let _ = connection.await;
        });
    }
}

async fn answer<B: Body>(request: Request<B>) -> Result<Response<Text>, Infallible> {
    let (head, body) = request.into_parts();
    let sent = body_bytes(body).await;
    let (status, sample) = look_up(&head.method, head.uri.path());
    let saw = json!({
        "method": head.method.as_str(),
        "path": path(&head),
        "headers": fields(&head.headers),
        "body_bytes": sent,
        "sample": sample,
    });
    let mut response = Response::new(Text::from(format!("{saw:#}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn path(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// All fields as they arrived; a repeated one as a list.
fn fields(headers: &HeaderMap) -> Value {
    let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
    let fields = headers.keys().map(|name| {
        let mut values: Vec<Value> = headers.get_all(name).iter().map(text).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        (name.as_str().to_owned(), value)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Reads the body to its end, keeping nothing of it.
async fn body_bytes<B: Body>(body: B) -> usize {
    use bytes::Buf as _;
    let mut body = pin!(body);
    let mut bytes = 0;
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        bytes += frame.data_ref().map_or(0, |data| data.remaining());
    }
    bytes
}

/// The status and the sample data of a path: a collection, or an entry of one.
fn look_up(method: &Method, path: &str) -> (StatusCode, Value) {
    // It is part of the program, and a test reads it.
    let collections: Map<String, Value> =
        serde_json::from_str(include_str!("sample.json")).unwrap_or_else(|_| Map::new());
    let path = path.strip_suffix('/').unwrap_or(path);
    let entry = |collection: &Value, id: &str| {
        collection.as_array().into_iter().flatten().find(|entry| entry["id"] == id).cloned()
    };
    let not_found = || (StatusCode::NOT_FOUND, json!({ "error": "not found" }));
    match (collections.get(path), path.rsplit_once('/')) {
        (Some(collection), _) => match *method {
            Method::GET | Method::HEAD => (StatusCode::OK, collection.clone()),
            Method::POST => (StatusCode::CREATED, json!({ "id": "new", "status": "accepted" })),
            _ => (StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "method not allowed" })),
        },
        (None, Some((parent, id))) => match collections.get(parent).and_then(|collection| entry(collection, id)) {
            Some(found) => (StatusCode::OK, found),
            None => not_found(),
        },
        (None, None) => not_found(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    #[track_caller]
    fn check(method: Method, path: &str, status: u16, id: Option<&str>) {
        let (found, sample) = look_up(&method, path);
        assert_eq!(found, status, "{method} {path}");
        if let Some(id) = id {
            assert_eq!(sample["id"], id);
        }
    }

    #[test]
    fn collections_and_their_entries_are_found() {
        for collection in ["/v1/wallets", "/v1/transactions", "/v1/kyc/decisions", "/v1/withdrawals"] {
            let (status, list) = look_up(&Method::GET, collection);
            assert_eq!(status, 200, "{collection}");
            assert!(list.as_array().is_some_and(|list| !list.is_empty()), "{collection}");
            check(Method::POST, collection, 201, Some("new"));
            check(Method::DELETE, collection, 405, None);
        }
        check(Method::GET, "/v1/wallets/wal_main", 200, Some("wal_main"));
        check(Method::GET, "/v1/wallets/", 200, None);
        check(Method::GET, "/v1/wallets/unknown", 404, None);
        check(Method::GET, "/", 404, None);
    }

    #[test]
    fn the_answer_says_what_was_seen() {
        let sample = Sample::start().unwrap();
        let mut stream = TcpStream::connect(sample.address()).unwrap();
        let request = "POST /v1/withdrawals?x=1 HTTP/1.1\r\nHost: api\r\nX-Twice: a\r\nX-Twice: b\r\n\
                       Content-Length: 5\r\nConnection: close\r\n\r\nhello";
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
        let saw: Value = serde_json::from_str(body).unwrap();
        assert_eq!(saw["method"], "POST");
        assert_eq!(saw["path"], "/v1/withdrawals?x=1");
        assert_eq!(saw["headers"]["x-twice"], json!(["a", "b"]));
        assert_eq!(saw["body_bytes"], 5);
    }
}
