//! The state of a notebook's kernel, queue, executions and outputs, as clients see it.
//!
//! For: the room, the only writer; clients read.
//! Promises: a write that changes nothing writes nothing; a terminal execution stays what it is; lists
//! are edited in place; `display_index` follows the outputs by itself.
//! Never: a decision. What happens when is the room's business.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use serde_json::{Value as Json, json};

use super::output::Output;
use super::{Document, DocumentError, Result, genesis, json, load, put_changed, root_map};

mod execution;
mod kernel;

pub use execution::{Execution, NewExecution, Outcome, OutputEntry, Status};
pub use kernel::{Activity, KernelInfo, KernelState};

/// The runtime state document (frame 0x05).
pub struct RuntimeStateDoc {
    document: AutoCommit,
}

impl Document for RuntimeStateDoc {
    fn automerge(&self) -> &AutoCommit {
        &self.document
    }

    fn automerge_mut(&mut self) -> &mut AutoCommit {
        &mut self.document
    }
}

/// Executions and their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Queue {
    /// The execution the kernel works on.
    pub executing: Option<String>,
    /// Executions that wait, next first.
    pub queued: Vec<String>,
}

/// Result of comparing the notebook's dependencies with the allowlist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// `trusted`, `untrusted` or `no_dependencies`.
    pub status: String,
    /// Whether somebody must approve; only when untrusted.
    pub needs_approval: bool,
    /// Declared specs that are on the allowlist already.
    /// Shape: (`uv_dependencies`, `conda_channels`, ...; the key without `approved_`) -> specs.
    pub approved: Vec<(String, Vec<String>)>,
}

/// How the environment differs from what the notebook declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    /// Declared, not installed.
    pub added: Vec<String>,
    /// Installed, no longer declared.
    pub removed: Vec<String>,
    /// Conda channels differ.
    pub channels_changed: bool,
    /// Deno permissions or configuration differ.
    pub deno_changed: bool,
}

/// What the saved file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileCheckpoint {
    /// Heads of the notebook document in the file, hex.
    pub exported_heads: Vec<String>,
    /// Increases with every save; none before the first.
    pub save_sequence: Option<u64>,
    /// Empty, `conflict` or `degraded`.
    pub source_issue_kind: String,
    /// One sentence for a person.
    pub source_issue_reason: String,
}

/// One widget's entry in the topology of comms. Its state is in the comms document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommEntry {
    /// `jupyter.widget`, mostly.
    pub target_name: String,
    /// `_model_module` of the state.
    pub model_module: String,
    /// `_model_name` of the state.
    pub model_name: String,
    /// Order of opening, from 0.
    pub seq: u64,
    /// The message whose output the widget captures; empty when it does not.
    pub capture_msg_id: String,
    /// Manifests an Output widget has captured.
    pub outputs: Vec<Output>,
}

