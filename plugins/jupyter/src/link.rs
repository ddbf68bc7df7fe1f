//! A connection to a shim.
//!
//! Promises: frames arrive whole and in order; bodies share the read buffer and are not copied.

use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use runtimed_kernel_shim::protocol::{Decoder, Frame, Hello, SOCKET, Welcome, document, from_shim, to_shim};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// Bytes made room for at a time; a Unix socket hands out at most 208 KiB (net.core.rmem_default).
const READ_BYTES: usize = 64 * 1024;
/// Less room than this is not worth a read.
const LEAST_BYTES: usize = 4 * 1024;

/// Both halves of a connection.
pub(crate) struct Link {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// The incoming half.
pub(crate) struct Reader {
    stream: OwnedReadHalf,
    decoder: Decoder,
}

/// The outgoing half. Dropping it closes the connection in this direction.
pub(crate) struct Writer(Arc<OwnedWriteHalf>);

/// An outgoing half that does not keep the connection open.
pub(crate) struct WeakWriter(Weak<OwnedWriteHalf>);

impl Link {
    /// A link over a stream.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self {
            reader: Reader { stream: reader, decoder: Decoder::default() },
            writer: Writer(Arc::new(writer)),
        }
    }

    /// Connects to the shim that listens in `folder`, and learns who it is.
    ///
    /// # Errors
    /// The socket's; `UnexpectedEof` when the shim ends meanwhile.
    pub(crate) async fn connect(folder: &Path) -> io::Result<(Self, Welcome)> {
        let mut link = Self::new(UnixStream::connect(folder.join(SOCKET)).await?);
        let welcome = link.greet().await?;
        Ok((link, welcome))
    }

    /// Says who we are.
    ///
    /// # Errors
    /// As [`Link::connect`].
    pub(crate) async fn greet(&mut self) -> io::Result<Welcome> {
        self.writer.send(&document(to_shim::HELLO, &Hello::default())).await?;
        self.reader.expect(from_shim::HELLO).await?.document()
    }
}

impl Reader {
    /// The next frame; none when the shim has closed the connection. Cancel-safe.
    ///
    /// # Errors
    /// The socket's; `InvalidData` for what is no frame.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            let buffer = &mut self.decoder.buffer;
            if buffer.capacity() - buffer.len() < LEAST_BYTES {
                buffer.reserve(READ_BYTES);
            }
            match self.stream.read_buf(buffer).await {
                Ok(0) => return Ok(None),
                // A shim that ends with bytes of ours unread.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next frame of `kind`; others are skipped.
    ///
    /// # Errors
    /// As [`Reader::next`]; `UnexpectedEof` when there will be none.
    pub(crate) async fn expect(&mut self, kind: u8) -> io::Result<Frame> {
        loop {
            match self.next().await? {
                Some(frame) if frame.kind == kind => return Ok(frame),
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

impl Writer {
    /// Writes a frame. Not cancel-safe: a dropped call may have written half of it.
    ///
    /// # Errors
    /// The socket's.
    pub(crate) async fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut rest = frame;
        while !rest.is_empty() {
            self.0.writable().await?;
            rest = rest.get(self.write_now(rest)?..).unwrap_or_default();
        }
        Ok(())
    }

    /// Writes what the socket takes at once, and says how much that was.
    ///
    /// # Errors
    /// The socket's, but none for one that is full.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            written => written,
        }
    }

    /// One that does not keep the connection open.
    pub(crate) fn downgrade(&self) -> WeakWriter {
        WeakWriter(Arc::downgrade(&self.0))
    }
}

impl WeakWriter {
    /// The half itself, unless it is gone.
    pub(crate) fn upgrade(&self) -> Option<Writer> {
        self.0.upgrade().map(Writer)
    }
}
