//! The service behind the listener in these tests: the path says what it does.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{Answer, Connection, Cut, Exchange, Incoming, Service, Serving};
use crate::{clock, keys::record::KeyState};

pub(super) struct TestService {
    pub(super) index: usize,
    pub(super) key: Arc<KeyState>,
}

/// What is answered without a future.
const AT_ONCE: [&str; 6] = ["/facts", "/large", "/refuse", "/endless", "/silent", "/panic-at-once"];

impl Service for TestService {
    type Body = TestBody;

    fn serve(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Serving<TestBody> {
        let at_once = AT_ONCE.contains(&request.uri().path());
        let mut answer = Box::pin(async { Answer::from(self.respond(connection, request).await) });
        if at_once {
            return Serving::Answered(answer.as_mut().now_or_never().expect("nothing to wait for"));
        }
        Serving::Awaited(answer)
    }
}

impl TestService {
    async fn respond(self: Rc<Self>, connection: Rc<Connection>, request: Request<Incoming>) -> Response<TestBody> {
        let exchange = connection.begin(clock::mono());
        let (head, mut body) = request.into_parts();
        match head.uri.path() {
            "/facts" => {
                let facts = format!(
                    "peer={} socket={} proxied={} secure={} http2={} draining={} thread={}",
                    connection.peer(),
                    connection.socket_peer(),
                    connection.proxied(),
                    connection.secure(),
                    connection.http2(),
                    connection.draining(),
                    self.index,
                );
                text(exchange, StatusCode::OK, facts)
            }
            // Reads the whole body, then says how much it was.
            "/upload" => {
                let mut bytes = 0;
                loop {
                    exchange.await_client_body(clock::mono());
                    match until_cut(&exchange, poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))).await {
                        Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, Bytes::len),
                        Ok(Some(Err(_))) => return text(exchange, StatusCode::BAD_REQUEST, String::new()),
                        Ok(None) => break,
                        Err(cut) => return cut_answer(exchange, cut),
                    }
                }
                exchange.idle();
                text(exchange, StatusCode::OK, format!("{bytes} bytes"))
            }
            // One piece, more than the system takes at once.
            "/large" => text(exchange, StatusCode::OK, "x".repeat(LARGE)),
            // The same without a length: to HTTP/1.0, it ends with the connection.
            "/unsized" => {
                let bytes = Bytes::from("x".repeat(LARGE));
                Response::new(TestBody { kind: Kind::Unsized(bytes), exchange: Some(exchange) })
            }
            // Answers without a look at the body.
            "/refuse" => text(exchange, StatusCode::UNAUTHORIZED, "no".to_owned()),
            // An upstream that takes 300 ms and has `x-deadline` ms for it.
            "/wait" => {
                let deadline = head
                    .headers
                    .get("x-deadline")
                    .map_or(20_000, |value| value.to_str().unwrap().parse::<u64>().unwrap());
                exchange.await_upstream(clock::mono().plus(Duration::from_millis(deadline)));
                match until_cut(&exchange, tokio::time::sleep(Duration::from_millis(300))).await {
                    Ok(()) => text(exchange, StatusCode::OK, "waited".to_owned()),
                    Err(cut) => cut_answer(exchange, cut),
                }
            }
            // Never answers, and acts on no cut.
            "/deaf" => {
                exchange.await_upstream(clock::mono().plus(Duration::from_millis(50)));
                std::future::pending().await
            }
            "/key" => {
                exchange.watch_key(Arc::clone(&self.key), true);
                match until_cut(&exchange, tokio::time::sleep(Duration::from_secs(20))).await {
                    Ok(()) => text(exchange, StatusCode::OK, "alive".to_owned()),
                    Err(cut) => cut_answer(exchange, cut),
                }
            }
            "/endless" => Response::new(TestBody { kind: Kind::Endless, exchange: Some(exchange) }),
            "/silent" => {
                exchange.idle();
                Response::new(TestBody { kind: Kind::Silent(Bytes::from_static(b"first")), exchange: Some(exchange) })
            }
            "/vouch" => {
                connection.vouch();
                text(exchange, StatusCode::OK, "hello".to_owned())
            }
            "/panic" | "/panic-at-once" => panic!("as asked"),
            "/upgrade" => {
                let upgraded = connection.upgrade();
                exchange.watch_key(Arc::clone(&self.key), true);
                tokio::task::spawn_local(async move {
                    let Ok(mut upgraded) = upgraded.await else { return };
                    let echo = async {
                        let mut buffer = [0; 64];
                        while let Ok(bytes @ 1..) = upgraded.read(&mut buffer).await {
                            upgraded.write_all(&buffer[..bytes]).await.unwrap();
                        }
                    };
                    let _ = until_cut(&exchange, echo).await;
                });
                Response::builder()
                    .status(StatusCode::SWITCHING_PROTOCOLS)
                    .header(header::CONNECTION, "upgrade")
                    .header(header::UPGRADE, "echo")
                    .body(TestBody { kind: Kind::Text(Bytes::new()), exchange: None })
                    .unwrap()
            }
            _ => text(exchange, StatusCode::OK, "hello".to_owned()),
        }
    }
}

async fn until_cut<F: Future>(exchange: &Exchange, future: F) -> Result<F::Output, Cut> {
    let mut future = pin!(future);
    poll_fn(|cx| match exchange.poll_cut(cx) {
        Poll::Ready(cut) => Poll::Ready(Err(cut)),
        Poll::Pending => future.as_mut().poll(cx).map(Ok),
    })
    .await
}

fn cut_answer(exchange: Exchange, cut: Cut) -> Response<TestBody> {
    exchange.act_on_cut();
    text(exchange, StatusCode::GATEWAY_TIMEOUT, format!("{cut:?}"))
}

fn text(exchange: Exchange, status: StatusCode, text: String) -> Response<TestBody> {
    let mut response = Response::new(TestBody { kind: Kind::Text(text.into()), exchange: Some(exchange) });
    *response.status_mut() = status;
    response
}

pub(super) struct TestBody {
    kind: Kind,
    exchange: Option<Exchange>,
}

/// How much the large answers are.
pub(super) const LARGE: usize = 32 << 20;

enum Kind {
    /// One piece of which nobody says how much it is.
    Unsized(Bytes),
    Text(Bytes),
    Endless,
    /// One piece, then nothing more, ever.
    Silent(Bytes),
}

impl Body for TestBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        static PIECE: [u8; 32 * 1024] = [b'x'; 32 * 1024];
        let this = self.get_mut();
        if let Some(exchange) = &this.exchange
            && let Poll::Ready(cut) = exchange.poll_cut(cx)
        {
            return Poll::Ready(Some(Err(std::io::Error::other(format!("{cut:?}")))));
        }
        let piece = match &mut this.kind {
            Kind::Text(bytes) | Kind::Unsized(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Kind::Silent(bytes) if bytes.is_empty() => return Poll::Pending,
            Kind::Text(bytes) | Kind::Unsized(bytes) | Kind::Silent(bytes) => std::mem::take(bytes),
            Kind::Endless => {
                if let Some(exchange) = &this.exchange {
                    exchange.await_client_read(clock::mono());
                }
                Bytes::from_static(&PIECE)
            }
        };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Text(bytes) | Kind::Unsized(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Endless | Kind::Silent(_) | Kind::Unsized(_) => SizeHint::default(),
        }
    }
}
