//! Whether what is kept of notebooks can be read again, and getting it out by hand.
//!
//! For: `runt verify` and `runt recover`.
//! Promises: looking changes nothing; a repair moves what it replaces to the quarantine; a file that is
//! there is not overwritten; a journal of an open room is left to the room.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{BlobStore, Digest, JournalRow, PluginError, Result, RoomReply};
use uuid::Uuid;

use crate::directory::Directory;
use crate::disk::access::read_if_there;
use crate::disk::{self, Form};
use crate::journal::entry::unpack;
use crate::journal::fold::compacted;
use crate::journal::format::{HeaderError, Stop};
use crate::journal::{Folded, JournalFolder};
use crate::notebook_file::{Notebook, needed_blobs};
use crate::outputs::mime::digest;
use crate::reopen::{documents, unlisted};
use crate::room::revive::Actors;
use crate::room::save::{SavePlan, as_file};

/// Looks at every journal; with `repair`, brings in order what is damaged.
///
/// # Errors
/// The journals cannot be listed.
pub(crate) async fn verify(directory: &Arc<Directory>, repair: bool) -> Result<Vec<JournalRow>> {
    let journals = directory.journals.clone();
    let found = blocking(move || {
        let all = journals.all().map_err(|error| unlisted(&error))?;
        let all = all.into_iter().map(|journal| (journal.path, Whose::Room(journal.room)));
        let quarantined = journals.quarantined().map_err(|error| unlisted(&error))?;
        let left_behind = journals.left_behind().map_err(|error| unlisted(&error))?;
        let damaged = quarantined.into_iter().map(|path| (path, Whose::Nobody("quarantined")));
        let left = left_behind.into_iter().map(|path| (path, Whose::Nobody("aside")));
        Ok::<_, PluginError>(all.chain(damaged).chain(left).collect())
    });
    let found: Vec<(PathBuf, Whose)> = found.await??;
    let blobs = directory.host.blob_store();
    let mut rows = Vec::with_capacity(found.len());
    for (journal, whose) in found {
        let directory = directory.clone();
        let examined = blocking(move || {
            let mut found = examine(&journal, whose);
            if let (Some(found), Whose::Room(room)) = (&mut found, whose) {
                found.row.open = directory.is_open(room);
                if repair {
                    let mended = directory.while_closed(room, || mend(&directory.journals, found));
                    found.row.repaired =
                        mended.unwrap_or(Ok(None)).unwrap_or_else(|error| Some(format!("nothing: {error}")));
                }
            }
            found
        });
        // It may be gone by now.
        let Some(Examined { mut row, needed, .. }) = examined.await? else { continue };
        row.missing_blobs = missing(blobs.as_deref(), needed).await;
        rows.push(row);
    }
    Ok(rows)
}

/// Writes what a journal holds to the new file `output`.
///
/// # Errors
/// There is no such journal, it cannot be read, or the file cannot be written; nothing was changed.
pub(crate) async fn recover(
    directory: &Arc<Directory>,
    notebook: String,
    output: PathBuf,
) -> Result<RoomReply> {
    let journals = directory.journals.clone();
    let (plan, form) = blocking(move || plan(&journals, &notebook, output)).await??;
    let (path, cells) = (plan.path.clone(), plan.notebook.cells.len() as u64);
    let blobs = directory.host.blob_store();
    let needed =
        needed_blobs(&plan.notebook, None).map_err(|error| PluginError::invalid(error.to_string()))?;
    let missing_blobs = missing(blobs.as_deref(), needed).await;
    let saved = disk::save(plan, path, form.map(Form::Bytes), blobs, None).await;
    saved.map_err(|error| PluginError::unavailable(error.to_string()))?;
    Ok(RoomReply::Recovered { cells, missing_blobs })
}

/// Whose journal a file is.
#[derive(Clone, Copy)]
enum Whose {
    /// That of a room, open or not.
    Room(Uuid),
    /// That of no room any more; why, as in [`JournalRow::state`].
    Nobody(&'static str),
}

struct Examined {
    row: JournalRow,
    needed: Vec<Digest>,
    /// Bytes of the file, and how many of them are intact.
    length: usize,
    intact: usize,
}

/// Looks at one journal. None if it is gone.
fn examine(journal: &Path, whose: Whose) -> Option<Examined> {
    let written = fs::metadata(journal).and_then(|file| file.modified()).ok();
    let written = written.and_then(|at| jiff::Timestamp::try_from(at).ok());
    let mut row = JournalRow {
        notebook_id: if let Whose::Room(room) = whose { room.to_string() } else { String::new() },
        journal: journal.to_owned(),
        written: written.map(|at| at.to_string()).unwrap_or_default(),
        file: "none".to_owned(),
        ..JournalRow::default()
    };
    let bytes = match fs::read(journal) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => {
            row.state = "unreadable".to_owned();
            return Some(Examined { row, needed: Vec::new(), length: 0, intact: 0 });
        }
    };
    let (folded, length) = (Folded::read(&bytes), bytes.len());
    drop(bytes);
    let folded = match folded {
        Ok(folded) => folded,
        Err(error) => {
            let newer = matches!(error, HeaderError::Version(_));
            row.state = if newer { "newer" } else { "unreadable" }.to_owned();
            return Some(Examined { row, needed: Vec::new(), length, intact: 0 });
        }
    };
    row.notebook_id = folded.room.to_string();
    row.unsaved = folded.meta.path.is_none() || folded.file.unsaved;
    row.file = file_state(&folded).to_owned();
    row.notebook_path.clone_from(&folded.meta.path);
    let mut needed = Vec::new();
    let read = documents(&folded, &Actors::of("verify"));
    if let Some((documents, _)) = &read {
        let notebook = as_file(documents, &|_| None);
        row.cells = notebook.cells.len() as u64;
        needed = needed_blobs(&notebook, None).unwrap_or_default().into_iter().collect();
    }
    row.state = match (folded.stop, read.map(|(_, whole)| whole)) {
        (_, None) => "unreadable",
        (Stop::Corrupt, _) | (_, Some(false)) => "damaged",
        (Stop::Torn, _) => "torn",
        (Stop::End, _) => "sound",
    }
    .to_owned();
    if let Whose::Nobody(why) = whose {
        row.state = why.to_owned();
    }
    Some(Examined { row, needed, length, intact: folded.intact })
}

