//! The plugin itself: what it provides and its life.
//!
//! For: the type an author exports with `export_plugin!`.
//! Promises: `create` and the accessors do no I/O; `start` comes before any capability call and `stop`
//! after the last.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{BlobStore, EnvProvider, Host, KernelBackend, Result, Rooms};

/// The variable that marks everything started by a plugin that has a process of its own: it ends with that process.
/// What is to outlive it is started without this variable, in a session of its own, and is the plugin's to find again
/// and to end.
pub const CHILD_MARK: &str = "RUNTIMED_PLUGIN_CHILD";

/// A plugin: a bundle of capabilities with one life.
///
/// ```
/// use std::sync::Arc;
///
/// use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait, export_plugin};
/// # use std::path::Path;
/// # use runtimed_plugin_api::*;
/// # struct Provider(Host);
/// # #[async_trait]
/// # impl EnvProvider for Provider {
/// #     fn info(&self) -> EnvProviderInfo { EnvProviderInfo::default() }
/// #     async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> { Ok(EnvPlan::keyed(request, &[])) }
/// #     async fn create(&self, plan: EnvPlan, at: &Path, _: Task) -> Result<Environment> {
/// #         Ok(Environment::at(at, "mine", plan.request.packages))
/// #     }
/// #     async fn verify(&self, _: &Environment) -> Result<Health> { Ok(Health::Usable) }
/// #     async fn launch(&self, env: &Environment) -> Result<LaunchCommand> { Ok(LaunchCommand::of_venv(env)) }
/// #     async fn identities(&self, _: &EnvRequest) -> Result<Vec<PackageIdentity>> { Ok(Vec::new()) }
/// # }
///
/// /// A plugin with one environment provider, which keeps the host to run its tools on.
/// struct MyPlugin(Arc<Provider>);
///
/// #[async_trait]
/// impl Plugin for MyPlugin {
///     fn create(host: Host) -> Result<Self> {
///         Ok(Self(Arc::new(Provider(host))))
///     }
///
///     fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
///         vec![self.0.clone()]
///     }
/// }
///
/// export_plugin!(MyPlugin, id = "org.example.mine");
/// ```
#[async_trait]
pub trait Plugin: Send + Sync + 'static {
    /// Makes the plugin. Does no I/O and starts nothing.
    fn create(host: Host) -> Result<Self>
    where
        Self: Sized;

    /// Gets ready. Has a deadline; long recovery is only scheduled here.
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    /// Makes everything durable and ends. Has `grace` time.
    async fn stop(&self, grace: Duration) -> Result<()> {
        let _ = grace;
        Ok(())
    }

    /// Environment providers, one per kind.
    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        Vec::new()
    }

    /// The blob store.
    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        None
    }

    /// Kernel backends.
    fn kernel_backends(&self) -> Vec<Arc<dyn KernelBackend>> {
        Vec::new()
    }

    /// The rooms.
    fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        None
    }
}
