//! The state of widgets, which kernel and clients both write.
//!
//! For: the room, between the kernel's comms and the clients.
//! Promises: scalars are written only when they change, maps and lists are edited in place.
//! Never: the topology (who is open, in which order); that is in the runtime state document.

use std::collections::{BTreeMap, HashMap};

use automerge::legacy::{Key, ObjectId, OpId};
use automerge::transaction::Transactable;
use automerge::{AutoCommit, Change, ObjId, ObjType, Prop, ReadDoc};
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

    /// What of the state of widgets `changes` wrote, as it stands now: comm id -> traits, whole. A trait that
    /// somebody else's write has won is left out, and so is what is deleted by now. Costs as much as the changes.
    pub fn written(&self, changes: &[Change]) -> BTreeMap<String, JsonMap<String, Json>> {
        let mut written: BTreeMap<String, JsonMap<String, Json>> = BTreeMap::new();
        let mut paths: HashMap<ObjectId, Option<Vec<Prop>>> = HashMap::new();
        for change in changes {
            for op in change.decode().operations {
                let path = paths.entry(op.obj).or_insert_with_key(|object| self.path(object));
                let Some([Prop::Map(root), path @ ..]) = path.as_deref() else { continue };
                let (comm_id, trait_name) = match (path, &op.key) {
                    _ if root != "comms" => continue,
                    ([], Key::Map(comm_id)) => (comm_id.as_str(), None),
                    ([Prop::Map(comm_id)], Key::Map(key)) => (comm_id.as_str(), Some((key.as_str(), true))),
                    ([Prop::Map(comm_id), Prop::Map(key), ..], _) => {
                        (comm_id.as_str(), Some((key.as_str(), false)))
                    }
                    _ => continue,
                };
                let Some(comm) = self.object(comm_id) else { continue };
                let keys = match trait_name {
                    Some((key, must_win)) if !must_win || self.is_from(changes, &comm, key) => {
                        vec![key.to_owned()]
                    }
                    Some(_) => continue,
                    // The whole widget was put there.
                    None => {
                        self.document.keys(&comm).filter(|key| self.is_from(changes, &comm, key)).collect()
                    }
                };
                for key in keys {
                    if let Some(value) = json::get(&self.document, &comm, key.as_str()) {
                        written.entry(comm_id.to_owned()).or_default().insert(key, value);
                    }
                }
            }
        }
        written
    }

    /// Whether one of `changes` wrote what is at `key`.
    fn is_from(&self, changes: &[Change], comm: &ObjId, key: &str) -> bool {
        let Ok(Some((_, ObjId::Id(counter, actor, _)))) = self.document.get(comm, key) else { return false };
        let wrote = |change: &Change| {
            *change.actor_id() == actor && (change.start_op().get()..=change.max_op()).contains(&counter)
        };
        changes.iter().any(wrote)
    }

    /// The way from the root to an object that can be seen.
    fn path(&self, object: &ObjectId) -> Option<Vec<Prop>> {
        let ObjectId::Id(OpId(counter, actor)) = object else { return None };
        // The last part only makes looking it up faster.
        let object = ObjId::Id(*counter, actor.clone(), 0);
        let mut path = Vec::new();
        for parent in self.document.parents(object).ok()? {
            if !parent.visible {
                return None;
            }
            path.push(parent.prop);
        }
        path.reverse();
        Some(path)
    }

    fn object(&self, comm_id: &str) -> Option<ObjId> {
        let comms = root_map(&self.document, "comms").ok()?;
        json::get_object(&self.document, &comms, comm_id, ObjType::Map)
    }
}
