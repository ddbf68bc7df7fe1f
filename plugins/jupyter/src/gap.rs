//! What a user is told of output that could not be kept.
//!
//! Promises: pure. It appears where the output would have been: in the cell that said too much.

use runtimed_kernel_shim::protocol::Gap;
use runtimed_plugin_api::{Bytes, JupyterMessage};
use serde_json::json;
use uuid::Uuid;

/// A message in place of those that are missing.
pub(crate) fn notice(gap: &Gap) -> JupyterMessage {
    let header = json!({
        "msg_id": Uuid::new_v4().to_string(),
        "msg_type": "stream",
        "session": "",
        "username": "runtimed",
        "version": "5.3",
        "date": jiff::Timestamp::now().to_string(),
    });
    let size = if gap.bytes == 0 { String::new() } else { format!(" ({} bytes)", gap.bytes) };
    let text = format!(
        "\n[{} message(s) of this output{size} are missing: more was printed than could be kept while nobody \
         took it. Everything before and after is complete.]\n",
        gap.messages
    );
    let parent = if gap.parent_header.is_object() { gap.parent_header.to_string() } else { "{}".to_owned() };
    JupyterMessage {
        header: header.to_string().into(),
        parent_header: parent.into(),
        metadata: Bytes::from_static(b"{}"),
        content: json!({ "name": "stderr", "text": text }).to_string().into(),
        buffers: Vec::new(),
    }
}
