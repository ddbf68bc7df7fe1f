//! The documents that daemon and clients share.
//!
//! For: whoever reads, writes or synchronises them: rooms, the host, the client library.
//! Promises: the keys and types of every document are known here and nowhere else; documents start from
//! the same [`genesis`] everywhere; the cost of an operation does not grow with the history.
//! Never: I/O, a clock, a source of randomness. Ids, times and actors come in as arguments.
//!
//! Writes collect in one pending change; [`Document::commit`] ends it. Synchronising, saving and reading
//! the heads end it too, so a forgotten commit loses nothing.

pub mod comments;
pub mod comms;
pub mod genesis;
pub mod json;
pub mod notebook;
pub mod output;
pub mod pool;
pub mod position;
pub mod runtime_state;
pub mod settings;
pub mod sync;

pub use automerge;
pub use comments::CommentsDoc;
pub use comms::CommsDoc;
pub use notebook::NotebookDoc;
pub use output::{ContentRef, MimeBundle, Output};
pub use pool::PoolDoc;
pub use runtime_state::RuntimeStateDoc;
pub use settings::SettingsDoc;
pub use sync::SyncPeer;

use automerge::{ActorId, AutoCommit, AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc};

/// Why a document could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The bytes are not a document, or a write does not fit what is there.
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
    /// A key that every document has is missing or is something else; a peer wrote over it.
    #[error("`{0}` of the document is not what it must be")]
    Shape(&'static str),
    /// The document comes from before schema 3, or its version is no number.
    #[error("this notebook document has a schema that cannot be read")]
    Schema,
    /// There is no such cell.
    #[error("the notebook has no cell `{0}`")]
    UnknownCell(String),
    /// There is no such execution.
    #[error("there is no execution `{0}`")]
    UnknownExecution(String),
}

/// Result of an operation on a document.
pub type Result<T> = std::result::Result<T, DocumentError>;

/// What all shared documents have in common.
pub trait Document {
    /// The underlying document, to read.
    fn automerge(&self) -> &AutoCommit;

    /// The underlying document, to synchronise. Prefer the typed operations for writes.
    fn automerge_mut(&mut self) -> &mut AutoCommit;

    /// Ends the pending change. None if nothing was written. The change carries no time.
    fn commit(&mut self) -> Option<ChangeHash> {
        self.automerge_mut().commit()
    }

    /// Drops the pending change.
    fn rollback(&mut self) {
        self.automerge_mut().rollback();
    }

    /// The hashes of the newest changes, sorted.
    fn heads(&mut self) -> Vec<ChangeHash> {
        self.automerge_mut().get_heads()
    }

    /// Whether all of `changes` have been applied.
    fn contains(&mut self, changes: &[ChangeHash]) -> bool {
        self.commit();
        changes.iter().all(|hash| self.automerge_mut().get_change_meta_by_hash(hash).is_some())
    }

    /// The changes that are not ancestors of `heads`, in an order in which they can be applied.
    fn changes_since(&mut self, heads: &[ChangeHash]) -> Vec<Change> {
        self.automerge_mut().get_changes(heads)
    }

    /// Applies changes made elsewhere, such as those of a journal. Known ones are skipped.
    ///
    /// # Errors
    /// When two changes claim the same number of the same actor.
    fn apply(&mut self, changes: Vec<Change>) -> Result<()> {
        Ok(apply(self.automerge_mut(), changes)?)
    }

    /// The whole document as bytes.
    fn save(&mut self) -> Vec<u8> {
        self.automerge_mut().save()
    }

    /// The label under which the next writes are made.
    fn set_actor(&mut self, actor: &str) {
        self.commit();
        self.automerge_mut().set_actor(ActorId::from(actor.as_bytes()));
    }

    /// Everything in the document as JSON.
    fn to_json(&self) -> serde_json::Value {
        json::read(self.automerge(), &ROOT)
    }
}

/// Applies changes, and keeps nothing but the document.
fn apply(document: &mut AutoCommit, changes: Vec<Change>) -> std::result::Result<(), AutomergeError> {
    let applied = document.apply_changes(changes);
    // Nobody reads patches here. Automerge 0.12 notes those of texts all the same, and would keep them for good.
    document.reset_diff_cursor();
    applied
}

/// Reads a document and prepares it for `actor`.
fn load(bytes: &[u8], actor: &str) -> Result<AutoCommit> {
    Ok(AutoCommit::load(bytes)?.with_actor(ActorId::from(actor.as_bytes())))
}

/// The map at `key` of the root. Looked up each time and not remembered: a peer may have put another
/// map there, and all must write to the one that won.
fn root_map(document: &AutoCommit, key: &'static str) -> Result<ObjId> {
    json::get_object(document, &ROOT, key, ObjType::Map).ok_or(DocumentError::Shape(key))
}

/// Puts `value` at `key` unless it is there already.
fn put_changed(
    document: &mut AutoCommit,
    object: &ObjId,
    key: &str,
    value: impl Into<automerge::ScalarValue>,
) -> Result<()> {
    use automerge::transaction::Transactable;

    let value = value.into();
    match document.get(object, key)? {
        Some((automerge::Value::Scalar(there), _)) if *there == value => Ok(()),
        _ => Ok(document.put(object, key, value)?),
    }
}
