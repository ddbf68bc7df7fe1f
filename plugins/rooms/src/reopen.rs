//! From a journal on disk to a room that goes on.
//!
//! For: a room that is wanted and not in memory.
//! Promises: what can be read is kept, and what cannot is moved to the quarantine, never emptied or
//! overwritten; what another program wrote into the file meanwhile is merged, and neither is thrown away for the other.
//! Never: runs on a thread that may not block.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use runtimed_plugin_api::PluginError;
use runtimed_protocol::documents::{self, CommentsDoc, CommsDoc, NotebookDoc, RuntimeStateDoc};
use uuid::Uuid;

use crate::disk;
use crate::journal::entry::unpack;
use crate::journal::format::{HeaderError, Stop};
use crate::journal::{Folded, JournalFile, JournalFolder, Meta};
use crate::outputs::NewBlob;
use crate::outputs::mime::digest;
use crate::room::outside::{FileVersion, Known};
use crate::room::revive::{Actors, Left, Recovered};
use crate::room::sync::Documents;

/// What became of a journal.
pub(crate) enum Reopened {
    /// The room goes on as it says.
    /// What is to be stored before anybody hears of it comes along.
    Kept(Box<Recovered>, Vec<NewBlob>, JournalFile),
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
    if let (Some(path), Some(digest)) = (path, &folded.file.writing) {
        disk::access::remove_leftover(path, digest);
    }
    let comparison = path.map_or(Comparison::Current, |path| compare(path, &folded, room));
    if matches!(comparison, Comparison::Gone) {
        let aside = folder.set_aside(journal).map_err(|error| unreadable(journal, &error))?;
        tracing::info!(journal = %journal.display(), aside = %aside.display(), "a notebook's file is gone, and its journal holds nothing that was not in it");
        return Ok(Reopened::Anew);
    }
    let Some((mut documents, whole)) = documents(&folded, actors) else {
        return lost(folder, journal, path, "the notebook in it cannot be read");
    };
    tracing::info!(%room, intact = folded.intact, whole, "a notebook is back from its journal");
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
    let known = known(&folded, room, path);
    let (written, outside, blobs) = match comparison {
        Comparison::Changed(file, blobs) => (None, Some(*file), blobs),
        Comparison::Written(file) => (Some(*file), None, Vec::new()),
        Comparison::Current | Comparison::Gone => (None, None, Vec::new()),
    };
    let left = Left {
        meta: folded.meta,
        file: folded.file,
        known,
        written,
        outside,
        held,
        kernel: folded.kernel,
        heard: folded.heard,
        attached: None,
        notice,
    };
    Ok(Reopened::Kept(Box::new(Recovered { documents, left }), blobs, file))
}

/// How a notebook's file and its journal are related.
enum Comparison {
    /// The journal has everything the file has, or the file cannot be read.
    Current,
    /// The file is what a save has written whose end is not in the journal.
    Written(Box<FileVersion>),
    /// Another program has changed the file.
    Changed(Box<FileVersion>, Vec<NewBlob>),
    /// There is no file any more, and the journal holds nothing that was not in it.
    Gone,
}

fn compare(path: &Path, folded: &Folded, room: Uuid) -> Comparison {
    let known = folded.file.digest.as_deref();
    match disk::access::read_if_there(path) {
        Ok(Some(there)) if Some(digest(&there).to_string().as_str()) != known => {
            match disk::version(&there, room) {
                Ok(Some((file, _))) if folded.file.is_written(file.digest) => {
                    Comparison::Written(Box::new(file))
                }
                Ok(Some((file, blobs))) => Comparison::Changed(Box::new(file), blobs),
                // The room finds out when it looks, and says it.
                Ok(None) | Err(_) => Comparison::Current,
            }
        }
        Ok(None) if !folded.file.unsaved && known.is_some() => Comparison::Gone,
        _ => Comparison::Current,
    }
}

/// The file as the room last read or wrote it: what both the journal's documents and the file began with. One
/// that was too large for the journal is read from `path`, if it is still there.
pub(crate) fn known(folded: &Folded, room: Uuid, path: Option<&Path>) -> Option<Known> {
    let last: [u8; 32] = hex::decode(folded.file.digest.as_ref()?).ok()?.try_into().ok()?;
    let template = folded.template.as_ref().and_then(|packed| unpack(packed).ok());
    let is_last = |bytes: &Vec<u8>| digest(bytes).0 == last;
    let template =
        template.filter(is_last).or_else(|| disk::access::read_if_there(path?).ok()?.filter(is_last));
    let mut notebook =
        template.and_then(|bytes| Some(disk::version(&bytes, room).ok()??.0.notebook)).unwrap_or_default();
    let names = folded.file.names.clone();
    notebook.rename(&names);
    Some(Known { digest: last, notebook, names })
}

/// The documents, and whether all of them could be read. None if the notebook could not.
pub(crate) fn documents(folded: &Folded, actors: &Actors) -> Option<(Documents, bool)> {
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
