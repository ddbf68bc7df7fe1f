//! The settings document: one JSON object that all windows edit.
//!
//! For: the host, which knows the keys, their defaults and their file.
//! Promises: edits are made in place; absent stays absent. There is no genesis: clients start empty.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT, ReadDoc};
use serde_json::{Map as JsonMap, Value as Json};

use super::{Document, Result, json, load};

/// The settings document (a connection of its own, frames without a type byte).
pub struct SettingsDoc {
    document: AutoCommit,
}

impl Document for SettingsDoc {
    fn automerge(&self) -> &AutoCommit {
        &self.document
    }

    fn automerge_mut(&mut self) -> &mut AutoCommit {
        &mut self.document
    }
}

impl SettingsDoc {
    /// A new document that holds `settings`.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new(settings: &JsonMap<String, Json>, actor: &str) -> Result<Self> {
        let mut document = AutoCommit::new().with_actor(ActorId::from(actor.as_bytes()));
        json::update_map(&mut document, &ROOT, settings)?;
        document.commit();
        Ok(Self { document })
    }

    /// What a client starts with: nothing.
    pub fn empty(actor: &str) -> Self {
        Self { document: AutoCommit::new().with_actor(ActorId::from(actor.as_bytes())) }
    }

    /// The document in `bytes`.
    ///
    /// # Errors
    /// When the bytes are no document.
    pub fn load(bytes: &[u8], actor: &str) -> Result<Self> {
        Ok(Self { document: load(bytes, actor)? })
    }

    /// All settings.
    pub fn settings(&self) -> JsonMap<String, Json> {
        match self.to_json() {
            Json::Object(settings) => settings,
            _ => JsonMap::new(),
        }
    }

    /// One setting by its top-level key.
    pub fn get(&self, key: &str) -> Option<Json> {
        json::get(&self.document, &ROOT, key)
    }

    /// Sets a top-level key, or removes it.
    ///
    /// # Errors
    /// None that can happen on the root.
    pub fn set(&mut self, key: &str, value: Option<&Json>) -> Result<()> {
        match value {
            Some(value) => json::update(&mut self.document, &ROOT, key, value)?,
            None if self.document.get(ROOT, key)?.is_some() => self.document.delete(ROOT, key)?,
            None => {}
        }
        Ok(())
    }
}
