//! The state of widgets, which kernel and clients both write.
//!
//! For: the room, between the kernel's comms and the clients.
//! Promises: scalars are written only when they change, maps and lists are edited in place.
//! Never: the topology (who is open, in which order); that is in the runtime state document.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjId, ObjType, ReadDoc, Value};
use serde_json::{Map as JsonMap, Value as Json};

use super::{Document, Result, genesis, json, load, root_map};

/// The comms document (frame 0x09).
pub struct CommsDoc {
    document: AutoCommit,
}

impl Document for CommsDoc {
    fn automerge(&self) -> &AutoCommit {
        &self.document
    }

    fn automerge_mut(&mut self) -> &mut AutoCommit {
        &mut self.document
    }
}

impl CommsDoc {
    /// A new document with nothing but its genesis.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new(actor: &str) -> Result<Self> {
        Ok(Self { document: genesis::comms(actor)? })
    }

    /// The document in `bytes`.
    ///
    /// # Errors
    /// When the bytes are no document.
    pub fn load(bytes: &[u8], actor: &str) -> Result<Self> {
        Ok(Self { document: load(bytes, actor)? })
    }

    /// Begins the widget `comm_id` with `state`. One that is there gets exactly this state.
    ///
    /// # Errors
    /// When a peer has replaced `comms` by something that is no map; so for every setter below.
    pub fn open(&mut self, comm_id: &str, state: &JsonMap<String, Json>) -> Result<()> {
        let comms = root_map(&self.document, "comms")?;
        Ok(json::update(&mut self.document, &comms, comm_id, &Json::Object(state.clone()))?)
    }

    /// Merges `state` into the widget key by key. A widget that is not open stays closed.
    ///
    /// # Errors
    /// See [`CommsDoc::open`].
    pub fn update(&mut self, comm_id: &str, state: &JsonMap<String, Json>) -> Result<()> {
        if let Some(comm) = self.object(comm_id) {
            for (key, value) in state {
                json::update(&mut self.document, &comm, key.as_str(), value)?;
            }
        }
        Ok(())
    }

    /// Forgets the widget. Nothing happens if it is not open.
    ///
    /// # Errors
    /// See [`CommsDoc::open`].
    pub fn close(&mut self, comm_id: &str) -> Result<()> {
        let comms = root_map(&self.document, "comms")?;
        if self.document.get(&comms, comm_id)?.is_some() {
            self.document.delete(&comms, comm_id)?;
        }
        Ok(())
    }

    /// The ids of all widgets.
    pub fn comm_ids(&self) -> Vec<String> {
        root_map(&self.document, "comms").map(|comms| self.document.keys(comms).collect()).unwrap_or_default()
    }

    /// The state of one widget.
    pub fn state(&self, comm_id: &str) -> Option<JsonMap<String, Json>> {
        match json::read(&self.document, &self.object(comm_id)?) {
            Json::Object(state) => Some(state),
            _ => None,
        }
    }

    /// The top-level keys of a widget's state whose present value was written, in whole or in part, by
    /// an actor that is not ours. Only these go to the kernel: its own values must not come back to it.
    pub fn foreign_state(&self, comm_id: &str, is_ours: impl Fn(&ActorId) -> bool) -> JsonMap<String, Json> {
        let Some(comm) = self.object(comm_id) else { return JsonMap::new() };
        self.document
            .keys(&comm)
            .filter(|key| match self.document.get(&comm, key.as_str()) {
                Ok(Some((value, id))) => self.has_foreign(&value, &id, &is_ours, 0),
                _ => false,
            })
            .filter_map(|key| {
                let value = json::get(&self.document, &comm, key.as_str())?;
                Some((key, value))
            })
            .collect()
    }

    fn has_foreign(
        &self,
        value: &Value<'_>,
        id: &ObjId,
        is_ours: &impl Fn(&ActorId) -> bool,
        depth: usize,
    ) -> bool {
        let written_here = matches!(id, ObjId::Id(_, actor, _) if !is_ours(actor));
        let below = |value: Value<'_>, id: ObjId| self.has_foreign(&value, &id, is_ours, depth + 1);
        written_here
            || depth < json::MAX_DEPTH
                && match value {
                    Value::Object(ObjType::Map) => self
                        .document
                        .map_range(id, ..)
                        .any(|item| below(item.value.clone().into(), item.id())),
                    Value::Object(ObjType::List) => self
                        .document
                        .list_range(id, ..)
                        .any(|item| below(item.value.clone().into(), item.id())),
                    _ => false,
                }
    }

    fn object(&self, comm_id: &str) -> Option<ObjId> {
        let comms = root_map(&self.document, "comms").ok()?;
        json::get_object(&self.document, &comms, comm_id, ObjType::Map)
    }
}
