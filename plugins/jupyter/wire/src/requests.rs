//! Requests to kernels, and the parts of what they answer that everybody looks at.
//!
//! Promises: pure but for the time and the id in a header.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::message::Message;

/// A request with a fresh `msg_id`, and that id.
pub fn request(session: &str, message_type: &str, content: serde_json::Value) -> (String, Message) {
    let id = Uuid::new_v4().to_string();
    let header = json!({
        "msg_id": id,
        "msg_type": message_type,
        "session": session,
        "username": "runtimed",
        "version": "5.3",
        "date": jiff::Timestamp::now().to_string(),
    });
    let empty = Bytes::from_static(b"{}");
    let message = Message {
        header: header.to_string().into(),
        parent_header: empty.clone(),
        metadata: empty,
        content: content.to_string().into(),
        buffers: Vec::new(),
    };
    (id, message)
}

/// The parts of a header we look at. Missing parts read as empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Header {
    /// Unique.
    pub msg_id: String,
    /// Such as `execute_request`.
    pub msg_type: String,
}

impl Header {
    /// The header in `json`; what is no header reads as an empty one.
    pub fn parse(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }
}

/// Content of a `status` message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// `busy`, `idle` or `starting`.
    pub execution_state: String,
}
