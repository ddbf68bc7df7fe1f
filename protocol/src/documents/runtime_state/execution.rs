//! Executions and their outputs.

use automerge::transaction::Transactable;
use automerge::{ObjId, ObjType, ReadDoc, ScalarValue};
use serde_json::Value as Json;

use super::{DocumentError, Output, Result, RuntimeStateDoc, json, put_changed, root_map};

/// Where an execution is. `Done`, `Error` and `Cancelled` are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Accepted.
    Queued,
    /// With the kernel.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error, or was interrupted.
    Error,
    /// Never ran.
    Cancelled,
}

impl Status {
    /// The value of `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing comes after it.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Done | Self::Error | Self::Cancelled)
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Queued, Self::Running, Self::Done, Self::Error, Self::Cancelled];
        all.into_iter().find(|status| status.as_str() == text)
    }
}

/// How an execution ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Without an error.
    Done,
    /// With an error, or interrupted, or with its kernel.
    Error,
    /// Before it ran.
    Cancelled,
}

/// An execution at the moment it is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewExecution<'a> {
    /// UUID.
    pub execution_id: &'a str,
    /// The text that will run.
    pub source: &'a str,
    /// The cell it comes from.
    pub cell_id: &'a str,
    /// Number in the room's queue, from 0.
    pub seq: u64,
    /// Authenticated label of who asked for it.
    pub submitted_by_actor_label: &'a str,
}

/// An execution without its outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execution {
    /// UUID.
    pub execution_id: String,
    /// Where it is.
    pub status: Status,
    /// The kernel's count, once known.
    pub execution_count: Option<i64>,
    /// None until it ended, and for cancelled ones.
    pub success: Option<bool>,
    /// The text that ran; none for one that was loaded from a file.
    pub source: Option<String>,
    /// The cell it came from; none for one that was loaded from a file.
    pub cell_id: Option<String>,
    /// Number in the room's queue; none for one that was loaded from a file.
    pub seq: Option<u64>,
    /// Who asked for it; none for one that was loaded from a file.
    pub submitted_by_actor_label: Option<String>,
}

/// One output in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputEntry {
    /// Order inside the execution, from 0.
    pub seq: u64,
    /// The output's key.
    pub output_id: String,
    /// The manifest as it stands. [`Output::from_json`] reads it.
    pub manifest: Json,
}

