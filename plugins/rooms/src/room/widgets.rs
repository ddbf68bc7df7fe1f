//! Widgets: what a kernel shows of its objects, and what clients do to them.
//!
//! For: the comms of the Jupyter widget protocol, between the kernel and the documents. Who is there, in which
//! order, is in the runtime state document; what state it has, in the comms document.
//! Promises: a burst of moves is one change; what came from the kernel is never sent back to it; while a client's
//! edit is on its way, what the kernel said before it got there does not undo it; an edit that the daemon died
//! over reaches the kernel all the same, once.
//! Shape: [`changes`] go from the kernel to the documents, [`edits`] the other way, through the [`outbox`];
//! [`buffers`] are in the blob store on both ways; [`capture`] is for widgets that show outputs.

pub(super) mod buffers;
mod capture;
mod changes;
mod edits;
mod outbox;

use bytes::Bytes;
use runtimed_plugin_api::JupyterMessage;
use runtimed_protocol::broadcast::Broadcast;
use runtimed_protocol::documents::RuntimeStateDoc;
use runtimed_protocol::documents::automerge::Change;
use runtimed_protocol::documents::runtime_state::CommEntry;
use runtimed_protocol::frame::FrameType;
use serde::Deserialize;
use serde_json::{Map as JsonMap, Value as Json};

pub(super) use self::capture::Captures;
use self::changes::WidgetChange;
pub(super) use self::changes::WidgetChanges;
use self::edits::Edits;
use self::outbox::Outbox;
pub(super) use self::outbox::{Blobs, Outgoing};
use super::core::{RoomCore, kept};
use crate::journal::Edited;
use crate::outputs::parse_content;

/// The target of comms that have their state in the documents and nothing else.
const WIDGET: &str = "jupyter.widget";

/// What the room remembers of widgets beside the documents.
#[derive(Default)]
pub(super) struct Widgets {
    /// Place of the next that opens.
    next_seq: u64,
    edits: Edits,
    /// What clients wrote and the document cannot hold yet.
    early: Vec<Change>,
    outbox: Outbox,
}

impl Widgets {
    /// Of a kernel that goes on, with what clients wrote and it may not know.
    pub(super) fn resume(runtime: &RuntimeStateDoc, edited: Vec<Edited>) -> Self {
        let entries = runtime.comm_ids().into_iter().filter_map(|comm| runtime.comm(&comm));
        let next_seq = entries.map(|entry| entry.seq + 1).max().unwrap_or(0);
        Self { next_seq, edits: Edits::resume(edited), ..Self::default() }
    }
}

/// The content of a comm message.
#[derive(Deserialize)]
struct Content {
    comm_id: String,
    #[serde(default)]
    target_name: String,
    #[serde(default)]
    data: Json,
}

impl Content {
    /// The state in the message, with the paths of its buffers.
    fn state(&mut self) -> Option<(JsonMap<String, Json>, Vec<Json>)> {
        let paths = match self.data.get_mut("buffer_paths").map(Json::take) {
            Some(Json::Array(paths)) => paths,
            _ => Vec::new(),
        };
        match self.data.get_mut("state").map(Json::take) {
            Some(Json::Object(state)) => Some((state, paths)),
            _ => None,
        }
    }
}

