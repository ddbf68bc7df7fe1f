//! From a journal on disk to a room that goes on.
//!
//! For: a room that is wanted and not in memory.
//! Promises: what can be read is kept, and what cannot is moved to the quarantine, never emptied or
//! overwritten; of journal and file the newer one counts, and neither is thrown away for the other.
//! Never: runs on a thread that may not block.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use runtimed_plugin_api::PluginError;
use runtimed_protocol::documents::{self, CommentsDoc, CommsDoc, NotebookDoc, RuntimeStateDoc};
use uuid::Uuid;

use crate::journal::format::{HeaderError, Stop};
use crate::journal::{Folded, JournalFile, JournalFolder, Meta};
use crate::outputs::mime::digest;
use crate::room::revive::{Actors, Left, Recovered};
use crate::room::sync::Documents;

/// What became of a journal.
pub(crate) enum Reopened {
    /// The room goes on as it says.
    Kept(Box<Recovered>, JournalFile),
    /// It is out of the way; the room begins with its file, or as new if there is none.
    Anew,
}

/// The journal of a room, and what it says about the room.
///
/// # Errors
/// It could not be looked for.
pub(crate) fn look_up(folder: &JournalFolder, room: Uuid) -> Result<Option<(PathBuf, Meta)>, PluginError> {
    let Some(journal) = folder.of_room(room).map_err(|error| unlisted(&error))? else { return Ok(None) };
    let bytes = fs::read(&journal).map_err(|error| unreadable(&journal, &error))?;
    // Of one that cannot be read, the room will say why.
    let meta = Folded::read(&bytes).map(|folded| folded.meta).unwrap_or_default();
    Ok(Some((journal, meta)))
}

/// Reads the journal of `room`, whose notebook's file is `path`, to go on as `actors`.
///
/// # Errors
/// What cannot be read, where it is now, and what to do. Nothing is lost.
pub(crate) fn reopen(
    folder: &JournalFolder,
    journal: &Path,
    room: Uuid,
    path: Option<&Path>,
    actors: &Actors,
) -> Result<Reopened, PluginError> {
    let bytes = match fs::read(journal) {
        Ok(bytes) => bytes,
        // Swept since it was looked up: the file says the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_some() => return Ok(Reopened::Anew),
        Err(error) => return Err(unreadable(journal, &error)),
    };
    let folded = match Folded::read(&bytes) {
        Ok(folded) => folded,
        Err(error @ HeaderError::Version(_)) => return Err(unreadable(journal, &error)),
        Err(HeaderError::Damaged) => return lost(folder, journal, path, "its beginning is damaged"),
    };
    drop(bytes);
    if path.is_some_and(|path| compare(path, &folded) == Comparison::Outdated) {
        let aside = folder.set_aside(journal).map_err(|error| unreadable(journal, &error))?;
        tracing::info!(journal = %journal.display(), aside = %aside.display(), "a notebook's file is newer than its journal");
        return Ok(Reopened::Anew);
    }
    let Some((mut documents, whole)) = documents(&folded, room, actors) else {
        return lost(folder, journal, path, "the notebook in it cannot be read");
    };
    let (mut held, mut notice) = (None, None);
    let file = if whole && folded.stop != Stop::Corrupt {
        if folded.stop == Stop::Torn {
            tracing::warn!(journal = %journal.display(), intact = folded.intact, "the torn end of a journal was cut off");
        }
        held = Some(documents.heads());
        JournalFile::resume(journal.to_owned(), &folded)
    } else {
        let aside = folder.quarantine(journal).map_err(|error| unreadable(journal, &error))?;
        tracing::error!(journal = %journal.display(), aside = %aside.display(), "a damaged journal was replaced by what could be read of it");
        notice = Some(format!(
            "The journal of this notebook was damaged; what could be read of it is what you see.\n\
             Kept: all of it, in `{}`.\n\
             Next: check the notebook, compare it with its file, and save it.",
            aside.display()
        ));
        JournalFile::create(folder.path(room, path), room)
    };
    let file = file.map_err(|error| unreadable(journal, &error))?;
    let left = Left { meta: folded.meta, file: folded.file, held, notice };
    Ok(Reopened::Kept(Box::new(Recovered { documents, left }), file))
}

