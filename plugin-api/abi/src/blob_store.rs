//! `blob-store.v1` as it crosses. Documents and their meaning: `runtimed-plugin-api::BlobStore`.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::std_types::{RBox, ROption, RString};
use abi_stable::{StableAbi, sabi_trait};

use crate::{Bytes, Reply};

/// Keeps bytes by their digest, which crosses as a JSON string of 64 hex digits.
#[sabi_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Content and plain media type to digest.
    fn put(&self, content: Bytes, media_type: RString) -> Reply;
    /// Digest to content.
    fn get(&self, digest: RString) -> Reply<ROption<Blob>>;
    /// Digest to `BlobFile` or null.
    fn locate(&self, digest: RString) -> Reply;
    /// `LiveSet` to `Swept`.
    fn sweep(&self, live: RString) -> Reply;
    /// To null.
    #[sabi(last_prefix_field)]
    fn flush(&self) -> Reply;
}

/// A [`BlobStore`] of the other side.
pub type BlobStoreObject = BlobStore_TO<RBox<()>>;

/// A blob's content.
#[repr(C)]
#[derive(StableAbi, Debug)]
pub struct Blob {
    /// The bytes.
    pub content: Bytes,
    /// MIME type, plain text.
    pub media_type: RString,
}
