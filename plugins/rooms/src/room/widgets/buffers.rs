//! Binary and large values of a widget's state, which are in the blob store.
//!
//! For: documents that stay small, and a second client that has the bytes as well.
//! Promises: [`restored`] after [`stored`] gives the state and the buffers back.
//! Shape: in the place of such a value is `{"blob": SHA-256 in hex, "size": bytes, "media_type": ...}`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use runtimed_plugin_api::Digest;
use serde_json::{Map as JsonMap, Value as Json, json};

use crate::outputs::NewBlob;
use crate::outputs::mime::PLAIN;

/// Values of the state longer than this are blobs: strings by their bytes, lists and maps by their JSON text.
/// Source: the reference daemon.
const INLINE_VALUE_BYTES: usize = 1024;

/// Media type of a buffer.
const BINARY: &str = "application/octet-stream";
/// Media type of a list or a map that is a blob.
const JSON: &str = "application/json";

/// The state of a message as documents have it: `buffers` at their `paths`, and what is large, as references to
/// `blobs`. What holds a buffer stays in the document, so that its path leads there.
pub(super) fn stored(
    mut state: JsonMap<String, Json>,
    paths: &[Json],
    buffers: &[Bytes],
    blobs: &mut Vec<NewBlob>,
) -> JsonMap<String, Json> {
    let large: Vec<String> = state
        .keys()
        .filter(|key| !paths.iter().any(|path| path.get(0) == Some(&Json::from(key.as_str()))))
        .cloned()
        .collect();
    for key in large {
        let Some(value) = state.get_mut(&key) else { continue };
        let (text, media_type) = match value {
            Json::String(text) if text.len() > INLINE_VALUE_BYTES => {
                let media_type = match key.as_str() {
                    "_esm" => "text/javascript",
                    "_css" => "text/css",
                    _ => PLAIN,
                };
                (std::mem::take(text), media_type)
            }
            Json::Array(_) | Json::Object(_) => (value.to_string(), JSON),
            _ => continue,
        };
        if text.len() > INLINE_VALUE_BYTES {
            *value = reference(NewBlob::new(text, media_type), blobs);
        }
    }
    let mut state = Json::Object(state);
    for (path, buffer) in paths.iter().zip(buffers) {
        if let Some((place, last)) = place(&mut state, path) {
            let value = reference(NewBlob::new(buffer.clone(), BINARY), blobs);
            match (place, last) {
                (Json::Object(map), Json::String(key)) => drop(map.insert(key.clone(), value)),
                (Json::Array(items), Json::Number(index)) => {
                    let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
                    if let Some(item) = index.and_then(|index| items.get_mut(index)) {
                        *item = value;
                    }
                }
                _ => {}
            }
        }
    }
    match state {
        Json::Object(state) => state,
        _ => JsonMap::new(),
    }
}

/// Every blob that a value names.
pub(super) fn named(value: &Json, into: &mut BTreeSet<Digest>) {
    match value {
        Json::Object(map) => match Reference::read(map) {
            Some(reference) => drop(into.insert(reference.digest)),
            None => map.values().for_each(|value| named(value, into)),
        },
        Json::Array(items) => items.iter().for_each(|value| named(value, into)),
        _ => {}
    }
}

/// The content of a message with a state as a kernel takes it.
pub(super) struct Restored {
    pub(super) state: Json,
    pub(super) buffer_paths: Vec<Json>,
    pub(super) buffers: Vec<Bytes>,
}

/// Puts `blobs` back into a state. None if one is missing or is not what it is said to be.
pub(super) fn restored(state: JsonMap<String, Json>, blobs: &BTreeMap<Digest, Bytes>) -> Option<Restored> {
    let mut restored = Restored { state: Json::Null, buffer_paths: Vec::new(), buffers: Vec::new() };
    let mut state = Json::Object(state);
    restore(&mut state, &mut Vec::new(), blobs, &mut restored)?;
    restored.state = state;
    Some(restored)
}

