//! Notebook files on disk.
//!
//! For: reading a file into documents, and replacing it by what the documents say.
//! Promises: a file is replaced whole or not at all, with the permissions it had; one that somebody else has
//! changed since is left as it is; blocking work stays off the runtime's workers.
//! Never: decides when.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use runtimed_plugin_api::{BlobStore, Digest};
use runtimed_protocol::documents::notebook::{NewCell, Place, Seed};
use runtimed_protocol::documents::{Document as _, DocumentError, NotebookDoc};
use uuid::Uuid;

use crate::ids::Ids;
use crate::journal::entry::pack;
use crate::notebook_file::{FileCell, Template, needed_blobs, parse, upgraded, write};
use crate::outputs::NewBlob;
use crate::outputs::mime::digest;
use crate::room::load::{Loaded, PastExecution};
use crate::room::save::{SaveFailure, SavePlan, Written};

pub(crate) mod access;

use access::{cannot_access, cannot_write, read_if_there, replace};

/// What an empty file becomes, and as whom it is written.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    /// UUID of the room.
    pub(crate) room: Uuid,
    /// Actor of the changes.
    pub(crate) actor: String,
    /// `python`, `deno`.
    pub(crate) runtime: String,
    /// Section of a new notebook's metadata.
    pub(crate) package_manager: String,
}

/// Reads the notebook in `path` and stores the blobs it names.
///
/// # Errors
/// A sentence for the user. The file stays as it is.
pub(crate) async fn load(
    path: PathBuf,
    author: Author,
    blobs: Option<Arc<dyn BlobStore>>,
) -> Result<Box<Loaded>, String> {
    let (loaded, new) = blocking(move || {
        let bytes = read_if_there(&path)?.ok_or_else(|| {
            cannot_access(&path, &"it is gone", "open the notebook again to begin a new one here.")
        })?;
        author_documents(&bytes, &author)
    })
    .await
    .unwrap_or_else(Err)?;
    store_blobs(blobs.as_deref(), new).await;
    Ok(Box::new(loaded))
}

/// Stores blobs, one after the other. One that cannot be stored is logged and missed by whoever needs it;
/// the others are stored all the same.
pub(crate) async fn store_blobs(store: Option<&dyn BlobStore>, blobs: Vec<NewBlob>) {
    for NewBlob { bytes, media_type, digest } in blobs {
        match store {
            Some(store) => {
                if let Err(error) = store.put(bytes, &media_type).await {
                    tracing::warn!(%digest, %error, "an output's content was not stored");
                }
            }
            None => tracing::warn!(%digest, "an output's content was not stored: there is no blob store"),
        }
    }
}

/// Carries out `plan`, writing to `path`, which is canonical. `form` is the file whose hand is kept.
///
/// # Errors
/// See [`SaveFailure`]; the file is as it was then.
pub(crate) async fn save(
    plan: SavePlan,
    path: PathBuf,
    form: Option<PathBuf>,
    blobs: Option<Arc<dyn BlobStore>>,
) -> Result<Written, SaveFailure> {
    let (plan, there, needed, form) = blocking(move || {
        let there = read_if_there(&path).map_err(SaveFailure::Io)?;
        let form = match form {
            Some(form) if form != path => read_if_there(&form).map_err(SaveFailure::Io)?,
            _ => there.clone(),
        };
        let needed = {
            let text = form.as_deref().map(current_text);
            let template = form
                .as_deref()
                .zip(text.as_deref())
                .and_then(|(bytes, text)| Template::read(bytes, text, plan.room).ok().flatten());
            needed_blobs(&plan.notebook, template.as_ref()).map_err(unwritable)?
        };
        Ok((SavePlan { path, ..plan }, there, needed, form))
    })
    .await
    .map_err(SaveFailure::Io)??;

    let mut contents: BTreeMap<Digest, Bytes> = BTreeMap::new();
    if let Some(blobs) = blobs {
        for digest in needed {
            if let Ok(Some(blob)) = blobs.get(digest).await {
                contents.insert(digest, blob.bytes);
            }
        }
    }

    blocking(move || {
        let text = form.as_deref().map(current_text);
        let template = form
            .as_deref()
            .zip(text.as_deref())
            .and_then(|(bytes, text)| Template::read(bytes, text, plan.room).ok().flatten());
        let bytes = write(&plan.notebook, template.as_ref(), &|digest| contents.get(digest).cloned())
            .map_err(unwritable)?;
        let unchanged = there.as_ref() == Some(&bytes);
        if !unchanged {
            // Read once more: storage may have taken its time.
            let there = read_if_there(&plan.path).map_err(SaveFailure::Io)?;
            check_unchanged_outside(&plan, there.as_deref())?;
            replace(&plan.path, &bytes).map_err(|error| SaveFailure::Io(cannot_write(&plan.path, &error)))?;
        }
        let template = if unchanged { None } else { pack(&bytes) };
        Ok(Written { digest: digest(&bytes).0, path: plan.path, unchanged, at: now(), template })
    })
    .await
    .map_err(SaveFailure::Io)?
}

