//! Comments on a notebook. Clients write them; the daemon gives the document its name and keeps it.

use automerge::AutoCommit;
use automerge::ROOT;
use automerge::ReadDoc;
use serde_json::Value as Json;

use super::{Document, Result, genesis, json, load, put_changed, root_map};

/// The comments document (frame 0x0a).
pub struct CommentsDoc {
    document: AutoCommit,
}

impl Document for CommentsDoc {
    fn automerge(&self) -> &AutoCommit {
        &self.document
    }

    fn automerge_mut(&mut self) -> &mut AutoCommit {
        &mut self.document
    }
}

impl CommentsDoc {
    /// A new document that knows its name and what it belongs to: `{kind: "local_path",
    /// canonical_path}` or `{kind: "local_room", room_id}`.
    ///
    /// # Errors
    /// None that can happen on a new document.
    pub fn new(comments_doc_id: &str, notebook_ref: &Json, actor: &str) -> Result<Self> {
        let mut comments = Self { document: genesis::comments(actor)? };
        put_changed(&mut comments.document, &ROOT, "comments_doc_id", comments_doc_id)?;
        json::update(&mut comments.document, &ROOT, "notebook_ref", notebook_ref)?;
        comments.commit();
        Ok(comments)
    }

    /// The document in `bytes`.
    ///
    /// # Errors
    /// When the bytes are no document.
    pub fn load(bytes: &[u8], actor: &str) -> Result<Self> {
        Ok(Self { document: load(bytes, actor)? })
    }

    /// The document's name. No peer may change it.
    pub fn identity(&self) -> Option<String> {
        json::get_string(&self.document, &ROOT, "comments_doc_id")
    }

    /// What the comments belong to.
    pub fn notebook_ref(&self) -> Option<Json> {
        json::get(&self.document, &ROOT, "notebook_ref")
    }

    /// Whether anybody has commented; before that there is nothing to keep.
    pub fn has_threads(&self) -> bool {
        root_map(&self.document, "threads").is_ok_and(|threads| self.document.length(threads) > 0)
    }
}
