//! One connection to the daemon, until it becomes a channel of its own.
//!
//! For: connecting, introducing ourselves, and single frames.
//! Promises: preamble and handshake leave in one write.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use runtimed_protocol::frame::{FrameDecoder, HANDSHAKE_MAX, length_header};
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::preamble::preamble;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::{ClientError, Result};

/// Longest wait for the daemon to accept. Source: what clients of protocol v4 use.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Pause while the daemon's queue is full; it takes some hundred connections in it.
const FULL_PAUSE: Duration = Duration::from_millis(10);

/// A connected socket and what was read from it beyond the frames taken so far.
pub(crate) struct Connection {
    /// The socket.
    pub(crate) stream: UnixStream,
    /// Bytes read and not yet taken.
    pub(crate) buffer: BytesMut,
}

impl Connection {
    /// Connects to `socket` as the channel that `handshake` names.
    pub(crate) async fn open(socket: &Path, handshake: &Handshake) -> Result<Self> {
        let mut hello = preamble().to_vec();
        hello.extend(frame(handshake, HANDSHAKE_MAX)?);
        let connecting = async {
            let mut stream = accepted(socket).await?;
            stream.write_all(&hello).await?;
            Ok(stream)
        };
        let stream = timeout(CONNECT_LIMIT, connecting)
            .await
            .map_err(|_| ClientError::Timeout)?
            .map_err(ClientError::Connect)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    /// Sends one untyped frame of JSON.
    pub(crate) async fn send(&mut self, message: &impl Serialize, max: usize) -> Result<()> {
        let frame = frame(message, max)?;
        self.stream.write_all(&frame).await.map_err(|_| ClientError::Disconnected)
    }

    /// Receives the body of one untyped frame.
    pub(crate) async fn receive(&mut self, max: usize) -> Result<Bytes> {
        let mut decoder = FrameDecoder::new(max);
        loop {
            if let Some(body) = decoder.decode(&mut self.buffer).map_err(ClientError::protocol)? {
                return Ok(body);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(ClientError::Disconnected),
                Ok(_) => {}
            }
        }
    }
}

/// Waits until there is place in the daemon's queue: where others are faster than it, Linux says so at once.
async fn accepted(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(FULL_PAUSE).await,
            connected => return connected,
        }
    }
}

/// A length-prefixed frame of JSON.
fn frame(message: &impl Serialize, max: usize) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(message).map_err(ClientError::protocol)?;
    let header = length_header(json.len(), max).map_err(ClientError::protocol)?;
    Ok([&header[..], &json].concat())
}
