//! Journals that are of no use any more.
//!
//! For: a folder that holds what may be wanted again.
//! Promises: what goes was not used for long, and is word for word in the notebook's file.
//! Never: a journal of an untitled notebook, one with anything the file lacks, or a damaged one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::folder::is_older;
use super::format::Stop;
use super::{Folded, JournalFolder};

/// How long a journal is kept that says what its file says, for its history. A month: longer than holidays.
const UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Removes journals that are of no use. `remove` does it, unless the room is open. May block for long.
pub(crate) fn sweep(folder: &JournalFolder, remove: impl Fn(uuid::Uuid, &Path)) {
    let left_behind = folder.left_behind().unwrap_or_default().into_iter().filter(|path| is_clean(path));
    for path in folder.beginnings().into_iter().chain(left_behind).filter(|path| is_older(path, UNUSED)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "an old journal was not removed");
        }
    }
    for journal in folder.all().unwrap_or_default() {
        if journal.key.is_some() && is_older(&journal.path, UNUSED) && is_clean(&journal.path) {
            remove(journal.room, &journal.path);
        }
    }
}

fn is_clean(journal: &Path) -> bool {
    let folded = fs::read(journal).ok().and_then(|bytes| Folded::read(&bytes).ok());
    folded.is_some_and(|folded| {
        folded.stop == Stop::End && folded.file.digest.is_some() && !folded.file.unsaved
    })
}
