//! What a kernel did to its widgets since clients were last told.
//!
//! For: coalescing a burst of messages into one change of the documents.
//! Promises: of each trait the last value; of what came and went, nothing but that it is gone.

use std::collections::{BTreeMap, BTreeSet};

use runtimed_protocol::documents::runtime_state::CommEntry;
use serde_json::{Map as JsonMap, Value as Json};

use super::buffers;
use crate::outputs::NewBlob;

/// Shape: comm id -> what happened to it.
#[derive(Default)]
pub(crate) struct WidgetChanges {
    changes: BTreeMap<String, WidgetChange>,
    /// What the states name, and perhaps some of what they named before.
    pub(super) blobs: Vec<NewBlob>,
}

/// What happened to one widget.
pub(super) enum WidgetChange {
    /// It is there, with this state and no other.
    Open(CommEntry, JsonMap<String, Json>),
    /// These traits have other values.
    Update(JsonMap<String, Json>),
    /// It is gone.
    Close,
}

impl WidgetChanges {
    pub(super) fn open(&mut self, comm: String, entry: CommEntry, state: JsonMap<String, Json>) {
        self.changes.insert(comm, WidgetChange::Open(entry, state));
    }

    pub(super) fn update(&mut self, comm: String, state: JsonMap<String, Json>) {
        match self.changes.get_mut(&comm) {
            Some(WidgetChange::Open(_, there) | WidgetChange::Update(there)) => there.extend(state),
            Some(WidgetChange::Close) => {}
            None if state.is_empty() => {}
            None => drop(self.changes.insert(comm, WidgetChange::Update(state))),
        }
    }

    pub(super) fn close(&mut self, comm: String) {
        self.changes.insert(comm, WidgetChange::Close);
    }

    /// A client has given these traits other values meanwhile, which the kernel is yet to take.
    pub(super) fn overrule<'a>(&mut self, comm: &str, keys: impl Iterator<Item = &'a String>) {
        if let Some(WidgetChange::Update(state)) = self.changes.get_mut(comm) {
            keys.for_each(|key| drop(state.remove(key)));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What must be stored before clients are told.
    pub(crate) fn take_blobs(&mut self) -> Vec<NewBlob> {
        let mut named = BTreeSet::new();
        for change in self.changes.values() {
            if let WidgetChange::Open(_, state) | WidgetChange::Update(state) = change {
                state.values().for_each(|value| buffers::named(value, &mut named));
            }
        }
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.retain(|blob| named.remove(&blob.digest));
        blobs
    }

    pub(super) fn into_changes(self) -> BTreeMap<String, WidgetChange> {
        self.changes
    }
}
