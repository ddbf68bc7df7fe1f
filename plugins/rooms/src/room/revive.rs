//! A room that another life of it left behind.
//!
//! For: going on where the daemon ended, or where the room was put to sleep.
//! Promises: nothing is written anew that is there; a kernel that is still there goes on where it was; what cannot
//! go on, because its kernel is gone, says so.
//! Never: runs a cell again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtimed_protocol::documents::Output;
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::documents::output::ContentRef;
use runtimed_protocol::documents::runtime_state::{
    Activity, Drift, Execution, KernelInfo, KernelState, Outcome, Queue as ShownQueue, Status,
};
use serde_json::json;

use super::core::{RoomCore, kept};
use super::declarations::Asks;
use super::durable::DEGRADED;
use super::event::Effect;
use super::executions::execute_request;
use super::hearing::Hearing;
use super::kernel::{Environment, Kernel, Stage, Up, Wanted};
use super::outside::{FileVersion, Known};
use super::publication::resumed;
use super::queue::{Queue, Queued};
use super::save::Saving;
use super::superseded::Superseded;
use super::sync::Documents;
use super::widgets::{Captures, Widgets};
use crate::ids::{ExecutionId, LaunchId};
use crate::journal::{Executing, FileState, Heard, KeptKernel, Meta};

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
    /// The file, if the last thing that happened to it is a save whose end the journal does not have.
    pub(crate) written: Option<FileVersion>,
    /// What another program has written into it since. Its blobs are stored.
    pub(crate) outside: Option<FileVersion>,
    /// The heads the journal holds; none if it must be written anew.
    pub(crate) held: Option<[Vec<ChangeHash>; 4]>,
    /// The kernel that was up, and what was heard of it.
    pub(crate) kernel: Option<KeptKernel>,
    pub(crate) heard: Heard,
    /// That kernel is there and goes on speaking; it stays this long if nobody comes.
    pub(crate) attached: Option<Duration>,
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
            let kernel = left.kernel.as_ref().map(|kept| LaunchId(kept.kernel));
            self.durable.resume(heads, self.saving.stamp(), kernel, left.heard.clone());
        }
        if let Some(file) = left.written {
            self.durable.set_template(file.template.clone());
            self.saving.set_known(file.into());
        }
        if left.meta.path.as_deref() != self.saving.path() {
            self.durable.rename();
        }
        match (left.kernel, left.attached) {
            (Some(kernel), Some(keep_alive)) => self.resume_kernel(kernel, left.heard, keep_alive),
            _ => self.begin_without_kernel(),
        }
        let runtime = &mut self.documents.runtime;
        let mut checkpoint = runtime.file_checkpoint();
        if left.notice.is_some() || checkpoint.source_issue_kind == DEGRADED {
            let kind = left.notice.as_ref().map_or("", |_| DEGRADED);
            checkpoint.source_issue_kind = kind.to_owned();
            checkpoint.source_issue_reason = left.notice.unwrap_or_default();
            kept(runtime.set_file_checkpoint(&checkpoint));
        }
        self.ask_host(Asks::Opinion);
        if let Some(file) = left.outside {
            self.take_in(file);
            self.saving.changed(self.now);
        }
    }

    /// The kernel is gone, and all that was asked of it.
    fn begin_without_kernel(&mut self) {
        self.revive_queue(None);
        let runtime = &mut self.documents.runtime;
        kept(runtime.set_queue(&ShownQueue::default()));
        kept(runtime.set_kernel_state(&KernelState::NotStarted));
        kept(runtime.set_kernel_info(&KernelInfo::default()));
        kept(runtime.set_env_progress(None));
        kept(runtime.set_env_drift(&Drift::default()));
        kept(runtime.set_prewarmed_packages(&[]));
        self.forget_widgets();
    }

    /// Goes on with a kernel that outlived the daemon. Nothing it said is lost: the rest is on its way.
    fn resume_kernel(&mut self, kept_kernel: KeptKernel, heard: Heard, keep_alive: Duration) {
        let launch = LaunchId(kept_kernel.kernel);
        self.kernel = Kernel {
            stage: Stage::Up(Up { id: launch, kind: kept_kernel.kind, deno: kept_kernel.deno }),
            environment: kept_kernel.environment.map(|(need, lease)| Environment { need, lease }),
            existed: true,
            held: Wanted::default(),
        };
        self.revive_queue(heard.executing.as_ref());
        if let Some(executing) = &heard.executing {
            let outputs = self.documents.runtime.outputs(&executing.execution);
            let mut collector = resumed(outputs);
            if executing.clears {
                collector.clear_next();
            }
            self.publication.collectors.insert(executing.execution.as_str().into(), collector);
            if !executing.idle && !executing.replied {
                // It may not have got so far. A kernel does not run the same request twice.
                let request = self.queue.request().map(execute_request);
                self.effects.extend(request.map(|request| Effect::Say { launch, request }));
            }
            if executing.interrupted && !executing.idle {
                self.effects.push(Effect::Interrupt { launch });
            }
        }
        self.publication.captures = Captures::resume(&self.documents.runtime);
        self.widgets = Widgets::resume(&self.documents.runtime, heard.edited.clone());
        self.hearing = Hearing::resume(heard);
        self.resume_edits();
        self.keep_alive = Some((self.now + keep_alive, keep_alive));
        self.show_queue();
        let activity = if self.queue.executing().is_some() { Activity::Busy } else { Activity::Idle };
        kept(self.documents.runtime.set_kernel_state(&KernelState::Running(activity)));
    }

    /// Finds out what is still to run, of which the kernel has `executing`, and what cells show. Without a kernel to
    /// go on with, everything ends that had not.
    fn revive_queue(&mut self, executing: Option<&Executing>) {
        let runtime = &self.documents.runtime;
        let mut executions: Vec<Execution> =
            runtime.execution_ids().iter().filter_map(|id| runtime.execution(id)).collect();
        executions.sort_by_key(|execution| execution.seq);
        let recent = executions.len().saturating_sub(RECENT);
        let attached = self.kernel.live().is_some();
        let mut to_record: Vec<ExecutionId> = Vec::new();
        let (mut in_kernel, mut waiting, mut given_up) = (None, Vec::new(), false);
        for (place, execution) in executions.iter().enumerate() {
            let id = &execution.execution_id;
            if let Some(executing) = executing.filter(|executing| executing.execution == *id) {
                in_kernel = Some((queued(execution), executing));
                if !execution.status.is_terminal() {
                    continue;
                }
            }
            match execution.status {
                Status::Queued if attached => {
                    waiting.push(queued(execution));
                    continue;
                }
                Status::Running => {
                    given_up = true;
                    self.say_interrupted(id);
                    kept(self.documents.runtime.finish_execution(id, Outcome::Error));
                }
                Status::Queued => {
                    given_up = true;
                    kept(self.documents.runtime.finish_execution(id, Outcome::Cancelled));
                }
                _ if place < recent => continue,
                _ => {}
            }
            to_record.push(id.as_str().into());
        }
        if given_up {
            self.saving.changed(self.now);
        }
        self.record(&to_record);
        let accepted = executions.iter().filter_map(|execution| execution.seq).max().map_or(0, |seq| seq + 1);
        self.queue = Queue::resume(accepted, in_kernel, waiting);
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

fn queued(execution: &Execution) -> Queued {
    Queued {
        id: execution.execution_id.as_str().into(),
        cell: execution.cell_id.clone().unwrap_or_default(),
        source: execution.source.clone().unwrap_or_default(),
    }
}