impl RuntimeStateDoc {
    /// Accepts an execution. False if the id is there already; nothing changes then.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn create_execution(&mut self, new: &NewExecution<'_>) -> Result<bool> {
        let Some(execution) = self.make_execution(new.execution_id, Status::Queued, None, None)? else {
            return Ok(false);
        };
        self.document.put(&execution, "source", new.source)?;
        self.document.put(&execution, "cell_id", new.cell_id)?;
        self.document.put(&execution, "seq", ScalarValue::Uint(new.seq))?;
        self.document.put(&execution, "submitted_by_actor_label", new.submitted_by_actor_label)?;
        Ok(true)
    }

    /// Shows an execution that ended before this room began, as loaded from a file. False if the id is
    /// there already.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn restore_execution(
        &mut self,
        execution_id: &str,
        outcome: Outcome,
        execution_count: Option<i64>,
    ) -> Result<bool> {
        let (status, success) = outcome.parts();
        Ok(self.make_execution(execution_id, status, execution_count, success)?.is_some())
    }

    fn make_execution(
        &mut self,
        execution_id: &str,
        status: Status,
        execution_count: Option<i64>,
        success: Option<bool>,
    ) -> Result<Option<ObjId>> {
        let executions = root_map(&self.document, "executions")?;
        if self.document.get(&executions, execution_id)?.is_some() {
            return Ok(None);
        }
        let execution = self.document.put_object(&executions, execution_id, ObjType::Map)?;
        self.document.put(&execution, "status", status.as_str())?;
        let count = execution_count.map_or(ScalarValue::Null, ScalarValue::Int);
        self.document.put(&execution, "execution_count", count)?;
        self.document.put(&execution, "success", success.map_or(ScalarValue::Null, ScalarValue::Boolean))?;
        self.document.put_object(&execution, "outputs", ObjType::Map)?;
        Ok(Some(execution))
    }

    /// The kernel has it now. False if it ended already.
    ///
    /// # Errors
    /// `UnknownExecution`, and see [`RuntimeStateDoc::set_identity`]; so for everything below that
    /// takes an execution id.
    pub fn start_execution(&mut self, execution_id: &str) -> Result<bool> {
        self.advance(execution_id, Status::Running, None)
    }

    /// It ended. False if it had ended already; then it stays as it was.
    /// Write all outputs before, or in the same change: clients stop looking when they see this.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::start_execution`].
    pub fn finish_execution(&mut self, execution_id: &str, outcome: Outcome) -> Result<bool> {
        let (status, success) = outcome.parts();
        self.advance(execution_id, status, success)
    }

    fn advance(&mut self, execution_id: &str, status: Status, success: Option<bool>) -> Result<bool> {
        let execution = self.execution_object(execution_id)?;
        let current = Status::parse(&self.string(&execution, "status"));
        if current.is_some_and(Status::is_terminal) {
            return Ok(false);
        }
        put_changed(&mut self.document, &execution, "status", status.as_str())?;
        if let Some(success) = success {
            put_changed(&mut self.document, &execution, "success", success)?;
        }
        Ok(true)
    }

    /// The kernel's count.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::start_execution`].
    pub fn set_execution_count(&mut self, execution_id: &str, count: i64) -> Result<()> {
        let execution = self.execution_object(execution_id)?;
        put_changed(&mut self.document, &execution, "execution_count", ScalarValue::Int(count))
    }

    /// The execution, or none if there is none that can be read.
    pub fn execution(&self, execution_id: &str) -> Option<Execution> {
        let object = self.execution_object(execution_id).ok()?;
        let get = |key| json::get(&self.document, &object, key);
        let text = |key| json::get_string(&self.document, &object, key);
        Some(Execution {
            execution_id: execution_id.to_owned(),
            status: Status::parse(&text("status")?)?,
            execution_count: get("execution_count").and_then(|count| count.as_i64()),
            success: get("success").and_then(|success| success.as_bool()),
            source: text("source"),
            cell_id: text("cell_id"),
            seq: get("seq").and_then(|seq| seq.as_u64()),
            submitted_by_actor_label: text("submitted_by_actor_label"),
        })
    }

    /// Every execution id, in no particular order. Costs a step per execution.
    pub fn execution_ids(&self) -> Vec<String> {
        let Ok(executions) = root_map(&self.document, "executions") else { return Vec::new() };
        self.document.keys(executions).collect()
    }

    /// Forgets an execution and its outputs. Nothing happens if it is unknown.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::set_identity`].
    pub fn remove_execution(&mut self, execution_id: &str) -> Result<()> {
        if self.execution_object(execution_id).is_ok() {
            self.clear_outputs(execution_id)?;
        }
        let executions = root_map(&self.document, "executions")?;
        self.delete_if_there(&executions, execution_id)
    }

    /// The outputs of an execution, in order. Entries without `seq` or manifest are not shown.
    pub fn outputs(&self, execution_id: &str) -> Vec<OutputEntry> {
        let Ok(outputs) = self.outputs_object(execution_id) else { return Vec::new() };
        let entry = |output_id: String| {
            let object = json::get_object(&self.document, &outputs, output_id.as_str(), ObjType::Map)?;
            let seq = json::get(&self.document, &object, "seq")?.as_u64()?;
            let manifest = json::get(&self.document, &object, "manifest").filter(Json::is_object)?;
            Some(OutputEntry { seq, output_id, manifest })
        };
        let mut entries: Vec<_> = self.document.keys(&outputs).filter_map(entry).collect();
        entries.sort_by(|a, b| (a.seq, &a.output_id).cmp(&(b.seq, &b.output_id)));
        entries
    }

    /// One manifest.
    pub fn output(&self, execution_id: &str, output_id: &str) -> Option<Json> {
        let entry = self.output_object(execution_id, output_id).ok().flatten()?;
        json::get(&self.document, &entry, "manifest")
    }

    /// Writes an output: a new one at `seq`, or the new content of one that is there, which keeps its
    /// place.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::start_execution`].
    pub fn put_output(&mut self, execution_id: &str, seq: u64, output: &Output) -> Result<()> {
        self.put_manifest(execution_id, seq, output.output_id(), &output.to_json())
    }

    /// As [`RuntimeStateDoc::put_output`], for a manifest that is no [`Output`], such as one with data
    /// that could not be decoded. Its `output_id` must equal `output_id`.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::start_execution`].
    pub fn put_manifest(
        &mut self,
        execution_id: &str,
        seq: u64,
        output_id: &str,
        manifest: &Json,
    ) -> Result<()> {
        match self.output_object(execution_id, output_id)? {
            Some(entry) => {
                let before = self.display_id(&entry);
                json::update(&mut self.document, &entry, "manifest", manifest)?;
                if before.as_deref() != display_id_of(manifest) {
                    self.unindex(before.as_deref(), execution_id, output_id)?;
                    self.index(display_id_of(manifest), execution_id, output_id)?;
                }
                Ok(())
            }
            None => {
                let outputs = self.outputs_object(execution_id)?;
                let entry = self.document.put_object(&outputs, output_id, ObjType::Map)?;
                self.document.put(&entry, "seq", ScalarValue::Uint(seq))?;
                json::put(&mut self.document, &entry, "manifest", manifest)?;
                self.index(display_id_of(manifest), execution_id, output_id)
            }
        }
    }

    /// Removes one output. Nothing happens if it is unknown.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::start_execution`].
    pub fn remove_output(&mut self, execution_id: &str, output_id: &str) -> Result<()> {
        if let Some(entry) = self.output_object(execution_id, output_id)? {
            let display_id = self.display_id(&entry);
            self.unindex(display_id.as_deref(), execution_id, output_id)?;
            let outputs = self.outputs_object(execution_id)?;
            self.document.delete(&outputs, output_id)?;
        }
        Ok(())
    }

    /// Removes every output of an execution.
    ///
    /// # Errors
    /// See [`RuntimeStateDoc::start_execution`].
    pub fn clear_outputs(&mut self, execution_id: &str) -> Result<()> {
        let outputs = self.outputs_object(execution_id)?;
        let ids: Vec<String> = self.document.keys(&outputs).collect();
        ids.iter().try_for_each(|output_id| self.remove_output(execution_id, output_id))
    }

    /// The outputs that `update_display_data` for `display_id` changes: (execution id, output id).
    pub fn displays(&self, display_id: &str) -> Vec<(String, String)> {
        let Ok(index) = root_map(&self.document, "display_index") else { return Vec::new() };
        let Some(places) = json::get_object(&self.document, &index, display_id, ObjType::Map) else {
            return Vec::new();
        };
        let split = |key: String| {
            let (execution_id, output_id) = key.split_once('\0')?;
            Some((execution_id.to_owned(), output_id.to_owned()))
        };
        self.document.keys(places).filter_map(split).collect()
    }

    fn index(&mut self, display_id: Option<&str>, execution_id: &str, output_id: &str) -> Result<()> {
        let Some(display_id) = display_id else { return Ok(()) };
        let index = root_map(&self.document, "display_index")?;
        let places = match json::get_object(&self.document, &index, display_id, ObjType::Map) {
            Some(places) => places,
            None => self.document.put_object(&index, display_id, ObjType::Map)?,
        };
        put_changed(&mut self.document, &places, &place(execution_id, output_id), true)
    }

    fn unindex(&mut self, display_id: Option<&str>, execution_id: &str, output_id: &str) -> Result<()> {
        let Some(display_id) = display_id else { return Ok(()) };
        let index = root_map(&self.document, "display_index")?;
        let Some(places) = json::get_object(&self.document, &index, display_id, ObjType::Map) else {
            return Ok(());
        };
        self.delete_if_there(&places, &place(execution_id, output_id))?;
        if self.document.length(&places) == 0 {
            self.document.delete(&index, display_id)?;
        }
        Ok(())
    }

    fn display_id(&self, entry: &ObjId) -> Option<String> {
        let manifest = json::get_object(&self.document, entry, "manifest", ObjType::Map)?;
        let transient = json::get_object(&self.document, &manifest, "transient", ObjType::Map)?;
        json::get_string(&self.document, &transient, "display_id")
    }

    fn execution_object(&self, execution_id: &str) -> Result<ObjId> {
        let executions = root_map(&self.document, "executions")?;
        json::get_object(&self.document, &executions, execution_id, ObjType::Map)
            .ok_or_else(|| DocumentError::UnknownExecution(execution_id.to_owned()))
    }

    fn outputs_object(&self, execution_id: &str) -> Result<ObjId> {
        let execution = self.execution_object(execution_id)?;
        json::get_object(&self.document, &execution, "outputs", ObjType::Map)
            .ok_or(DocumentError::Shape("outputs"))
    }

    fn output_object(&self, execution_id: &str, output_id: &str) -> Result<Option<ObjId>> {
        let outputs = self.outputs_object(execution_id)?;
        Ok(json::get_object(&self.document, &outputs, output_id, ObjType::Map))
    }
}

impl Outcome {
    /// Status and `success`.
    fn parts(self) -> (Status, Option<bool>) {
        match self {
            Self::Done => (Status::Done, Some(true)),
            Self::Error => (Status::Error, Some(false)),
            Self::Cancelled => (Status::Cancelled, None),
        }
    }
}

/// Key of an output in the display index.
fn place(execution_id: &str, output_id: &str) -> String {
    format!("{execution_id}\0{output_id}")
}

fn display_id_of(manifest: &Json) -> Option<&str> {
    manifest.get("transient")?.get("display_id")?.as_str()
}
