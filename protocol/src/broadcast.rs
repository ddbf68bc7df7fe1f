//! What a notebook tells all of its peers.
//!
//! For: BROADCAST frames. Kernel status, queue, outputs and progress are in the documents instead.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lenient::null_is_default;

/// The broadcasts, by `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Broadcast {
    /// A custom widget message from the kernel.
    Comm {
        /// `comm_msg`, `comm_open` or `comm_close`.
        msg_type: String,
        /// `comm_id`, `data` and more.
        content: Value,
        /// Binary buffers, as arrays of byte values.
        #[serde(default, deserialize_with = "null_is_default")]
        buffers: Vec<Vec<u8>>,
    },
    /// A patch of a live Bokeh document.
    BokehSessionPatch {
        /// The patch.
        patch: Value,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_arrays_of_numbers() {
        let json = serde_json::json!({"event": "comm", "msg_type": "comm_msg",
            "content": {"comm_id": "7b02", "data": {"method": "custom"}}, "buffers": [[120, 121, 122]]});
        let broadcast: Broadcast = serde_json::from_value(json.clone()).unwrap();
        assert!(matches!(&broadcast, Broadcast::Comm { buffers, .. } if buffers == &[b"xyz".to_vec()]));
        assert_eq!(serde_json::to_value(broadcast).unwrap(), json);
    }
}