/// The present moment, RFC 3339, UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Runs `work` where it may block. A panic becomes an error.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| format!("internal error: {error}"))
}

fn author_documents(bytes: &[u8], author: &Author) -> Result<(Loaded, Vec<NewBlob>), String> {
    let mut ids = Ids::random();
    let parsed = parse(bytes, author.room, &mut || ids.uuid().to_string())
        .map_err(|error| format!("{error}\nKept: the file is as it was.\nNext: {}", error.next_step()))?;
    let id = author.room.to_string();
    let failed = |error: DocumentError| format!("the notebook could not be loaded: {error}");
    let mut notebook = NotebookDoc::new(&id, &author.actor).map_err(failed)?;
    let mut loaded =
        Loaded { notebook, executions: Vec::new(), digest: digest(bytes).0, template: pack(bytes) };
    notebook = loaded.notebook;
    let Some(parsed) = parsed else {
        let cell_id = ids.uuid().to_string();
        notebook
            .seed(&Seed {
                runtime: &author.runtime,
                package_manager: &author.package_manager,
                dependencies: &[],
                env_id: &id,
                cell_id: &cell_id,
            })
            .map_err(failed)?;
        loaded.notebook = notebook;
        return Ok((loaded, Vec::new()));
    };
    let mut cells = Vec::with_capacity(parsed.notebook.cells.len());
    for cell in parsed.notebook.cells {
        let FileCell { id, cell_type, source, execution_count, metadata, attachments, outputs } = cell;
        let past = !outputs.is_empty() || execution_count.is_some();
        let execution_id = past.then(|| ids.uuid().to_string());
        if let Some(execution) = &execution_id {
            let past = PastExecution { id: execution.clone(), count: execution_count, outputs };
            loaded.executions.push(past);
        }
        cells.push(NewCell { id, cell_type, source, execution_count, execution_id, metadata, attachments });
    }
    notebook.insert_cells(Place::End, &cells).map_err(failed)?;
    notebook.set_metadata(&parsed.notebook.metadata).map_err(failed)?;
    notebook.commit();
    loaded.notebook = notebook;
    Ok((loaded, parsed.blobs))
}

fn check_unchanged_outside(plan: &SavePlan, there: Option<&[u8]>) -> Result<(), SaveFailure> {
    let Some(there) = there.filter(|_| plan.bound) else { return Ok(()) };
    if plan.expected == Some(digest(there).0) {
        return Ok(());
    }
    Err(SaveFailure::ChangedOutside(format!(
        "`{}` was changed by another program since it was last read or saved here.\n\
         Kept: the file as the other program left it, and every edit in the open notebook.\n\
         Next: save the notebook under another name, or close it and open the file again.",
        plan.path.display()
    )))
}

/// The file in the format that is written; one that cannot be read is no model for anything.
fn current_text(bytes: &[u8]) -> Cow<'_, [u8]> {
    upgraded(bytes).unwrap_or_default()
}

fn unwritable(error: crate::notebook_file::WriteError) -> SaveFailure {
    SaveFailure::Unwritable(error.to_string())
}
