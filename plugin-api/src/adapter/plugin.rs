//! The plugin itself, both ways.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RNone, ROption, RVec, Reply, TD_Opaque};

use super::Side;
use super::blob_store::{remote_blob_store, serve_blob_store};
use super::convert::document;
use super::env_provider::{remote_env_provider, serve_env_provider};
use super::kernel_backend::{remote_kernel_backend, serve_kernel_backend};
use super::rooms::{remote_rooms, serve_rooms};
use super::served::Served;
use crate::{BlobStore, EnvProvider, Host, KernelBackend, Plugin, PluginError, Result, Rooms};

pub(crate) fn serve_plugin<P: Plugin>(plugin: P, side: &Side) -> abi::PluginObject {
    abi::Plugin_TO::from_value(Served::new(Arc::new(plugin), side), TD_Opaque)
}

impl<P: Plugin> abi::Plugin for Served<P> {
    fn start(&self) -> Reply {
        self.reply(|it| async move { it.start().await })
    }

    fn stop(&self, grace_ms: u64) -> Reply {
        self.reply(move |it| async move { it.stop(Duration::from_millis(grace_ms)).await })
    }

    fn env_providers(&self) -> RVec<abi::EnvProviderObject> {
        let serve = |provider| serve_env_provider(provider, self.side());
        self.call(RVec::new, |it| it.env_providers().into_iter().map(serve).collect())
    }

    fn blob_store(&self) -> ROption<abi::BlobStoreObject> {
        self.call(|| RNone, |it| it.blob_store().map(|store| serve_blob_store(store, self.side())).into())
    }

    fn kernel_backends(&self) -> RVec<abi::KernelBackendObject> {
        let serve = |backend| serve_kernel_backend(backend, self.side());
        self.call(RVec::new, |it| it.kernel_backends().into_iter().map(serve).collect())
    }

    fn rooms(&self) -> ROption<abi::RoomsObject> {
        self.call(|| RNone, |it| it.rooms().map(|rooms| serve_rooms(rooms, self.side())).into())
    }
}

/// A plugin on the other side, with what it provides already asked for.
pub(super) struct RemotePlugin {
    object: abi::PluginObject,
    env_providers: Vec<Arc<dyn EnvProvider>>,
    blob_store: Option<Arc<dyn BlobStore>>,
    kernel_backends: Vec<Arc<dyn KernelBackend>>,
    rooms: Option<Arc<dyn Rooms>>,
}

impl RemotePlugin {
    /// Fails if a capability cannot say what it is.
    pub(super) fn new(object: abi::PluginObject, side: &Side) -> Result<Self> {
        let providers = object.env_providers().into_iter();
        Ok(Self {
            env_providers: providers.map(|one| remote_env_provider(one, side)).collect::<Result<_>>()?,
            blob_store: object.blob_store().into_option().map(remote_blob_store),
            kernel_backends: object
                .kernel_backends()
                .into_iter()
                .map(|backend| remote_kernel_backend(backend, side))
                .collect(),
            rooms: object.rooms().into_option().map(|rooms| remote_rooms(rooms, side)),
            object,
        })
    }
}

#[async_trait]
impl Plugin for RemotePlugin {
    fn create(_: Host) -> Result<Self> {
        Err(PluginError::unsupported("a plugin on the other side is made by its library"))
    }

    async fn start(&self) -> Result<()> {
        document(self.object.start()).await
    }

    async fn stop(&self, grace: Duration) -> Result<()> {
        document(self.object.stop(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))).await
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        self.env_providers.clone()
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        self.blob_store.clone()
    }

    fn kernel_backends(&self) -> Vec<Arc<dyn KernelBackend>> {
        self.kernel_backends.clone()
    }

    fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        self.rooms.clone()
    }
}
