//! Replays recorded traffic of a 2.8.2 client and daemon through our types.
//!
//! For: proof that what real peers say is understood, and that what we say looks the same.
//! The recordings are in `data/transcripts`, in wire order, unedited.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use bytes::{Bytes, BytesMut};
use runtimed_protocol::bootstrap::Bootstrap;
use runtimed_protocol::broadcast::Broadcast;
use runtimed_protocol::frame::{
    FRAME_MAX, FrameDecoder, FrameType, HANDSHAKE_MAX, POOL_MAX, TypedDecoder, TypedFrame, length_header,
    typed_header,
};
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::pool::{PoolReply, PoolRequest};
use runtimed_protocol::preamble::{PREAMBLE_BYTES, preamble_version};
use runtimed_protocol::presence::Presence;
use runtimed_protocol::put_blob::PutBlob;
use runtimed_protocol::request::{RequestEnvelope, RequestError};
use runtimed_protocol::response::ResponseEnvelope;
use runtimed_protocol::session_control::SessionControl;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Every recording, by name.
fn recordings() -> Vec<(String, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/transcripts");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let events = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (path.file_name().unwrap().to_string_lossy().into_owned(), events)
        })
        .collect();
    all.sort_by(|left: &(String, _), right| left.0.cmp(&right.0));
    assert_eq!(all.len(), 10, "a recording is missing");
    all
}

fn hex_of(event: &Value) -> Option<Vec<u8>> {
    hex::decode(event["hex"].as_str()?).ok()
}

/// The body of a frame or handshake as it was on the wire, without length prefix and type byte.
fn body_of(event: &Value) -> Vec<u8> {
    if let Some(bytes) = hex_of(event) {
        return bytes;
    }
    if let Some(json) = event.get("json") {
        return serde_json::to_vec(json).unwrap();
    }
    let header = event["header"].to_string().into_bytes();
    let body = hex::decode(event["body_hex"].as_str().unwrap()).unwrap();
    [&u32::try_from(header.len()).unwrap().to_be_bytes()[..], &header, &body].concat()
}

/// Decodes `bytes` and checks that encoding gives the same JSON again.
#[track_caller]
fn same_again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> T {
    let message: T = serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)));
    assert_eq!(
        serde_json::to_value(&message).unwrap(),
        serde_json::from_slice::<Value>(bytes).unwrap(),
        "encodes differently"
    );
    message
}

#[test]
fn every_handshake_is_understood_or_refused_as_recorded() {
    for (name, events) in recordings() {
        for event in events.iter().filter(|event| event["kind"] == "handshake") {
            let bytes = body_of(event);
            let refused = event["json"]["channel"] == "bogus" || event.get("json").is_none();
            if refused {
                assert!(serde_json::from_slice::<Handshake>(&bytes).is_err(), "{name}: {event}");
            } else {
                same_again::<Handshake>(&bytes);
            }
        }
    }
}

#[test]
fn every_pool_and_settings_frame_is_understood() {
    for (name, events) in recordings() {
        let untyped = |event: &&Value| event["kind"] == "frame" && event["type_byte"].is_null();
        for event in events.iter().filter(untyped) {
            let bytes = body_of(event);
            let from_client = event["dir"] == "c2s";
            if event.get("json").is_none() {
                let message = automerge::sync::Message::decode(&bytes).unwrap();
                assert_eq!(message.encode(), bytes, "{name}: {event}");
            } else if event["json"]["type"] == "bogus" {
                assert!(serde_json::from_slice::<PoolRequest>(&bytes).is_err());
            } else if event["json"].get("protocol").is_some() {
                let bootstrap = Bootstrap::decode(&bytes).unwrap();
                let again: Value = serde_json::from_slice(&bootstrap.encode(false).unwrap()).unwrap();
                assert_eq!(again, event["json"], "{name}");
            } else if from_client {
                same_again::<PoolRequest>(&bytes);
            } else {
                same_again::<PoolReply>(&bytes);
            }
        }
    }
}

#[test]
fn every_typed_frame_is_understood() {
    for (name, events) in recordings() {
        let typed = |event: &&Value| event["kind"] == "frame" && event["type_byte"].is_u64();
        for event in events.iter().filter(typed) {
            let frame_type = u8::try_from(event["type_byte"].as_u64().unwrap()).unwrap();
            check_typed(&name, event, frame_type, &body_of(event));
        }
    }
}

