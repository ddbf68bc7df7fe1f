//! The task of a session: bytes in, bytes out, a heartbeat.
//!
//! For: keeping the socket busy while its owner works with the replicas.
//! Promises: reading and writing never wait for each other; edits made while a write is under way leave
//! together with the next one.
//! Never: decides anything; that is `shared`'s.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use runtimed_protocol::frame::{FrameType, TypedDecoder};
use runtimed_protocol::presence::{LOCAL_PEER, Presence};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{MissedTickBehavior, interval};

use super::shared::{Outgoing, Shared};
use crate::connection::Connection;
use crate::{ClientError, Result};

/// Time between signs of life. The daemon closes after 300 s without one.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Space made for each read in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Runs until the daemon ends the connection, which it does once it has read that we want to.
pub(super) async fn run(shared: Arc<Shared>, connection: Connection) {
    let Connection { stream, buffer } = connection;
    let (reader, writer) = stream.into_split();
    let mut reading = pin!(read(&shared, reader, buffer));
    let how = tokio::select! {
        how = &mut reading => how,
        how = write(&shared, writer) => match how {
            // Leaving with frames unread would look like a crash to the daemon.
            Ok(()) => reading.await,
            Err(error) => Err(error),
        },
    };
    shared.end(how);
}

/// Takes frames until the daemon ends the connection or breaks the protocol.
async fn read(shared: &Shared, mut reader: OwnedReadHalf, mut buffer: BytesMut) -> Result<()> {
    let mut decoder = TypedDecoder::new();
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).map_err(ClientError::protocol)? {
            shared.receive(&frame)?;
        }
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Err(ClientError::Disconnected),
            Ok(_) => {}
        }
    }
}

/// Sends what there is to send until the owner ends the connection.
async fn write(shared: &Shared, mut writer: OwnedWriteHalf) -> Result<()> {
    let alive = Presence::Heartbeat { peer_id: LOCAL_PEER.into() }.encode().map_err(ClientError::protocol)?;
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match shared.outgoing()? {
            Outgoing::Frames(frames) => {
                writer.write_all(&frames).await.map_err(|_| ClientError::Disconnected)?;
            }
            Outgoing::Close => {
                return writer.shutdown().await.map_err(|_| ClientError::Disconnected);
            }
            Outgoing::Nothing => tokio::select! {
                () = shared.work.notified() => {}
                _ = heartbeat.tick() => shared.lock().queue(FrameType::PRESENCE, &alive)?,
            },
        }
    }
}
