//! How a room begins.
//!
//! For: the [shell](super), before there is anything to live.
//! Promises: a room that was open before goes on as its journal says, with the kernel that is still there; who waits for a
//! room that cannot be opened is told why.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{Host, Kernel, PluginError};
use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::Message;
use super::kernels::{FromKernel, attach};
use crate::disk::{self, Refused};
use crate::ids::{Ids, LaunchId};
use crate::journal::{JournalFile, JournalFolder};
use crate::reopen::{Reopened, reopen};
use crate::room::core::{Content, Opening, RoomCore};
use crate::room::event::Effect;
use crate::room::revive::Actors;

/// The core of a room, what it wants done first, the journal it goes on with, and the kernel that outlived the
/// daemon.
pub(super) struct Begun {
    pub(super) core: RoomCore,
    pub(super) effects: Vec<Effect>,
    pub(super) journal: Option<JournalFile>,
    pub(super) kernels: BTreeMap<LaunchId, Arc<dyn Kernel>>,
    /// Of what the notebook's file holds now, this was not stored.
    pub(super) refused: Option<Refused>,
}

/// Brings a room back from its journal, if it has one, or begins it anew.
///
/// # Errors
/// Why it cannot be opened; nothing of it is lost.
pub(super) async fn begin(
    journals: &JournalFolder,
    mut opening: Opening,
    journal: Option<PathBuf>,
    host: &Host,
    sender: &mpsc::UnboundedSender<FromKernel>,
) -> Result<Begun, PluginError> {
    let (mut file, mut kernels, mut refused) = (None, BTreeMap::new(), None);
    if let Some(journal) = journal {
        let (journals, path, id) = (journals.clone(), opening.path.clone(), opening.id);
        let actors = Actors::of(&opening.incarnation);
        let reopened =
            tokio::task::spawn_blocking(move || reopen(&journals, &journal, id, path.as_deref(), &actors));
        let reopened = reopened.await.map_err(|error| PluginError::internal(error.to_string()))?;
        if let Reopened::Kept(mut recovered, new, journal) = reopened? {
            refused = disk::store_blobs(host.blob_store().as_deref(), new).await;
            if let Some((launch, kernel)) = attach(host, &recovered.left, sender).await {
                recovered.left.attached = Some(keep_alive(&host.settings().values));
                kernels.insert(launch, kernel);
            }
            let meta = &recovered.left.meta;
            opening.working_dir = opening.working_dir.or_else(|| meta.working_dir.clone());
            opening.environment_mode = opening.environment_mode.or_else(|| meta.environment_mode.clone());
            opening.content = Content::Kept(recovered);
            file = Some(journal);
        }
    }
    let (core, effects) = RoomCore::open(opening, Ids::random())
        .map_err(|error| PluginError::internal(format!("Failed to create notebook: {error}")))?;
    Ok(Begun { core, effects, journal: file, kernels, refused })
}

/// Tells everybody who waits why the room did not open.
pub(super) async fn refuse(inbox: &mut mpsc::UnboundedReceiver<Message>, error: &PluginError) {
    inbox.close();
    while let Some(message) = inbox.recv().await {
        if let Message::Join(newcomer) = message {
            // Nobody listening is as good as being told.
            let _ = newcomer.reply.send(Err(error.clone()));
        }
    }
}

/// How long a kernel stays without connections, from the settings.
pub(super) fn keep_alive(settings: &Json) -> Duration {
    /// A week: what "for ever" means.
    const LONGEST: u64 = 604_800;
    const DEFAULT: u64 = 30;
    let seconds = match settings.get("keep_alive_secs") {
        Some(Json::Null) => LONGEST,
        value => value.and_then(Json::as_u64).unwrap_or(DEFAULT).clamp(5, LONGEST),
    };
    Duration::from_secs(seconds)
}
