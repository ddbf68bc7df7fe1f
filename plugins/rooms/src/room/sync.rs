//! The documents of a room, and how far each client has them.
//!
//! For: bringing what a client wrote into the documents, and what changed to every client.
//! Promises: after every event each client gets at most one message per document; a client that may not
//! write a document cannot, and hears the documents all the same; nobody writes in another's name; a message that automerge panics over
//! costs its sender the connection, and nobody else anything.
//! Never: waits for a client.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use runtimed_protocol::documents::automerge::legacy::{Key, ObjectId};
use runtimed_protocol::documents::automerge::{AutoCommit, Change, ChangeHash};
use runtimed_protocol::documents::sync::{Incoming, Received, SyncError};
use runtimed_protocol::documents::{CommentsDoc, CommsDoc, Document, NotebookDoc, RuntimeStateDoc, SyncPeer};
use runtimed_protocol::frame::FrameType;

use super::moment::{Moment, earliest};
use crate::journal::Record;

/// How long a client may take to answer a message on the runtime state before it gets the next one all
/// the same. Clients answer as soon as they have read, so one that is busy gets what happened meanwhile
/// in one message instead of many: the Python client needs 200 ms for each when there are 1,000 outputs.
const ANSWER_TIME: Duration = Duration::from_millis(250);

/// Everything clients share.
pub(crate) struct Documents {
    pub(crate) notebook: NotebookDoc,
    pub(crate) runtime: RuntimeStateDoc,
    pub(crate) comms: CommsDoc,
    pub(crate) comments: CommentsDoc,
    /// The heads clients were last told about, by stream.
    published: [Vec<ChangeHash>; 4],
}

/// One of the documents, as a stream of sync messages. Journals know them by these numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Notebook = 0,
    Runtime = 1,
    Comms = 2,
    Comments = 3,
}

/// The synchronization of every document with one client.
#[derive(Default)]
pub(crate) struct Streams([Line; 4]);

/// The synchronization of one document with one client.
#[derive(Default)]
pub(crate) struct Line {
    sync: SyncPeer,
    /// Whether the first message was sent.
    pub(crate) open: bool,
    /// The client has sent something and is owed an answer.
    pub(crate) asked: bool,
    /// The document changed, and the client does not know yet.
    pub(crate) behind: bool,
    /// The client cannot take more of this at the moment. When it can again, one message brings it up to
    /// date.
    pub(crate) stale: bool,
    /// Until when the client is given time to answer the last message before it gets the next.
    pub(crate) awaiting: Option<Moment>,
}

impl Stream {
    /// All of them, in the order in which they are sent.
    pub(crate) const ALL: [Self; 4] = [Self::Notebook, Self::Runtime, Self::Comms, Self::Comments];

    /// The stream that frames of this type belong to.
    pub(crate) fn of(frame_type: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.frame_type() == frame_type)
    }

    /// The type of its frames.
    pub(crate) fn frame_type(self) -> u8 {
        match self {
            Self::Notebook => FrameType::NOTEBOOK_SYNC,
            Self::Runtime => FrameType::RUNTIME_STATE_SYNC,
            Self::Comms => FrameType::COMMS_SYNC,
            Self::Comments => FrameType::COMMENTS_SYNC,
        }
    }
}

impl Line {
    /// Whether a message may be sent now, and there may be something to say.
    pub(crate) fn is_due(&self, now: Moment) -> bool {
        self.open
            && !self.stale
            && (self.asked || self.behind && self.awaiting.is_none_or(|until| until <= now))
    }
}

impl Streams {
    /// When the next message must be sent though the last one is not answered.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        earliest(self.0.iter().filter(|line| line.behind && !line.stale).map(|line| line.awaiting))
    }

    /// The client takes more of every document again.
    pub(crate) fn refresh(&mut self) {
        self.0.iter_mut().for_each(|line| line.stale = false);
    }

    /// The line of one document.
    pub(crate) fn line(&mut self, stream: Stream) -> &mut Line {
        let [notebook, runtime, comms, comments] = &mut self.0;
        match stream {
            Stream::Notebook => notebook,
            Stream::Runtime => runtime,
            Stream::Comms => comms,
            Stream::Comments => comments,
        }
    }
}

impl Documents {
    /// Documents nobody has heard of yet.
    pub(crate) fn new(
        notebook: NotebookDoc,
        runtime: RuntimeStateDoc,
        comms: CommsDoc,
        comments: CommentsDoc,
    ) -> Self {
        Self { notebook, runtime, comms, comments, published: Default::default() }
    }

    /// Puts a notebook in place of one that no client has seen yet.
    pub(crate) fn replace_notebook(&mut self, mut notebook: NotebookDoc) {
        let [published, ..] = &mut self.published;
        *published = notebook.heads();
        self.notebook = notebook;
    }

    /// Which documents changed since this was last asked, by stream.
    pub(crate) fn take_changed(&mut self) -> [bool; 4] {
        let now = self.heads();
        let mut changed = [false; 4];
        for ((changed, published), now) in changed.iter_mut().zip(&mut self.published).zip(now) {
            *changed = *published != now;
            *published = now;
        }
        changed
    }

