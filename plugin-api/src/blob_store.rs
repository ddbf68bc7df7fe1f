//! Capability `blob-store.v1`: keeps bytes by their SHA-256.
//!
//! For: notebook outputs and attachments, read by clients over HTTP or straight from the file.
//! Promises: a digest that was returned can be read until a sweep proves it dead; content never changes.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{PluginError, Result};

/// Capability id of [`BlobStore`].
pub const BLOB_STORE: &str = "blob-store.v1";

/// Keeps immutable bytes under the SHA-256 of their content.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores `bytes`; storing the same content again updates its media type.
    /// The bytes are readable by every process when this returns, though perhaps not flushed to disk.
    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest>;

    /// The content and its media type, or none if it was never stored or was swept.
    async fn get(&self, digest: Digest) -> Result<Option<Blob>>;

    /// Where the content lies, for serving it without reading it here.
    async fn locate(&self, digest: Digest) -> Result<Option<BlobFile>>;

    /// Deletes what is not in `live` and older than the set's grace time.
    async fn sweep(&self, live: LiveSet) -> Result<Swept>;

    /// Makes everything stored so far survive a power cut.
    async fn flush(&self) -> Result<()>;
}

/// SHA-256 of a blob. Written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = PluginError;

    /// Reads exactly 64 lower-case hex digits.
    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || PluginError::invalid(format!("`{text}` is not a blob hash (64 lower-case hex digits)"));
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(wrong());
        }
        let mut digest = [0u8; 32];
        for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
            let (high, low) = (nibble(pair[0]).ok_or_else(wrong)?, nibble(pair[1]).ok_or_else(wrong)?);
            *byte = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A blob's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// MIME type it was stored with.
    pub media_type: String,
}

/// Where a blob lies on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobFile {
    /// Absolute path of a file that holds exactly the content.
    pub path: PathBuf,
    /// Length in bytes.
    pub size: u64,
    /// MIME type it was stored with.
    pub media_type: String,
}

/// Everything that is still referenced, as rooms and records know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSet {
    /// Digests that must stay.
    pub digests: BTreeSet<Digest>,
    /// Unreferenced blobs younger than this many seconds stay too.
    pub grace_secs: u64,
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// Blobs deleted.
    pub deleted: u64,
    /// Bytes given back.
    pub bytes: u64,
    /// Blobs kept.
    pub kept: u64,
}