fn file_state(folded: &Folded) -> &'static str {
    let Some(path) = &folded.meta.path else { return "none" };
    match read_if_there(path) {
        Ok(Some(bytes)) if folded.file.digest == Some(digest(&bytes).to_string()) => "same",
        Ok(Some(bytes)) if folded.file.is_written(digest(&bytes).0) => "same",
        Ok(None) if folded.file.digest.is_none() => "none",
        Ok(None) => "missing",
        Ok(Some(_)) | Err(_) => "changed",
    }
}

/// Brings a journal in order whose room is not in memory. Says what was done.
fn mend(folder: &JournalFolder, found: &Examined) -> io::Result<Option<String>> {
    let journal = &found.row.journal;
    if fs::metadata(journal)?.len() != found.length as u64 {
        // The room was open meanwhile, and has done it.
        return Ok(None);
    }
    match found.row.state.as_str() {
        "torn" => {
            File::options().write(true).open(journal)?.set_len(found.intact as u64)?;
            Ok(Some("the torn end was cut off".to_owned()))
        }
        "damaged" => {
            let bytes = fs::read(journal)?;
            // None where a document cannot be read: the room mends that when it is opened.
            let Some(intact) = bytes.get(..found.intact).and_then(compacted) else { return Ok(None) };
            let mut file = tempfile::NamedTempFile::new_in(journal.parent().unwrap_or(Path::new("/")))?;
            file.write_all(&intact)?;
            file.as_file().sync_all()?;
            let aside = folder.quarantine(journal)?;
            file.persist_noclobber(journal).map_err(|error| error.error)?;
            Ok(Some(format!("what is intact goes on; all of it is in `{}`", aside.display())))
        }
        "unreadable" => {
            let aside = folder.quarantine(journal)?;
            Ok(Some(format!("moved to `{}`", aside.display())))
        }
        _ => Ok(None),
    }
}

/// How many of the blobs are not there, or are something else.
async fn missing(blobs: Option<&dyn BlobStore>, needed: impl IntoIterator<Item = Digest>) -> u64 {
    let mut missing = 0;
    for wanted in needed {
        let found = match blobs {
            Some(blobs) => blobs.get(wanted).await.ok().flatten(),
            None => None,
        };
        let right = match found {
            Some(blob) => blocking(move || digest(&blob.bytes) == wanted).await.unwrap_or(false),
            None => false,
        };
        missing += u64::from(!right);
    }
    missing
}

/// What to write where, and in whose hand.
fn plan(folder: &JournalFolder, notebook: &str, output: PathBuf) -> Result<(SavePlan, Option<Vec<u8>>)> {
    let unknown = || {
        PluginError::not_found(format!("Nothing is kept of the notebook `{notebook}`. Nothing was written."))
            .help("See what is kept with `runt recover --list`.")
    };
    let journal = match notebook.parse::<Uuid>() {
        Ok(room) => folder.of_room(room).map_err(|error| unlisted(&error))?.ok_or_else(unknown)?,
        Err(_) => PathBuf::from(notebook),
    };
    if !folder.holds(&journal) {
        return Err(unknown());
    }
    if !output.is_absolute() || output.symlink_metadata().is_ok() {
        return Err(PluginError::invalid(format!(
            "`{}` is there already, or is no absolute path. Nothing was written.",
            output.display()
        ))
        .help("Name a file that is not there yet."));
    }
    let unreadable = |why: &dyn std::fmt::Display| {
        PluginError::invalid(format!(
            "`{}` cannot be read: {why}. It was left as it is, and nothing was written.",
            journal.display()
        ))
    };
    let bytes = fs::read(&journal).map_err(|error| unreadable(&error))?;
    let folded = Folded::read(&bytes).map_err(|error| unreadable(&error))?;
    drop(bytes);
    let (documents, _) = documents(&folded, &Actors::of("recover"))
        .ok_or_else(|| unreadable(&"the notebook in it is damaged"))?;
    let notebook: Notebook = as_file(&documents, &|_| None);
    let form = folded.template.as_deref().and_then(|template| unpack(template).ok());
    let plan = SavePlan {
        room: folded.room,
        path: output,
        notebook,
        expected: None,
        bound: true,
        names: folded.file.names.clone(),
    };
    Ok((plan, form))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| PluginError::internal(error.to_string()))
}
