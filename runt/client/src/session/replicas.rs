//! Our copies of a notebook's documents, and how far each is in step with the daemon's.
//!
//! For: applying what the daemon sends and saying what it has not got.
//! Promises: a document says nothing before the daemon has spoken; one message at a time stands for any
//! number of edits.
//! Never: does I/O.

use bytes::Bytes;
use runtimed_protocol::documents::sync::SyncError;
use runtimed_protocol::documents::{
    self, CommentsDoc, CommsDoc, Document, NotebookDoc, RuntimeStateDoc, SyncPeer,
};
use runtimed_protocol::frame::FrameType;

/// The documents of a notebook, to read.
#[non_exhaustive]
pub struct Documents {
    /// Cells and metadata.
    pub notebook: NotebookDoc,
    /// Kernel, queue, executions and outputs.
    pub runtime_state: RuntimeStateDoc,
    /// State of widgets.
    pub comms: CommsDoc,
    /// Comments. Empty until the daemon has sent them.
    pub comments: CommentsDoc,
}

/// The documents with their synchronization.
pub(super) struct Replicas {
    /// The copies.
    pub(super) documents: Documents,
    notebook: Link,
    runtime_state: Link,
    comms: Link,
    comments: Link,
}

/// The synchronization of one document.
#[derive(Default)]
struct Link {
    peer: SyncPeer,
    /// Whether the daemon has spoken.
    greeted: bool,
    /// Whether there may be something to say.
    due: bool,
}

impl Replicas {
    /// Fresh copies, written as `actor`.
    pub(super) fn new(actor: &str) -> documents::Result<Self> {
        Ok(Self {
            documents: Documents {
                notebook: NotebookDoc::genesis(actor)?,
                runtime_state: RuntimeStateDoc::new(actor)?,
                comms: CommsDoc::new(actor)?,
                comments: CommentsDoc::load(&[], actor)?,
            },
            notebook: Link::default(),
            runtime_state: Link::default(),
            comms: Link::default(),
            comments: Link::default(),
        })
    }

    /// Makes ready for another connection; the documents stay as they are.
    pub(super) fn start_over(&mut self) {
        for link in [&mut self.notebook, &mut self.runtime_state, &mut self.comms, &mut self.comments] {
            *link = Link::default();
        }
    }

    /// Takes a frame. True if it changed a document; frames that carry none change nothing.
    ///
    /// # Errors
    /// If a document of the notebook cannot be kept in step any more. Comments never fail: they start
    /// over.
    pub(super) fn receive(&mut self, frame_type: u8, payload: &Bytes) -> Result<bool, SyncError> {
        let documents = &mut self.documents;
        match frame_type {
            FrameType::NOTEBOOK_SYNC => self.notebook.receive(&mut documents.notebook, payload),
            FrameType::RUNTIME_STATE_SYNC => {
                self.runtime_state.receive(&mut documents.runtime_state, payload)
            }
            FrameType::COMMS_SYNC => self.comms.receive(&mut documents.comms, payload),
            FrameType::COMMENTS_SYNC => {
                Ok(self.comments.receive(&mut documents.comments, payload).unwrap_or_else(|_| {
                    self.comments = Link { greeted: true, due: true, ..Link::default() };
                    false
                }))
            }
            _ => Ok(false),
        }
    }

    /// Notes that the notebook document was edited here.
    pub(super) fn notebook_edited(&mut self) {
        self.notebook.due = true;
    }

    /// What the daemon has not got: frame type and sync message.
    pub(super) fn outgoing(&mut self) -> impl Iterator<Item = (u8, Vec<u8>)> {
        let documents = &mut self.documents;
        [
            (FrameType::NOTEBOOK_SYNC, self.notebook.outgoing(&mut documents.notebook)),
            (FrameType::RUNTIME_STATE_SYNC, self.runtime_state.outgoing(&mut documents.runtime_state)),
            (FrameType::COMMS_SYNC, self.comms.outgoing(&mut documents.comms)),
            (FrameType::COMMENTS_SYNC, self.comments.outgoing(&mut documents.comments)),
        ]
        .into_iter()
        .filter_map(|(frame_type, message)| Some((frame_type, message?)))
    }
}

impl Link {
    fn receive(&mut self, document: &mut impl Document, payload: &Bytes) -> Result<bool, SyncError> {
        let changed = self.peer.follow(document, payload)?;
        self.greeted = true;
        self.due = true;
        Ok(changed)
    }

    fn outgoing(&mut self, document: &mut impl Document) -> Option<Vec<u8>> {
        if !(self.greeted && self.due) {
            return None;
        }
        self.due = false;
        self.peer.generate(document)
    }
}
