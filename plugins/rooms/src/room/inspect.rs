//! The room for somebody who looks from outside: records of executions, and the whole notebook as JSON.

use std::collections::BTreeMap;
use std::path::Path;

use runtimed_protocol::documents::runtime_state::OutputEntry;
use serde_json::{Value as Json, json};

use super::core::RoomCore;
use super::event::Effect;
use crate::ids::ExecutionId;
use crate::records::ExecutionRecord;

impl RoomCore {
    /// What is in the notebook, in the wire's `notebook_state` shape.
    pub(crate) fn inspect(&self) -> Json {
        let runtime = &self.documents.runtime;
        let mut outputs = BTreeMap::new();
        let cells: Vec<Json> = self
            .documents
            .notebook
            .cells()
            .into_iter()
            .map(|cell| {
                let execution = cell.execution_id.as_deref().and_then(|id| runtime.execution(id));
                let count =
                    execution.and_then(|execution| execution.execution_count).or(cell.execution_count);
                if let Some(id) = &cell.execution_id {
                    let shown = manifests(runtime.outputs(id));
                    if !shown.is_empty() {
                        outputs.insert(cell.id.clone(), shown);
                    }
                }
                json!({
                    "id": cell.id,
                    "cell_type": cell.cell_type,
                    "position": cell.position,
                    "source": cell.source,
                    // A string that holds JSON, as in the document.
                    "execution_count": Json::from(count).to_string(),
                    "metadata": cell.metadata,
                })
            })
            .collect();
        let kernel = self.kernel.kind().map(|kind| {
            let summary = self.summary();
            json!({"kernel_type": kind, "env_source": summary.env_source, "status": summary.kernel_status})
        });
        json!({"cells": cells, "outputs_by_cell": outputs, "source": "live_room", "kernel_info": kernel})
    }

    /// Keeps the records of executions that ended.
    pub(super) fn record<'a>(&mut self, ended: impl IntoIterator<Item = &'a ExecutionId>) {
        if self.is_ephemeral() {
            return;
        }
        let path = self.saving.path().and_then(Path::to_str).map(str::to_owned);
        let context = path.clone().unwrap_or_else(|| self.id.to_string());
        for id in ended {
            let Some(execution) = self.documents.runtime.execution(id) else { continue };
            let outputs = manifests(self.documents.runtime.outputs(id));
            self.effects.push(Effect::Record(Box::new(ExecutionRecord {
                notebook_path: path.clone(),
                cell_id: execution.cell_id,
                status: execution.status.as_str().to_owned(),
                success: execution.success,
                execution_count: execution.execution_count,
                source: execution.source,
                seq: execution.seq,
                submitted_by_actor_label: execution.submitted_by_actor_label,
                outputs,
                // The shell knows the time.
                ..ExecutionRecord::new(id, &context, "")
            })));
        }
    }
}

fn manifests(entries: Vec<OutputEntry>) -> Vec<Json> {
    entries.into_iter().map(|entry| entry.manifest).collect()
}
