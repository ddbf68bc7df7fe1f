//! The plugin itself as it crosses. A new kind of capability is one method appended here.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, ROption, RVec};

use crate::{BlobStoreObject, EnvProviderObject, KernelBackendObject, Reply, RoomsObject};

/// A bundle of capabilities with one life.
#[sabi_trait]
pub trait Plugin: Send + Sync + 'static {
    /// To null.
    fn start(&self) -> Reply;
    /// To null.
    fn stop(&self, grace_ms: u64) -> Reply;
    /// One per kind.
    fn env_providers(&self) -> RVec<EnvProviderObject>;
    /// The blob store.
    fn blob_store(&self) -> ROption<BlobStoreObject>;
    /// Every backend.
    fn kernel_backends(&self) -> RVec<KernelBackendObject>;
    /// The rooms.
    #[sabi(last_prefix_field)]
    fn rooms(&self) -> ROption<RoomsObject>;
}

/// A [`Plugin`] of the other side.
pub type PluginObject = Plugin_TO<RBox<()>>;
