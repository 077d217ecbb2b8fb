//! The wire: one wrapper around the socket that counts bytes and marks progress, and the stream that HTTP is spoken on.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{conn::Connection, serve::Guard};

/// A socket that tells its connection what goes over it.
///
/// It lies below TLS, so that progress is what the network did, and not what a buffer took.
pub(super) struct Wire {
    socket: TcpStream,
    connection: Rc<Connection>,
}

impl Wire {
    pub(super) fn new(socket: TcpStream, connection: &Rc<Connection>) -> Self {
        Self { socket, connection: Rc::clone(connection) }
    }

    /// What the tick ended while no task of ours holds it (an upgraded connection) fails at its next use.
    fn check(&self) -> io::Result<()> {
        match self.connection.ending.get() {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(Ok(bytes)) => self.connection.on_written(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.connection.on_write_blocked(),
        }
        result
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.connection.turn_is_over() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let room = buf.remaining();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        match buf.filled().len() - before {
            0 if room > 0 => self.connection.on_end(),
            bytes => self.connection.on_read(bytes),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// What HTTP is spoken on.
pub(super) enum Stream {
    /// Without TLS.
    Plain(Wire),
    /// TLS.
    Tls(Box<TlsStream<Wire>>),
}

impl Stream {
    /// Whether something has arrived that was not read yet. Asks the system: what the runtime knows may be older.
    pub(super) fn has_arrived(&self) -> bool {
        let wire = match self {
            Self::Plain(wire) => wire,
            Self::Tls(tls) => tls.get_ref().0,
        };
        SockRef::from(&wire.socket).peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok_and(|bytes| bytes > 0)
    }

    /// Has the socket reset when it is dropped, so that the system does not go on sending to a client that takes
    /// nothing.
    pub(super) fn reset(&self) {
        let wire = match self {
            Self::Plain(wire) => wire,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // Without it the system lets go of the connection later.
        let _ = SockRef::from(&wire.socket).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(wire) => wire.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A connection on which another protocol has taken over: reads what the client sent ahead first.
pub struct Upgraded {
    ahead: Bytes,
    stream: Stream,
    /// The connection stays counted and watched until this is dropped.
    _guard: Guard,
}

impl Upgraded {
    pub(super) fn new(stream: Stream, ahead: Bytes, guard: Guard) -> Self {
        Self { ahead, stream, _guard: guard }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let bytes = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..bytes]);
        self.ahead.advance(bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write as _, net::IpAddr};

    use super::{super::http::TURN, *};

    /// However much of an HTTP/2 connection waits to be read, the others have their turn in between.
    #[tokio::test]
    async fn a_turn_reads_so_much_and_no_more() {
        const PIECE: usize = 16 * 1024;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(1 << 20).unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        // As much as the system takes before anybody reads.
        let waiting = std::iter::from_fn(|| client.write(&[0; PIECE]).ok()).sum::<usize>();
        assert!(waiting > 3 * (TURN + PIECE), "{waiting}");

        let connection = Connection::fake(IpAddr::from([127, 0, 0, 1]), false, true);
        let mut wire = Wire::new(TcpStream::from_std(socket).unwrap(), &connection);
        let mut memory = vec![0; PIECE];
        for _ in 0..3 {
            connection.begin_turn(TURN);
            let mut read = 0;
            poll_fn(|cx| {
                loop {
                    let mut piece = ReadBuf::new(&mut memory);
                    match Pin::new(&mut wire).poll_read(cx, &mut piece) {
                        Poll::Ready(result) => result.unwrap(),
                        Poll::Pending if connection.turn_is_over() => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                    read += piece.filled().len();
                }
            })
            .await;
            assert!((TURN..TURN + PIECE).contains(&read), "{read}");
        }
        connection.thread.unregister(&connection);
    }
}