impl RoomCore {
    /// The kernel sent a comm message.
    pub(super) fn widget_message(&mut self, msg_type: &str, message: &JupyterMessage) {
        let Some(mut content) = parse_content::<Content>(&message.content) else { return };
        match msg_type {
            "comm_open" => {
                if content.target_name != WIDGET {
                    self.broadcast_comm(msg_type, message);
                }
                self.widget_opened(content, &message.buffers);
            }
            "comm_close" => {
                // Of what is no widget, clients know nothing but what they are told.
                if self.documents.runtime.comm(&content.comm_id).is_none_or(|it| it.target_name != WIDGET) {
                    self.broadcast_comm(msg_type, message);
                }
                self.widgets.edits.forget(&content.comm_id);
                self.publication.captures.close(&content.comm_id);
                self.publication.next.widgets.close(content.comm_id);
            }
            _ => {
                let method = content.data.get("method").and_then(Json::as_str);
                if !matches!(method, Some("update" | "echo_update")) {
                    return self.broadcast_comm(msg_type, message);
                }
                let Some((mut state, paths)) = content.state() else { return };
                self.captures(&content.comm_id, &mut state);
                let widgets = &mut self.publication.next.widgets;
                let mut state = buffers::stored(state, &paths, &message.buffers, &mut widgets.blobs);
                // An echo is no exception: it is of this edit, or of an older one.
                state.retain(|key, _| !self.widgets.edits.overrules(&content.comm_id, key));
                widgets.update(content.comm_id, state);
            }
        }
    }

    /// Puts what happened to widgets into the documents.
    pub(super) fn show_widgets(&mut self, changes: WidgetChanges) {
        let (runtime, comms) = (&mut self.documents.runtime, &mut self.documents.comms);
        for (comm, change) in changes.into_changes() {
            kept(match change {
                WidgetChange::Open(entry, state) => {
                    let entry = capture::with_parent(entry, &state);
                    runtime.put_comm(&comm, &entry).and_then(|()| comms.open(&comm, &state))
                }
                WidgetChange::Update(state) => {
                    let entry = runtime.comm(&comm).filter(|_| state.contains_key("msg_id"));
                    let shown =
                        entry.map(|entry| runtime.put_comm(&comm, &capture::with_parent(entry, &state)));
                    shown.unwrap_or(Ok(())).and_then(|()| comms.update(&comm, &state))
                }
                WidgetChange::Close => runtime.remove_comm(&comm).and_then(|()| comms.close(&comm)),
            });
        }
    }

    /// Widgets live in the kernel; a new one knows none of them.
    pub(super) fn forget_widgets(&mut self) {
        let unanswered = std::mem::take(&mut self.widgets).outbox.into_tickets();
        for ticket in unanswered {
            self.answer(Some(ticket), runtimed_protocol::response::NotebookResponse::Ok);
        }
        self.publication.forget_widgets();
        for comm in self.documents.runtime.comm_ids() {
            kept(self.documents.runtime.remove_comm(&comm));
        }
        for comm in self.documents.comms.comm_ids() {
            kept(self.documents.comms.close(&comm));
        }
    }

    fn widget_opened(&mut self, mut content: Content, buffers: &[Bytes]) {
        let (mut state, paths) = content.state().unwrap_or_default();
        let text = |key: &str| state.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let entry = CommEntry {
            target_name: content.target_name,
            model_module: text("_model_module"),
            model_name: text("_model_name"),
            seq: self.widgets.next_seq,
            ..CommEntry::default()
        };
        self.widgets.next_seq += 1;
        self.publication.captures.open(&content.comm_id, &entry);
        self.captures(&content.comm_id, &mut state);
        let widgets = &mut self.publication.next.widgets;
        let state = buffers::stored(state, &paths, buffers, &mut widgets.blobs);
        widgets.open(content.comm_id, entry, state);
    }

    /// Lets an output widget begin or cease to listen, if the new state says so.
    fn captures(&mut self, comm: &str, state: &mut JsonMap<String, Json>) {
        let ids = &mut self.ids;
        self.publication.captures.update(comm, state, &mut || ids.uuid().to_string());
    }

    /// Passes a comm message on to every client: what it says is in no document.
    fn broadcast_comm(&mut self, msg_type: &str, message: &JupyterMessage) {
        let Some(content) = parse_content::<Json>(&message.content) else { return };
        let buffers = message.buffers.iter().map(|buffer| buffer.to_vec()).collect();
        let broadcast = Broadcast::Comm { msg_type: msg_type.to_owned(), content, buffers };
        let Ok(payload) = serde_json::to_vec(&broadcast).map(Bytes::from) else { return };
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.send(peer, FrameType::BROADCAST, payload.clone()));
    }
}
