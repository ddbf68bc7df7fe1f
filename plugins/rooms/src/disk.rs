//! Notebook files on disk.
//!
//! For: reading a file into documents, and replacing it by what the documents say.
//! Promises: a file is replaced whole or not at all, with the permissions it had; one that somebody else has
//! changed since is left as it is; blocking work stays off the runtime's workers.
//! Never: decides when.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use runtimed_plugin_api::{BlobStore, Digest, ErrorCode, KernelKind};
use runtimed_protocol::documents::notebook::{NewCell, Place, Seed};
use runtimed_protocol::documents::{Document as _, DocumentError, NotebookDoc};
use uuid::Uuid;

use crate::ids::Ids;
use crate::journal::entry::pack;
use crate::notebook_file::{
    FileCell, Notebook, ParseError, Parsed, Template, needed_blobs, parse, upgraded, write,
};
use crate::outputs::NewBlob;
use crate::outputs::mime::digest;
use crate::room::core::kernelspec;
use crate::room::load::{Loaded, PastExecution};
use crate::room::outside::{FileVersion, Seen};
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
    /// What a new notebook runs.
    pub(crate) kernel: KernelKind,
    /// Section of a new notebook's metadata.
    pub(crate) package_manager: String,
}

/// Reads the notebook in `path` and stores the blobs it names, as far as they can be.
///
/// # Errors
/// A sentence for the user. The file stays as it is.
pub(crate) async fn load(
    path: PathBuf,
    author: Author,
    blobs: Option<Arc<dyn BlobStore>>,
) -> Result<(Box<Loaded>, Option<Refused>), String> {
    let (loaded, new) = blocking(move || {
        let bytes = read_if_there(&path)?.ok_or_else(|| {
            cannot_access(&path, &"it is gone", "open the notebook again to begin a new one here.")
        })?;
        author_documents(&bytes, &author)
    })
    .await
    .unwrap_or_else(Err)?;
    let refused = store_blobs(blobs.as_deref(), new).await;
    Ok((Box::new(loaded), refused))
}

/// What a blob store could not take, and may take later.
#[derive(Debug)]
pub(crate) struct Refused {
    /// All of it.
    pub(crate) blobs: Vec<NewBlob>,
    /// Why, in the store's words.
    pub(crate) reason: String,
}

/// Stores blobs, one after the other. One that cannot be stored is logged, and missed by whoever needs it until it is
/// stored after all; the others are stored all the same.
#[must_use = "what was refused is nowhere else"]
pub(crate) async fn store_blobs(store: Option<&dyn BlobStore>, blobs: Vec<NewBlob>) -> Option<Refused> {
    let mut refused: Option<Refused> = None;
    for blob in blobs {
        let digest = blob.digest;
        let Some(store) = store else {
            tracing::warn!(%digest, "an output's content was not stored: there is no blob store");
            continue;
        };
        let Err(error) = store.put(blob.bytes.clone(), &blob.media_type).await else { continue };
        tracing::warn!(%digest, %error, "an output's content was not stored");
        if matches!(error.code, ErrorCode::Unavailable | ErrorCode::Denied | ErrorCode::Internal) {
            let reason = error.message.lines().next().unwrap_or_default().to_owned();
            refused.get_or_insert(Refused { blobs: Vec::new(), reason }).blobs.push(blob);
        }
    }
    refused
}

/// The content of `digests`, as far as it is there.
pub(crate) async fn read_blobs(
    store: Option<&dyn BlobStore>,
    digests: BTreeSet<Digest>,
) -> BTreeMap<Digest, Bytes> {
    let mut blobs = BTreeMap::new();
    for digest in digests {
        let Some(store) = store else { break };
        match store.get(digest).await {
            Ok(blob) => blobs.extend(blob.map(|blob| (digest, blob.bytes))),
            Err(error) => tracing::warn!(%digest, %error, "a blob was not read"),
        }
    }
    blobs
}

/// Whose hand a file is written in that is not the room's own yet.
pub(crate) enum Form {
    /// That of another file.
    File(PathBuf),
    /// That of the bytes of one.
    Bytes(Vec<u8>),
}

/// Tells the room, right before a file is replaced, what it will hold (SHA-256). Ends when the room's journal
/// knows: a daemon that dies in between must not take its own work for another program's.
pub(crate) type Announce = Box<dyn FnOnce([u8; 32]) -> BoxFuture<'static, ()> + Send>;

