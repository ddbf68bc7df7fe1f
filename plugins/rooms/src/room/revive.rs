//! A room that another life of it left behind.
//!
//! For: going on where the daemon ended, or where the room was put to sleep.
//! Promises: nothing is written anew that is there; what cannot go on, because its kernel is gone, says so.
//! Never: runs a cell again.

use std::collections::{BTreeMap, BTreeSet};

use runtimed_protocol::documents::Output;
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::documents::output::ContentRef;
use runtimed_protocol::documents::runtime_state::{
    Drift, Execution, KernelInfo, KernelState, Outcome, Queue as ShownQueue, Status,
};
use serde_json::json;

use super::core::{RoomCore, kept};
use super::durable::DEGRADED;
use super::outside::{FileVersion, Known};
use super::queue::Queue;
use super::save::Saving;
use super::superseded::Superseded;
use super::sync::Documents;
use crate::ids::ExecutionId;
use crate::journal::{FileState, Meta};

/// What a cell says that ran when the daemon ended.
const INTERRUPTED: &str = "The daemon ended while this cell ran. The outputs above are those that had come by \
                           then; what the cell did after that is not known. Run it again if need be.";

/// Records of so many executions that ended last are written again. They are written behind everything else
/// when an execution ends, so a daemon that was killed may have told clients of the end and not have come to
/// that; a kernel does not end more than this while a file is written.
const RECENT: usize = 16;

/// The labels under which the daemon writes in one life of a room.
#[derive(Clone, Debug)]
pub(crate) struct Actors {
    pub(crate) notebook: String,
    pub(crate) runtime: String,
    pub(crate) comms: String,
    pub(crate) comments: String,
}

/// A room as its journal has it.
pub(crate) struct Recovered {
    pub(crate) documents: Documents,
    pub(crate) left: Left,
}

/// What a journal says beside the documents.
pub(crate) struct Left {
    pub(crate) meta: Meta,
    pub(crate) file: FileState,
    /// The file as the room last read or wrote it, as far as that is known.
    pub(crate) known: Option<Known>,
    /// What another program has written into it since. Its blobs are stored.
    pub(crate) outside: Option<FileVersion>,
    /// The heads the journal holds; none if it must be written anew.
    pub(crate) held: Option<[Vec<ChangeHash>; 4]>,
    /// What the user must know: something was damaged.
    pub(crate) notice: Option<String>,
}

impl Actors {
    /// Those of the life that is called `incarnation`.
    pub(crate) fn of(incarnation: &str) -> Self {
        let actor = |document: &str| format!("runtimed{document}:{incarnation}");
        Self {
            notebook: actor(""),
            runtime: actor(":state"),
            comms: actor(":comms"),
            comments: actor(":comments"),
        }
    }
}

impl RoomCore {
    /// Takes over what another life of the room left.
    pub(super) fn revive(&mut self, left: Left) {
        self.saving =
            Saving::resume(self.saving.path().map(ToOwned::to_owned), &left.file, left.known, self.now);
        if let Some(heads) = left.held {
            self.durable.resume(heads, self.saving.stamp());
        }
        if left.meta.path.as_deref() != self.saving.path() {
            self.durable.rename();
        }
        self.end_executions();
        let runtime = &mut self.documents.runtime;
        kept(runtime.set_queue(&ShownQueue::default()));
        kept(runtime.set_kernel_state(&KernelState::NotStarted));
        kept(runtime.set_kernel_info(&KernelInfo::default()));
        kept(runtime.set_env_progress(None));
        kept(runtime.set_env_drift(&Drift::default()));
        kept(runtime.set_prewarmed_packages(&[]));
        let mut checkpoint = runtime.file_checkpoint();
        if left.notice.is_some() || checkpoint.source_issue_kind == DEGRADED {
            let kind = left.notice.as_ref().map_or("", |_| DEGRADED);
            checkpoint.source_issue_kind = kind.to_owned();
            checkpoint.source_issue_reason = left.notice.unwrap_or_default();
            kept(runtime.set_file_checkpoint(&checkpoint));
        }
        self.forget_widgets();
        self.trust(None, false);
        if let Some(file) = left.outside {
            self.take_in(file);
            self.saving.changed(self.now);
        }
    }

    /// Ends what had not ended, and finds out what cells show.
    fn end_executions(&mut self) {
        let runtime = &self.documents.runtime;
        let mut executions: Vec<Execution> =
            runtime.execution_ids().iter().filter_map(|id| runtime.execution(id)).collect();
        executions.sort_by_key(|execution| execution.seq);
        let recent = executions.len().saturating_sub(RECENT);
        let mut to_record: Vec<ExecutionId> = Vec::new();
        for (place, execution) in executions.iter().enumerate() {
            let id = &execution.execution_id;
            match execution.status {
                Status::Running => {
                    self.say_interrupted(id);
                    kept(self.documents.runtime.finish_execution(id, Outcome::Error));
                }
                Status::Queued => {
                    kept(self.documents.runtime.finish_execution(id, Outcome::Cancelled));
                }
                _ if place < recent => continue,
                _ => {}
            }
            to_record.push(id.as_str().into());
        }
        if executions.iter().any(|it| !it.status.is_terminal()) {
            self.saving.changed(self.now);
        }
        self.record(&to_record);
        let accepted = executions.iter().filter_map(|execution| execution.seq).max().map_or(0, |seq| seq + 1);
        self.queue = Queue::resume(accepted);
        let notebook = &self.documents.notebook;
        let cells = notebook.cell_ids().into_iter();
        let shown: BTreeMap<String, String> =
            cells.filter_map(|cell| notebook.execution_id(&cell).map(|shown| (cell, shown))).collect();
        let in_sight: BTreeSet<&String> = shown.values().collect();
        let others = executions.into_iter().map(|execution| execution.execution_id);
        let others = others.filter(|id| !in_sight.contains(id)).collect();
        self.superseded = Superseded::resume(shown, others);
    }

    fn say_interrupted(&mut self, execution: &str) {
        let outputs = self.documents.runtime.outputs(execution);
        let seq = outputs.last().map_or(0, |last| last.seq + 1);
        let output = Output::Error {
            output_id: self.ids.uuid().to_string(),
            ename: "DaemonEnded".to_owned(),
            evalue: INTERRUPTED.to_owned(),
            traceback: ContentRef::inline(json!([INTERRUPTED]).to_string()),
            rich: None,
            llm_preview: None,
        };
        kept(self.documents.runtime.put_output(execution, seq, &output));
    }
}
