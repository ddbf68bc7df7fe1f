//! From "run this cell" to the kernel.
//!
//! For: accepting executions, feeding them to the kernel one by one, and interrupting it.
//! Promises: what runs is the source as it stood when the request was accepted; a cell that is queued or
//! running is not queued again; an id names one execution, as far as the room remembers.

use std::collections::BTreeMap;
use std::time::Duration;

use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::documents::runtime_state::{Activity, KernelState, NewExecution, Queue};
use runtimed_protocol::documents::{Document, NotebookDoc};
use runtimed_protocol::response::{ExecutionIdReason, NotebookResponse as Response, QueuedCell};
use serde_json::json;
use uuid::Uuid;

use super::core::{RoomCore, kept};
use super::event::Effect;
use super::kernel_message::KernelRequest;
use super::queue::{Ended, Queued};
use super::requests::Ticket;
use crate::ids::ExecutionId;
use crate::outputs::Collector;

/// How long clients may not hear that an execution began. Most cells of a person are over by then, and are
/// one change instead of two; the Python client needs 5 ms and more for each, as much as such a cell takes.
const START_HELD: Duration = Duration::from_millis(8);

/// What the user saw is not known, or was not given.
const NOT_READY: &str = "Notebook state was not ready. Review before running again.";
/// The heads of what the user saw are not ours.
const NOT_RECOGNIZED: &str = "Notebook state was not recognized. Review before running again.";
/// The cell is another than the user saw.
const CELL_CHANGED: &str = "Cell changed or already ran. Review before running again.";
/// The notebook is another than the user saw.
const NOTEBOOK_CHANGED: &str = "Notebook changed before Run All could start. Review before running again.";

impl RoomCore {
    /// Queues one cell.
    pub(super) fn execute_cell(&mut self, ticket: &Ticket, cell_id: String, id: Option<String>) -> Response {
        if let Some(id) = &id
            && let Err(reason) = self.check_execution_id(id)
        {
            return Response::ExecutionIdRejected { execution_id: id.clone(), reason };
        }
        if !self.kernel.is_coming_or_up() {
            return Response::NoKernel;
        }
        match self.documents.notebook.cell_type(&cell_id).as_deref() {
            Some("code") => {}
            Some(other) => {
                return Response::error(format!("Cannot execute non-code cell: {cell_id} (type: {other})"));
            }
            None => return Response::error(format!("Cell not found in document: {cell_id}")),
        }
        if let Some(active) = self.queue.active(&cell_id) {
            return match id {
                Some(_) => Response::error(format!("Cell already has an active execution: {active}")),
                None => Response::CellQueued(QueuedCell { execution_id: active.to_string(), cell_id }),
            };
        }
        let execution = self.accept(ticket, &cell_id, id);
        self.show_queue();
        Response::CellQueued(QueuedCell { cell_id, execution_id: execution.to_string() })
    }

    /// Queues every code cell.
    pub(super) fn run_all_cells(&mut self, ticket: &Ticket, mut ids: BTreeMap<String, String>) -> Response {
        let mut seen = Vec::new();
        for id in ids.values() {
            let reason = match self.check_execution_id(id) {
                Err(reason) => Some(reason),
                Ok(()) if seen.contains(&id) => Some(ExecutionIdReason::DuplicateInRequest),
                Ok(()) => None,
            };
            if let Some(reason) = reason {
                return Response::ExecutionIdRejected { execution_id: id.clone(), reason };
            }
            seen.push(id);
        }
        if !self.kernel.is_coming_or_up() {
            return Response::NoKernel;
        }
        let mut queued = Vec::new();
        for cell_id in self.documents.notebook.cell_ids() {
            if self.documents.notebook.cell_type(&cell_id).as_deref() != Some("code") {
                continue;
            }
            let execution = match self.queue.active(&cell_id) {
                Some(active) => active.clone(),
                None => self.accept(ticket, &cell_id, ids.remove(&cell_id)),
            };
            queued.push(QueuedCell { execution_id: execution.to_string(), cell_id });
        }
        self.show_queue();
        Response::AllCellsQueued { queued }
    }

