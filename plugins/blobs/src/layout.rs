//! Where blobs lie and what stands beside them.
//!
//! For: one place that knows file names; the Python client reads the same files.
//! Shape: `<2 hex>/<62 hex>` holds the bytes, `<2 hex>/<62 hex>.meta` one line of JSON ([`Meta`]),
//! `.tmp.<uuid>` something that is being written, `quarantine/<64 hex>` what turned out to be damaged.
//! Never: I/O.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use runtimed_plugin_api::Digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Start of the name of a file that is not finished.
pub(crate) const TEMPORARY: &str = ".tmp.";
/// End of the name of a sidecar.
const META: &str = ".meta";

/// The names below a store's root.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The names below `root`.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The store's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that holds `digest` and others with its first byte.
    pub(crate) fn folder(&self, digest: Digest) -> PathBuf {
        let [first, ..] = digest.0;
        self.root.join(format!("{first:02x}"))
    }

    /// The file that holds the bytes.
    pub(crate) fn data(&self, digest: Digest) -> PathBuf {
        self.folder(digest).join(Self::name(digest))
    }

    /// The sidecar.
    pub(crate) fn meta(&self, digest: Digest) -> PathBuf {
        self.folder(digest).join(Self::name(digest) + META)
    }

    /// Where damaged blobs are moved.
    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Where `digest` is moved when it is damaged.
    pub(crate) fn quarantined(&self, digest: Digest) -> PathBuf {
        self.quarantine().join(digest.to_string())
    }

    /// A name nobody else uses, on the same file system as the final one.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join(format!("{TEMPORARY}{}", Uuid::new_v4()))
    }

    /// Whose bytes or sidecar the file `name` in `folder` is, if it is one.
    pub(crate) fn digest(folder: &str, name: &str) -> Option<Digest> {
        format!("{folder}{}", name.strip_suffix(META).unwrap_or(name)).parse().ok()
    }

    fn name(digest: Digest) -> String {
        let mut name = digest.to_string();
        name.split_off(2)
    }
}

/// The sidecar of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// MIME type it was last stored with.
    pub(crate) media_type: String,
    /// Length of the content in bytes.
    pub(crate) size: u64,
    /// When it was first stored: RFC 3339, nanoseconds, `Z`.
    pub(crate) created_at: String,
    /// Whether it outlives what refers to it.
    #[serde(default)]
    pub(crate) durability: Durability,
}

/// How long a blob is meant to stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durability {
    /// Until a sweep finds that nothing refers to it.
    #[default]
    Durable,
    /// Until something newer takes its place.
    Ephemeral,
}

impl Meta {
    /// The sidecar of a durable blob stored at `now`.
    pub(crate) fn new(media_type: &str, size: u64, now: Timestamp) -> Self {
        Self {
            media_type: media_type.to_owned(),
            size,
            created_at: format!("{now:.9}"),
            durability: Durability::Durable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_the_digest() {
        let layout = Layout::new("/blobs".into());
        let digest: Digest =
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
        let data = layout.data(digest);
        assert_eq!(
            data,
            Path::new("/blobs/e3/b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        );
        for path in [data, layout.meta(digest)] {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(Layout::digest("e3", name), Some(digest));
        }
        assert_eq!(Layout::digest("e3", "b0c4.lock"), None);
    }

    #[test]
    fn the_sidecar_is_the_one_clients_read() {
        let now: Timestamp = "2026-01-02T03:04:05.006Z".parse().unwrap();
        let meta = serde_json::to_string(&Meta::new("text/plain", 3, now)).unwrap();
        assert_eq!(
            meta,
            r#"{"media_type":"text/plain","size":3,"created_at":"2026-01-02T03:04:05.006000000Z","durability":"durable"}"#
        );
    }
}