/// Puts blobs back into `value`; true if it is a buffer itself, which is no part of the state.
fn restore(
    value: &mut Json,
    path: &mut Vec<Json>,
    blobs: &BTreeMap<Digest, Bytes>,
    restored: &mut Restored,
) -> Option<bool> {
    match value {
        Json::Object(map) => {
            if let Some(Reference { digest, media_type }) = Reference::read(map) {
                let bytes = blobs.get(&digest)?;
                if media_type == JSON {
                    *value = serde_json::from_slice(bytes).ok()?;
                } else if media_type.starts_with("text/") {
                    *value = std::str::from_utf8(bytes).ok()?.into();
                } else {
                    restored.buffer_paths.push(Json::Array(path.clone()));
                    restored.buffers.push(bytes.clone());
                    return Some(true);
                }
                return Some(false);
            }
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                let Some(value) = map.get_mut(&key) else { continue };
                path.push(Json::from(key.as_str()));
                if restore(value, path, blobs, restored)? {
                    map.remove(&key);
                }
                path.pop();
            }
        }
        Json::Array(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                path.push(Json::from(index));
                if restore(value, path, blobs, restored)? {
                    *value = Json::Null;
                }
                path.pop();
            }
        }
        _ => {}
    }
    Some(false)
}

struct Reference {
    digest: Digest,
    media_type: String,
}

impl Reference {
    fn read(map: &JsonMap<String, Json>) -> Option<Self> {
        let digest = map.get("blob")?.as_str()?.parse().ok()?;
        map.get("size")?.as_u64()?;
        let media_type = map.get("media_type").and_then(Json::as_str).unwrap_or(BINARY).to_owned();
        Some(Self { digest, media_type })
    }
}

fn reference(blob: NewBlob, blobs: &mut Vec<NewBlob>) -> Json {
    let value = json!({
        "blob": blob.digest.to_string(),
        "size": blob.bytes.len(),
        "media_type": blob.media_type,
    });
    blobs.push(blob);
    value
}

/// What holds the end of a path, and the end.
fn place<'a>(state: &'a mut Json, path: &'a Json) -> Option<(&'a mut Json, &'a Json)> {
    let (last, path) = path.as_array()?.split_last()?;
    let mut place = state;
    for step in path {
        place = match step {
            Json::String(key) => place.get_mut(key)?,
            Json::Number(index) => place.get_mut(usize::try_from(index.as_u64()?).ok()?)?,
            _ => return None,
        };
    }
    Some((place, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Json) -> JsonMap<String, Json> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_is_stored_comes_back() {
        let text = "x".repeat(2000);
        let list: Vec<u32> = (0..1000).collect();
        let state = json!({
            "value": 3, "short": "x", "_esm": text, "_css": text, "text": text, "list": list,
            "views": [null, {"deep": {}}], "style": {"large": text},
        });
        let paths = [json!(["data"]), json!(["views", 0]), json!(["views", 1, "deep", "bytes"])];
        let buffers: Vec<Bytes> = ["one", "two", "two"].map(Bytes::from).to_vec();
        let mut blobs = Vec::new();
        let stored = stored(object(state.clone()), &paths, &buffers, &mut blobs);
        let types: BTreeMap<&str, &str> = blobs.iter().map(|blob| (blob.media_type.as_str(), "")).collect();
        assert!(
            ["text/javascript", "text/css", "text/plain", JSON, BINARY]
                .iter()
                .all(|it| types.contains_key(it))
        );
        assert_eq!(stored["data"]["size"], 3);
        assert_eq!(stored["views"][1]["deep"]["bytes"]["blob"], blobs.last().unwrap().digest.to_string());
        assert_eq!((&stored["value"], &stored["short"]), (&json!(3), &json!("x")));
        assert!(Json::Object(stored.clone()).to_string().len() < 2000);

        let mut digests = BTreeSet::new();
        named(&Json::Object(stored.clone()), &mut digests);
        let blobs: BTreeMap<Digest, Bytes> =
            blobs.into_iter().map(|blob| (blob.digest, blob.bytes)).collect();
        assert!(digests.iter().eq(blobs.keys()));
        let restored = restored(stored.clone(), &blobs).unwrap();
        assert_eq!(restored.state, state);
        let mut pairs: Vec<_> = restored.buffer_paths.into_iter().zip(restored.buffers).collect();
        pairs.sort_by_key(|(path, _)| path.to_string());
        assert_eq!(pairs, paths.into_iter().zip(buffers).collect::<Vec<_>>());
        assert!(super::restored(stored, &BTreeMap::new()).is_none());
    }

    #[test]
    fn paths_that_lead_nowhere_are_left_out() {
        let paths =
            [json!([]), json!("a"), json!(["a", 0]), json!(["b", 7]), json!(["b", "x"]), json!([null, 1])];
        let buffers = vec![Bytes::from("x"); 6];
        let stored = stored(object(json!({"a": 1, "b": [0]})), &paths, &buffers, &mut Vec::new());
        assert_eq!(Json::Object(stored), json!({"a": 1, "b": [0]}));
    }
}