impl RuntimeStateDoc {
    /// A new document with nothing but its genesis.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new(actor: &str) -> Result<Self> {
        Ok(Self { document: genesis::runtime_state(actor)? })
    }

    /// The document in `bytes`.
    ///
    /// # Errors
    /// When the bytes are no document.
    pub fn load(bytes: &[u8], actor: &str) -> Result<Self> {
        Ok(Self { document: load(bytes, actor)? })
    }

    /// The document's own name, the same as in the notebook document.
    ///
    /// # Errors
    /// [`DocumentError`] when the document does not have its shape; so for every setter below.
    pub fn set_identity(&mut self, runtime_state_doc_id: &str) -> Result<()> {
        put_changed(&mut self.document, &ROOT, "runtime_state_doc_id", runtime_state_doc_id)
    }

    /// Where the notebook lies, or none while it is untitled.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_path(&mut self, path: Option<&str>) -> Result<()> {
        put_changed(&mut self.document, &ROOT, "path", string_or_null(path))
    }

    /// Where the notebook lies.
    pub fn path(&self) -> Option<String> {
        json::get_string(&self.document, &ROOT, "path")
    }

    /// When the notebook was saved last, RFC 3339.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_last_saved(&mut self, time: Option<&str>) -> Result<()> {
        put_changed(&mut self.document, &ROOT, "last_saved", string_or_null(time))
    }

    /// The machine the kernel runs on; always this one.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_workstation(&mut self, cpu_count: u64, working_directory: Option<&str>) -> Result<()> {
        let workstation = json!({
            "workstation_id": "local-daemon",
            "display_name": "This machine",
            "provider": "local_daemon",
            "default_environment_label": "Notebook runtime",
            "environment_policy": "daemon",
            "status": "ready",
            "status_message": null,
            "memory_bytes": null,
            "accelerators": null,
            "working_directory": working_directory,
            "updated_at": null,
            "runtime_session_id": null,
        });
        let map = self.map("workstation")?;
        for (key, value) in workstation.as_object().into_iter().flatten() {
            json::update(&mut self.document, &map, key.as_str(), value)?;
        }
        put_changed(&mut self.document, &map, "cpu_count", ScalarValue::Uint(cpu_count))
    }

    /// One map of the root as JSON, such as `env`; null if it is not there.
    pub fn section(&self, key: &'static str) -> Json {
        root_map(&self.document, key).map_or(Json::Null, |map| json::read(&self.document, &map))
    }

    /// The queue.
    pub fn queue(&self) -> Queue {
        let Ok(queue) = root_map(&self.document, "queue") else { return Queue::default() };
        Queue {
            executing: json::get_string(&self.document, &queue, "executing_execution_id"),
            queued: json::get_strings(&self.document, &queue, "queued_execution_ids"),
        }
    }

    /// Shows `queue` as the queue.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_queue(&mut self, queue: &Queue) -> Result<()> {
        let map = root_map(&self.document, "queue")?;
        let executing = string_or_null(queue.executing.as_deref());
        put_changed(&mut self.document, &map, "executing_execution_id", executing)?;
        Ok(json::update_strings(&mut self.document, &map, "queued_execution_ids", &queue.queued)?)
    }

    /// Shows what the allowlist says.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_trust(&mut self, trust: &Trust) -> Result<()> {
        let map = root_map(&self.document, "trust")?;
        put_changed(&mut self.document, &map, "status", trust.status.as_str())?;
        put_changed(&mut self.document, &map, "needs_approval", trust.needs_approval)?;
        for key in self.document.keys(&map).filter(|key| key.starts_with("approved_")).collect::<Vec<_>>() {
            let approved =
                trust.approved.iter().find(|(name, _)| key.strip_prefix("approved_") == Some(name));
            let specs = approved.map_or(&[][..], |(_, specs)| specs);
            json::update_strings(&mut self.document, &map, &key, specs)?;
        }
        Ok(())
    }

    /// Shows the newest progress event of the environment's preparation: {`env_type`, `phase`, ...}.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_env_progress(&mut self, progress: Option<&Json>) -> Result<()> {
        let env = root_map(&self.document, "env")?;
        Ok(json::update(&mut self.document, &env, "progress", progress.unwrap_or(&Json::Null))?)
    }

    /// Shows how the environment differs from the notebook's declaration; the default means in sync.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_env_drift(&mut self, drift: &Drift) -> Result<()> {
        let env = root_map(&self.document, "env")?;
        put_changed(&mut self.document, &env, "in_sync", *drift == Drift::default())?;
        json::update_strings(&mut self.document, &env, "added", &drift.added)?;
        json::update_strings(&mut self.document, &env, "removed", &drift.removed)?;
        put_changed(&mut self.document, &env, "channels_changed", drift.channels_changed)?;
        put_changed(&mut self.document, &env, "deno_changed", drift.deno_changed)
    }

    /// Shows which packages the environment came with.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_prewarmed_packages(&mut self, packages: &[String]) -> Result<()> {
        let env = root_map(&self.document, "env")?;
        Ok(json::update_strings(&mut self.document, &env, "prewarmed_packages", packages)?)
    }

    /// Shows the project file near the notebook. `context` names the fields that apply (`state` and
    /// others; `parsed` as a map); all other fields become empty.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_project_context(&mut self, context: &serde_json::Map<String, Json>) -> Result<()> {
        let map = root_map(&self.document, "project_context")?;
        let mut whole = json!({
            "state": "pending", "observed_at": "", "kind": "", "absolute_path": "", "relative_to_notebook": "",
            "unreadable_path": "", "unreadable_reason": "",
            "parsed": {"dependencies": [], "dev_dependencies": [], "requires_python": null,
                       "prerelease": null, "extras": ""},
        });
        if let Some(whole) = whole.as_object_mut() {
            for (key, value) in context {
                match (whole.get_mut(key), value) {
                    (Some(Json::Object(parsed)), Json::Object(given)) => parsed.extend(given.clone()),
                    _ => drop(whole.insert(key.clone(), value.clone())),
                }
            }
            json::update_map(&mut self.document, &map, whole)?;
        }
        Ok(())
    }

    /// What the saved file holds.
    pub fn file_checkpoint(&self) -> FileCheckpoint {
        let Ok(map) = root_map(&self.document, "file_checkpoint") else { return FileCheckpoint::default() };
        FileCheckpoint {
            exported_heads: json::get_strings(&self.document, &map, "exported_heads"),
            save_sequence: json::get(&self.document, &map, "save_sequence").and_then(|n| n.as_u64()),
            source_issue_kind: self.string(&map, "source_issue_kind"),
            source_issue_reason: self.string(&map, "source_issue_reason"),
        }
    }

    /// Shows what the saved file holds.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn set_file_checkpoint(&mut self, checkpoint: &FileCheckpoint) -> Result<()> {
        let map = self.map("file_checkpoint")?;
        json::update_strings(&mut self.document, &map, "exported_heads", &checkpoint.exported_heads)?;
        let sequence = checkpoint.save_sequence.map_or(ScalarValue::Null, ScalarValue::Uint);
        put_changed(&mut self.document, &map, "save_sequence", sequence)?;
        put_changed(&mut self.document, &map, "source_issue_kind", checkpoint.source_issue_kind.as_str())?;
        put_changed(&mut self.document, &map, "source_issue_reason", checkpoint.source_issue_reason.as_str())
    }

    /// Shows a widget, or what changed about it.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn put_comm(&mut self, comm_id: &str, entry: &CommEntry) -> Result<()> {
        let comms = root_map(&self.document, "comms")?;
        let mut value = json!({
            "target_name": entry.target_name,
            "model_module": entry.model_module,
            "model_name": entry.model_name,
            "state": {},
            "outputs": entry.outputs.iter().map(Output::to_json).collect::<Vec<_>>(),
            "seq": entry.seq,
            "capture_msg_id": entry.capture_msg_id,
        });
        value.sort_all_objects();
        Ok(json::update(&mut self.document, &comms, comm_id, &value)?)
    }

    /// The widget `comm_id`.
    pub fn comm(&self, comm_id: &str) -> Option<CommEntry> {
        let comms = root_map(&self.document, "comms").ok()?;
        let map = json::get_object(&self.document, &comms, comm_id, ObjType::Map)?;
        let outputs = json::get(&self.document, &map, "outputs");
        Some(CommEntry {
            target_name: self.string(&map, "target_name"),
            model_module: self.string(&map, "model_module"),
            model_name: self.string(&map, "model_name"),
            seq: json::get(&self.document, &map, "seq").and_then(|seq| seq.as_u64()).unwrap_or_default(),
            capture_msg_id: self.string(&map, "capture_msg_id"),
            outputs: outputs
                .iter()
                .flat_map(Json::as_array)
                .flatten()
                .filter_map(Output::from_json)
                .collect(),
        })
    }

    /// Every widget's comm id.
    pub fn comm_ids(&self) -> Vec<String> {
        root_map(&self.document, "comms").map(|comms| self.document.keys(comms).collect()).unwrap_or_default()
    }

    /// Forgets the widget `comm_id`; nothing happens if it is unknown.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn remove_comm(&mut self, comm_id: &str) -> Result<()> {
        let comms = root_map(&self.document, "comms")?;
        self.delete_if_there(&comms, comm_id)
    }

    fn delete_if_there(&mut self, object: &ObjId, key: &str) -> Result<()> {
        match self.document.get(object, key)? {
            Some(_) => Ok(self.document.delete(object, key)?),
            None => Ok(()),
        }
    }

    /// The map at `key` of the root, made now if it is one of those that the genesis does not make.
    fn map(&mut self, key: &'static str) -> Result<ObjId> {
        match json::get_object(&self.document, &ROOT, key, ObjType::Map) {
            Some(map) => Ok(map),
            None => Ok(self.document.put_object(ROOT, key, ObjType::Map)?),
        }
    }

    fn string(&self, map: &ObjId, key: &str) -> String {
        json::get_string(&self.document, map, key).unwrap_or_default()
    }
}

fn string_or_null(text: Option<&str>) -> ScalarValue {
    text.map_or(ScalarValue::Null, ScalarValue::from)
}
