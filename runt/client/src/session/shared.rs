//! What a session's owner and its task share.
//!
//! For: everything that must be looked at together: documents, phases, unanswered requests.
//! Promises: the lock is held for memory work only, never across an await; every change of anything a
//! waiter may look at moves `changes`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use runtimed_protocol::frame::{FrameType, TypedFrame, typed_header};
use runtimed_protocol::response::{NotebookResponse, ResponseEnvelope};
use runtimed_protocol::session_control::{InitialLoad, SessionControl, SyncStatus};
use serde::Deserialize;
use tokio::sync::{Notify, oneshot, watch};

use super::repeated::Again;
use super::replicas::Replicas;
use crate::{ClientError, Result};

/// A request without a response.
pub(super) struct Pending {
    pub(super) id: String,
    /// Gets the response.
    pub(super) answer: oneshot::Sender<Result<NotebookResponse>>,
    /// If the next daemon may be asked again.
    pub(super) again: Option<Again>,
}

/// What a session's owner and its task share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer: there is something to send, or it shall end.
    pub(super) work: Notify,
    /// Counts changes; waiters subscribe, look, and then wait.
    changes: watch::Sender<u64>,
}

/// Everything that is looked at together.
pub(super) struct State {
    /// The documents.
    pub(super) replicas: Replicas,
    /// The phases, once the daemon has named them.
    pub(super) status: Option<SyncStatus>,
    /// Requests without a response, in order.
    pub(super) pending: Vec<Pending>,
    /// Frames to send after the documents' messages, whole and in order.
    outbox: Vec<u8>,
    /// Whether the connection ends when all is sent.
    closing: bool,
    /// Whether there is no connection, and another is being made.
    interrupted: bool,
    /// Set once the connection is gone: what was wrong, or nothing if it just ended.
    ended: Option<Option<String>>,
}

/// What the writer does next.
pub(super) enum Outgoing {
    /// Send these bytes, whole frames.
    Frames(Vec<u8>),
    /// Wait for work.
    Nothing,
    /// All is sent; end the connection.
    Close,
}

impl Shared {
    /// State of a connection that has just been made.
    pub(super) fn new(replicas: Replicas) -> Self {
        let state = State {
            replicas,
            status: None,
            pending: Vec::new(),
            outbox: Vec::new(),
            closing: false,
            interrupted: false,
            ended: None,
        };
        Self { state: Mutex::new(state), work: Notify::new(), changes: watch::Sender::new(0) }
    }

