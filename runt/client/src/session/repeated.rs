//! Requests that are made again of the next daemon.
//!
//! For: the session's task, which asks again what was not answered before the connection was lost.
//! Promises: whoever asked sees one answer, as if it had been asked once: a run that the former daemon has taken
//! note of is queued, though the next one refuses its id as used.

use runtimed_protocol::request::NotebookRequest;
use runtimed_protocol::response::{ExecutionIdReason, NotebookResponse, QueuedCell};

/// A request that may be made again.
pub(super) struct Again {
    /// What was asked.
    request: NotebookRequest,
    /// The same, ready to be sent.
    payload: Vec<u8>,
    /// Whether it was.
    repeated: bool,
}

impl Again {
    /// Of a request whose payload this is, if it may be made again: it then does nothing, or the same.
    pub(super) fn of(request: NotebookRequest, payload: Vec<u8>) -> Option<Self> {
        is_repeatable(&request).then_some(Self { request, payload, repeated: false })
    }

    /// What to send the next daemon.
    pub(super) fn repeat(&mut self) -> &[u8] {
        self.repeated = true;
        &self.payload
    }

    /// What this response to the last asking says about all of them. Queued cells come in the order of `cells`.
    pub(super) fn meaning(
        &self,
        response: NotebookResponse,
        cells: impl FnOnce() -> Vec<String>,
    ) -> NotebookResponse {
        match response {
            NotebookResponse::ExecutionIdRejected { reason: ExecutionIdReason::AlreadyExists, .. }
                if self.repeated =>
            {
                self.queued(cells).unwrap_or(response)
            }
            response => response,
        }
    }

    /// What was answered when the request was carried out, if it queues cells under ids of ours.
    fn queued(&self, cells: impl FnOnce() -> Vec<String>) -> Option<NotebookResponse> {
        let queued = |cell_id: &String, execution_id: &String| QueuedCell {
            cell_id: cell_id.clone(),
            execution_id: execution_id.clone(),
        };
        match &self.request {
            NotebookRequest::ExecuteCell { cell_id, execution_id: Some(id) }
            | NotebookRequest::ExecuteCellGuarded { cell_id, execution_id: Some(id), .. } => {
                Some(NotebookResponse::CellQueued(queued(cell_id, id)))
            }
            NotebookRequest::RunAllCells { cell_execution_ids: Some(ids) }
            | NotebookRequest::RunAllCellsGuarded { cell_execution_ids: Some(ids), .. } => {
                let queued = cells().iter().filter_map(|cell| Some(queued(cell, ids.get(cell)?))).collect();
                Some(NotebookResponse::AllCellsQueued { queued })
            }
            _ => None,
        }
    }
}

/// Whether a request that was perhaps carried out may be made again.
fn is_repeatable(request: &NotebookRequest) -> bool {
    match request {
        // The daemon knows an execution that it has already.
        NotebookRequest::ExecuteCell { execution_id, .. }
        | NotebookRequest::ExecuteCellGuarded { execution_id, .. } => execution_id.is_some(),
        NotebookRequest::RunAllCells { cell_execution_ids }
        | NotebookRequest::RunAllCellsGuarded { cell_execution_ids, .. } => cell_execution_ids.is_some(),
        other => matches!(
            other,
            NotebookRequest::AcknowledgeNotebookSync
                | NotebookRequest::ApproveTrust { .. }
                | NotebookRequest::Complete { .. }
                | NotebookRequest::GetHistory { .. }
                | NotebookRequest::LaunchKernel { .. }
                | NotebookRequest::SaveNotebook { .. }
                | NotebookRequest::SyncEnvironment { .. }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: ExecutionIdReason) -> NotebookResponse {
        NotebookResponse::ExecutionIdRejected { execution_id: "run".into(), reason }
    }

    #[test]
    fn a_run_that_the_former_daemon_took_is_queued() {
        let request = NotebookRequest::ExecuteCell { cell_id: "a".into(), execution_id: Some("run".into()) };
        let mut again = Again::of(request, Vec::new()).unwrap();
        let exists = || refused(ExecutionIdReason::AlreadyExists);
        assert_eq!(again.meaning(exists(), Vec::new), exists(), "asked once, it is another's id");
        again.repeat();
        let queued = QueuedCell { cell_id: "a".into(), execution_id: "run".into() };
        assert_eq!(again.meaning(exists(), Vec::new), NotebookResponse::CellQueued(queued));
        let malformed = || refused(ExecutionIdReason::Malformed);
        assert_eq!(again.meaning(malformed(), Vec::new), malformed());
    }

    #[test]
    fn all_cells_come_in_the_order_of_the_notebook() {
        let ids = [("a", "1"), ("b", "2")].map(|(cell, id)| (cell.to_owned(), id.to_owned())).into();
        let request = NotebookRequest::RunAllCells { cell_execution_ids: Some(ids) };
        let mut again = Again::of(request, Vec::new()).unwrap();
        again.repeat();
        let cells = || ["b", "text", "a"].map(str::to_owned).into();
        let answer = again.meaning(refused(ExecutionIdReason::AlreadyExists), cells);
        let NotebookResponse::AllCellsQueued { queued } = answer else { panic!("{answer:?}") };
        assert_eq!(queued.iter().map(|it| &*it.execution_id).collect::<Vec<_>>(), ["2", "1"]);
    }

    #[test]
    fn what_might_be_done_twice_is_not_asked_again() {
        let unnamed = NotebookRequest::ExecuteCell { cell_id: "a".into(), execution_id: None };
        assert!(Again::of(unnamed, Vec::new()).is_none());
        assert!(Again::of(NotebookRequest::InterruptExecution, Vec::new()).is_none());
    }
}
