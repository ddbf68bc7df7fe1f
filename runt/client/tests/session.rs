//! A session against a room of a few lines: framing, phases, edits, requests and ends.
//!
//! The room uses the same documents as the real one, and no more of the protocol than a client needs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use runtimed_client::protocol::bootstrap::{Bootstrap, NotebookConnectionInfo, ProtocolCapabilities};
use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::sync::Incoming;
use runtimed_client::protocol::documents::{Document, NotebookDoc, RuntimeStateDoc, SyncPeer};
use runtimed_client::protocol::frame::{
    FRAME_MAX, FrameDecoder, FrameType, HANDSHAKE_MAX, TypedDecoder, TypedFrame, length_header, typed_header,
};
use runtimed_client::protocol::handshake::{CreateNotebook, Handshake};
use runtimed_client::protocol::request::{NotebookRequest, RequestEnvelope};
use runtimed_client::protocol::response::{NotebookResponse, QueuedCell, ResponseEnvelope};
use runtimed_client::{Client, ClientError, NotebookSession};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A room with one peer.
struct Room {
    stream: UnixStream,
    buffer: BytesMut,
    decoder: TypedDecoder,
    notebook: NotebookDoc,
    notebook_peer: SyncPeer,
    runtime_state: RuntimeStateDoc,
    runtime_state_peer: SyncPeer,
}

impl Room {
    /// Accepts a client, welcomes it and sends the first messages.
    async fn welcome(listener: &UnixListener, load: &str) -> Self {
        let mut room = Self {
            stream: listener.accept().await.unwrap().0,
            buffer: BytesMut::new(),
            decoder: TypedDecoder::new(),
            notebook: NotebookDoc::new("n1", "runtimed").unwrap(),
            notebook_peer: SyncPeer::new(),
            runtime_state: RuntimeStateDoc::new("runtimed:state").unwrap(),
            runtime_state_peer: SyncPeer::new(),
        };
        let handshake = room.read_handshake().await;
        let operator = handshake.operator().unwrap().to_owned();
        assert!(handshake.typed_bootstrap() && operator.starts_with("agent:runtimed-client:"));
        let capabilities = ProtocolCapabilities {
            actor_label: Some(format!("local:user/{operator}")),
            ..ProtocolCapabilities::new("test")
        };
        let info = NotebookConnectionInfo {
            notebook_id: "n1".into(),
            cell_count: 1,
            error: None,
            ..NotebookConnectionInfo::refusal(capabilities, "")
        };
        room.send_body(&Bootstrap::NotebookConnectionInfo(info).encode(true).unwrap()).await;
        room.status("pending", "pending", json!({"phase": load})).await;
        let cell = NewCell {
            id: "c1".into(),
            cell_type: "code".into(),
            source: "1 + 1".into(),
            ..NewCell::default()
        };
        room.notebook.insert_cell(Place::End, &cell).unwrap();
        room.push_notebook().await;
        room.status("syncing", "pending", json!({"phase": load})).await;
        room.push_runtime_state().await;
        room
    }

