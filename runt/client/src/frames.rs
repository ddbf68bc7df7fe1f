//! The frames of a notebook, for whoever keeps a replica of their own.
//!
//! For: desktop applications whose windows speak the protocol themselves and need somebody to carry it.
//! Promises: what comes is whole and of a known type; what is sent is within the limit of its type.
//! Never: looks into a frame.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use runtimed_protocol::bootstrap::Bootstrap;
use runtimed_protocol::frame::{FrameType, TypedDecoder, TypedFrame, typed_header};
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::presence::{LOCAL_PEER, Presence};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::connection::Connection;
use crate::session::introduce;
use crate::{Client, ClientError, Result};

/// Time between signs of life. The daemon closes after 300 s without one.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Space made for each read in bytes: what a socket of this system holds at most comes in a few reads.
const READ_BYTES: usize = 64 * 1024;

/// What the daemon sends.
#[derive(Debug)]
pub struct FrameReader {
    /// Where from.
    socket: OwnedReadHalf,
    /// Bytes read and not yet taken.
    buffer: BytesMut,
    /// Cuts them.
    decoder: TypedDecoder,
}

/// What goes to the daemon. Dropping it says goodbye: the daemon answers what it was asked and closes.
#[derive(Debug)]
pub struct FrameWriter {
    /// Where to.
    socket: OwnedWriteHalf,
}

impl Client {
    /// Opens a notebook channel and leaves what is said on it to the caller, beginning behind the daemon's first words.
    /// Send a sign of life every [`HEARTBEAT`].
    ///
    /// # Errors
    /// `Connect`, `Timeout`, `Disconnected` and `Protocol`; and `Daemon` with the reason of a refusal.
    pub async fn frames(&self, handshake: &Handshake) -> Result<(FrameReader, FrameWriter, Bootstrap)> {
        let (Connection { stream, buffer }, bootstrap) = introduce(self.socket(), handshake).await?;
        let (reader, writer) = stream.into_split();
        Ok((FrameReader::new(reader, buffer), FrameWriter { socket: writer }, bootstrap))
    }
}

impl FrameReader {
    /// The frames of a connection, of which `buffer` has been read.
    pub(crate) fn new(socket: OwnedReadHalf, buffer: BytesMut) -> Self {
        Self { socket, buffer, decoder: TypedDecoder::new() }
    }

    /// The next frame. May be dropped while it waits; nothing is lost.
    ///
    /// # Errors
    /// `Disconnected` when the daemon is gone or has closed; `Protocol` when it sends no frames.
    pub async fn next(&mut self) -> Result<TypedFrame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).map_err(ClientError::protocol)? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(ClientError::Disconnected),
                Ok(_) => {}
            }
        }
    }
}

impl FrameWriter {
    /// Sends a frame. Must not be dropped before it is done: half a frame ends the connection.
    ///
    /// # Errors
    /// `Protocol` when it is over the limit of its type, and nothing was sent; `Disconnected`.
    pub async fn send(&mut self, frame_type: u8, payload: &[u8]) -> Result<()> {
        let header = typed_header(frame_type, payload.len()).map_err(ClientError::protocol)?;
        let mut frame = Bytes::from([&header[..], payload].concat());
        self.socket.write_all_buf(&mut frame).await.map_err(|_| ClientError::Disconnected)
    }

    /// Says that there is still somebody.
    ///
    /// # Errors
    /// See [`FrameWriter::send`].
    pub async fn send_alive(&mut self) -> Result<()> {
        self.send(FrameType::PRESENCE, &alive()?).await
    }
}

/// The payload of a sign of life.
pub(crate) fn alive() -> Result<Vec<u8>> {
    Presence::Heartbeat { peer_id: LOCAL_PEER.into() }.encode().map_err(ClientError::protocol)
}