    /// Why a cell may not run, given what the user saw; none if it is what is there.
    pub(super) fn guard_cell(&mut self, cell_id: &str, observed: &[String]) -> Option<&'static str> {
        let before = match self.observed(observed) {
            Ok(before) => before,
            Err(reason) => return Some(reason),
        };
        let now = &self.documents.notebook;
        let changed = before.source(cell_id) != now.source(cell_id)
            || before.cell_type(cell_id) != now.cell_type(cell_id)
            || before.execution_id(cell_id) != now.execution_id(cell_id);
        changed.then_some(CELL_CHANGED)
    }

    /// Why the notebook may not run, given what the user saw; none if it is what is there.
    pub(super) fn guard_notebook(&mut self, observed: &[String]) -> Option<&'static str> {
        let before = match self.observed(observed) {
            Ok(before) => before,
            Err(reason) => return Some(reason),
        };
        let code = |notebook: &NotebookDoc| -> Vec<_> {
            let ids = notebook.cell_ids().into_iter();
            ids.map(|id| (notebook.cell_type(&id), notebook.source(&id), id)).collect()
        };
        (code(&before) != code(&self.documents.notebook)).then_some(NOTEBOOK_CHANGED)
    }

    /// The notebook as the user saw it.
    pub(super) fn observed(&mut self, heads: &[String]) -> Result<NotebookDoc, &'static str> {
        let heads: Vec<ChangeHash> =
            heads.iter().map(|head| head.parse()).collect::<Result<_, _>>().map_err(|_| NOT_READY)?;
        if heads.is_empty() {
            return Err(NOT_READY);
        }
        if !self.documents.notebook.contains(&heads) {
            return Err(NOT_RECOGNIZED);
        }
        let mut then = self.documents.notebook.automerge_mut().fork_at(&heads).map_err(|_| NOT_RECOGNIZED)?;
        NotebookDoc::load(&then.save(), "runtimed:observed").map_err(|_| NOT_RECOGNIZED)
    }

    /// Stops what runs and cancels what waits. The kernel gets nothing new until it is idle again.
    pub(super) fn interrupt(&mut self) -> Response {
        if !self.kernel.existed {
            return Response::NoKernel;
        }
        if let Some(launch) = self.kernel.live() {
            self.effects.push(Effect::Interrupt { launch });
        }
        let ended = self.queue.interrupt();
        self.settle(ended);
        Response::InterruptSent
    }

    /// Shows how executions ended, after everything that was collected for them.
    pub(super) fn settle(&mut self, ended: Vec<Ended>) {
        self.publication.next.ended.extend(ended);
    }

    /// Gives the kernel the next execution, once it is idle, everything before is published, and it was told what
    /// clients wrote into widgets.
    pub(super) fn feed_kernel(&mut self) {
        let Some(up) = self.kernel.up() else { return };
        let launch = up.id;
        if !self.publication.may_go_on() {
            return;
        }
        if !self.queue.has_next() || !self.widgets_are_told() {
            return;
        }
        let Some(next) = self.queue.start_next().cloned() else { return };
        // What finished executions still print is picked up from the document when it comes.
        self.publication.collectors.retain(|_, collector| collector.is_dirty());
        self.publication.collectors.insert(next.id.clone(), Collector::new());
        self.publication.published = Some(self.now);
        self.hearing.begin(&next.id);
        if let Some((_, batch)) = &mut self.publication.storing {
            batch.mark.executing = self.hearing.shown().executing.clone();
        }
        kept(self.documents.runtime.start_execution(&next.id));
        kept(self.documents.runtime.set_kernel_state(&KernelState::Running(Activity::Busy)));
        self.show_queue();
        self.start_held = Some(self.now + START_HELD);
        self.effects.push(Effect::Say { launch, request: execute_request(&next) });
    }

    /// Shows the queue as it is.
    pub(super) fn show_queue(&mut self) {
        let queue = Queue {
            executing: self.queue.executing().map(ToString::to_string),
            queued: self.queue.waiting().map(ToString::to_string).collect(),
        };
        kept(self.documents.runtime.set_queue(&queue));
    }

    /// Takes an execution into the queue and points its cell at it.
    fn accept(&mut self, ticket: &Ticket, cell_id: &str, id: Option<String>) -> ExecutionId {
        let id = id.map_or_else(|| self.ids.execution(), |id| id.as_str().into());
        let source = self.documents.notebook.source(cell_id).unwrap_or_default();
        let submitted_by = self.peers.get(&ticket.peer).map(|peer| peer.identity.label()).unwrap_or_default();
        let execution = Queued { id: id.clone(), cell: cell_id.to_owned(), source };
        kept(self.documents.runtime.create_execution(&NewExecution {
            execution_id: &id,
            source: &execution.source,
            cell_id,
            seq: self.queue.accepted(),
            submitted_by_actor_label: &submitted_by,
        }));
        self.superseded.accepted(cell_id, self.documents.notebook.execution_id(cell_id), &id);
        kept(self.documents.notebook.set_execution_id(cell_id, &id));
        self.queue.accept(execution);
        id
    }

    fn check_execution_id(&self, id: &str) -> Result<(), ExecutionIdReason> {
        if Uuid::parse_str(id).is_err() {
            return Err(ExecutionIdReason::Malformed);
        }
        if self.documents.runtime.execution(id).is_some() || self.superseded.was_removed(id) {
            return Err(ExecutionIdReason::AlreadyExists);
        }
        Ok(())
    }
}

/// What the kernel is asked to do.
pub(super) fn execute_request(execution: &Queued) -> KernelRequest {
    let content = json!({
        "code": execution.source,
        "silent": false,
        "store_history": true,
        "user_expressions": {},
        "allow_stdin": false,
        "stop_on_error": true,
    });
    // The execution's id is the message's: whatever the kernel says about it carries it as its parent.
    let mut request = KernelRequest::shell(&*execution.id, "execute_request", content);
    request.metadata = json!({"nteract": {"execution_id": &*execution.id, "cell_id": execution.cell}});
    request
}
