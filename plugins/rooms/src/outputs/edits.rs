//! What has happened to the outputs of an execution since somebody asked.
//!
//! For: coalescing a burst of kernel messages into one change of the runtime state document.
//! Promises: per output at most one put or one remove; an output that came and went leaves no trace.

use std::collections::{BTreeMap, BTreeSet};

use runtimed_protocol::documents::output::Output;

use super::mime::NewBlob;

/// One change to the outputs of an execution.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every change is a put")]
pub(crate) enum OutputChange {
    /// The output is new, or its manifest replaces the former one.
    Put {
        /// Key in the execution's outputs.
        output_id: String,
        /// Place among the execution's outputs.
        seq: u64,
        /// The manifest.
        output: Output,
    },
    /// The output is gone.
    Remove {
        /// Key in the execution's outputs.
        output_id: String,
    },
}

/// Everything since the last drain.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Drained {
    /// Removes first, then puts in the order in which they are shown.
    pub(crate) changes: Vec<OutputChange>,
    /// Bytes the changes name: store them before peers see the changes.
    pub(crate) blobs: Vec<NewBlob>,
}

/// Collects changes.
#[derive(Default)]
pub(super) struct Edits {
    /// Blobs the puts name, and perhaps some of outputs that came and went.
    pub(super) blobs: Vec<NewBlob>,
    /// Shape: seq -> manifest.
    puts: BTreeMap<u64, Output>,
    removed: BTreeSet<String>,
    /// Outputs that a drain has shown and that are still there.
    shown: BTreeSet<String>,
    next_seq: u64,
}

impl Edits {
    /// The state after a drain that showed `shown`.
    pub(super) fn resume(shown: impl IntoIterator<Item = String>, next_seq: u64) -> Self {
        Self { shown: shown.into_iter().collect(), next_seq, ..Self::default() }
    }

    /// Place of the next output.
    pub(super) fn next_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Adds or replaces an output.
    pub(super) fn put(&mut self, seq: u64, output: Output) {
        self.removed.remove(output.output_id());
        self.puts.insert(seq, output);
    }

    /// Takes an output away.
    pub(super) fn remove(&mut self, output_id: &str) {
        self.puts.retain(|_, output| output.output_id() != output_id);
        if self.shown.contains(output_id) {
            self.removed.insert(output_id.to_owned());
        }
    }

    /// Takes every output away.
    pub(super) fn clear(&mut self) {
        self.puts.clear();
        self.blobs.clear();
        self.removed.extend(self.shown.iter().cloned());
    }

    /// Outputs that no drain has shown in this state yet.
    pub(super) fn pending(&mut self) -> impl Iterator<Item = &mut Output> {
        self.puts.values_mut()
    }

    /// How many outputs a drain has shown that are still there.
    pub(super) fn shown(&self) -> usize {
        self.shown.len()
    }

    /// Bytes that a drain would hand over as blobs.
    pub(super) fn blob_bytes(&self) -> usize {
        self.blobs.iter().map(|blob| blob.bytes.len()).sum()
    }

    /// Whether a drain would give nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removed.is_empty()
    }

    /// Hands everything over.
    pub(super) fn drain(&mut self) -> Drained {
        let mut changes = Vec::with_capacity(self.removed.len() + self.puts.len());
        for output_id in std::mem::take(&mut self.removed) {
            self.shown.remove(&output_id);
            changes.push(OutputChange::Remove { output_id });
        }
        for (seq, output) in std::mem::take(&mut self.puts) {
            let output_id = output.output_id().to_owned();
            self.shown.insert(output_id.clone());
            changes.push(OutputChange::Put { output_id, seq, output });
        }
        Drained { changes, blobs: std::mem::take(&mut self.blobs) }
    }
}
