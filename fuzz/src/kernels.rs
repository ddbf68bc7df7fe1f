//! What kernels, and the processes that keep them, say.

use bytes::{BufMut, Bytes};
use runtimed_jupyter_wire::message::Message;
use runtimed_jupyter_wire::outbox::Outbox;
use runtimed_jupyter_wire::requests::{Header, request};
use runtimed_jupyter_wire::signer::Signer;
use runtimed_jupyter_wire::zmtp::{Connection, Role};
use runtimed_kernel_shim::protocol;

/// Both directions of a shim's socket.
pub(crate) fn shim(bytes: &[u8]) {
    let mut decoder = protocol::Decoder::default();
    decoder.buffer.put_slice(bytes);
    while let Ok(Some(frame)) = decoder.next_frame() {
        let _ = frame.document::<protocol::Hello>();
        let _ = frame.document::<protocol::Welcome>();
        let _ = frame.document::<protocol::Launch>();
        let _ = frame.document::<protocol::Attach>();
        let _ = frame.document::<protocol::Adopt>();
        let _ = frame.document::<protocol::Attached>();
        let _ = frame.document::<protocol::Exit>();
        let (_, body) = frame.numbered();
        let _ = Message::decode(body);
    }
}

pub(crate) fn shim_seeds() -> Vec<Vec<u8>> {
    let (_, message) = request("session", "execute_request", serde_json::json!({"code": "1"}));
    let mut body = Vec::new();
    message.encode(&mut body);
    vec![
        protocol::document(protocol::to_shim::SHUTDOWN, &protocol::Shutdown { grace_ms: 5 }).to_vec(),
        protocol::frame(protocol::from_shim::MESSAGE, &[&[0; 9][..], &body].concat()).to_vec(),
    ]
}

/// A kernel's socket, its signatures and its messages.
pub(crate) fn jupyter(bytes: &[u8]) {
    let mut outbox = Outbox::default();
    let mut connection = Connection::new(Role::Dealer { identity: "me" }, &mut outbox);
    connection.received(bytes);
    let signer = Signer::new("key").ok();
    while let Ok(Some(parts)) = connection.next_message(&mut outbox) {
        if let Some(Ok(message)) = signer.as_ref().map(|signer| signer.message(parts)) {
            Header::parse(&message.header);
        }
    }
    if let Some(message) = Message::decode(Bytes::copy_from_slice(bytes)) {
        Header::parse(&message.header);
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(Message::decode(again.into()).as_ref(), Some(&message), "written it reads otherwise");
    }
    Header::parse(bytes);
}

pub(crate) fn jupyter_seeds() -> Vec<Vec<u8>> {
    let (_, message) = request("session", "execute_request", serde_json::json!({"code": "1"}));
    let mut encoded = Vec::new();
    message.encode(&mut encoded);
    // What one peer says is what the other hears.
    let mut outbox = Outbox::default();
    let mut peer = Connection::new(Role::Dealer { identity: "kernel" }, &mut outbox);
    if let Ok(signer) = Signer::new("key") {
        peer.send(&signer.frames(message.clone()), &mut outbox);
    }
    let mut ready = Vec::new();
    let mut stream = Vec::new();
    // What both say until the connection is open, then the message.
    let mut heard = Outbox::default();
    let mut other = Connection::new(Role::Dealer { identity: "me" }, &mut heard);
    let _ = heard.write_to(&mut ready);
    peer.received(&ready);
    let _ = peer.next_message(&mut outbox);
    let _ = outbox.write_to(&mut stream);
    other.received(&stream);
    debug_assert!(matches!(other.next_message(&mut heard), Ok(Some(_))), "the seed is a message");
    vec![stream, encoded, message.header.to_vec()]
}
