//! What clients send, and what daemons answer.

use bytes::{Bytes, BytesMut};
use runtimed_protocol::bootstrap::Bootstrap;
use runtimed_protocol::frame::{FRAME_MAX, FrameDecoder, TypedDecoder, TypedFrame, typed_header};
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::pool::{PoolReply, PoolRequest};
use runtimed_protocol::preamble::preamble_version;
use runtimed_protocol::presence::Presence;
use runtimed_protocol::put_blob::PutBlob;
use runtimed_protocol::request::RequestEnvelope;
use runtimed_protocol::response::ResponseEnvelope;
use runtimed_protocol::session_control::SessionControl;

/// A stream, whole and cut after each byte: the same frames are found in it.
pub(crate) fn frames(bytes: &[u8]) {
    if let Some(first) = bytes.first_chunk() {
        preamble_version(*first);
    }
    let mut untyped = BytesMut::from(bytes);
    while let Ok(Some(body)) = FrameDecoder::new(FRAME_MAX).decode(&mut untyped) {
        let _ = TypedFrame::split(body);
    }
    let (mut whole, mut decoder) = (BytesMut::from(bytes), TypedDecoder::new());
    let mut found = Vec::new();
    while let Ok(Some(frame)) = decoder.decode(&mut whole) {
        found.push(frame);
    }
    let (mut cut, mut decoder) = (BytesMut::new(), TypedDecoder::new());
    let mut expected = found.into_iter();
    for byte in bytes {
        cut.extend_from_slice(&[*byte]);
        match decoder.decode(&mut cut) {
            Ok(Some(frame)) => assert_eq!(Some(frame), expected.next(), "cut it reads otherwise"),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    assert_eq!(expected.next(), None, "cut it ends early");
}

pub(crate) fn frames_seeds() -> Vec<Vec<u8>> {
    let frame = |kind: u8, body: &[u8]| {
        let header = typed_header(kind, body.len()).unwrap_or_default();
        [&header[..], body].concat()
    };
    vec![
        [&runtimed_protocol::preamble::preamble()[..], br#"{"channel":"pool"}"#].concat(),
        [frame(1, b"{}"), frame(4, b"xx"), frame(0x55, b"unknown"), frame(0, &[0x42; 9])].concat(),
    ]
}

/// What a connection begins with, on both sides.
pub(crate) fn handshake(bytes: &[u8]) {
    if let Ok(handshake) = serde_json::from_slice::<Handshake>(bytes)
        && let Ok(again) = serde_json::to_vec(&handshake)
    {
        let again = serde_json::from_slice::<Handshake>(&again).ok();
        assert_eq!(again.as_ref(), Some(&handshake), "written it reads otherwise");
    }
    let _ = Bootstrap::decode(bytes);
    let _ = serde_json::from_slice::<SessionControl>(bytes);
}

pub(crate) fn handshake_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"channel":"pool"}"#,
        r#"{"channel":"notebook_sync","notebook_id":"a","protocol":"v4","typed_bootstrap":true,"operator":"agent:x:1"}"#,
        r#"{"channel":"open_notebook","path":"/tmp/a.ipynb"}"#,
        r#"{"channel":"create_notebook","runtime":"python","package_manager":"uv","dependencies":["a"]}"#,
        r#"{"type":"notebook_connection_info","protocol":"v4","notebook_id":"a","cell_count":0,"needs_trust_approval":false}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Questions and answers.
pub(crate) fn request(bytes: &[u8]) {
    if let Ok(request) = RequestEnvelope::decode(bytes)
        && let Ok(again) = serde_json::to_vec(&request)
    {
        assert_eq!(
            RequestEnvelope::decode(&again).ok().as_ref(),
            Some(&request),
            "written it reads otherwise"
        );
    }
    let _ = serde_json::from_slice::<ResponseEnvelope>(bytes);
    let _ = serde_json::from_slice::<PoolRequest>(bytes);
    let _ = serde_json::from_slice::<PoolReply>(bytes);
}

pub(crate) fn request_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"id":"1","action":"execute_cell","cell_id":"c","required_heads":["00"],"execution_id":"e"}"#,
        r#"{"id":"1","action":"run_all_cells","cell_execution_ids":[["c","e"]]}"#,
        r#"{"id":"1","action":"save_notebook","path":"/a.ipynb","format_cells":true}"#,
        r#"{"id":"1","action":"complete","code":"pri","cursor_pos":3}"#,
        r#"{"id":"1","action":"send_comm","message":{"header":{},"content":{},"buffers":[[1,2]]}}"#,
        r#"{"id":"1","action":"create_blob_upload","media_type":"image/png","size":10}"#,
        r#"{"id":"1","result":"cell_queued","cell_id":"c","execution_id":"e"}"#,
        r#"{"type":"list_rooms"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .into()
}

/// Where others are.
pub(crate) fn presence(bytes: &[u8]) {
    let Ok(presence) = Presence::decode(bytes) else { return };
    if let Ok(again) = presence.encode() {
        let again = Presence::decode(&again).ok();
        assert_eq!(format!("{again:?}"), format!("{:?}", Some(presence)), "written it reads otherwise");
    }
}

pub(crate) fn presence_seeds() -> Vec<Vec<u8>> {
    let alive = Presence::Heartbeat { peer_id: "local".into() };
    alive.encode().into_iter().collect()
}

/// An upload.
pub(crate) fn put_blob(bytes: &[u8]) {
    if let Ok(put) = PutBlob::decode(Bytes::copy_from_slice(bytes)) {
        let _ = put.encode();
    }
}

pub(crate) fn put_blob_seeds() -> Vec<Vec<u8>> {
    let header = br#"{"type":"single","id":"1","media_type":"image/png","size":3}"#;
    vec![[&(header.len() as u32).to_be_bytes()[..], header, b"abc"].concat()]
}
