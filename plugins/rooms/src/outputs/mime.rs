//! What a media type means for storage.
//!
//! For: turning one value of a MIME bundle into text in the manifest or bytes in the blob store.
//! Promises: equal values give equal references; nothing is lost, undecodable base64 stays as it came.
//! Never: writes a blob, only names it.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use runtimed_plugin_api::Digest;
use runtimed_protocol::documents::output::ContentRef;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

/// Text shorter than this many UTF-8 bytes sits in the manifest; from here on it is a blob.
/// Source: measured on the reference daemon, 1,023 in and 1,024 out.
pub(crate) const INLINE_TEXT_BYTES: usize = 1024;

/// As [`INLINE_TEXT_BYTES`], for the traceback of an error. Source: the reference daemon.
pub(crate) const INLINE_ERROR_BYTES: usize = 16 * 1024;

/// As [`INLINE_TEXT_BYTES`], for the text of a stream that is complete. The Python client waits 500 ms
/// for a stream in a blob and 100 ms for one in the manifest, so ordinary amounts of text stay here.
pub(crate) const INLINE_STREAM_BYTES: usize = 64 * 1024;

/// Media type of text without a better one.
pub(crate) const PLAIN: &str = "text/plain";

/// Reads base64 with or without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes that have to be in the blob store before anybody hears of their digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewBlob {
    /// SHA-256 of `bytes`.
    pub(crate) digest: Digest,
    /// The content.
    pub(crate) bytes: Bytes,
    /// Media type to store it with.
    pub(crate) media_type: String,
}

impl NewBlob {
    /// Names `bytes`.
    pub(crate) fn new(bytes: impl Into<Bytes>, media_type: &str) -> Self {
        let bytes = bytes.into();
        Self { digest: digest(&bytes), bytes, media_type: media_type.to_owned() }
    }

    /// The reference under which a manifest names this blob.
    pub(crate) fn content_ref(&self) -> ContentRef {
        ContentRef::Blob { hash: self.digest.to_string(), size: self.bytes.len() as u64 }
    }
}

/// How values of a media type are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaClass {
    /// A structured value, kept as compact JSON text.
    Json,
    /// Text.
    Text,
    /// Bytes; base64 in messages and files, always a blob here.
    Binary,
}

impl MediaClass {
    /// The class of `media_type`; parameters after `;` do not count.
    pub(crate) fn of(media_type: &str) -> Self {
        /// Text although their top-level type says otherwise.
        const TEXT: [&str; 9] = [
            "javascript",
            "ecmascript",
            "xml",
            "xhtml+xml",
            "mathml+xml",
            "sql",
            "graphql",
            "x-latex",
            "x-tex",
        ];
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        match essence.split_once('/') {
            Some((_, kind)) if kind.ends_with("+xml") => Self::Text,
            Some(("application", kind))
                if kind == "json" || kind.ends_with("+json") || kind.ends_with(".json") =>
            {
                Self::Json
            }
            Some(("application", kind)) if TEXT.contains(&kind) => Self::Text,
            Some(("application" | "image" | "audio" | "video", _)) => Self::Binary,
            _ => Self::Text,
        }
    }
}

/// SHA-256 of `bytes`.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// Keeps `text` in the manifest if it has fewer than `inline_below` bytes, else as a blob.
pub(crate) fn text_ref(
    text: String,
    media_type: &str,
    inline_below: usize,
    blobs: &mut Vec<NewBlob>,
) -> ContentRef {
    if text.len() < inline_below { ContentRef::inline(text) } else { blob_ref(text, media_type, blobs) }
}

/// Keeps one value of a MIME bundle, as messages and notebook files have it.
pub(crate) fn value_ref(media_type: &str, value: Json, blobs: &mut Vec<NewBlob>) -> ContentRef {
    let class = MediaClass::of(media_type);
    let text = if class == MediaClass::Json { value.to_string() } else { into_text(value) };
    if class != MediaClass::Binary {
        return text_ref(text, media_type, INLINE_TEXT_BYTES, blobs);
    }
    match decode_base64(&text) {
        Some(bytes) => blob_ref(bytes, media_type, blobs),
        None => ContentRef::inline(text),
    }
}

/// The text of a value that may be a list of lines; anything else as JSON.
pub(crate) fn into_text(value: Json) -> String {
    match value {
        Json::String(text) => text,
        Json::Array(lines) if lines.iter().all(Json::is_string) => {
            lines.iter().filter_map(Json::as_str).collect()
        }
        other => other.to_string(),
    }
}

/// Base64 as notebook files have it: with line breaks, perhaps without padding.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    if !text.bytes().any(|byte| byte.is_ascii_whitespace()) {
        return LENIENT.decode(text).ok();
    }
    let dense: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    LENIENT.decode(dense).ok()
}

fn blob_ref(bytes: impl Into<Bytes>, media_type: &str, blobs: &mut Vec<NewBlob>) -> ContentRef {
    let blob = NewBlob::new(bytes, media_type);
    let content = blob.content_ref();
    blobs.push(blob);
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn media_types_have_their_class() {
        use MediaClass::{Binary, Json, Text};
        for (media_type, class) in [
            ("application/json", Json),
            ("application/vnd.jupyter.widget-view+json", Json),
            ("application/geo.json", Json),
            ("model/gltf+json", Text),
            ("image/png", Binary),
            ("image/svg+xml", Text),
            ("application/pdf", Binary),
            ("application/octet-stream", Binary),
            ("application/javascript", Text),
            ("application/xhtml+xml", Text),
            ("text/html; charset=utf-8", Text),
            ("video/mp4", Binary),
            ("odd", Text),
            ("", Text),
        ] {
            assert_eq!(MediaClass::of(media_type), class, "{media_type}");
        }
    }

    #[test]
    fn text_moves_out_at_the_threshold() {
        let mut blobs = Vec::new();
        assert_eq!(
            value_ref("text/html", json!("a".repeat(1023)), &mut blobs),
            ContentRef::inline("a".repeat(1023))
        );
        assert!(blobs.is_empty());
        let large = value_ref("text/html", json!("a".repeat(1024)), &mut blobs);
        assert_eq!(large, blobs[0].content_ref());
        assert_eq!((blobs[0].bytes.len(), blobs[0].media_type.as_str()), (1024, "text/html"));
    }

    #[test]
    fn base64_is_read_as_files_have_it_and_kept_if_it_is_none() {
        let mut blobs = Vec::new();
        for text in ["AAEC", "AA\nEC\n", " AAEC ", "/9j/4A==", "/9j/4A"] {
            value_ref("image/png", json!(text), &mut blobs);
        }
        let bytes: Vec<&[u8]> = blobs.iter().map(|blob| &blob.bytes[..]).collect();
        assert_eq!(
            bytes,
            [&[0u8, 1, 2][..], &[0, 1, 2], &[0, 1, 2], &[255, 216, 255, 224], &[255, 216, 255, 224]]
        );
        assert_eq!(value_ref("image/png", json!("***"), &mut blobs), ContentRef::inline("***"));
    }

    #[test]
    fn lists_of_lines_are_joined() {
        assert_eq!(into_text(json!(["a\n", "b"])), "a\nb");
        assert_eq!(into_text(json!(["a", 1])), "[\"a\",1]");
    }
}
