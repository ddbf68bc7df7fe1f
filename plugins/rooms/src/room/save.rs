//! Writing the notebook to its file, as decided by the core.
//!
//! For: explicit saves, saves under another name and autosaves, one at a time.
//! Promises: whoever asked is answered once; the file is what the documents were at one moment; a file
//! that somebody else changed is not overwritten but merged first.
//! Never: touches the file system; [`crate::disk`] does.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use runtimed_protocol::documents::Document;
use runtimed_protocol::documents::runtime_state::{FileCheckpoint, Status};
use runtimed_protocol::documents::{Output, RuntimeStateDoc};
use runtimed_protocol::response::{NotebookResponse as Response, SaveBlocked, SavedNotebook};
use uuid::Uuid;

use super::autosave::Autosave;
use super::core::{RoomCore, kept};
use super::event::Effect;
use super::moment::Moment;
use super::outside::{FileVersion, Known, Lookout};
use super::requests::{Task, Ticket};
use super::sync::Documents;
use crate::ids::JobId;
use crate::journal::FileState;
use crate::merge::Names;
use crate::notebook_file::{FileCell, Notebook};

/// A save gives up when another program has changed the file this often in a row just before it.
const OVERTAKEN: u32 = 5;

/// A save to be carried out.
#[derive(Debug)]
pub(crate) struct SavePlan {
    /// The room, to which the file will belong.
    pub(crate) room: Uuid,
    /// Where to. For a save under another name as the user gave it.
    pub(crate) path: PathBuf,
    /// What to write.
    pub(crate) notebook: Notebook,
    /// What the room's own file must hold now, as SHA-256, if there is one and it is not empty. None for a file
    /// the room has never read or written.
    pub(crate) expected: Option<[u8; 32]>,
    /// What the cells of the room's own file are called here.
    pub(crate) names: Names,
    /// Whether `path` is the room's own file.
    pub(crate) bound: bool,
}

/// A save that was carried out.
#[derive(Debug)]
pub(crate) struct Written {
    /// Where to, canonical.
    pub(crate) path: PathBuf,
    /// What was written.
    pub(crate) file: FileVersion,
    /// Whether the file held exactly this before.
    pub(crate) unchanged: bool,
    /// When, RFC 3339.
    pub(crate) at: String,
}

/// How far the file is, to see whether the journal knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    digest: Option<[u8; 32]>,
    writing: Option<[u8; 32]>,
    begun: u64,
    committed: Option<u64>,
    unsaved: bool,
}

/// Why a save was not carried out. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveFailure {
    /// Another room has the target open.
    #[error("the file is open in notebook {uuid}")]
    OpenElsewhere { uuid: String, path: PathBuf },
    /// Another program has changed the file.
    #[error("the file was changed by another program")]
    ChangedOutside(Box<FileVersion>),
    /// Another program has made something of the file that cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// No file can hold this notebook.
    #[error("{0}")]
    Unwritable(String),
    /// The system refused.
    #[error("{0}")]
    Io(String),
}

/// Everything about the file and its saves.
pub(crate) struct Saving {
    path: Option<PathBuf>,
    /// The file as it was last read or written.
    known: Option<Known>,
    /// When to look at it.
    pub(super) lookout: Lookout,
    autosave: Autosave,
    /// Number of the last attempt.
    sequence: u64,
    /// What the last successful save wrote.
    committed: Option<SavedNotebook>,
    /// The save that is on its way, and whether there was anything to save.
    running: Option<(JobId, bool)>,
    /// What the running save is about to write.
    writing: Option<[u8; 32]>,
    /// Saves that wait for the running one.
    waiting: VecDeque<(Ticket, Option<String>)>,
    /// The file cannot be read any more: nothing is saved there.
    pub(super) conflict: bool,
    /// Saves in a row that found the file changed by another program.
    overtaken: u32,
}

