//! Jupyter messages, as a room writes and reads them.
//!
//! For: asking a kernel something without knowing the date, the session or the encoding.
//! Never: signs or verifies; that is the backend's.

use bytes::Bytes;
use runtimed_plugin_api::{Channel, JupyterMessage};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// A request to a kernel. The shell adds session and date.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KernelRequest {
    /// Channel it goes out on.
    pub(crate) channel: Channel,
    /// Names the request; every answer carries it as its parent.
    pub(crate) msg_id: String,
    /// `execute_request`, `complete_request`, ...
    pub(crate) msg_type: String,
    /// JSON object.
    pub(crate) metadata: Json,
    /// JSON object.
    pub(crate) content: Json,
    /// Binary buffers, for widgets.
    pub(crate) buffers: Vec<Bytes>,
}

impl KernelRequest {
    /// A request on the shell channel without metadata and buffers.
    pub(crate) fn shell(msg_id: impl Into<String>, msg_type: &str, content: Json) -> Self {
        Self {
            channel: Channel::Shell,
            msg_id: msg_id.into(),
            msg_type: msg_type.to_owned(),
            metadata: json!({}),
            content,
            buffers: Vec::new(),
        }
    }

    /// The request as a backend takes it. `date` is RFC 3339.
    pub(crate) fn encode(self, session: &str, date: &str) -> Bytes {
        let header = json!({
            "msg_id": self.msg_id,
            "session": session,
            "username": "runtimed",
            "date": date,
            "msg_type": self.msg_type,
            "version": "5.3",
        });
        let message = JupyterMessage {
            header: header.to_string().into(),
            parent_header: Bytes::from_static(b"{}"),
            metadata: self.metadata.to_string().into(),
            content: self.content.to_string().into(),
            buffers: self.buffers,
        };
        message.encode()
    }
}

/// What of a header or a parent header a room looks at.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Header {
    /// Empty in the parent of a message that answers nothing.
    #[serde(default)]
    pub(crate) msg_id: String,
    /// Empty in the parent of a message that answers nothing.
    #[serde(default)]
    pub(crate) msg_type: String,
}

impl Header {
    /// Reads a header part; what cannot be read counts as empty.
    pub(crate) fn read(part: &[u8]) -> Self {
        serde_json::from_slice(part).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_a_jupyter_message() {
        let request = KernelRequest::shell("42", "execute_request", json!({"code": "1+1"}));
        let message = JupyterMessage::decode(request.encode("s", "2026-01-01T00:00:00Z")).unwrap();
        let header = Header::read(&message.header);
        assert_eq!((header.msg_id.as_str(), header.msg_type.as_str()), ("42", "execute_request"));
        assert_eq!(&message.content[..], br#"{"code":"1+1"}"#);
        assert_eq!(Header::read(&message.parent_header).msg_id, "");
    }
}