/// Carries out `plan`, writing to `path`, which is canonical, in the hand of `form`, or its own.
///
/// # Errors
/// See [`SaveFailure`]; the file is as it was then.
pub(crate) async fn save(
    plan: SavePlan,
    path: PathBuf,
    form: Option<Form>,
    blobs: Option<Arc<dyn BlobStore>>,
    announce: Option<Announce>,
) -> Result<Written, SaveFailure> {
    let room = plan.room;
    let report_path = path.clone();
    match write_file(plan, path, form, blobs.clone(), announce).await {
        Ok(written) => Ok(written),
        Err(Stop::Failure(failure)) => Err(failure),
        Err(Stop::Changed(bytes)) => Err(match outside(bytes, report_path.clone(), room, blobs).await {
            Ok(Some((file, None))) => SaveFailure::ChangedOutside(Box::new(file)),
            // Whoever watches the file takes it in, with what was refused.
            Ok(Some((_, Some(refused)))) => {
                SaveFailure::Io(cannot_access(&report_path, &refused.reason, "make room, and save again."))
            }
            Ok(None) => {
                SaveFailure::Io(cannot_access(&report_path, &"it was emptied just now", "save again."))
            }
            Err(report) => SaveFailure::Unreadable(report),
        }),
    }
}

/// Why nothing was written.
enum Stop {
    Failure(SaveFailure),
    /// Another program has written this.
    Changed(Vec<u8>),
}

impl From<SaveFailure> for Stop {
    fn from(failure: SaveFailure) -> Self {
        Self::Failure(failure)
    }
}

/// For reports of the system, and of work that panicked.
impl From<String> for Stop {
    fn from(report: String) -> Self {
        Self::Failure(SaveFailure::Io(report))
    }
}

async fn write_file(
    plan: SavePlan,
    path: PathBuf,
    form: Option<Form>,
    blobs: Option<Arc<dyn BlobStore>>,
    announce: Option<Announce>,
) -> Result<Written, Stop> {
    let (plan, there, needed, form) = blocking(move || {
        let there = read_if_there(&path)?;
        let plan = SavePlan { path, ..plan };
        check_unchanged_outside(&plan, there.as_deref())?;
        let form = match form {
            Some(Form::File(form)) if form != plan.path => read_if_there(&form)?,
            Some(Form::Bytes(form)) => Some(form),
            _ => there.clone(),
        };
        let needed = with_template(form.as_deref(), &plan, |template| needed_blobs(&plan.notebook, template))
            .map_err(unwritable)?;
        Ok::<_, Stop>((plan, there, needed, form))
    })
    .await??;

    let mut contents: BTreeMap<Digest, Bytes> = BTreeMap::new();
    if let Some(blobs) = blobs {
        for digest in needed {
            if let Ok(Some(blob)) = blobs.get(digest).await {
                contents.insert(digest, blob.bytes);
            }
        }
    }

    let (plan, bytes) = blocking(move || {
        let bytes = with_template(form.as_deref(), &plan, |template| {
            write(&plan.notebook, template, &|digest| contents.get(digest).cloned())
        })
        .map_err(unwritable)?;
        Ok::<_, Stop>((plan, bytes))
    })
    .await??;
    let (unchanged, written) = (there.as_ref() == Some(&bytes), digest(&bytes));
    if !unchanged && let Some(announce) = announce {
        announce(written.0).await;
    }

    blocking(move || {
        if !unchanged {
            // Read once more: storage may have taken its time.
            let now = read_if_there(&plan.path)?;
            if plan.bound && now != there {
                check_unchanged_outside(&plan, now.as_deref())?;
            }
            replace(&plan.path, &bytes, &written.to_string())
                .map_err(|error| cannot_write(&plan.path, &error))?;
        }
        let file = version(&bytes, plan.room).ok().flatten().map_or_else(
            || FileVersion {
                digest: written.0,
                notebook: plan.notebook.clone(),
                unnamed: BTreeSet::new(),
                template: pack(&bytes),
            },
            |(file, _)| file,
        );
        Ok(Written { file, path: plan.path, unchanged, at: now() })
    })
    .await?
}

/// Looks whether the notebook's file is what is `known`, and if not, reads it and stores the blobs it names, as far as
/// they can be.
pub(crate) async fn look(
    path: PathBuf,
    room: Uuid,
    known: Option<[u8; 32]>,
    blobs: Option<Arc<dyn BlobStore>>,
) -> (Seen, Option<Refused>) {
    let at = path.clone();
    let bytes = match blocking(move || read_if_there(&at)).await.flatten() {
        Ok(Some(bytes)) if !bytes.trim_ascii().is_empty() => bytes,
        Ok(_) => return (Seen::Gone, None),
        Err(report) => return (Seen::Unreadable(report), None),
    };
    if known == Some(digest(&bytes).0) {
        return (Seen::Known, None);
    }
    match outside(bytes, path, room, blobs).await {
        Ok(Some((file, refused))) => (Seen::Changed(Box::new(file)), refused),
        Ok(None) => (Seen::Gone, None),
        Err(report) => (Seen::Unreadable(report), None),
    }
}

