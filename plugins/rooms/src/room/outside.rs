//! What other programs do to the notebook's file.
//!
//! For: an open notebook that follows its file, whatever writes it.
//! Promises: the same content again is no event; what another program changed is merged, cell by cell; a file
//! that cannot be read is waited for, and never overwritten while it is there.
//! Never: touches the file system; [`crate::disk`] does.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::output::Output;
use runtimed_protocol::documents::runtime_state::{FileCheckpoint, Outcome};
use runtimed_protocol::documents::{self, Document};
use runtimed_protocol::session_control::InitialLoad;

use super::core::{RoomCore, kept};
use super::event::Effect;
use super::moment::Moment;
use super::revive::Actors;
use crate::ids::{ExecutionId, JobId};
use crate::merge::{self, Edit, Names};
use crate::notebook_file::Notebook;

/// The file is looked at when it was left alone for this long: a program that writes it in several steps
/// takes no longer from one to the next.
const QUIET: Duration = Duration::from_millis(100);
/// The file is looked at this long after the first change, however much goes on.
const LONGEST: Duration = Duration::from_secs(1);
/// How long a file that cannot be read is given to become one that can.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// What a notebook's file held at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FileVersion {
    /// SHA-256 of the file.
    pub(crate) digest: [u8; 32],
    /// The content; nothing for an empty file. Its blobs are stored.
    pub(crate) notebook: Notebook,
    /// The cells whose ids are not in the file.
    pub(crate) unnamed: BTreeSet<String>,
    /// The file, packed for the journal; none if it is too much.
    pub(crate) template: Option<Bytes>,
}

/// The file as the room last read or wrote it: what the next outside edit began with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// SHA-256 of the file.
    pub(crate) digest: [u8; 32],
    /// The content, under the room's own cell ids; nothing if it is not known any more.
    pub(crate) notebook: Notebook,
    /// What cells of the file are called here.
    pub(crate) names: Names,
}

impl From<FileVersion> for Known {
    fn from(file: FileVersion) -> Self {
        Self { digest: file.digest, notebook: file.notebook, names: Names::new() }
    }
}

/// What a look at the file found.
#[derive(Debug)]
pub(crate) enum Seen {
    /// What was known.
    Known,
    /// No file, or an empty one.
    Gone,
    /// Something that cannot be read; the report about it.
    Unreadable(String),
    /// Another program's work.
    Changed(Box<FileVersion>),
}

/// When to look at the file.
#[derive(Default)]
pub(crate) struct Lookout {
    /// When it was first touched since the last look, and when to look.
    due: Option<(Moment, Moment)>,
    /// The look that is on its way, and what was known when it began.
    running: Option<(JobId, Option<[u8; 32]>)>,
    /// The last look found something that cannot be read.
    in_doubt: bool,
}

impl Lookout {
    /// When to look.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.due.filter(|_| self.running.is_none()).map(|(_, at)| at)
    }

    fn touched(&mut self, now: Moment) {
        let (first, at) = self.due.get_or_insert((now, now));
        *at = (now + QUIET).min(*first + LONGEST);
    }
}

impl RoomCore {
    /// Somebody did something to the file; perhaps we did.
    pub(super) fn file_touched(&mut self) {
        self.saving.lookout.touched(self.now);
    }

    /// Looks at the file, if it is time.
    pub(super) fn look_if_due(&mut self) {
        if self.saving.lookout.deadline().is_none_or(|at| at > self.now) {
            return;
        }
        self.saving.lookout.due = None;
        let Some(path) = self.saving.path().map(ToOwned::to_owned) else { return };
        if self.load == InitialLoad::Streaming || !self.saving.is_at_rest() {
            return self.saving.lookout.touched(self.now);
        }
        let (job, known) = (self.ids.job(), self.saving.digest());
        self.saving.lookout.running = Some((job, known));
        self.effects.push(Effect::Look { job, path, known });
    }

    /// The file was looked at.
    pub(super) fn looked(&mut self, job: JobId, seen: Seen) {
        let Some((_, known)) = self.saving.lookout.running.take_if(|(running, _)| *running == job) else {
            return;
        };
        if known != self.saving.digest() || !self.saving.is_at_rest() {
            // A save came in between.
            return self.saving.lookout.touched(self.now);
        }
        let in_doubt = std::mem::take(&mut self.saving.lookout.in_doubt);
        match seen {
            Seen::Known | Seen::Gone => self.end_conflict(),
            Seen::Changed(file) => self.take_in(*file),
            // Perhaps it is being written.
            Seen::Unreadable(_) if !in_doubt => {
                self.saving.lookout.in_doubt = true;
                self.saving.lookout.due.get_or_insert((self.now, self.now + SECOND_LOOK));
            }
            Seen::Unreadable(report) => self.begin_conflict(&report),
        }
    }

