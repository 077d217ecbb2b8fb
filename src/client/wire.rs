//! One connection: a request at a time, and its answer.
//!
//! The connection is driven by whoever asks, in the same task: what hyper has read is either handed on or still in the
//! socket, and [`Lines`] can tell which.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    os::fd::{AsFd as _, OwnedFd},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{Answer, Client, ClientError, Opened, connect::Stream, lines::Lines};

/// How large the head of an answer may be, and what is read at once.
const BUFFER: usize = 64 * 1024;
/// How large the answer to a request for lines may be that holds none.
const REFUSAL: usize = 64 * 1024;

const AGENT: HeaderValue = HeaderValue::from_static(concat!("keyside/", env!("CARGO_PKG_VERSION")));
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A connection to an endpoint.
pub struct Connection {
    sender: SendRequest<Payload>,
    driver: Option<Pin<Box<Driver>>>,
    /// The same socket once more, to ask what lies in it.
    socket: OwnedFd,
}

type Driver = http1::Connection<TokioIo<Stream>, Payload>;

impl Connection {
    pub(super) async fn new(stream: Stream) -> Result<Self, ClientError> {
        let authority = || stream.tcp().peer_addr().map_or_else(|_| String::new(), |peer| peer.to_string());
        let socket = stream
            .tcp()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| ClientError::Connect { authority: authority(), source })?;
        let handshake = http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await;
        let (sender, driver) = handshake.map_err(ClientError::Http)?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), socket })
    }

    /// Whether it may take another request.
    pub fn is_open(&self) -> bool {
        self.driver.is_some() && !self.sender.is_closed()
    }

    /// Asks, and waits for the whole answer. A body is sent as JSON.
    ///
    /// # Errors
    ///
    /// There is no whole answer, or it is a redirect. Any other status is an answer.
    pub async fn request(
        &mut self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        most: usize,
    ) -> Result<Answer, ClientError> {
        let response = self.send(client, method, path, body, (JSON, &HeaderMap::new())).await?;
        self.whole(response, most).await
    }

    pub(super) async fn open_lines(
        mut self,
        client: &Client,
        path: &str,
        fields: &HeaderMap,
        most: u64,
        idle: Duration,
    ) -> Result<Opened, ClientError> {
        let response = self.send(client, Method::GET, path, None, (NDJSON, fields)).await?;
        if response.status() != http::StatusCode::OK {
            return self.whole(response, REFUSAL).await.map(Opened::Other);
        }
        let (head, body) = response.into_parts();
        Ok(Opened::Lines(Box::new(Lines::new(self, head.headers, body, most, idle))))
    }

    async fn send(
        &mut self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        (accept, fields): (HeaderValue, &HeaderMap),
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::new(Payload(body.map(Bytes::from)));
        let target = format!("{}{path}", client.url.base_path());
        *request.uri_mut() = target.parse().unwrap_or_default();
        *request.method_mut() = method;
        let headers = request.headers_mut();
        for (name, value) in client.fields.iter().chain(fields) {
            headers.append(name, value.clone());
        }
        headers.insert(header::HOST, client.host.clone());
        headers.insert(header::USER_AGENT, AGENT);
        headers.insert(header::ACCEPT, accept);
        if let Some(authorization) = &client.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        if request.body().0.is_some() {
            request.headers_mut().insert(header::CONTENT_TYPE, JSON);
        }
        let response = {
            let mut sending = pin!(self.sender.send_request(request));
            let driver = &mut self.driver;
            poll_fn(|cx| {
                drive(driver, cx);
                sending.as_mut().poll(cx)
            })
            .await
        };
        let response = response.map_err(ClientError::Http)?;
        check(response.status().as_u16(), response.headers())?;
        Ok(response)
    }

    /// Reads an answer to its end.
    async fn whole(&mut self, response: Response<Incoming>, most: usize) -> Result<Answer, ClientError> {
        let (head, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = poll_fn(|cx| self.poll_piece(&mut incoming, cx)).await {
            let piece = piece?;
            if body.len() + piece.len() > most {
                self.driver = None;
                return Err(ClientError::TooLarge { what: "the answer", most: most as u64 });
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// The next piece of a body; none at its end.
    pub(super) fn poll_piece(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, ClientError>>> {
        loop {
            drive(&mut self.driver, cx);
            return match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => Poll::Ready(Some(Ok(piece))),
                    // Trailers say nothing here.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(ClientError::Http(error)))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            };
        }
    }

    /// Whether nothing lies in the socket that was not read.
    pub(super) fn is_drained(&self) -> bool {
        rustix::io::ioctl_fionread(&self.socket).is_ok_and(|bytes| bytes == 0)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Lets the connection read and write. How it ended is told by what is asked of it.
fn drive(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
        *driver = None;
    }
}

/// What no answer may be.
fn check(status: u16, headers: &HeaderMap) -> Result<(), ClientError> {
    if (300..400).contains(&status) && status != 304 {
        let to = headers.get(header::LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
        let to: String = to.as_deref().unwrap_or("nowhere").chars().take(200).collect();
        return Err(ClientError::Redirect { status, to: to.replace(char::is_control, "?") });
    }
    let coded = headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding.as_bytes() != b"identity");
    if coded { Err(ClientError::Coded) } else { Ok(()) }
}

/// The body of a request: all of it at once.
struct Payload(Option<Bytes>);

impl http_body::Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
