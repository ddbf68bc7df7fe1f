//! One socket of a kernel.
//!
//! Promises: receiving can be given up at any moment and nothing is lost; a lost connection is an error, never a silent
//! reconnect.

use std::io::{self, IoSlice, Write};

use bytes::Bytes;
use runtimed_jupyter_wire::outbox::Outbox;
use runtimed_jupyter_wire::zmtp::{self, Role};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

use super::connection::{Connection, Transport};

/// Bytes read at a time.
const PIECE: usize = 16 << 10;

/// A connected socket.
pub(crate) struct Socket {
    stream: Stream,
    connection: zmtp::Connection,
    out: Outbox,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Connects to the socket of a kernel that has `port` in its connection file.
    ///
    /// # Errors
    /// The system's: `ConnectionRefused` and `NotFound` when nobody listens.
    pub(crate) async fn connect(kernel: &Connection, port: u16, role: Role<'_>) -> io::Result<Self> {
        let stream = match kernel.transport {
            Transport::Tcp => {
                let stream = TcpStream::connect((kernel.ip.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Transport::Ipc => Stream::Unix(UnixStream::connect(format!("{}-{port}", kernel.ip)).await?),
        };
        let mut out = Outbox::default();
        let connection = zmtp::Connection::new(role, &mut out);
        let mut socket = Self { stream, connection, out };
        socket.flush()?;
        Ok(socket)
    }

    /// Sends a message; what the kernel does not take at once leaves while [`Socket::receive`] is waited for.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn send(&mut self, parts: &[Bytes]) -> io::Result<()> {
        self.connection.send(parts, &mut self.out);
        self.flush()
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// `UnexpectedEof` when the kernel has closed the socket; the system's; `InvalidData` for what is no ZeroMQ socket.
    pub(crate) async fn receive(&mut self) -> io::Result<Vec<Bytes>> {
        let mut piece = vec![0; PIECE];
        loop {
            let message = self.connection.next_message(&mut self.out)?;
            self.flush()?;
            if let Some(message) = message {
                return Ok(message);
            }
            let writable = if self.out.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            if !self.stream.ready(writable).await?.is_readable() {
                continue;
            }
            match self.stream.try_read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.connection.received(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.write_to(&self.stream)
    }
}

impl Stream {
    async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
        }
    }

    fn try_read(&self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(piece),
            Self::Unix(stream) => stream.try_read(piece),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write_vectored(pieces),
            Stream::Unix(stream) => stream.try_write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