    /// The state. A panic elsewhere leaves it usable: documents are consistent between calls.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees every change from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells waiters to look again.
    pub(super) fn announce(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Takes a frame from the daemon. What makes no sense in a known frame is ignored, as the protocol
    /// demands, unless a document cannot go on.
    pub(super) fn receive(&self, frame: &TypedFrame) -> Result<()> {
        let changed = match frame.frame_type {
            FrameType::RESPONSE => {
                self.lock().answer(&frame.payload);
                false
            }
            FrameType::SESSION_CONTROL => self.lock().control(&frame.payload),
            frame_type => {
                let received = self.lock().replicas.receive(frame_type, &frame.payload);
                self.work.notify_one();
                received.map_err(ClientError::protocol)?
            }
        };
        if changed {
            self.announce();
        }
        Ok(())
    }

    /// What there is to send now: what the documents have to say, then the queue.
    pub(super) fn outgoing(&self) -> Result<Outgoing> {
        let state = &mut *self.lock();
        let mut frames = Vec::new();
        for (frame_type, message) in state.replicas.outgoing() {
            push_frame(&mut frames, frame_type, &message)?;
        }
        frames.append(&mut state.outbox);
        Ok(match frames {
            frames if !frames.is_empty() => Outgoing::Frames(frames),
            _ if state.closing => Outgoing::Close,
            _ => Outgoing::Nothing,
        })
    }

    /// Ends the connection once all is sent.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }

    /// The connection is gone, and another will be made: fails what may not be asked twice, and makes ready to say
    /// the rest again. False if the owner has ended the session.
    pub(super) fn interrupted(&self) -> bool {
        let state = &mut *self.lock();
        if state.closing || state.check().is_err() {
            return false;
        }
        state.interrupted = true;
        state.status = None;
        state.replicas.start_over();
        state.outbox.clear();
        state.pending.retain(|pending| pending.again.is_some());
        for again in state.pending.iter_mut().filter_map(|pending| pending.again.as_mut()) {
            // It fitted once.
            let _ = push_frame(&mut state.outbox, FrameType::REQUEST, again.repeat());
        }
        self.announce();
        true
    }

    /// There is a connection again.
    pub(super) fn resumed(&self) {
        self.lock().interrupted = false;
        self.announce();
    }

    /// The connection is gone: fails what waits.
    pub(super) fn end(&self, how: Result<()>) {
        let mut state = self.lock();
        state.ended.get_or_insert(match how {
            Ok(()) | Err(ClientError::Disconnected) => None,
            Err(ClientError::Protocol(what)) => Some(what),
            Err(error) => Some(error.to_string()),
        });
        state.pending.clear();
        drop(state);
        self.announce();
    }
}

impl State {
    /// Queues a frame.
    ///
    /// # Errors
    /// `Protocol` if the payload is too long for its type; nothing is queued then.
    pub(super) fn queue(&mut self, frame_type: u8, payload: &[u8]) -> Result<()> {
        push_frame(&mut self.outbox, frame_type, payload)
    }

    /// Whether there is a connection.
    pub(super) fn is_connected(&self) -> bool {
        !self.interrupted && self.ended.is_none()
    }

    /// Takes out a request that needs no response any more.
    pub(super) fn take(&mut self, id: &str) -> Option<Pending> {
        let place = self.pending.iter().position(|pending| pending.id == id)?;
        Some(self.pending.remove(place))
    }

    /// Whether the connection can still be used.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(SyncStatus { initial_load: InitialLoad::Failed { reason }, .. }) = &self.status {
            return Err(ClientError::Protocol(format!("Initial notebook load failed: {reason}")));
        }
        match &self.ended {
            None => Ok(()),
            Some(None) => Err(ClientError::Disconnected),
            Some(Some(what)) => Err(ClientError::Protocol(what.clone())),
        }
    }

    /// Hands a response to whoever asked. A late one has nobody left.
    fn answer(&mut self, payload: &Bytes) {
        /// The least there is to read when the rest makes no sense.
        #[derive(Deserialize)]
        struct Id {
            id: String,
        }
        let (id, response) = match serde_json::from_slice(payload) {
            Ok(ResponseEnvelope { id: Some(id), response }) => (id, Ok(response)),
            Ok(ResponseEnvelope { id: None, .. }) => return,
            Err(error) => match serde_json::from_slice(payload) {
                Ok(Id { id }) => (id, Err(ClientError::protocol(error))),
                Err(_) => return,
            },
        };
        if let Some(pending) = self.take(&id) {
            let response = match &pending.again {
                Some(again) => {
                    response.map(|it| again.meaning(it, || self.replicas.documents.notebook.cell_ids()))
                }
                None => response,
            };
            // Whoever gave up waiting does not want it any more.
            let _ = pending.answer.send(response);
        }
    }

    /// Takes note of the phases. True if there was news.
    fn control(&mut self, payload: &Bytes) -> bool {
        let Ok(SessionControl::SyncStatus(next)) = serde_json::from_slice(payload) else { return false };
        match &mut self.status {
            Some(status) => status.advance(next),
            None => self.status = Some(next),
        }
        true
    }
}

/// Appends a typed frame.
fn push_frame(frames: &mut Vec<u8>, frame_type: u8, payload: &[u8]) -> Result<()> {
    frames.extend(typed_header(frame_type, payload.len()).map_err(ClientError::protocol)?);
    frames.extend(payload);
    Ok(())
}