impl Saving {
    /// For a room with this file, or without one.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            known: None,
            lookout: Lookout::default(),
            autosave: Autosave::default(),
            sequence: 0,
            committed: None,
            running: None,
            writing: None,
            waiting: VecDeque::new(),
            conflict: false,
            overtaken: 0,
        }
    }

    /// For a room that goes on where another life of it ended.
    pub(crate) fn resume(path: Option<PathBuf>, file: &FileState, known: Option<Known>, now: Moment) -> Self {
        let committed = path.as_ref().filter(|_| !file.exported_heads.is_empty()).map(|path| SavedNotebook {
            path: path.to_string_lossy().into_owned(),
            exported_heads: file.exported_heads.clone(),
            save_sequence: file.save_sequence,
        });
        let mut saving = Self { known, committed, sequence: file.save_sequence, ..Self::new(path) };
        if file.unsaved {
            saving.autosave.changed(now);
        }
        saving
    }

    /// How far the file is.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            digest: self.digest(),
            writing: self.writing,
            begun: self.sequence,
            committed: self.committed.as_ref().map(|saved| saved.save_sequence),
            unsaved: self.has_unsaved(),
        }
    }

    /// How far the file is, for the journal.
    pub(crate) fn file_state(&self) -> FileState {
        FileState {
            digest: self.digest().map(hex::encode),
            writing: self.writing.map(hex::encode),
            names: self.known.as_ref().map(|known| known.names.clone()).unwrap_or_default(),
            exported_heads: self.committed.as_ref().map(|it| it.exported_heads.clone()).unwrap_or_default(),
            save_sequence: self.sequence,
            unsaved: self.has_unsaved(),
        }
    }

    /// Whether the documents hold something that the file lacks, as far as is known.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.autosave.is_dirty() || self.running.is_some_and(|(_, was_dirty)| was_dirty)
    }

    /// The notebook's file, if it has one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The file as it was last read or written.
    pub(crate) fn known(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// SHA-256 of the file as it was last read or written.
    pub(crate) fn digest(&self) -> Option<[u8; 32]> {
        self.known.as_ref().map(|known| known.digest)
    }

    /// The file was read.
    pub(crate) fn set_known(&mut self, known: Known) {
        self.known = Some(known);
    }

    /// Something that belongs into the file changed.
    pub(crate) fn changed(&mut self, now: Moment) {
        self.autosave.changed(now);
    }

    /// When the file must be written by itself.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        let autosaves = self.path.is_some() && self.running.is_none() && !self.conflict;
        autosaves.then(|| self.autosave.deadline()).flatten()
    }

    /// Whether no save is on its way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.running.is_none()
    }
}

impl RoomCore {
    /// A client asks for a save, perhaps under another name.
    pub(super) fn save(&mut self, ticket: Ticket, path: Option<String>) {
        if self.saving.running.is_some() {
            self.saving.waiting.push_back((ticket, path));
            return;
        }
        let target = match (&path, &self.saving.path) {
            (Some(path), _) if !Path::new(path).is_absolute() => {
                let message = format!(
                    "Relative paths are not supported for save: '{path}'. Please provide an absolute path."
                );
                return self.answer(Some(ticket), blocked(None, None, SaveBlocked::Io { message }));
            }
            (Some(path), _) => PathBuf::from(path),
            (None, Some(own)) => own.clone(),
            (None, None) => {
                let message =
                    "Cannot save untitled notebook without a target path. Please provide an explicit save path."
                        .to_owned();
                return self.answer(Some(ticket), blocked(None, None, SaveBlocked::Io { message }));
            }
        };
        // With nothing to save, too: the file may be gone or another by now.
        self.begin_save(target, Some(ticket));
    }

    /// Saves by itself, if it is time.
    pub(super) fn autosave(&mut self) {
        if self.saving.deadline().is_some_and(|at| at <= self.now) {
            self.save_if_dirty();
        }
    }

    /// Saves at once what is not saved yet, if there is a file to save it to.
    pub(super) fn save_if_dirty(&mut self) {
        if let Some(path) = self.saving.path.clone()
            && self.saving.running.is_none()
            && !self.saving.conflict
            && self.saving.autosave.is_dirty()
        {
            self.begin_save(path, None);
        }
    }

    /// A save is about to write.
    pub(super) fn writing(&mut self, job: JobId, digest: [u8; 32]) {
        if self.saving.running.is_some_and(|(running, _)| running == job) {
            self.saving.writing = Some(digest);
        }
    }

