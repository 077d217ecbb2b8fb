//! Upgraded connections: bytes both ways, once the upstream has said 101 to what a route allows.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    task::spawn_local,
};

use super::{
    body::Body,
    record::Record,
    upstream::{Answer, Lease, UpstreamStream},
};
use crate::{
    listener::{self, Connection, Exchange, Fields},
    policy::Need,
};

/// The protocol that the connection is to be upgraded to: one that the client asks for, alone, and every reading of
/// the request allows. Anything else is not forwarded as an upgrade (RFC 9110 §7.8).
pub(super) fn wanted(headers: &HeaderMap, version: Version, method: &Method, need: &Need<'_>) -> Option<HeaderValue> {
    if need.upgrades().is_empty() || version != Version::HTTP_11 || *method != Method::GET {
        return None;
    }
    let mut values = headers.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (values.next(), values.next()) else { return None };
    let nominated = headers.get_all(header::CONNECTION).iter().any(|value| {
        value.as_bytes().split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    });
    let allowed = protocol.to_str().is_ok_and(|name| need.allows_upgrade(name.trim()));
    (nominated && allowed).then(|| protocol.clone())
}

/// The upstream has said 101.
pub(super) struct Accepted {
    /// The fields of the answer.
    fields: Fields,
    upstream: UpstreamStream,
    /// What the upstream said ahead in the new protocol.
    ahead: Bytes,
    lease: Lease,
}

/// Takes the upstream's 101, if it is to the protocol that was asked for.
pub(super) fn accept(
    answer: &Answer,
    mut fields: Fields,
    lease: Lease,
    protocol: &HeaderValue,
) -> Option<Box<Accepted>> {
    let named = answer.fields.first("upgrade")?;
    if !named.eq_ignore_ascii_case(protocol.as_bytes()) {
        return None;
    }
    fields.switch_to(HeaderValue::from_bytes(named).ok()?);
    let (upstream, ahead) = lease.take_stream()?;
    Some(Box::new(Accepted { fields, upstream, ahead, lease }))
}

impl Accepted {
    /// Answers 101 and joins the two connections. The record is written when the tunnel ends.
    pub(super) fn complete(
        self,
        mut record: Box<Record>,
        exchange: &Exchange,
        connection: &Rc<Connection>,
    ) -> listener::Answer<Body> {
        record.answered(StatusCode::SWITCHING_PROTOCOLS.as_u16());
        let downstream = connection.upgrade();
        let exchange = exchange.clone();
        exchange.idle();
        let Self { fields, mut upstream, ahead, lease } = self;
        spawn_local(async move {
            let (up, down) = (Cell::new(0), Cell::new(ahead.len()));
            let cut = {
                let mut joined = pin!(async {
                    let Ok(mut downstream) = downstream.await else { return };
                    if downstream.write_all(&ahead).await.is_err() {
                        return;
                    }
                    let mut downstream = Counted { stream: &mut downstream, read: &up };
                    let mut upstream = Counted { stream: &mut upstream, read: &down };
                    // An error of either side ends both; there is nobody left to tell.
                    let _ = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await;
                });
                poll_fn(|cx| match exchange.poll_cut(cx) {
                    Poll::Ready(cut) => Poll::Ready(Some(cut)),
                    Poll::Pending => joined.as_mut().poll(cx).map(|()| None),
                })
                .await
            };
            drop(lease);
            record.received(up.get());
            record.sent(down.get());
            record.answer_ended();
            if let Some(cut) = cut {
                record.cut(cut);
            }
        });
        listener::Answer::new(StatusCode::SWITCHING_PROTOCOLS, fields, Body::none())
    }
}

/// Counts what is read, also where the tunnel ends with an error.
struct Counted<'a, S> {
    stream: &'a mut S,
    read: &'a Cell<usize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.stream).poll_read(cx, buf);
        self.read.set(self.read.get() + buf.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