/// How a notebook's file and its journal are related.
#[derive(PartialEq, Eq)]
enum Comparison {
    /// The journal has everything the file has.
    Current,
    /// The file was changed, and the journal holds nothing that it lacks.
    Outdated,
    /// The file was changed, and so were the documents. The room opens as the journal has it; its saves
    /// are refused until the two are one.
    Diverged,
}

fn compare(path: &Path, folded: &Folded) -> Comparison {
    let known = folded.file.digest.as_deref();
    let there = fs::read(path).map(|bytes| digest(&bytes).to_string());
    match (there, folded.file.unsaved) {
        (Ok(there), _) if Some(there.as_str()) == known => Comparison::Current,
        (Ok(_), false) => Comparison::Outdated,
        (Ok(_), true) => Comparison::Diverged,
        (Err(error), false) if error.kind() == io::ErrorKind::NotFound && known.is_some() => {
            Comparison::Outdated
        }
        (Err(_), _) => Comparison::Current,
    }
}

/// The documents, and whether all of them could be read. None if the notebook could not.
pub(crate) fn documents(folded: &Folded, room: Uuid, actors: &Actors) -> Option<(Documents, bool)> {
    let [notebook, runtime, comms, comments] = &folded.documents;
    let notebook = loaded(|| NotebookDoc::load(notebook, &actors.notebook))?;
    let runtime = loaded(|| RuntimeStateDoc::load(runtime, &actors.runtime));
    let comms = loaded(|| CommsDoc::load(comms, &actors.comms));
    let comments = loaded(|| CommentsDoc::load(comments, &actors.comments));
    let whole = runtime.is_some() && comms.is_some() && comments.is_some();
    let (id, subject) = (&folded.meta.comments_id, &folded.meta.comments_ref);
    let documents = Documents::new(
        notebook,
        runtime.or_else(|| loaded(|| RuntimeStateDoc::new(&actors.runtime)))?,
        comms.or_else(|| loaded(|| CommsDoc::new(&actors.comms)))?,
        comments.or_else(|| loaded(|| CommentsDoc::new(id, subject, &actors.comments)))?,
    );
    tracing::info!(%room, intact = folded.intact, whole, "a notebook is back from its journal");
    Some((documents, whole))
}

/// A document, unless automerge refuses its bytes, or panics over them.
fn loaded<T>(load: impl FnOnce() -> documents::Result<T>) -> Option<T> {
    let loaded = catch_unwind(AssertUnwindSafe(load)).ok()?;
    loaded.inspect_err(|error| tracing::error!(%error, "a document in a journal cannot be read")).ok()
}

/// Nothing of a journal can be used. A notebook with a file begins with that.
fn lost(
    folder: &JournalFolder,
    journal: &Path,
    path: Option<&Path>,
    why: &str,
) -> Result<Reopened, PluginError> {
    let aside: PathBuf = folder.quarantine(journal).map_err(|error| unreadable(journal, &error))?;
    tracing::error!(journal = %journal.display(), aside = %aside.display(), why, "a journal cannot be read");
    match path {
        Some(_) => Ok(Reopened::Anew),
        None => Err(PluginError::internal(format!(
            "The notebook cannot be brought back from its journal: {why}.\n\
             Kept: the journal, in `{}`.",
            aside.display()
        ))
        .help("See what `runt recover --list` says; other notebooks are not affected.")),
    }
}

/// Journals cannot be looked for.
pub(crate) fn unlisted(error: &io::Error) -> PluginError {
    PluginError::unavailable(format!(
        "The folder of journals cannot be read: {error}.\n\
         Kept: every journal and every file; nothing was opened or changed."
    ))
    .help("Make the folder `rooms` beside the daemon's socket readable again, then open the notebook again.")
}

fn unreadable(journal: &Path, error: &dyn std::fmt::Display) -> PluginError {
    PluginError::unavailable(format!(
        "The journal of this notebook cannot be read: {error}.\n\
         Kept: the journal as it is, in `{}`; nothing was opened or changed.",
        journal.display()
    ))
    .help("Mend that, then open the notebook again.")
}