/// Reads what another program wrote, and stores the blobs it names. None if it is nothing.
async fn outside(
    bytes: Vec<u8>,
    path: PathBuf,
    room: Uuid,
    blobs: Option<Arc<dyn BlobStore>>,
) -> Result<Option<(FileVersion, Option<Refused>)>, String> {
    let read = blocking(move || {
        version(&bytes, room).map_err(|error| {
            format!(
                "Another program changed `{}`, and it cannot be read any more: {error}\n\
                 Kept: the file as the other program left it, and every edit in the open notebook.\n\
                 Next: {} Or save the notebook under another name.",
                path.display(),
                error.next_step()
            )
        })
    })
    .await??;
    let Some((file, new)) = read else { return Ok(None) };
    let refused = store_blobs(blobs.as_deref(), new).await;
    Ok(Some((file, refused)))
}

/// What a file holds, and the bytes that names. None for an empty one.
///
/// # Errors
/// It is no notebook.
pub(crate) fn version(bytes: &[u8], room: Uuid) -> Result<Option<(FileVersion, Vec<NewBlob>)>, ParseError> {
    let mut ids = Ids::random();
    let parsed = parse(bytes, room, &mut || ids.uuid().to_string())?;
    Ok(parsed.map(|parsed| {
        let Parsed { notebook, blobs, unnamed } = parsed;
        let template = pack(bytes);
        (FileVersion { digest: digest(bytes).0, notebook, unnamed, template }, blobs)
    }))
}

/// Hands the file whose hand is kept to `work`, with its cells called as in the room.
fn with_template<T>(
    form: Option<&[u8]>,
    plan: &SavePlan,
    work: impl FnOnce(Option<&Template<'_>>) -> T,
) -> T {
    // One that cannot be read is no model for anything.
    let text = form.map(|bytes| upgraded(bytes).unwrap_or_default());
    let mut template = form
        .zip(text.as_deref())
        .and_then(|(bytes, text)| Template::read(bytes, text, plan.room).ok().flatten());
    if let Some(template) = &mut template {
        template.rename(&plan.names);
    }
    work(template.as_ref())
}

/// The present moment, RFC 3339, UTC.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// The time after `wait`, RFC 3339.
pub(crate) fn later(wait: Duration) -> String {
    let now = jiff::Timestamp::now();
    now.checked_add(wait).unwrap_or(now).to_string()
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
    let digest = digest(bytes).0;
    let Some(parsed) = parsed else {
        let cell_id = ids.uuid().to_string();
        notebook
            .seed(&Seed {
                kernel: kernelspec(&author.kernel),
                package_manager: &author.package_manager,
                dependencies: &[],
                env_id: &id,
                cell_id: &cell_id,
            })
            .map_err(failed)?;
        let file = FileVersion {
            digest,
            notebook: Notebook::default(),
            unnamed: BTreeSet::new(),
            template: pack(bytes),
        };
        return Ok((Loaded { notebook, executions: Vec::new(), file }, Vec::new()));
    };
    let file = FileVersion {
        digest,
        notebook: parsed.notebook.clone(),
        unnamed: parsed.unnamed,
        template: pack(bytes),
    };
    let mut executions = Vec::new();
    let mut cells = Vec::with_capacity(parsed.notebook.cells.len());
    for cell in parsed.notebook.cells {
        let FileCell { id, cell_type, source, execution_count, metadata, attachments, outputs } = cell;
        let past = !outputs.is_empty() || execution_count.is_some();
        let execution_id = past.then(|| ids.uuid().to_string());
        if let Some(execution) = &execution_id {
            let past = PastExecution { id: execution.clone(), count: execution_count, outputs };
            executions.push(past);
        }
        cells.push(NewCell { id, cell_type, source, execution_count, execution_id, metadata, attachments });
    }
    notebook.insert_cells(Place::End, &cells).map_err(failed)?;
    notebook.set_metadata(&parsed.notebook.metadata).map_err(failed)?;
    notebook.commit();
    Ok((Loaded { notebook, executions, file }, parsed.blobs))
}

fn check_unchanged_outside(plan: &SavePlan, there: Option<&[u8]>) -> Result<(), Stop> {
    match there {
        // Nothing that an empty file could lose.
        Some(there)
            if plan.bound && !there.trim_ascii().is_empty() && plan.expected != Some(digest(there).0) =>
        {
            Err(Stop::Changed(there.to_vec()))
        }
        _ => Ok(()),
    }
}

fn unwritable(error: crate::notebook_file::WriteError) -> SaveFailure {
    SaveFailure::Unwritable(error.to_string())
}