    /// A save ended.
    pub(super) fn saved(&mut self, job: JobId, result: Result<Written, SaveFailure>) {
        let Some((_, was_dirty)) = self.saving.running.take_if(|(running, _)| *running == job) else {
            return;
        };
        let Some(Task::Save { ticket, heads, sequence, target }) = self.tasks.remove(&job) else { return };
        self.saving.writing = None;
        let succeeded = result.is_ok();
        let overtaken = std::mem::take(&mut self.saving.overtaken);
        let response = match result {
            Ok(written) => self.save_succeeded(written, heads, sequence),
            Err(SaveFailure::ChangedOutside(file)) if overtaken < OVERTAKEN => {
                self.take_in(*file);
                if was_dirty {
                    self.saving.autosave.changed(self.now);
                }
                self.begin_save(target, ticket);
                self.saving.overtaken = overtaken + 1;
                return;
            }
            Err(failure) => {
                if was_dirty {
                    self.saving.autosave.failed(self.now);
                }
                self.save_failed(&failure, sequence, &target)
            }
        };
        self.answer(ticket, response);
        // One that cannot begin is answered at once, and the next has its turn.
        while self.saving.running.is_none()
            && let Some((ticket, path)) = self.saving.waiting.pop_front()
        {
            self.save(ticket, path);
        }
        if self.saving.running.is_some() {
            return;
        }
        if self.closing && succeeded {
            self.save_if_dirty();
        } else if self.closing && Some(&target) == self.saving.path.as_ref() {
            self.save_aside();
        }
    }

    /// Saves what would be lost with the room, because its file is somebody else's by now, beside the file.
    pub(super) fn save_aside(&mut self) {
        if let Some(path) = self.saving.path.as_deref()
            && self.saving.running.is_none()
            && self.saving.conflict
            && self.saving.autosave.is_dirty()
        {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let aside =
                path.with_file_name(format!("{stem}.unsaved-{:.8}.ipynb", self.id.simple().to_string()));
            tracing::warn!(aside = %aside.display(), "a notebook whose file was changed by another program is saved beside it");
            self.begin_save(aside, None);
        }
    }

    fn begin_save(&mut self, path: PathBuf, ticket: Option<Ticket>) {
        let Some(sequence) = self.saving.sequence.checked_add(1) else {
            return self.answer(ticket, blocked(Some(&path), None, SaveBlocked::SequenceExhausted));
        };
        self.saving.sequence = sequence;
        let was_dirty = self.saving.autosave.take();
        let bound = Some(&path) == self.saving.path.as_ref();
        let plan = SavePlan {
            room: self.id,
            path: path.clone(),
            notebook: self.snapshot(),
            expected: self.saving.digest(),
            names: self.saving.known.as_ref().map(|known| known.names.clone()).unwrap_or_default(),
            bound,
        };
        let heads = self.documents.notebook.heads().iter().map(ToString::to_string).collect();
        let job = self.ids.job();
        self.tasks.insert(job, Task::Save { ticket, heads, sequence, target: path });
        self.saving.running = Some((job, was_dirty));
        self.effects.push(Effect::Save { job, plan: Box::new(plan) });
    }

    fn save_succeeded(&mut self, written: Written, heads: Vec<String>, sequence: u64) -> Response {
        let path = written.path.to_string_lossy().into_owned();
        self.durable.set_template(written.file.template.clone().filter(|_| !written.unchanged));
        if self.saving.digest() != Some(written.file.digest) {
            self.saving.known = Some(written.file.into());
        }
        let in_conflict = std::mem::take(&mut self.saving.conflict);
        let is_last = |last: &&SavedNotebook| last.path == path && last.exported_heads == heads;
        if written.unchanged
            && !in_conflict
            && let Some(last) = self.saving.committed.as_ref().filter(is_last)
        {
            return Response::NotebookAlreadyCurrent(last.clone());
        }
        let (source_issue_kind, source_issue_reason) = self.durable.issue();
        let runtime = &mut self.documents.runtime;
        kept(runtime.set_path(Some(&path)));
        kept(runtime.set_last_saved(Some(&written.at)));
        kept(runtime.set_file_checkpoint(&FileCheckpoint {
            exported_heads: heads.clone(),
            save_sequence: Some(sequence),
            source_issue_kind,
            source_issue_reason,
        }));
        self.saving.path = Some(written.path);
        self.journal_moves();
        let saved = SavedNotebook { path, exported_heads: heads, save_sequence: sequence };
        self.saving.committed = Some(saved.clone());
        if written.unchanged {
            Response::NotebookAlreadyCurrent(saved)
        } else {
            Response::NotebookSaved(saved)
        }
    }

