//! The task of a session: bytes in, bytes out, a heartbeat.
//!
//! For: keeping the socket busy while its owner works with the replicas.
//! Promises: reading and writing never wait for each other; edits made while a write is under way leave
//! together with the next one.
//! Never: decides anything; that is `shared`'s.

use std::pin::pin;
use std::sync::Arc;

use runtimed_protocol::frame::FrameType;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedWriteHalf;
use tokio::time::{MissedTickBehavior, interval};

use super::resume::Resume;
use super::shared::{Outgoing, Shared};
use crate::connection::Connection;
use crate::frames::{FrameReader, HEARTBEAT, alive};
use crate::{ClientError, Result};

/// Runs until the session is over: its owner or the daemon ended it, and no other daemon shall be waited for.
pub(super) async fn run(
    shared: Arc<Shared>,
    mut connection: Connection,
    resume: Option<Resume>,
    notebook_id: Option<String>,
) {
    let how = loop {
        let how = converse(&shared, connection).await;
        let (Err(ClientError::Disconnected), Some(resume)) = (&how, &resume) else { break how };
        let known = || shared.lock().replicas.documents.notebook.notebook_id();
        let Some(id) = notebook_id.clone().or_else(known) else { break how };
        if !shared.interrupted() {
            break how;
        }
        connection = match resume.connect(&id).await {
            Ok(connection) => connection,
            Err(error) => break Err(error),
        };
        shared.resumed();
    };
    shared.end(how);
}

/// Keeps one connection until it ends.
async fn converse(shared: &Shared, connection: Connection) -> Result<()> {
    let Connection { stream, buffer } = connection;
    let (reader, writer) = stream.into_split();
    let mut reading = pin!(read(shared, FrameReader::new(reader, buffer)));
    tokio::select! {
        how = &mut reading => how,
        how = write(shared, writer) => match how {
            // Leaving with frames unread would look like a crash to the daemon.
            Ok(()) => reading.await,
            Err(error) => Err(error),
        },
    }
}

/// Takes frames until the daemon ends the connection or breaks the protocol.
async fn read(shared: &Shared, mut frames: FrameReader) -> Result<()> {
    loop {
        shared.receive(&frames.next().await?)?;
    }
}

/// Sends what there is to send until the owner ends the connection.
async fn write(shared: &Shared, mut writer: OwnedWriteHalf) -> Result<()> {
    let alive = alive()?;
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