    async fn read_handshake(&mut self) -> Handshake {
        let mut preamble = [0; 5];
        self.stream.read_exact(&mut preamble).await.unwrap();
        let mut decoder = FrameDecoder::new(HANDSHAKE_MAX);
        loop {
            if let Some(body) = decoder.decode(&mut self.buffer).unwrap() {
                return serde_json::from_slice(&body).unwrap();
            }
            assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0);
        }
    }

    async fn send_body(&mut self, body: &[u8]) {
        let frame = [&length_header(body.len(), FRAME_MAX).unwrap()[..], body].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn send(&mut self, frame_type: u8, payload: &[u8]) {
        let frame = [&typed_header(frame_type, payload.len()).unwrap()[..], payload].concat();
        // The client may have left already.
        let _ = self.stream.write_all(&frame).await;
    }

    async fn status(&mut self, notebook_doc: &str, runtime_state: &str, initial_load: Value) {
        let status = json!({"type": "sync_status", "notebook_doc": notebook_doc,
            "runtime_state": runtime_state, "initial_load": initial_load});
        self.send(FrameType::SESSION_CONTROL, status.to_string().as_bytes()).await;
    }

    /// Sends what the client has not got of the notebook. False if there is nothing.
    async fn push_notebook(&mut self) -> bool {
        let Some(message) = self.notebook_peer.generate(&mut self.notebook) else { return false };
        self.send(FrameType::NOTEBOOK_SYNC, &message).await;
        true
    }

    async fn push_runtime_state(&mut self) {
        if let Some(message) = self.runtime_state_peer.generate(&mut self.runtime_state) {
            self.send(FrameType::RUNTIME_STATE_SYNC, &message).await;
        }
    }

    async fn read(&mut self) -> Option<TypedFrame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Serves until the client leaves; returns the notebook and how many heartbeats there were.
    async fn serve(mut self) -> (NotebookDoc, usize) {
        let mut heartbeats = 0;
        let mut interactive = false;
        while let Some(TypedFrame { frame_type, payload }) = self.read().await {
            match frame_type {
                FrameType::NOTEBOOK_SYNC => {
                    let incoming = Incoming::decode(&payload).unwrap();
                    self.notebook_peer.receive_from(&mut self.notebook, incoming, "local:user").unwrap();
                    if !self.push_notebook().await && !interactive {
                        interactive = true;
                        self.status("interactive", "syncing", json!({"phase": "not_needed"})).await;
                    }
                }
                FrameType::RUNTIME_STATE_SYNC => {
                    let incoming = Incoming::decode(&payload).unwrap();
                    self.runtime_state_peer.receive(&mut self.runtime_state, incoming).unwrap();
                    self.push_runtime_state().await;
                    self.status("syncing", "ready", json!({"phase": "not_needed"})).await;
                }
                FrameType::REQUEST => self.request(&payload).await,
                FrameType::PRESENCE => heartbeats += 1,
                other => panic!("frame type {other} was not expected"),
            }
        }
        (self.notebook, heartbeats)
    }

    async fn request(&mut self, payload: &Bytes) {
        let RequestEnvelope { id, required_heads, request } = RequestEnvelope::decode(payload).unwrap();
        let response = match request {
            NotebookRequest::ExecuteCell { cell_id, .. } => {
                let heads: Vec<_> = required_heads.iter().map(|head| head.parse().unwrap()).collect();
                assert!(!heads.is_empty() && self.notebook.contains(&heads), "the edit must come first");
                self.runtime_state.set_path(self.notebook.source(&cell_id).as_deref()).unwrap();
                self.push_runtime_state().await;
                NotebookResponse::CellQueued(QueuedCell { cell_id, execution_id: "e1".into() })
            }
            NotebookRequest::InterruptExecution => return,
            NotebookRequest::ShutdownKernel => NotebookResponse::error("it will not"),
            // A response of a later version.
            _ => {
                let unknown = json!({"id": id, "result": "zzz"});
                return self.send(FrameType::RESPONSE, unknown.to_string().as_bytes()).await;
            }
        };
        let response = serde_json::to_vec(&ResponseEnvelope { id, response }).unwrap();
        self.send(FrameType::RESPONSE, &response).await;
    }
}

/// A listener in a folder that goes away with it, and a client of it.
fn endpoint() -> (tempfile::TempDir, UnixListener, Client) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    (folder, listener, Client::new(socket))
}

async fn create(client: &Client) -> Result<NotebookSession, ClientError> {
    let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
    NotebookSession::create(client, create).await
}

#[tokio::test]
async fn an_edit_and_a_run_reach_the_room_in_order() {
    let (_folder, listener, client) = endpoint();
    let room = async { Room::welcome(&listener, "not_needed").await.serve().await };
    let user = async {
        let session = create(&client).await.unwrap();
        session.ready().await.unwrap();
        assert_eq!(session.notebook_id().as_deref(), Some("n1"));
        assert_eq!(session.read(|documents| documents.notebook.cell_ids()), ["c1"]);

        session.edit(|notebook| notebook.set_source("c1", "2 + 2")).unwrap();
        let queued = session.execute_cell("c1").await.unwrap();
        assert_eq!(queued.execution_id, "e1");
        let ran = session.wait_for(|documents| documents.runtime_state.path()).await.unwrap();
        assert_eq!(ran, "2 + 2");

        let failed = session.edit(|notebook| {
            notebook.set_source("c1", "half an edit")?;
            notebook.set_source("no such cell", "x")
        });
        assert!(matches!(failed, Err(ClientError::Document(_))));
        assert_eq!(session.read(|documents| documents.notebook.source("c1")).unwrap(), "2 + 2");

        session.edit(|notebook| notebook.set_source("c1", "3 + 3")).unwrap();
        session.close().await;
    };
    let ((notebook, heartbeats), ()) = tokio::join!(room, user);
    assert_eq!(notebook.source("c1").unwrap(), "3 + 3");
    assert!(heartbeats >= 1);
}