    /// The heads of every document, by stream.
    pub(crate) fn heads(&mut self) -> [Vec<ChangeHash>; 4] {
        [self.notebook.heads(), self.runtime.heads(), self.comms.heads(), self.comments.heads()]
    }

    /// The heads of every document when [`Documents::take_changed`] was last asked, by stream.
    pub(crate) fn published(&self) -> &[Vec<ChangeHash>; 4] {
        &self.published
    }

    /// Adds what happened to a document after `held`, up to what is published, to a record.
    pub(crate) fn record(&mut self, stream: Stream, held: &[ChangeHash], record: &mut Record) {
        if self.published[stream as usize] == held {
            return;
        }
        let document = self.automerge_mut(stream);
        match held {
            [] => record.snapshot(stream as u8, &document.save()),
            held => record.changes(stream as u8, &document.save_after(held)),
        }
    }

    fn automerge_mut(&mut self, stream: Stream) -> &mut AutoCommit {
        match stream {
            Stream::Notebook => self.notebook.automerge_mut(),
            Stream::Runtime => self.runtime.automerge_mut(),
            Stream::Comms => self.comms.automerge_mut(),
            Stream::Comments => self.comments.automerge_mut(),
        }
    }

    /// Applies a client's message. `principal` is on whose behalf it may write; a client that may not write
    /// gets its changes stripped.
    ///
    /// # Errors
    /// The message makes no sense, or holds a change in somebody else's name; nothing changed.
    pub(crate) fn receive(
        &mut self,
        stream: Stream,
        line: &mut Line,
        payload: &[u8],
        principal: Option<&str>,
    ) -> Result<Received, SyncError> {
        let incoming = catch_unwind(|| Incoming::decode(payload)).unwrap_or_else(|_| Err(panicked()))?;
        line.asked = true;
        line.awaiting = None;
        let sync = &mut line.sync;
        match stream {
            Stream::Notebook => receive(sync, &mut self.notebook, incoming, principal),
            Stream::Runtime => receive(sync, &mut self.runtime, incoming, principal),
            Stream::Comms => receive(sync, &mut self.comms, incoming, principal),
            Stream::Comments => {
                let known = self.comments.automerge_mut();
                let mut new = incoming.changes().iter().filter(|change| !is_known(known, change));
                let principal = principal.filter(|_| !new.any(renames_comments));
                receive(sync, &mut self.comments, incoming, principal)
            }
        }
    }

    /// Whether a client has the whole notebook as soon as it reads what was sent.
    pub(crate) fn has_notebook(&mut self, line: &Line) -> bool {
        line.sync.is_caught_up(&mut self.notebook)
    }

    /// The next message for a client, if there is anything to say.
    pub(crate) fn generate(&mut self, stream: Stream, line: &mut Line, now: Moment) -> Option<Vec<u8>> {
        (line.asked, line.behind) = (false, false);
        let sync = &mut line.sync;
        let message = match stream {
            Stream::Notebook => sync.generate(&mut self.notebook),
            Stream::Runtime => sync.generate(&mut self.runtime),
            Stream::Comms => sync.generate(&mut self.comms),
            Stream::Comments => sync.generate(&mut self.comments),
        }?;
        line.awaiting = (stream == Stream::Runtime).then(|| now + ANSWER_TIME);
        Some(message)
    }
}

fn receive(
    sync: &mut SyncPeer,
    document: &mut impl Document,
    incoming: Incoming,
    principal: Option<&str>,
) -> Result<Received, SyncError> {
    let Some(principal) = principal else { return sync.receive_stripped(document, incoming) };
    let before = document.heads();
    let received = catch_unwind(AssertUnwindSafe(|| sync.receive_from(document, incoming, principal)));
    received.unwrap_or_else(|panic| match restored(document, &before) {
        Some(restored) => {
            *document.automerge_mut() = restored;
            Err(panicked())
        }
        None => resume_unwind(panic),
    })
}

/// The document as it was at `heads`, made anew from its changes. Their hashes prove that it is the same.
fn restored(document: &mut impl Document, heads: &[ChangeHash]) -> Option<AutoCommit> {
    let document = document.automerge_mut();
    let actor = document.get_actor().clone();
    let fork = catch_unwind(AssertUnwindSafe(|| document.fork_at(heads))).ok()?;
    let mut restored = fork.ok()?.with_actor(actor);
    (restored.get_heads() == heads).then_some(restored)
}

fn panicked() -> SyncError {
    SyncError::Undecodable("automerge panicked over it".to_owned())
}

fn is_known(document: &mut AutoCommit, change: &Change) -> bool {
    document.get_change_meta_by_hash(&change.hash()).is_some()
}

/// Whether a change gives the comments another name. The daemon alone does.
fn renames_comments(change: &Change) -> bool {
    let name = Key::Map("comments_doc_id".into());
    change.decode().operations.iter().any(|op| op.obj == ObjectId::Root && op.key == name)
}
