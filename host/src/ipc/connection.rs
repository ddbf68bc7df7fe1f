//! The beginning of every connection: preamble, handshake, routing.
//!
//! For: [`serve`], run once per accepted connection.
//! Promises: a peer that is not one of ours is gone within ten seconds and has read nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{Buf, BytesMut};
use runtimed_protocol::frame::{FrameDecoder, HANDSHAKE_MAX};
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::preamble::{MAGIC, PREAMBLE_BYTES, preamble_version};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::reader::Reader;
use super::{notebook, pool, settings_sync};
use crate::daemon::Daemon;

/// Time for preamble and handshake together (wire contract, section 1.1).
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A connection past its handshake.
pub(super) struct Connection {
    pub(super) reader: Reader<OwnedReadHalf>,
    pub(super) writer: OwnedWriteHalf,
}

/// Serves a connection to its end. Whatever goes wrong is logged and closes it.
pub async fn serve(daemon: Arc<Daemon>, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let mut connection = Connection { reader: Reader::new(reader, BytesMut::new()), writer };
    let handshake = tokio::select! {
        () = daemon.disconnect.cancelled() => return,
        handshake = timeout(HANDSHAKE_LIMIT, open(&mut connection)) => handshake,
    };
    let handshake = match handshake {
        Ok(Ok(Some(handshake))) => handshake,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => return tracing::debug!("closed a connection: {error:#}"),
        Err(_) => return tracing::debug!("closed a connection that said nothing for {HANDSHAKE_LIMIT:?}"),
    };
    let served = match handshake {
        Handshake::Pool => until_disconnect(&daemon, pool::serve(&daemon, connection)).await,
        Handshake::SettingsSync => until_disconnect(&daemon, settings_sync::serve(&daemon, connection)).await,
        Handshake::RuntimeAgent {} => Ok(()),
        notebook => notebook::serve(&daemon, connection, notebook).await,
    };
    if let Err(error) = served {
        tracing::debug!("closed a connection: {error:#}");
    }
}

/// Serves until the client leaves or the daemon stops, whatever is being waited for: a client that reads
/// nothing must not hold the end up. What can be said at once still is.
async fn until_disconnect(daemon: &Daemon, serving: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        biased;
        served = serving => served,
        () = daemon.disconnect.cancelled() => Ok(()),
    }
}

/// Reads preamble and handshake; none if the peer went away before it said anything.
async fn open(connection: &mut Connection) -> Result<Option<Handshake>> {
    let reader = &mut connection.reader;
    while reader.buffer.len() < PREAMBLE_BYTES {
        let arrived = reader.buffer.len().min(MAGIC.len());
        if reader.buffer.get(..arrived) != MAGIC.get(..arrived) {
            bail!("not our protocol");
        }
        if !reader.fill().await? {
            return Ok(None);
        }
    }
    let preamble = reader.buffer.first_chunk::<PREAMBLE_BYTES>().copied();
    let version = preamble.and_then(preamble_version).context("not our protocol")?;
    reader.buffer.advance(PREAMBLE_BYTES);
    let Some(frame) = reader.next(&mut FrameDecoder::new(HANDSHAKE_MAX)).await? else { return Ok(None) };
    let handshake: Handshake = serde_json::from_slice(&frame).context("unreadable handshake")?;
    if !handshake.accepts_version(version) {
        bail!("protocol version {version} is not spoken here");
    }
    Ok(Some(handshake))
}
