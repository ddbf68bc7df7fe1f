//! Notebook files on disk.
//!
//! For: reading a file into documents, and replacing it by what the documents say.
//! Promises: a file is replaced whole or not at all, with the permissions it had; one that somebody else has
//! changed since is left as it is; blocking work stays off the runtime's workers.
//! Never: decides when.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use runtimed_plugin_api::{BlobStore, Digest};
use runtimed_protocol::documents::notebook::{NewCell, Place, Seed};
use runtimed_protocol::documents::{Document as _, DocumentError, NotebookDoc};
use uuid::Uuid;

use crate::ids::Ids;
use crate::notebook_file::{FileCell, Template, needed_blobs, parse, write};
use crate::outputs::NewBlob;
use crate::outputs::mime::digest;
use crate::paths;
use crate::room::load::{Loaded, PastExecution};
use crate::room::save::{SaveFailure, SavePlan, Written};

/// Mode of a new notebook file before the umask. Source: what every editor does.
const NEW_FILE: u32 = 0o666;

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
        let bytes = fs::read(&path)
            .map_err(|error| format!("Cannot access notebook '{}': {error}", path.display()))?;
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
        let there = read_if_there(&path)?;
        let form = match form {
            Some(form) if form != path => read_if_there(&form)?,
            _ => there.clone(),
        };
        let needed = {
            let template = form.as_deref().and_then(|bytes| Template::read(bytes, plan.room).ok().flatten());
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
        let template = form.as_deref().and_then(|bytes| Template::read(bytes, plan.room).ok().flatten());
        let bytes = write(&plan.notebook, template.as_ref(), &|digest| contents.get(digest).cloned())
            .map_err(unwritable)?;
        let unchanged = there.as_ref() == Some(&bytes);
        if !unchanged {
            // Read once more: storage may have taken its time.
            check_unchanged_outside(&plan, read_if_there(&plan.path)?.as_deref())?;
            replace(&plan.path, &bytes).map_err(|error| cannot_write(&plan.path, &error))?;
        }
        Ok(Written { digest: digest(&bytes).0, path: plan.path, unchanged, at: now() })
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
    let parsed =
        parse(bytes, author.room, &mut || ids.uuid().to_string()).map_err(|error| error.to_string())?;
    let id = author.room.to_string();
    let failed = |error: DocumentError| format!("the notebook could not be loaded: {error}");
    let mut notebook = NotebookDoc::new(&id, &author.actor).map_err(failed)?;
    let mut loaded = Loaded { notebook, executions: Vec::new(), digest: digest(bytes).0 };
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

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, SaveFailure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SaveFailure::Io(format!("could not read `{}`: {error}", path.display()))),
    }
}

/// Puts `bytes` in place of the file, so that a reader sees the old or the new, and a power cut keeps one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let before = fs::metadata(path).map(|metadata| metadata.permissions()).ok();
    if before.is_some() && !paths::is_writable(path) {
        // Putting another file in its place would get around that.
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut builder = tempfile::Builder::new();
    let builder =
        builder.prefix(".runtimed-").suffix(".tmp").permissions(fs::Permissions::from_mode(NEW_FILE));
    let mut file = builder.tempfile_in(folder)?;
    if let Some(before) = before {
        file.as_file().set_permissions(before)?;
    }
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

fn unwritable(error: crate::notebook_file::WriteError) -> SaveFailure {
    SaveFailure::Unwritable(error.to_string())
}

fn cannot_write(path: &Path, error: &io::Error) -> SaveFailure {
    SaveFailure::Io(format!(
        "could not replace `{}`: {error}\n\
         Kept: every edit is in the open notebook; the file is as it was.\n\
         Next: make room or give permission; the save is tried again by itself.",
        path.display()
    ))
}