    /// Nothing is saved over a file that nobody can read, before it is another or gone.
    pub(super) fn begin_conflict(&mut self, report: &str) {
        tracing::warn!(report, "the file of a notebook cannot be read any more");
        self.saving.conflict = true;
        let checkpoint = self.documents.runtime.file_checkpoint();
        kept(self.documents.runtime.set_file_checkpoint(&FileCheckpoint {
            source_issue_kind: "conflict".to_owned(),
            source_issue_reason: report.to_owned(),
            ..checkpoint
        }));
    }

    fn end_conflict(&mut self) {
        if std::mem::take(&mut self.saving.conflict) {
            let checkpoint = self.documents.runtime.file_checkpoint();
            kept(self.documents.runtime.set_file_checkpoint(&FileCheckpoint {
                exported_heads: checkpoint.exported_heads,
                save_sequence: checkpoint.save_sequence,
                ..FileCheckpoint::default()
            }));
        }
    }

    /// Brings another program's version of the file into the notebook.
    pub(super) fn take_in(&mut self, file: FileVersion) {
        self.end_conflict();
        let ours = self.snapshot();
        let base = match self.saving.known() {
            Some(known) if !known.notebook.cells.is_empty() => known.notebook.clone(),
            // There was no file yet, and there is nothing here to keep.
            _ if is_blank(&ours) => ours.clone(),
            _ => Notebook::default(),
        };
        let names = merge::names(&base, &file.notebook, &file.unnamed);
        let mut theirs = file.notebook;
        theirs.rename(&names);
        let merged = merge::merge(&base, &theirs, &ours, &|cell| self.queue.active(cell).is_some());
        if !merged.conflicts.is_empty() {
            tracing::warn!(cells = ?merged.conflicts, "another program changed what was changed here too; both versions are kept");
        }
        self.carry_out(merge::plan(&ours, &merged.notebook));
        self.durable.set_template(file.template);
        self.saving.set_known(Known { digest: file.digest, notebook: theirs, names });
    }

    fn carry_out(&mut self, edits: Vec<Edit>) {
        if edits.is_empty() {
            return;
        }
        self.documents.notebook.set_actor(&format!("runtimed:filesystem:{}", self.incarnation));
        for edit in edits {
            kept(self.carry_out_one(edit));
        }
        self.documents.notebook.set_actor(&Actors::of(&self.incarnation).notebook);
    }

    fn carry_out_one(&mut self, edit: Edit) -> documents::Result<()> {
        fn place(after: &Option<String>) -> Place<'_> {
            after.as_deref().map_or(Place::Start, Place::After)
        }
        match edit {
            Edit::Delete { id } => self.documents.notebook.delete_cell(&id).map(drop),
            Edit::Insert { after, cell } => {
                let shows = cell.execution_count.is_some() || !cell.outputs.is_empty();
                let execution_id = shows.then(|| self.past_execution(cell.execution_count, &cell.outputs));
                let cell = NewCell {
                    id: cell.id,
                    cell_type: cell.cell_type,
                    source: cell.source,
                    execution_count: cell.execution_count,
                    execution_id: execution_id.map(|id| id.to_string()),
                    metadata: cell.metadata,
                    attachments: cell.attachments,
                };
                self.documents.notebook.insert_cell(place(&after), &cell)
            }
            Edit::Move { id, after } => self.documents.notebook.move_cell(&id, place(&after)),
            Edit::Source { id, source } => self.documents.notebook.set_source(&id, &source),
            Edit::CellType { id, cell_type } => self.documents.notebook.set_cell_type(&id, &cell_type),
            Edit::CellMetadata { id, metadata } => self.documents.notebook.set_cell_metadata(&id, &metadata),
            Edit::Attachments { id, attachments } => {
                self.documents.notebook.set_attachments(&id, &attachments)
            }
            Edit::Outputs { id, count: None, outputs } if outputs.is_empty() => {
                self.documents.notebook.clear_outputs(&id)
            }
            Edit::Outputs { id, count, outputs } => {
                let execution = self.past_execution(count, &outputs);
                self.superseded.accepted(&id, self.documents.notebook.execution_id(&id), &execution);
                self.documents.notebook.set_execution_id(&id, &execution)?;
                self.documents.notebook.set_execution_count(&id, count)
            }
            Edit::Metadata(metadata) => self.documents.notebook.set_metadata(&metadata),
        }
    }

    /// An execution of another program's, with what it showed.
    fn past_execution(&mut self, count: Option<i64>, outputs: &[Output]) -> ExecutionId {
        let id = self.ids.execution();
        kept(self.documents.runtime.restore_execution(&id, Outcome::Done, count));
        for (seq, output) in (0..).zip(outputs) {
            kept(self.documents.runtime.put_output(&id, seq, output));
        }
        id
    }
}

/// Whether there is nothing in the notebook that anybody wrote.
fn is_blank(notebook: &Notebook) -> bool {
    notebook.cells.iter().all(|cell| cell.source.trim().is_empty() && cell.outputs.is_empty())
}
