//! What an execution produced, as the runtime state document keeps it.
//!
//! For: writing and reading output manifests without spelling their keys in two places.
//! Promises: the JSON of an [`Output`] is exactly the manifest clients expect; empty `metadata` and
//! `transient` are left out.
//! Never: the bytes of a blob, only its hash.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map as JsonMap, Value as Json};

/// Content of an output: in the manifest, or in the blob store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ContentRef {
    /// The text itself.
    Inline {
        /// Text, or the JSON text of a JSON media type.
        inline: String,
    },
    /// Where the bytes are.
    Blob {
        /// Lower-case hex SHA-256 of the raw bytes.
        #[serde(rename = "blob")]
        hash: String,
        /// Number of raw bytes.
        size: u64,
    },
}

impl ContentRef {
    /// Content that sits in the manifest.
    pub fn inline(text: impl Into<String>) -> Self {
        Self::Inline { inline: text.into() }
    }
}

/// A value in several media types, of which a client shows the best it can.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MimeBundle {
    /// Shape: media type -> content.
    pub data: BTreeMap<String, ContentRef>,
    /// Metadata of the display message.
    #[serde(default, skip_serializing_if = "JsonMap::is_empty")]
    pub metadata: JsonMap<String, Json>,
    /// Holds `display_id` if the output can be updated.
    #[serde(default, skip_serializing_if = "JsonMap::is_empty")]
    pub transient: JsonMap<String, Json>,
}

impl MimeBundle {
    /// The name under which `update_display_data` finds this output.
    pub fn display_id(&self) -> Option<&str> {
        self.transient.get("display_id")?.as_str()
    }
}

/// One output of an execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "output_type")]
pub enum Output {
    /// Text written to stdout or stderr.
    #[serde(rename = "stream")]
    Stream {
        /// UUID.
        output_id: String,
        /// `stdout` or `stderr`.
        name: String,
        /// What was written.
        text: ContentRef,
        /// Head and tail of a long text, for readers with little room.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        llm_preview: Option<Json>,
    },
    /// Something that was displayed.
    #[serde(rename = "display_data")]
    Display {
        /// UUID.
        output_id: String,
        /// What is shown.
        #[serde(flatten)]
        bundle: MimeBundle,
    },
    /// The value of the last expression.
    #[serde(rename = "execute_result")]
    ExecuteResult {
        /// UUID.
        output_id: String,
        /// What is shown.
        #[serde(flatten)]
        bundle: MimeBundle,
        /// The kernel's count. Always written: a client drops a result without it.
        execution_count: Option<i64>,
    },
    /// An exception.
    #[serde(rename = "error")]
    Error {
        /// UUID.
        output_id: String,
        /// Name of the exception.
        ename: String,
        /// Its message.
        evalue: String,
        /// JSON text of an array of strings.
        traceback: ContentRef,
        /// JSON text of a structured traceback.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rich: Option<ContentRef>,
        /// Short form of a long traceback.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        llm_preview: Option<Json>,
    },
}

impl Output {
    /// The key of this output in its execution.
    pub fn output_id(&self) -> &str {
        match self {
            Self::Stream { output_id, .. }
            | Self::Display { output_id, .. }
            | Self::ExecuteResult { output_id, .. }
            | Self::Error { output_id, .. } => output_id,
        }
    }

    /// The media types of a display or a result.
    pub fn bundle(&self) -> Option<&MimeBundle> {
        match self {
            Self::Display { bundle, .. } | Self::ExecuteResult { bundle, .. } => Some(bundle),
            Self::Stream { .. } | Self::Error { .. } => None,
        }
    }

    /// As [`Output::bundle`], to change it.
    pub fn bundle_mut(&mut self) -> Option<&mut MimeBundle> {
        match self {
            Self::Display { bundle, .. } | Self::ExecuteResult { bundle, .. } => Some(bundle),
            Self::Stream { .. } | Self::Error { .. } => None,
        }
    }

    /// The output in `manifest`, or none if it is not one (a kernel may produce what nobody can read;
    /// such a manifest is kept as it is).
    pub fn from_json(manifest: &Json) -> Option<Self> {
        Self::deserialize(manifest).ok()
    }

    /// The manifest, with sorted keys.
    pub fn to_json(&self) -> Json {
        let mut manifest = serde_json::to_value(self).unwrap_or_default();
        manifest.sort_all_objects();
        manifest
    }

    /// Every blob this output needs: hashes in lower-case hex.
    pub fn blobs(&self) -> Vec<&str> {
        let refs: Vec<&ContentRef> = match self {
            Self::Stream { text, .. } => vec![text],
            Self::Display { bundle, .. } | Self::ExecuteResult { bundle, .. } => {
                bundle.data.values().collect()
            }
            Self::Error { traceback, rich, .. } => std::iter::once(traceback).chain(rich).collect(),
        };
        refs.into_iter()
            .filter_map(|content| match content {
                ContentRef::Blob { hash, .. } => Some(hash.as_str()),
                ContentRef::Inline { .. } => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn manifests_read_and_write_unchanged() {
        for manifest in [
            json!({"name": "stdout", "output_id": "o", "output_type": "stream", "text": {"inline": "hi\n"}}),
            json!({"data": {"text/plain": {"inline": "2"}}, "execution_count": null, "output_id": "o", "output_type": "execute_result"}),
            json!({"data": {"image/png": {"blob": "ab", "size": 3}}, "metadata": {"w": 1}, "output_id": "o",
                   "output_type": "display_data", "transient": {"display_id": "d"}}),
            json!({"ename": "E", "evalue": "v", "output_id": "o", "output_type": "error",
                   "rich": {"inline": "{}"}, "traceback": {"inline": "[]"}}),
        ] {
            let output = Output::from_json(&manifest);
            assert_eq!(output.as_ref().map(Output::to_json), Some(manifest));
            assert_eq!(output.as_ref().map(Output::output_id), Some("o"));
        }
    }

    #[test]
    fn what_is_no_manifest_is_not_read() {
        assert_eq!(Output::from_json(&json!({"output_type": "stream", "text": "raw"})), None);
        assert_eq!(Output::from_json(&json!(null)), None);
    }
}