#[tokio::test]
async fn what_the_room_says_of_a_request_reaches_the_caller() {
    let (_folder, listener, client) = endpoint();
    let room = async { Room::welcome(&listener, "not_needed").await.serve().await };
    let user = async {
        let session = create(&client).await.unwrap();
        let refused = session.request(NotebookRequest::ShutdownKernel).await.unwrap_err();
        assert_eq!(refused.to_string(), "Daemon returned error: it will not");
        let strange = session.request(NotebookRequest::GetDocBytes).await.unwrap_err();
        assert!(matches!(strange, ClientError::Protocol(text) if text.contains("zzz")));
    };
    tokio::join!(room, user);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_not_waited_for_forever() {
    let (_folder, listener, client) = endpoint();
    let room = async { Room::welcome(&listener, "not_needed").await.serve().await };
    let user = async {
        let session = create(&client).await.unwrap();
        let error = session.request(NotebookRequest::InterruptExecution).await.unwrap_err();
        assert_eq!(error.to_string(), "The daemon did not answer `interrupt_execution` within 30 s");
    };
    let ((_, heartbeats), ()) = tokio::join!(room, user);
    assert!(heartbeats >= 2, "the session must stay alive while it waits");
}

#[tokio::test]
async fn a_daemon_that_goes_away_fails_everything_that_waits() {
    let (_folder, listener, client) = endpoint();
    let room = async {
        let mut room = Room::welcome(&listener, "not_needed").await;
        while room.read().await.unwrap().frame_type != FrameType::REQUEST {}
    };
    let user = async {
        let session = create(&client).await.unwrap();
        let waiting = tokio::join!(
            session.ready(),
            session.request(NotebookRequest::InterruptExecution),
            session.wait_for(|documents| documents.runtime_state.path()),
        );
        assert!(matches!(
            waiting,
            (Err(ClientError::Disconnected), Err(ClientError::Disconnected), Err(ClientError::Disconnected))
        ));
        assert!(session.edit(|notebook| notebook.set_source("c1", "x")).is_err());
    };
    tokio::join!(room, user);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named_as_the_reason() {
    let (_folder, listener, client) = endpoint();
    let room = async {
        let mut room = Room::welcome(&listener, "streaming").await;
        room.status("syncing", "syncing", json!({"phase": "failed", "reason": "no JSON"})).await;
    };
    let user = async {
        let error = create(&client).await.unwrap().ready().await.unwrap_err();
        assert_eq!(error.to_string(), "Protocol error: Initial notebook load failed: no JSON");
    };
    tokio::join!(room, user);
}

#[tokio::test]
async fn what_cannot_be_synchronized_ends_the_session_and_unknown_frames_do_not() {
    let (_folder, listener, client) = endpoint();
    let room = async {
        let mut room = Room::welcome(&listener, "not_needed").await;
        room.send(0x7F, b"of a later version").await;
        room.send(FrameType::COMMENTS_SYNC, b"garbage").await;
        room.send(FrameType::RESPONSE, b"garbage").await;
        room.send(FrameType::NOTEBOOK_SYNC, b"garbage").await;
        while room.read().await.is_some() {}
    };
    let user = async {
        let error = create(&client).await.unwrap().ready().await.unwrap_err();
        assert!(
            error.to_string().starts_with("Protocol error: the sync message cannot be decoded"),
            "{error}"
        );
    };
    tokio::join!(room, user);
}

#[tokio::test]
async fn a_refusal_is_the_error() {
    let (_folder, listener, client) = endpoint();
    let daemon = async {
        let mut stream = listener.accept().await.unwrap().0;
        let refusal = NotebookConnectionInfo::refusal(ProtocolCapabilities::new("test"), "gone");
        let body = Bootstrap::NotebookConnectionInfo(refusal).encode(true).unwrap();
        stream.write_all(&length_header(body.len(), FRAME_MAX).unwrap()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        // Until the client leaves, so that nothing it sent is thrown back at it.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let user = async {
        let refused = NotebookSession::join(&client, "n1").await.err().unwrap();
        assert_eq!(refused.to_string(), "Daemon returned error: gone");
    };
    tokio::join!(daemon, user);
}
