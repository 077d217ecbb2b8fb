//! What a client sends is taken for the same requests as another server takes it for, or refused; and nothing depends on
//! the pieces in which it comes.
//!
//! An input: where it is cut in two (in bytes), the bytes of a connection. The other server is hyper.

#![no_main]

use std::{cell::RefCell, convert::Infallible, future::poll_fn, pin::pin, rc::Rc, time::Duration};

use http::{HeaderMap, Method, Request, Response, request::Parts};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use keyside::listener::h1::{
    Spares,
    input::{HeadError, Input},
};
use keyside_fuzz::{line, run};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// A request that came to its end.
#[derive(Debug, PartialEq)]
struct Whole {
    method: Method,
    target: String,
    old: bool,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// What became of a connection.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: Vec<Whole>,
    /// What came behind the last of them was refused, or is no whole request.
    refused: bool,
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (cut, bytes) = line(input);
    if bytes.len() > 12 * 1024 {
        return;
    }
    let cut = std::str::from_utf8(cut).ok().and_then(|cut| cut.parse().ok()).unwrap_or(bytes.len()).min(bytes.len());
    let ours = run(ours(bytes, cut));
    assert_eq!(ours, run(self::ours(bytes, bytes.len())), "it depends on the pieces");
    // A tunnel, to hyper.
    if ours.requests.iter().any(|request| request.method == Method::CONNECT) {
        return;
    }
    let theirs = run(theirs(bytes));
    let common = &theirs[..ours.requests.len().min(theirs.len())];
    assert_eq!(ours.requests, common, "taken for other requests than hyper takes it for");
    // A Connection field with a byte beyond ASCII says nothing to hyper, and the rest of what it says to us.
    let odd = |request: &Whole| request.fields.get_all("connection").iter().any(|value| value.to_str().is_err());
    let goes_on = !ours.refused && theirs.len() > common.len() && !ours.requests.last().is_some_and(odd);
    assert!(!goes_on, "hyper goes on, to {:?}", theirs.last());
});

async fn ours(bytes: &[u8], cut: usize) -> Seen {
    let (stream, mut client) = UnixStream::pair().expect("a pair");
    let mut input = Input::new(stream, &Rc::<Spares>::default());
    client.write_all(&bytes[..cut]).await.expect("room");
    let write = async {
        tokio::task::yield_now().await;
        client.write_all(&bytes[cut..]).await.expect("room");
        client.shutdown().await.expect("open");
        // An invitation to send a body is read by nobody, and fits into the socket.
    };
    let read = async {
        let mut seen = Seen::default();
        loop {
            let head = match poll_fn(|cx| input.poll_head(64 * 1024, cx)).await {
                Ok(Some(head)) => head,
                Ok(None) => return seen,
                Err(HeadError::Refused(_) | HeadError::Broken) => break,
            };
            let (Parts { method, uri, version, headers, .. }, ()) = head.request.into_parts();
            let request = input.begin(head.framing, head.expects_continue);
            let (mut body, mut trailers) = (Vec::new(), None);
            while !input.body(request).is_some_and(|body| body.is_ended()) {
                match poll_fn(|cx| input.poll_body(request, cx)).await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(piece) => {
                            assert!(!piece.is_empty());
                            body.extend_from_slice(&piece);
                        }
                        Err(frame) => trailers = frame.into_trailers().ok(),
                    },
                    Some(Err(_)) => {
                        seen.refused = true;
                        return seen;
                    }
                    None => break,
                }
            }
            let old = version == http::Version::HTTP_10;
            seen.requests.push(Whole { method, target: uri.to_string(), old, fields: headers, body, trailers });
            if !poll_fn(|cx| std::task::Poll::Ready(input.end(cx))).await || !head.keep_alive {
                return seen;
            }
        }
        seen.refused = true;
        seen
    };
    tokio::join!(read, write).0
}

async fn theirs(bytes: &[u8]) -> Vec<Whole> {
    let (stream, client) = UnixStream::pair().expect("a pair");
    let seen = Rc::<RefCell<Vec<Whole>>>::default();
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let (Parts { method, uri, version, headers, .. }, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let trailers = body.trailers().cloned();
                let old = version == http::Version::HTTP_10;
                let body = body.to_bytes().to_vec();
                seen.borrow_mut().push(Whole { method, target: uri.to_string(), old, fields: headers, body, trailers });
            }
            Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new()))
        }
    });
    let (mut from, mut to) = client.into_split();
    let client = async {
        let _ = to.write_all(bytes).await;
        let _ = to.shutdown().await;
        let _ = from.read_to_end(&mut Vec::new()).await;
    };
    let serve = async {
        let serving = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service);
        // It may wait for a client that has said all.
        let _ = tokio::time::timeout(Duration::from_millis(200), pin!(serving)).await;
    };
    tokio::join!(serve, client);
    seen.take()
}
