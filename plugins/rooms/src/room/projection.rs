//! The room for somebody who decides what to do with it before joining.
//!
//! For: an agent's first look: which cells there are, how they ended, and whether the kernel is up.
//! Promises: it fits into one reply; what did not fit is said to be missing.

use runtimed_protocol::documents::Document;
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::documents::notebook::{Cell, DependencyKind};
use runtimed_protocol::documents::runtime_state::KernelState;
use runtimed_protocol::session_control::InitialLoad;
use serde_json::{Value as Json, json};

use super::core::RoomCore;

/// Characters of a cell's source. Source: the reference daemon.
const PREVIEW: usize = 120;
/// Bytes of all cells: three quarters of what a reply may have, so that the rest has room.
const CELLS_BYTES: usize = 48 * 1024;

/// The view, or why there is none; both in the wire's shape.
pub(crate) type Projection = Result<Json, Json>;

impl RoomCore {
    /// What is in the room at `now` (RFC 3339); none yet while its file is being read.
    pub(crate) fn projection(&mut self, now: &str) -> Option<Projection> {
        // A file is read once in the life of a room.
        let generation = u64::from(self.saving.path().is_some());
        match &self.load {
            InitialLoad::Streaming => return None,
            InitialLoad::Failed { reason } => {
                let failed =
                    json!({"kind": "initial_load_failed", "generation": generation, "reason": reason});
                return Some(Err(failed));
            }
            _ => {}
        }
        let total = self.documents.notebook.cell_count();
        let cells = self.cell_views();
        let heads = in_hex(&self.documents.notebook.heads());
        let runs = matches!(self.documents.runtime.kernel_state(), KernelState::Running(_));
        let loaded = if generation == 0 { 0 } else { total };
        let mut view = json!({
            "schema_version": 2,
            "load_generation": generation,
            "notebook_id": self.id.to_string(),
            "projection_complete": cells.len() == total,
            "cells": cells,
            "dependencies": self.documents.notebook.dependencies("uv", DependencyKind::Packages),
            "runtime": {
                "kernel": self.kernel_view(),
                "env": self.documents.runtime.section("env"),
                "trust": self.documents.runtime.section("trust"),
                // This daemon makes no environments of project files, so it looks for none.
                "project_context": {"state": "Pending"},
            },
            "source_state": {
                "phase": "ready",
                "generation": generation,
                "progress": {"completed": loaded, "total": loaded},
                "retry": "not_needed",
            },
            "availability": {
                "phase": "interactive",
                "generation": generation,
                "document_heads": heads,
                "projection_heads": heads,
                "capabilities": {"read": true, "mutate": true, "execute": true},
            },
            "readiness": {"projection": true, "document": true, "runtime": runs},
            "projection_heads": heads,
            "notebook_heads": heads,
            "runtime_state_heads": in_hex(&self.documents.runtime.heads()),
            "captured_at": now,
        });
        if let Some(path) = self.saving.path() {
            view["notebook_path"] = json!(path);
        }
        if let Some(digest) = self.saving.digest() {
            view["source_state"]["fingerprint"] = json!(hex::encode(digest));
        }
        Some(Ok(view))
    }

    /// As many cells as fit.
    fn cell_views(&self) -> Vec<Json> {
        let mut bytes = 0;
        let views = self.documents.notebook.cells().into_iter().map(|cell| self.cell_view(cell));
        views
            .take_while(|view| {
                bytes += view.to_string().len();
                bytes <= CELLS_BYTES
            })
            .collect()
    }

    fn cell_view(&self, cell: Cell) -> Json {
        let mut preview: String = cell.source.chars().take(PREVIEW).collect();
        if preview.len() < cell.source.len() {
            preview.push('…');
        }
        let mut view = json!({"id": cell.id, "cell_type": cell.cell_type, "source_preview": preview});
        if let Some(id) = cell.execution_id
            && let Some(execution) = self.documents.runtime.execution(&id)
        {
            view["execution_id"] = json!(id);
            view["execution_status"] = json!(execution.status.as_str());
            if let Some(count) = execution.execution_count {
                view["execution_count"] = json!(count);
            }
        }
        view
    }

    fn kernel_view(&self) -> Json {
        let state = self.documents.runtime.kernel_state();
        let info = self.documents.runtime.kernel_info();
        let phase = match state {
            KernelState::Resolving => "resolving",
            KernelState::PreparingEnv => "preparing_env",
            KernelState::Launching => "launching",
            KernelState::Connecting => "connecting",
            _ => "",
        };
        let mut lifecycle = json!({"lifecycle": state.lifecycle()});
        if !state.activity().is_empty() {
            lifecycle["activity"] = json!(state.activity());
        }
        let (reason, details) = match &state {
            KernelState::Error { reason, details } => (reason.as_str(), details.as_str()),
            _ => ("", ""),
        };
        json!({
            "status": self.summary().kernel_status,
            "starting_phase": phase,
            "name": info.name,
            "language": info.language,
            "env_source": info.env_source,
            "runtime_agent_id": info.runtime_agent_id,
            "lifecycle": lifecycle,
            "error_reason": reason,
            "error_details": details,
            "last_seen": null,
        })
    }
}

fn in_hex(heads: &[ChangeHash]) -> Vec<String> {
    heads.iter().map(ToString::to_string).collect()
}
