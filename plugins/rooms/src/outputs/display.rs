//! Displays and results.
//!
//! For: turning MIME bundles of kernel messages into manifests, and updating those by display id.
//! Promises: of `transient` only the display id is kept.

use std::collections::BTreeMap;

use runtimed_protocol::documents::output::{ContentRef, MimeBundle, Output};
use serde_json::{Map as JsonMap, Value as Json};

use super::content;
use super::mime::{NewBlob, value_ref};

/// The bundle in the content of a `display_data` or `execute_result` message, or in such an output of
/// a notebook file.
pub(crate) fn bundle(content: &mut JsonMap<String, Json>, blobs: &mut Vec<NewBlob>) -> MimeBundle {
    let data = object(content.remove("data"))
        .into_iter()
        .map(|(media_type, value)| {
            let content = value_ref(&media_type, value, blobs);
            (media_type, content)
        })
        .collect();
    let mut transient = object(content.remove("transient"));
    transient.retain(|key, value| key == "display_id" && value.is_string());
    MimeBundle { data, metadata: object(content.remove("metadata")), transient }
}

/// The content of an `update_display_data` message.
///
/// It concerns every output of the room with its display id. Those that peers have seen are in the
/// runtime state document: apply it there, before the next drain of any collector is written. Those
/// that peers have not seen are reached by [`super::Collector::update_display`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DisplayUpdate {
    /// Which outputs it concerns.
    pub(crate) display_id: String,
    /// Their new data.
    pub(crate) data: BTreeMap<String, ContentRef>,
    /// Their new metadata.
    pub(crate) metadata: JsonMap<String, Json>,
    /// Bytes that `data` names: store them before peers see it.
    pub(crate) blobs: Vec<NewBlob>,
}

impl DisplayUpdate {
    /// Reads the content of the message; none if it names no display.
    pub(crate) fn parse(content: &[u8]) -> Option<Self> {
        let mut blobs = Vec::new();
        let MimeBundle { data, metadata, transient } = bundle(&mut content::object(content)?, &mut blobs);
        let display_id = transient.get("display_id")?.as_str()?.to_owned();
        Some(Self { display_id, data, metadata, blobs })
    }

    /// Gives `output` the new content if it has this display id. Says whether it had.
    pub(crate) fn apply(&self, output: &mut Output) -> bool {
        match output.bundle_mut().filter(|bundle| bundle.display_id() == Some(&self.display_id)) {
            Some(bundle) => {
                bundle.data.clone_from(&self.data);
                bundle.metadata.clone_from(&self.metadata);
                true
            }
            None => false,
        }
    }
}

fn object(value: Option<Json>) -> JsonMap<String, Json> {
    match value {
        Some(Json::Object(object)) => object,
        _ => JsonMap::new(),
    }
}
