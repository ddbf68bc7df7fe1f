//! Bytes from a peer.
//!
//! For: every channel.
//! Promises: cancel-safe: a dropped read loses nothing; memory grows with what has arrived and not with
//! what a length prefix announces.

use std::io;

use bytes::{Bytes, BytesMut};
use runtimed_protocol::frame::{FrameDecoder, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room made for each read (our choice: a few sync messages, or a piece of an upload).
const READ_BYTES: usize = 16 * 1024;
/// Room made for each read while a long frame arrives.
const LONG_READ_BYTES: usize = 256 * 1024;

/// The receiving half of a connection.
#[derive(Debug)]
pub(super) struct Reader<R> {
    stream: R,
    /// What has arrived and was not decoded yet.
    pub(super) buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads from `stream`; `buffer` holds what was read before.
    pub(super) fn new(stream: R, buffer: BytesMut) -> Self {
        Self { stream, buffer }
    }

    /// Waits for more bytes; false at the end of the stream.
    pub(super) async fn fill(&mut self) -> io::Result<bool> {
        let room = if self.buffer.len() < READ_BYTES { READ_BYTES } else { LONG_READ_BYTES };
        self.buffer.reserve(room);
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next untyped frame; none at the end of the stream, also in the middle of a frame.
    pub(super) async fn next(&mut self, decoder: &mut FrameDecoder) -> Result<Option<Bytes>, ReadError> {
        loop {
            if let Some(frame) = decoder.decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not speak our protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
}