fn check_typed(name: &str, event: &Value, frame_type: u8, payload: &[u8]) {
    match frame_type {
        FrameType::NOTEBOOK_SYNC
        | FrameType::RUNTIME_STATE_SYNC
        | FrameType::POOL_SYNC
        | FrameType::COMMS_SYNC
        | FrameType::COMMENTS_SYNC => match automerge::sync::Message::decode(payload) {
            Ok(message) => assert_eq!(message.encode(), payload, "{name}: {event}"),
            Err(_) => assert!(is_garbage(name, event), "{name}: {event}"),
        },
        FrameType::REQUEST => match RequestEnvelope::decode(payload) {
            Ok(request) => assert_eq!(serde_json::to_value(request).unwrap(), event["json"], "{name}"),
            Err(RequestError::Invalid { id, message }) => {
                assert_eq!(id.as_deref(), event["json"]["id"].as_str(), "{name}: {message}");
                assert!(message.contains("unknown variant"), "{name}: {event}: {message}");
            }
            Err(error) => panic!("{name}: {event}: {error}"),
        },
        FrameType::RESPONSE => {
            same_again::<ResponseEnvelope>(payload);
        }
        FrameType::BROADCAST => {
            same_again::<Broadcast>(payload);
        }
        FrameType::PRESENCE => match Presence::decode(payload) {
            Ok(presence) => {
                let bytes = presence.encode().unwrap();
                assert_eq!(bytes, payload, "{name}: {event}");
            }
            Err(_) => assert!(is_garbage(name, event), "{name}: {event}"),
        },
        FrameType::SESSION_CONTROL if event["dir"] == "c2s" => {}
        FrameType::SESSION_CONTROL if event["json"].get("protocol").is_some() => {
            let bootstrap = Bootstrap::decode(&[&[frame_type], payload].concat()).unwrap();
            let again: Value = serde_json::from_slice(&bootstrap.encode(true).unwrap()[1..]).unwrap();
            assert_eq!(again, event["json"], "{name}");
        }
        FrameType::SESSION_CONTROL => {
            same_again::<SessionControl>(payload);
        }
        FrameType::PUT_BLOB => {
            let upload = PutBlob::decode(Bytes::copy_from_slice(payload));
            match (upload, event.get("header")) {
                (Ok(upload), Some(header)) => {
                    assert_eq!(serde_json::to_value(&upload.header).unwrap(), *header, "{name}");
                    assert_eq!(hex::encode(&upload.body), event["body_hex"].as_str().unwrap(), "{name}");
                }
                (Err(invalid), header) => {
                    let id = header.and_then(|header| header["id"].as_str());
                    assert_eq!(invalid.id.as_deref(), id, "{name}: {event}");
                }
                (Ok(_), None) => panic!("{name}: {event}"),
            }
        }
        unknown => assert_eq!(FrameType::payload_max(unknown), None, "{name}: {event}"),
    }
}

/// Whether a client sent this as garbage, on purpose.
fn is_garbage(name: &str, event: &Value) -> bool {
    name == "10-errors.json" && event["dir"] == "c2s"
}

/// One connection's bytes in one direction, and the frames they must give.
struct Stream {
    bytes: Vec<u8>,
    frames: Vec<(Option<u8>, Bytes)>,
}

/// What each client of a recording sent, preamble and handshake included.
fn client_streams(events: &[Value]) -> Vec<Stream> {
    let mut streams = std::collections::BTreeMap::<u64, Stream>::new();
    for event in events.iter().filter(|event| event["dir"] == "c2s") {
        let conn = event["conn"].as_u64().unwrap();
        let stream = streams.entry(conn).or_insert(Stream { bytes: vec![], frames: vec![] });
        match event["kind"].as_str().unwrap() {
            "preamble" => stream.bytes.extend(hex_of(event).unwrap()),
            "handshake" | "frame" => {
                let body = body_of(event);
                let frame_type = event["type_byte"].as_u64().map(|byte| u8::try_from(byte).unwrap());
                let header = match frame_type {
                    Some(frame_type) => typed_header(frame_type, body.len()).map(Vec::from),
                    None => length_header(body.len(), FRAME_MAX).map(Vec::from),
                };
                // The recorded presence message over its limit cannot be written by us.
                let Ok(header) = header else { continue };
                stream.bytes.extend(header);
                stream.bytes.extend(&body);
                if frame_type.is_none_or(|byte| FrameType::payload_max(byte).is_some()) {
                    stream.frames.push((frame_type, body.into()));
                }
            }
            _ => {}
        }
    }
    streams.into_values().collect()
}

/// Reads a client's bytes the way a daemon does, handed over in the given pieces.
fn read(pieces: [&[u8]; 2]) -> Vec<(Option<u8>, Bytes)> {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut handshake = FrameDecoder::new(HANDSHAKE_MAX);
    let mut untyped = FrameDecoder::new(POOL_MAX);
    let mut typed = TypedDecoder::new();
    let mut preamble_read = false;
    let mut notebook = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if !preamble_read {
            if buffer.len() < PREAMBLE_BYTES {
                continue;
            }
            let preamble = buffer.split_to(PREAMBLE_BYTES);
            if preamble_version(preamble[..].try_into().unwrap()).is_none() {
                return frames;
            }
            preamble_read = true;
        }
        if notebook.is_none() {
            let Some(body) = handshake.decode(&mut buffer).unwrap() else { continue };
            notebook = Some(!matches!(
                serde_json::from_slice(&body),
                Ok(Handshake::Pool | Handshake::SettingsSync) | Err(_)
            ));
            frames.push((None, body));
        }
        if notebook == Some(true) {
            while let Some(TypedFrame { frame_type, payload }) = typed.decode(&mut buffer).unwrap() {
                frames.push((Some(frame_type), payload));
            }
        } else {
            while let Some(body) = untyped.decode(&mut buffer).unwrap() {
                frames.push((None, body));
            }
        }
    }
    frames
}

#[test]
fn client_bytes_split_anywhere_give_the_same_frames() {
    for (name, events) in recordings() {
        for stream in client_streams(&events) {
            for at in 0..=stream.bytes.len() {
                let (left, right) = stream.bytes.split_at(at);
                assert_eq!(read([left, right]), stream.frames, "{name} split at {at}");
            }
        }
    }
}
