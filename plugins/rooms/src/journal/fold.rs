//! From the records of a journal to what they say together.
//!
//! For: opening a room again, and making a long journal short.
//! Promises: a shortened journal says what the long one said; what is unknown here stays in it.
//! Never: I/O.

use std::collections::BTreeMap;

use runtimed_protocol::documents::automerge::AutoCommit;
use uuid::Uuid;

use super::entry::{CHANGES, FILE, FileState, HEARD, KERNEL, META, Meta, SNAPSHOT, TEMPLATE};
use super::format::{self, HEADER, HeaderError, Record, Scan, Stop};
use super::kernel::{Heard, KeptKernel};

/// Everything a journal says.
#[derive(Debug, PartialEq)]
pub(crate) struct Folded {
    /// Whose journal it is.
    pub(crate) room: Uuid,
    pub(crate) meta: Meta,
    pub(crate) file: FileState,
    /// The notebook's file, packed.
    pub(crate) template: Option<Vec<u8>>,
    /// The kernel that was up at the end.
    pub(crate) kernel: Option<KeptKernel>,
    /// What was heard of it.
    pub(crate) heard: Heard,
    /// Each document, by number: chunks of automerge's storage format, to be loaded as they are. Empty for
    /// one that was never written.
    pub(crate) documents: [Vec<u8>; 4],
    /// Where the intact part ends.
    pub(crate) intact: usize,
    /// Bytes up to the end of the last record with a snapshot in it.
    pub(crate) snapshot: usize,
    /// Why it ends there.
    pub(crate) stop: Stop,
    /// The last entry of each kind that is not known.
    unknown: BTreeMap<u8, Vec<u8>>,
}

impl Folded {
    /// Reads a journal.
    ///
    /// # Errors
    /// See [`HeaderError`]; what is damaged further behind is in [`Folded::stop`].
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Scan { room, records, intact, stop } = format::scan(bytes)?;
        let mut folded = Self {
            room,
            meta: Meta::default(),
            file: FileState::default(),
            template: None,
            kernel: None,
            heard: Heard::default(),
            documents: Default::default(),
            intact,
            snapshot: HEADER,
            stop,
            unknown: BTreeMap::new(),
        };
        let mut end = HEADER;
        for payload in records {
            end += format::RECORD + payload.len();
            if folded.take(payload) {
                folded.snapshot = end;
            }
        }
        Ok(folded)
    }

    /// Adds a record. Says whether there was a snapshot in it.
    fn take(&mut self, payload: &[u8]) -> bool {
        let mut snapshot = false;
        for entry in format::entries(payload) {
            match (entry.kind, entry.content) {
                // What does not read as what it should be was written by a later daemon; the one before counts.
                (META, content) => self.meta = serde_json::from_slice(content).unwrap_or(self.meta.clone()),
                (FILE, content) => self.file = serde_json::from_slice(content).unwrap_or(self.file.clone()),
                (KERNEL, content) => {
                    self.kernel = serde_json::from_slice(content).unwrap_or(self.kernel.take());
                }
                (HEARD, content) => {
                    self.heard = serde_json::from_slice(content).unwrap_or(std::mem::take(&mut self.heard));
                }
                (TEMPLATE, content) => self.template = Some(content.to_vec()),
                (kind @ (CHANGES | SNAPSHOT), [number, chunks @ ..]) => {
                    snapshot |= kind == SNAPSHOT;
                    if let Some(document) = self.documents.get_mut(usize::from(*number)) {
                        if kind == SNAPSHOT {
                            document.clear();
                        }
                        document.extend_from_slice(chunks);
                    }
                }
                (CHANGES | SNAPSHOT, []) => {}
                (kind, content) => drop(self.unknown.insert(kind, content.to_vec())),
            }
        }
        snapshot
    }
}

/// A journal that says the same in one record. None if one of its documents cannot be read: a journal
/// that is not understood stays as it is.
pub(crate) fn compacted(bytes: &[u8]) -> Option<Vec<u8>> {
    let folded = Folded::read(bytes).ok().filter(|folded| folded.stop == Stop::End)?;
    let mut record = Record::new();
    record.meta(&folded.meta);
    for (document, chunks) in (0..).zip(&folded.documents) {
        if !chunks.is_empty() {
            record.snapshot(document, &AutoCommit::load(chunks).ok()?.save());
        }
    }
    record.file(&folded.file);
    if let Some(template) = &folded.template {
        record.template(template);
    }
    if folded.kernel.is_some() {
        record.kernel(folded.kernel.as_ref());
        record.heard(&folded.heard);
    }
    for (kind, content) in &folded.unknown {
        record.push(*kind, &[content]);
    }
    let mut journal = format::header(folded.room).to_vec();
    journal.extend(record.finish()?);
    Some(journal)
}
