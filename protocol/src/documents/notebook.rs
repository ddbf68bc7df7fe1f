//! The notebook itself: cells, their order and sources, and the notebook's metadata.
//!
//! For: rooms and clients, who both write it.
//! Promises: edits are made in the objects that others are editing; what is not understood is kept;
//! a key in `cells` that is no cell is ignored.
//! Never: outputs. They are in the runtime state document, under the execution a cell points to.

use automerge::legacy;
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use serde_json::{Map as JsonMap, Value as Json};

use super::{Document, DocumentError, Result, genesis, json, load, put_changed, root_map};

mod cell;
mod metadata;

pub use cell::{Cell, NewCell, Place};
pub use metadata::{DependencyKind, Kernelspec, Seed};

/// The notebook document (frame 0x00).
pub struct NotebookDoc {
    document: AutoCommit,
}

impl Document for NotebookDoc {
    fn automerge(&self) -> &AutoCommit {
        &self.document
    }

    fn automerge_mut(&mut self) -> &mut AutoCommit {
        &mut self.document
    }
}

impl NotebookDoc {
    /// The document of a new room: genesis and the names of its companions, in one change by `actor`.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new(notebook_id: &str, actor: &str) -> Result<Self> {
        let mut notebook = Self::genesis(actor)?;
        notebook.write_identity(notebook_id)?;
        notebook.commit();
        Ok(notebook)
    }

    /// What a client starts with: the genesis and nothing else.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn genesis(actor: &str) -> Result<Self> {
        Ok(Self { document: genesis::notebook(actor)? })
    }

    /// The document in `bytes`. Schemas 3 and 4 are brought up to date by a change of `actor`.
    ///
    /// # Errors
    /// `Automerge` when the bytes are no document, `Schema` when it is too old to be read.
    pub fn load(bytes: &[u8], actor: &str) -> Result<Self> {
        let mut notebook = Self { document: load(bytes, actor)? };
        match notebook.schema_version()? {
            genesis::NOTEBOOK_SCHEMA.. => {}
            3..genesis::NOTEBOOK_SCHEMA => {
                let notebook_id = notebook.notebook_id().unwrap_or_default();
                notebook.write_identity(&notebook_id)?;
                let version = ScalarValue::Uint(genesis::NOTEBOOK_SCHEMA);
                notebook.document.put(ROOT, "schema_version", version)?;
                notebook.commit();
            }
            _ => return Err(DocumentError::Schema),
        }
        Ok(notebook)
    }

    fn write_identity(&mut self, notebook_id: &str) -> Result<()> {
        for (key, value) in [
            ("notebook_id", notebook_id.to_owned()),
            ("runtime_state_doc_id", format!("runtime:{notebook_id}")),
            ("comms_doc_id", format!("comms:{notebook_id}")),
        ] {
            put_changed(&mut self.document, &ROOT, key, value)?;
        }
        Ok(())
    }

    /// The highest version any peer has written. A document without one but with its maps is current.
    ///
    /// # Errors
    /// `Schema` when there is no number to be found.
    pub fn schema_version(&self) -> Result<u64> {
        let values = self.document.get_all(ROOT, "schema_version")?;
        let version = |value: &Value<'_>| match value {
            Value::Scalar(scalar) => scalar.as_u64().or_else(|| u64::try_from(scalar.as_i64()?).ok()),
            Value::Object(_) => None,
        };
        let has_maps =
            root_map(&self.document, "cells").is_ok() && root_map(&self.document, "metadata").is_ok();
        match values.iter().filter_map(|(value, _)| version(value)).max() {
            Some(version) => Ok(version),
            None if values.is_empty() && has_maps => Ok(genesis::NOTEBOOK_SCHEMA),
            None => Err(DocumentError::Schema),
        }
    }

    /// The room's id, once it is known.
    pub fn notebook_id(&self) -> Option<String> {
        json::get_string(&self.document, &ROOT, "notebook_id")
    }

    /// Whether this notebook may be seeded: its history is the genesis, the first writes of its names
    /// and of the `ephemeral` flag, and nothing else. A notebook that somebody emptied is not pristine.
    pub fn is_pristine(&mut self) -> bool {
        self.commit();
        // Genesis, the three names and the flag. Counted first, so that a long history costs nothing.
        const MOST_OPERATIONS: u64 = 3 + 3 + 1;
        if self.document.stats().num_ops > MOST_OPERATIONS {
            return false;
        }
        let Ok(metadata) = root_map(&self.document, "metadata") else { return false };
        let changes = self.document.get_changes(&[]);
        changes.iter().all(|change| {
            change.hash().to_string() == genesis::NOTEBOOK
                || change.decode().operations.iter().all(|operation| is_initial(operation, &metadata))
        })
    }

    /// The hash of the genesis, to see whether `heads` are those of a client that has nothing yet.
    pub fn is_genesis(heads: &[ChangeHash]) -> bool {
        matches!(heads, [head] if head.to_string() == genesis::NOTEBOOK)
    }
}

fn is_initial(operation: &legacy::Op, metadata: &ObjId) -> bool {
    let key = match &operation.key {
        legacy::Key::Map(key) => key.as_str(),
        legacy::Key::Seq(_) => return false,
    };
    let place = match (&operation.obj, metadata) {
        (legacy::ObjectId::Root, _) => matches!(key, "notebook_id" | "runtime_state_doc_id" | "comms_doc_id"),
        (legacy::ObjectId::Id(id), ObjId::Id(counter, actor, _)) => {
            key == "ephemeral" && id.0 == *counter && ActorId::from(id.1.to_bytes()) == *actor
        }
        _ => false,
    };
    place && operation.pred.is_empty() && matches!(operation.action, legacy::OpType::Put(ScalarValue::Str(_)))
}

/// Cell metadata, `runt` and its sections were JSON text in very old documents. Read, never written.
fn into_map_or_legacy_text(value: Json) -> JsonMap<String, Json> {
    match value {
        Json::String(text) => serde_json::from_str(&text).unwrap_or_default(),
        value => into_map(value),
    }
}

fn into_map(value: Json) -> JsonMap<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => JsonMap::new(),
    }
}

/// The map at `key` of `parent`, made now if it is not there.
fn ensure_map(document: &mut AutoCommit, parent: &ObjId, key: &str) -> Result<ObjId> {
    match json::get_object(document, parent, key, ObjType::Map) {
        Some(map) => Ok(map),
        None => Ok(document.put_object(parent, key, ObjType::Map)?),
    }
}
