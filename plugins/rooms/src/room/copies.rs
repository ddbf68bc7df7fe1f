//! Copies of notebooks that keep nothing on disk.
//!
//! For: "try this without touching the original".
//! Promises: a copy has the cells, their metadata and the notebook's; it has no outputs, no counts and no
//! file, and what it declares is asked about anew.
//! Never: changes the original.

use std::path::{Path, PathBuf};

use runtimed_plugin_api::PluginError;
use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::{self, Document as _, NotebookDoc};
use runtimed_protocol::response::NotebookResponse as Response;
use runtimed_protocol::session_control::InitialLoad;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use super::core::RoomCore;
use super::event::Effect;
use super::launch::words;
use super::requests::{Task, Ticket};
use crate::ids::JobId;

/// What of a notebook goes into a copy.
#[derive(Debug)]
pub(crate) struct Copied {
    cells: Vec<NewCell>,
    metadata: Map<String, Json>,
    /// Where the original's kernel runs, if it is not just anywhere.
    pub(crate) working_dir: Option<PathBuf>,
    /// `auto`, `project` or `notebook`.
    pub(crate) environment_mode: Option<String>,
}

/// A copy that was opened.
#[derive(Debug)]
pub(crate) struct NewCopy {
    /// Its room.
    pub(crate) id: Uuid,
    /// Where its kernel runs.
    pub(crate) working_dir: Option<PathBuf>,
}

impl Copied {
    /// Fills the document of a new room with this id.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub(super) fn write(self, notebook: &mut NotebookDoc, id: &str) -> documents::Result<()> {
        notebook.insert_cells(Place::End, &self.cells)?;
        notebook.set_metadata(&self.metadata)?;
        notebook.set_runt_value("env_id", &json!(id))?;
        notebook.commit();
        Ok(())
    }
}

impl RoomCore {
    /// What goes into a copy of this notebook.
    ///
    /// # Errors
    /// It is not loaded.
    pub(crate) fn copied(&self) -> Result<Copied, PluginError> {
        if self.load != InitialLoad::NotNeeded {
            return Err(PluginError::unavailable("The notebook is still being loaded. Nothing was copied.")
                .help("Copy it again when its cells are there."));
        }
        let cells = self.documents.notebook.cells().into_iter().map(|cell| NewCell {
            id: cell.id,
            cell_type: cell.cell_type,
            source: cell.source,
            metadata: cell.metadata,
            attachments: cell.attachments,
            execution_count: None,
            execution_id: None,
        });
        let folder = self.saving.path().and_then(Path::parent);
        Ok(Copied {
            cells: cells.collect(),
            metadata: self.documents.notebook.metadata(),
            working_dir: self.working_dir.as_deref().or(folder).map(ToOwned::to_owned),
            environment_mode: self.environment_mode.clone(),
        })
    }

    /// Opens a copy of an open notebook.
    pub(super) fn clone_room(&mut self, ticket: Ticket, source: &str) {
        let Ok(source) = source.parse() else {
            let error = Response::error(format!("Invalid source_notebook_id: {source}"));
            return self.answer(Some(ticket), error);
        };
        let job = self.ids.job();
        self.effects.push(Effect::Clone { job, source });
        self.tasks.insert(job, Task::Clone { ticket });
    }

    /// A copy was opened, or not.
    pub(super) fn cloned(&mut self, job: JobId, result: Result<NewCopy, PluginError>) {
        let Some(Task::Clone { ticket }) = self.tasks.remove(&job) else { return };
        let response = match result {
            Ok(NewCopy { id, working_dir }) => Response::NotebookCloned {
                notebook_id: id.to_string(),
                working_dir: working_dir.map(|folder| folder.to_string_lossy().into_owned()),
            },
            Err(error) => Response::error(words(&error)),
        };
        self.answer(Some(ticket), response);
    }
}
