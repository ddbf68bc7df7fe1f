//! The `settings_sync` channel: untyped frames, each one sync message of the settings document.
//!
//! For: windows that stay connected, and programs that take a snapshot and leave.
//! Promises: the daemon speaks first; every change reaches every connection; who makes one hears that it has arrived
//! when it is in the file, or when the daemon can say why it is not.

use anyhow::Result;
use runtimed_protocol::documents::SyncPeer;
use runtimed_protocol::frame::{FRAME_MAX, FrameDecoder, length_header};
use tokio::io::AsyncWriteExt;

use super::connection::Connection;
use crate::daemon::Daemon;

/// Serves the channel until the client leaves.
pub(super) async fn serve(daemon: &Daemon, mut connection: Connection) -> Result<()> {
    let settings = &daemon.settings;
    let (mut peer, mut changes) = (SyncPeer::new(), settings.watch());
    let mut decoder = FrameDecoder::new(FRAME_MAX);
    loop {
        changes.borrow_and_update();
        if let Some(message) = settings.message_for(&mut peer) {
            let mut frame = length_header(message.len(), FRAME_MAX)?.to_vec();
            frame.extend(message);
            connection.writer.write_all(&frame).await?;
        }
        tokio::select! {
            frame = connection.reader.next(&mut decoder) => match frame? {
                Some(message) => {
                    settings.receive(&mut peer, &message)?;
                    settings.mirrored().await;
                }
                None => return Ok(()),
            },
            changed = changes.changed() => changed?,
        }
    }
}