    fn save_failed(&mut self, failure: &SaveFailure, sequence: u64, target: &Path) -> Response {
        tracing::warn!(path = %target.display(), %failure, "a notebook was not saved");
        let path = target.to_string_lossy().into_owned();
        let reason = match failure {
            SaveFailure::OpenElsewhere { uuid, path } => {
                SaveBlocked::PathAlreadyOpen { uuid: uuid.clone(), path: path.to_string_lossy().into_owned() }
            }
            SaveFailure::Unreadable(message) => {
                if Some(target) == self.saving.path.as_deref() {
                    self.begin_conflict(message);
                }
                SaveBlocked::SourceConflict { message: message.clone() }
            }
            SaveFailure::ChangedOutside(_) => SaveBlocked::SourceConflict {
                message: format!(
                    "`{path}` is changed by another program all the time.\n\
                     Kept: what it wrote last, and every edit in the open notebook.\n\
                     Next: end the other program, or save the notebook under another name."
                ),
            },
            SaveFailure::Unwritable(message) => return Response::error(message),
            SaveFailure::Io(message) => SaveBlocked::Io { message: message.clone() },
        };
        blocked(Some(Path::new(&path)), Some(sequence), reason)
    }

    /// The notebook as its file shall show it.
    pub(super) fn snapshot(&self) -> Notebook {
        as_file(&self.documents, &|cell| self.superseded.previous(cell))
    }
}

/// The notebook in `documents` as a file shall show it. `previous` is the execution a cell showed before
/// its present one.
pub(crate) fn as_file<'a>(documents: &Documents, previous: &dyn Fn(&str) -> Option<&'a String>) -> Notebook {
    let cells = documents.notebook.cells().into_iter().map(|cell| {
        let shown = shown_execution(&documents.runtime, cell.execution_id.as_deref(), previous(&cell.id));
        let count = shown.as_ref().and_then(|(count, _)| *count).or(cell.execution_count);
        let is_code = cell.cell_type == "code";
        FileCell {
            id: cell.id,
            cell_type: cell.cell_type,
            source: cell.source,
            execution_count: count.filter(|_| is_code),
            metadata: cell.metadata,
            attachments: cell.attachments,
            outputs: shown.map(|(_, outputs)| outputs).unwrap_or_default(),
        }
    });
    Notebook { cells: cells.collect(), metadata: documents.notebook.metadata() }
}

/// Count and outputs a cell shows. While it runs and has shown nothing, those of the run before.
fn shown_execution(
    runtime: &RuntimeStateDoc,
    execution: Option<&str>,
    previous: Option<&String>,
) -> Option<(Option<i64>, Vec<Output>)> {
    let read = |id: &str| {
        let execution = runtime.execution(id)?;
        let outputs: Vec<Output> =
            runtime.outputs(id).iter().filter_map(|entry| Output::from_json(&entry.manifest)).collect();
        Some((execution, outputs))
    };
    let (execution, outputs) = read(execution?)?;
    if outputs.is_empty()
        && matches!(execution.status, Status::Queued | Status::Running)
        && let Some((before, outputs)) = previous.and_then(|id| read(id))
    {
        return Some((before.execution_count, outputs));
    }
    Some((execution.execution_count, outputs))
}

fn blocked(path: Option<&Path>, save_sequence: Option<u64>, reason: SaveBlocked) -> Response {
    let path = path.map(|path| path.to_string_lossy().into_owned());
    Response::NotebookSaveBlocked { path, save_sequence, reason }
}
