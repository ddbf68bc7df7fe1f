//! Following one execution.
//!
//! For: whoever shows outputs as they are made.
//! Promises: every step differs from the one before; the last one is the end, with all outputs.

use runtimed_protocol::documents::Output;
use runtimed_protocol::documents::runtime_state::Execution;

use super::{Changes, Documents, NotebookSession};
use crate::Result;

/// How far an execution is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Its status and its source.
    pub execution: Execution,
    /// All outputs so far, in order.
    pub outputs: Vec<Output>,
}

impl Progress {
    /// How far `execution_id` is in these documents; none if it is not in there.
    pub fn of(documents: &Documents, execution_id: &str) -> Option<Self> {
        let execution = documents.runtime_state.execution(execution_id)?;
        let entries = documents.runtime_state.outputs(execution_id);
        let outputs = entries.iter().filter_map(|entry| Output::from_json(&entry.manifest)).collect();
        Some(Self { execution, outputs })
    }

    /// Whether nothing comes after it.
    pub fn is_over(&self) -> bool {
        self.execution.status.is_terminal()
    }
}

/// An execution, step by step.
pub struct Watch<'a> {
    session: &'a NotebookSession,
    changes: Changes,
    execution_id: String,
    /// The step before.
    last: Option<Progress>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(session: &'a NotebookSession, execution_id: String) -> Self {
        Self { session, changes: session.changes(), execution_id, last: None }
    }

    /// The next step: first how far it is, then whenever it is further; none after its end. Steps that come faster
    /// than they are asked for are one. One that is not known yet is waited for. Cancel-safe.
    ///
    /// # Errors
    /// If the connection ended before.
    pub async fn next(&mut self) -> Result<Option<Progress>> {
        if self.last.as_ref().is_some_and(Progress::is_over) {
            return Ok(None);
        }
        loop {
            let now = self.session.progress(&self.execution_id);
            if now.is_some() && now != self.last {
                self.last.clone_from(&now);
                return Ok(now);
            }
            self.changes.next().await?;
        }
    }
}
