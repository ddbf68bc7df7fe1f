//! The content of kernel messages.
//!
//! For: reading JSON that a kernel wrote, which is not always valid.

use serde::Deserialize;
use serde_json::{Map as JsonMap, Value as Json};

/// Reads `content`. Bytes that are no UTF-8 are replaced: Python sends lone surrogates as such.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(content: &[u8]) -> Option<T> {
    serde_json::from_slice(content)
        .or_else(|_| serde_json::from_str(&String::from_utf8_lossy(content)))
        .inspect_err(|error| tracing::warn!(%error, "a kernel message has unreadable content and is skipped"))
        .ok()
}

/// Reads `content`, an object.
pub(super) fn object(content: &[u8]) -> Option<JsonMap<String, Json>> {
    parse(content)
}
