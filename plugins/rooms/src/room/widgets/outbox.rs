//! Comm messages on their way to the kernel.
//!
//! For: messages whose bytes are in the blob store, which has to be asked first.
//! Promises: messages reach the kernel in the order in which they were sent; whoever asked is answered once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use runtimed_plugin_api::Digest;
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::{Map as JsonMap, Value as Json};

use super::buffers::{self, Restored};
use crate::ids::JobId;
use crate::room::core::RoomCore;
use crate::room::event::Effect;
use crate::room::kernel_message::KernelRequest;
use crate::room::requests::Ticket;

/// Messages that wait, oldest first, and what is being read for the first.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Outgoing>,
    reading: Option<JobId>,
}

impl Outbox {
    /// Whether everything is with the kernel.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Who waits for an answer.
    pub(super) fn into_tickets(self) -> impl Iterator<Item = Ticket> {
        self.waiting.into_iter().filter_map(|outgoing| outgoing.ticket)
    }
}

/// A message that lacks what is in the blob store.
pub(in crate::room) struct Outgoing {
    pub(in crate::room) request: KernelRequest,
    pub(in crate::room) blobs: Blobs,
    /// Whom to answer when it is sent.
    pub(in crate::room) ticket: Option<Ticket>,
}

/// What of a message is in the blob store.
pub(in crate::room) enum Blobs {
    /// Buffers, by the place where they go; those that go first come first.
    Buffers(BTreeMap<usize, Digest>),
    /// Values of this state, which goes into the content.
    State(JsonMap<String, Json>),
}

impl Outgoing {
    fn named(&self) -> BTreeSet<Digest> {
        match &self.blobs {
            Blobs::Buffers(buffers) => buffers.values().copied().collect(),
            Blobs::State(state) => {
                let mut named = BTreeSet::new();
                state.values().for_each(|value| buffers::named(value, &mut named));
                named
            }
        }
    }

    /// The whole message; none if a blob is missing.
    fn complete(self, blobs: &BTreeMap<Digest, Bytes>) -> Option<KernelRequest> {
        let mut request = self.request;
        match self.blobs {
            Blobs::Buffers(places) => {
                for (place, digest) in places {
                    let place = place.min(request.buffers.len());
                    request.buffers.insert(place, blobs.get(&digest)?.clone());
                }
            }
            Blobs::State(state) => {
                let Restored { state, buffer_paths, buffers } = buffers::restored(state, blobs)?;
                let data = request.content.get_mut("data")?.as_object_mut()?;
                data.insert("state".to_owned(), state);
                data.insert("buffer_paths".to_owned(), Json::Array(buffer_paths));
                request.buffers = buffers;
            }
        }
        Some(request)
    }
}

impl RoomCore {
    /// Sends a message to the kernel, after those that were sent before.
    pub(in crate::room) fn send_to_widget(&mut self, outgoing: Outgoing) {
        self.widgets.outbox.waiting.push_back(outgoing);
        self.empty_outbox();
    }

    /// What the first message lacked was read.
    pub(in crate::room) fn blobs_read(&mut self, job: JobId, blobs: &BTreeMap<Digest, Bytes>) {
        let outbox = &mut self.widgets.outbox;
        if outbox.reading.take_if(|reading| *reading == job).is_some()
            && let Some(first) = outbox.waiting.pop_front()
        {
            self.dispatch(first, blobs);
            self.empty_outbox();
            self.send_edits(false);
        }
    }

    fn empty_outbox(&mut self) {
        while self.widgets.outbox.reading.is_none()
            && let Some(first) = self.widgets.outbox.waiting.front()
        {
            let digests = first.named();
            if !digests.is_empty() {
                let job = self.ids.job();
                self.widgets.outbox.reading = Some(job);
                return self.effects.push(Effect::ReadBlobs { job, digests });
            }
            if let Some(first) = self.widgets.outbox.waiting.pop_front() {
                self.dispatch(first, &BTreeMap::new());
            }
        }
    }

    fn dispatch(&mut self, mut outgoing: Outgoing, blobs: &BTreeMap<Digest, Bytes>) {
        let ticket = outgoing.ticket.take();
        let Some(launch) = self.kernel.live() else { return self.answer(ticket, Response::Ok) };
        let id = outgoing.request.msg_id.clone();
        let response = match outgoing.complete(blobs) {
            Some(request) => {
                self.effects.push(Effect::Say { launch, request });
                Response::Ok
            }
            None => {
                tracing::warn!(room = %self.id, "a widget's message was dropped: it names a blob that is not there");
                self.give_up_edit(&id);
                Response::error(
                    "A buffer of the message is not in the blob store. Nothing was sent. Store it and send again.",
                )
            }
        };
        self.answer(ticket, response);
    }
}
