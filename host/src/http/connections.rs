//! How many may be connected, and how long they may be silent.
//!
//! For: the [server](super): every user of the machine can connect, and each connection is one of the daemon's files.
//! Promises: there are always files left for the daemon's own work; a connection on which nothing moves is closed.

use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time; others wait for one to end (our choice: a browser opens six to one server, and 256 files in
/// all is the least that systems allow).
const CONNECTIONS: usize = 128;
/// How long nothing may move on one (our choice: a browser that pauses a video asks again for the rest).
const SILENCE: Duration = Duration::from_secs(60);

/// Lets so many in at a time.
pub(super) struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Limited {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Listener for Limited {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        // It fails once the semaphore is closed, which nobody does.
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        stream.set_nodelay(true).ok();
        (Connection::new(stream, place), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when nothing moves on it for too long.
pub(super) struct Connection<S> {
    stream: S,
    silence: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn new(stream: S, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, silence: Box::pin(sleep(SILENCE)), _place: place }
    }

    /// What became of an attempt to read or to write.
    fn watched<T>(&mut self, cx: &mut Context<'_>, attempt: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if attempt.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE);
            return attempt;
        }
        ready!(self.silence.as_mut().poll(cx));
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let attempt = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.watched(cx, attempt)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, attempt)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let attempt = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watched(cx, attempt)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn what_moves_stays_and_what_does_not_is_closed() {
        let (mut client, ours) = tokio::io::duplex(4);
        let mut ours = Connection::new(ours, None);
        let mut byte = [0];
        for _ in 0..3 {
            let (read, _) = tokio::join!(ours.read(&mut byte), async {
                sleep(SILENCE / 2).await;
                client.write_all(b"x").await
            });
            assert_eq!(read.unwrap(), 1);
        }
        let begun = Instant::now();
        assert_eq!(ours.read(&mut byte).await.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), SILENCE.as_secs());
        // Nobody reads.
        let (_client, ours) = tokio::io::duplex(4);
        let mut ours = Connection::new(ours, None);
        assert_eq!(ours.write_all(b"more than four").await.unwrap_err().kind(), ErrorKind::TimedOut);
    }
}
