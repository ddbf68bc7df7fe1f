//! What the entries of a journal say.
//!
//! For: the room that writes them and whoever reads them again.
//! Promises: a reader skips what it does not know.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::format::Record;
use super::kernel::{Heard, KeptKernel};

/// Kind of an entry that holds a [`Meta`]. The last one counts.
pub(crate) const META: u8 = 1;
/// Kind of an entry that holds the number of a document (one byte) and changes of it, one behind the other.
pub(crate) const CHANGES: u8 = 2;
/// Kind of an entry that holds the number of a document and all of it. What came before does not count.
pub(crate) const SNAPSHOT: u8 = 3;
/// Kind of an entry that holds a [`FileState`]. The last one counts.
pub(crate) const FILE: u8 = 4;
/// Kind of an entry that holds the bytes of the notebook's file, as [`pack`] makes them. The last one counts.
pub(crate) const TEMPLATE: u8 = 5;
/// Kind of an entry that holds a [`KeptKernel`], or `null` once there is none. The last one counts.
pub(crate) const KERNEL: u8 = 6;
/// Kind of an entry that holds what was [`Heard`] of that kernel. The last one counts.
pub(crate) const HEARD: u8 = 7;

/// A file larger than this is not kept as a template: its next save falls back on the form of new files if
/// it is gone by then. Keeps a journal, and every save, in proportion.
const LARGEST_TEMPLATE: usize = 32 * 1024 * 1024;

/// Facts about the room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The notebook's file, canonical; none while it is untitled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// Working directory of the kernel, if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) working_dir: Option<PathBuf>,
    /// `auto`, `project` or `notebook`, if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment_mode: Option<String>,
    /// When the room was opened first, RFC 3339.
    #[serde(default)]
    pub(crate) created: String,
    /// Version of the daemon that wrote this.
    #[serde(default)]
    pub(crate) version: String,
    /// Name of the comments document.
    #[serde(default)]
    pub(crate) comments_id: String,
    /// What the comments belong to.
    #[serde(default)]
    pub(crate) comments_ref: Json,
}

/// How the notebook's file and the documents are related.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    /// SHA-256 of what the file held when it was last read or written, hex; none if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// SHA-256 of what a save was about to put into the file, hex, if its end is not in the journal. A daemon
    /// that died in between knows its own work by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) writing: Option<String>,
    /// Heads of the notebook document in the file, hex; empty if it was never saved.
    #[serde(default)]
    pub(crate) exported_heads: Vec<String>,
    /// Number of the last save that was begun.
    #[serde(default)]
    pub(crate) save_sequence: u64,
    /// Whether the documents hold something that the file lacks.
    #[serde(default)]
    pub(crate) unsaved: bool,
    /// What cells of the file are called in the documents, where that is not what the file says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) names: BTreeMap<String, String>,
}

impl FileState {
    /// Whether the file is what a save has written whose end is not in the journal.
    pub(crate) fn is_written(&self, file: [u8; 32]) -> bool {
        self.writing.as_deref().is_some_and(|writing| writing == hex::encode(file))
    }
}

impl Record {
    /// Adds facts about the room.
    pub(crate) fn meta(&mut self, meta: &Meta) {
        self.json(META, meta);
    }

    /// Adds how the file stands.
    pub(crate) fn file(&mut self, file: &FileState) {
        self.json(FILE, file);
    }

    /// Adds changes of a document, by its number.
    pub(crate) fn changes(&mut self, document: u8, changes: &[u8]) {
        self.push(CHANGES, &[&[document], changes]);
    }

    /// Adds a whole document, by its number.
    pub(crate) fn snapshot(&mut self, document: u8, saved: &[u8]) {
        self.push(SNAPSHOT, &[&[document], saved]);
    }

    /// Adds the notebook's file, packed.
    pub(crate) fn template(&mut self, packed: &[u8]) {
        self.push(TEMPLATE, &[packed]);
    }

    /// Adds the room's kernel, or that there is none.
    pub(crate) fn kernel(&mut self, kernel: Option<&KeptKernel>) {
        self.json(KERNEL, &kernel);
    }

    /// Adds how much of what the kernel said is in the documents.
    pub(crate) fn heard(&mut self, heard: &Heard) {
        self.json(HEARD, heard);
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) {
        // All of them are plain data, which is always JSON.
        if let Ok(text) = serde_json::to_vec(value) {
            self.push(kind, &[&text]);
        }
    }
}

/// The bytes of a file for a journal, compressed. None if there are too many.
pub(crate) fn pack(file: &[u8]) -> Option<Bytes> {
    if file.len() > LARGEST_TEMPLATE {
        return None;
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(file).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// The bytes of a file that [`pack`] made small.
///
/// # Errors
/// When they are nothing of the kind, or too many.
pub(crate) fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    DeflateDecoder::new(packed).take(LARGEST_TEMPLATE as u64 + 1).read_to_end(&mut file)?;
    if file.len() > LARGEST_TEMPLATE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(file)
}
