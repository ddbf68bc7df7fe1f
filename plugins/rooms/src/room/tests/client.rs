//! A client as the protocol's other implementations are: genesis documents and automerge's own sync.

use std::collections::BTreeMap;

use bytes::Bytes;
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::documents::automerge::sync::{Message, State, SyncDoc as _};
use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::runtime_state::Execution;
use runtimed_protocol::documents::{CommsDoc, Document, NotebookDoc, Output, RuntimeStateDoc};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::presence::Presence;
use runtimed_protocol::response::{NotebookResponse, ResponseEnvelope};
use runtimed_protocol::session_control::{
    InitialLoad, NotebookPhase, RuntimePhase, SessionControl, SyncStatus,
};
use serde_json::{Value as Json, json};

/// One window.
pub(super) struct Client {
    pub(super) notebook: NotebookDoc,
    pub(super) runtime: RuntimeStateDoc,
    pub(super) comms: CommsDoc,
    states: BTreeMap<u8, State>,
    /// What the daemon said last that it has, by frame type.
    pub(super) told: BTreeMap<u8, Vec<ChangeHash>>,
    pub(super) status: SyncStatus,
    /// Every `sync_status` in the order it came.
    pub(super) reports: Vec<SyncStatus>,
    /// The types of every frame that came.
    pub(super) frame_types: Vec<u8>,
    /// Every presence message that came.
    pub(super) presence: Vec<Presence>,
    pub(super) answers: BTreeMap<String, NotebookResponse>,
    /// Every broadcast that came.
    pub(super) broadcasts: Vec<Json>,
    /// Answers without an id.
    pub(super) anonymous: Vec<NotebookResponse>,
    requests: u64,
}

impl Client {
    pub(super) fn new(label: &str) -> Self {
        Self {
            notebook: NotebookDoc::genesis(label).unwrap(),
            runtime: RuntimeStateDoc::new(label).unwrap(),
            comms: CommsDoc::new(label).unwrap(),
            states: BTreeMap::new(),
            told: BTreeMap::new(),
            status: SyncStatus::initial(InitialLoad::NotNeeded),
            reports: Vec::new(),
            frame_types: Vec::new(),
            presence: Vec::new(),
            answers: BTreeMap::new(),
            broadcasts: Vec::new(),
            anonymous: Vec::new(),
            requests: 0,
        }
    }

    /// Begins a connection with what was written here. The runtime state is the daemon's and comes anew: one that
    /// could not write its journal may have lost some of it. What was asked before has no answer any more.
    pub(super) fn reconnect(&mut self) {
        let label = String::from_utf8(self.runtime.automerge().get_actor().to_bytes().to_vec()).unwrap();
        self.runtime = RuntimeStateDoc::new(&label).unwrap();
        self.states.clear();
        self.answers.clear();
        self.status = SyncStatus::initial(InitialLoad::NotNeeded);
    }

    /// Takes a frame; returns what the client says to it.
    pub(super) fn receive(&mut self, frame_type: u8, payload: &Bytes) -> Option<(u8, Bytes)> {
        self.frame_types.push(frame_type);
        match frame_type {
            FrameType::SESSION_CONTROL => {
                if let SessionControl::SyncStatus(status) = serde_json::from_slice(payload).unwrap() {
                    self.reports.push(status.clone());
                    self.status = status;
                }
                None
            }
            FrameType::RESPONSE => {
                let ResponseEnvelope { id, response } = serde_json::from_slice(payload).unwrap();
                match id {
                    Some(id) => {
                        let twice = self.answers.insert(id.clone(), response);
                        assert!(twice.is_none(), "{id} was answered twice");
                    }
                    None => self.anonymous.push(response),
                }
                None
            }
            FrameType::NOTEBOOK_SYNC | FrameType::RUNTIME_STATE_SYNC | FrameType::COMMS_SYNC => {
                let state = self.states.entry(frame_type).or_default();
                let message = Message::decode(payload).unwrap();
                self.told.insert(frame_type, message.heads.clone());
                match frame_type {
                    FrameType::NOTEBOOK_SYNC => sync(&mut self.notebook, state, message),
                    FrameType::RUNTIME_STATE_SYNC => sync(&mut self.runtime, state, message),
                    _ => sync(&mut self.comms, state, message),
                }
                self.sync_frame(frame_type)
            }
            FrameType::BROADCAST => {
                self.broadcasts.push(serde_json::from_slice(payload).unwrap());
                None
            }
            FrameType::PRESENCE => {
                self.presence.push(Presence::decode(payload).unwrap());
                None
            }
            _ => None,
        }
    }

    /// The next message on a document, if there is anything to say.
    pub(super) fn sync_frame(&mut self, frame_type: u8) -> Option<(u8, Bytes)> {
        let state = self.states.entry(frame_type).or_default();
        let message = match frame_type {
            FrameType::NOTEBOOK_SYNC => self.notebook.automerge_mut().sync().generate_sync_message(state),
            FrameType::RUNTIME_STATE_SYNC => self.runtime.automerge_mut().sync().generate_sync_message(state),
            _ => self.comms.automerge_mut().sync().generate_sync_message(state),
        }?;
        Some((frame_type, message.encode().into()))
    }

    /// Adds a code cell and returns the frame that says so.
    pub(super) fn add_cell(&mut self, id: &str, source: &str) -> Option<(u8, Bytes)> {
        let cell = NewCell {
            id: id.to_owned(),
            cell_type: "code".to_owned(),
            source: source.to_owned(),
            ..NewCell::default()
        };
        self.notebook.insert_cell(Place::End, &cell).unwrap();
        self.notebook.commit();
        self.sync_frame(FrameType::NOTEBOOK_SYNC)
    }

    pub(super) fn set_source(&mut self, id: &str, source: &str) -> Option<(u8, Bytes)> {
        self.notebook.set_source(id, source).unwrap();
        self.notebook.commit();
        self.sync_frame(FrameType::NOTEBOOK_SYNC)
    }

    /// Changes the state of a widget and returns the frame that says so.
    pub(super) fn edit_widget(&mut self, comm: &str, state: Json) -> Option<(u8, Bytes)> {
        self.comms.update(comm, state.as_object().unwrap()).unwrap();
        self.comms.commit();
        self.sync_frame(FrameType::COMMS_SYNC)
    }

    /// A request frame, and the id its answer will have.
    pub(super) fn request(&mut self, mut request: Json) -> (String, (u8, Bytes)) {
        self.requests += 1;
        let id = format!("request {}", self.requests);
        request["id"] = json!(id);
        (id, (FrameType::REQUEST, request.to_string().into()))
    }

    /// The client's heads, for `required_heads`.
    pub(super) fn heads(&mut self) -> Vec<String> {
        self.notebook.heads().iter().map(ToString::to_string).collect()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.status.notebook_doc == NotebookPhase::Interactive
            && self.status.runtime_state == RuntimePhase::Ready
            && matches!(self.status.initial_load, InitialLoad::NotNeeded | InitialLoad::Ready)
    }

    pub(super) fn execution(&self, id: &str) -> Execution {
        self.runtime.execution(id).unwrap_or_else(|| panic!("no execution {id}"))
    }

    pub(super) fn outputs(&self, id: &str) -> Vec<Output> {
        let entries = self.runtime.outputs(id);
        entries.iter().map(|entry| Output::from_json(&entry.manifest).unwrap()).collect()
    }
}

fn sync(document: &mut impl Document, state: &mut State, message: Message) {
    document.automerge_mut().sync().receive_sync_message(state, message).unwrap();
}
