//! A client that sends typed frames and reads the answers to its requests, and the documents it has.

use runtimed_protocol::documents::sync::Incoming;
use runtimed_protocol::documents::{Document, SyncPeer};
use runtimed_protocol::frame::{FrameType, typed_header};
use runtimed_protocol::put_blob::{PutBlob, PutBlobHeader};
use serde_json::{Value, json};

use crate::support::{Client, Daemon};

/// A notebook connection.
pub(crate) struct Peer {
    client: Client,
    /// The bootstrap reply.
    pub(crate) info: Value,
    requests: u64,
}

impl Peer {
    /// Connects with a handshake and reads the bootstrap reply.
    pub(crate) fn connect(daemon: &Daemon, handshake: Value) -> Self {
        let mut client = daemon.connect(handshake);
        let info = serde_json::from_slice(&client.receive()).unwrap();
        Self { client, info, requests: 0 }
    }

    /// Connects to a new notebook.
    pub(crate) fn create(daemon: &Daemon) -> Self {
        Self::connect(daemon, json!({"channel": "create_notebook", "runtime": "python"}))
    }

    pub(crate) fn send(&mut self, frame_type: u8, payload: &[u8]) {
        self.client.write(&typed_header(frame_type, payload.len()).unwrap());
        self.client.write(payload);
    }

    /// The next frame.
    pub(crate) fn receive(&mut self) -> (u8, Vec<u8>) {
        self.next().expect("the daemon goes on")
    }

    /// The next frame; none once the daemon has closed.
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut frame = self.client.next()?;
        Some((frame.remove(0), frame))
    }

    /// Sends a request and waits for its answer, without its id.
    pub(crate) fn ask(&mut self, mut request: Value) -> Value {
        self.requests += 1;
        let id = format!("request {}", self.requests);
        request["id"] = json!(id);
        self.send(FrameType::REQUEST, request.to_string().as_bytes());
        self.answer(&id)
    }

    /// Sends a PUT_BLOB frame and waits for its answer, without its id.
    pub(crate) fn put(&mut self, header: PutBlobHeader, body: &[u8]) -> Value {
        let (PutBlobHeader::Put { id, .. } | PutBlobHeader::Part { id, .. }) = header.clone();
        let frame = PutBlob { header, body: bytes::Bytes::copy_from_slice(body) }.encode().unwrap();
        self.send(FrameType::PUT_BLOB, &frame);
        self.answer(&id)
    }

    /// Reads until the answer with this id, which is taken out.
    fn answer(&mut self, id: &str) -> Value {
        loop {
            let (frame_type, payload) = self.receive();
            if frame_type == FrameType::RESPONSE {
                let mut answer: Value = serde_json::from_slice(&payload).unwrap();
                if answer["id"] == id {
                    answer.as_object_mut().unwrap().remove("id");
                    return answer;
                }
            }
        }
    }
}

/// One document of a client.
pub(crate) struct Replica<D> {
    pub(crate) document: D,
    pub(crate) sync: SyncPeer,
    frame_type: u8,
}

impl<D: Document> Replica<D> {
    pub(crate) fn new(document: D, frame_type: u8) -> Self {
        Self { document, sync: SyncPeer::new(), frame_type }
    }

    /// Says what is new.
    pub(crate) fn speak(&mut self, peer: &mut Peer) {
        if let Some(message) = self.sync.generate(&mut self.document) {
            peer.send(self.frame_type, &message);
        }
    }

    /// Takes a frame, if it is this document's, and answers.
    pub(crate) fn hear(&mut self, peer: &mut Peer, (frame_type, payload): &(u8, Vec<u8>)) -> bool {
        if *frame_type == self.frame_type {
            self.sync.receive(&mut self.document, Incoming::decode(payload).unwrap()).unwrap();
            self.speak(peer);
        }
        *frame_type == self.frame_type
    }

    /// Synchronizes until the document is as wanted; returns how many messages it took.
    pub(crate) fn until(&mut self, peer: &mut Peer, wanted: impl Fn(&D) -> bool) -> usize {
        let mut messages = 0;
        while !wanted(&self.document) {
            let frame = peer.receive();
            messages += usize::from(self.hear(peer, &frame));
        }
        messages
    }
}
