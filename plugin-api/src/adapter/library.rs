//! The host's end of the in-process carrier: a library, and the plugin it makes.

use std::path::Path;
use std::sync::Arc;

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{LibraryFacts, Refusal};
use tokio::runtime::Handle;

use super::Side;
use super::convert::result;
use super::host::serve_host;
use super::plugin::RemotePlugin;
use crate::{HostServices, Plugin, Result};

/// A loaded library whose types fit. Stays loaded for ever; dropping this only forgets it.
pub struct Library(abi::Library);

/// A call into a plugin that panicked and was caught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked {
    /// The panic's message.
    pub message: String,
    /// `file:line:column`, empty if unknown.
    pub location: String,
}

impl Library {
    /// Loads the library at the absolute `path`. Blocks, and runs the library's constructors: check the
    /// file first, a truncated one ends the process.
    ///
    /// # Errors
    /// A sentence, a remedy and perhaps a long report.
    pub fn open(path: &Path) -> Result<Self, Refusal> {
        abi::Library::open(path).map(Self)
    }

    /// What the library says about itself.
    pub fn facts(&self) -> &LibraryFacts {
        self.0.facts()
    }

    /// Has the note of [`super::crash`] name `owner` if the process dies in this library's code.
    pub fn answers_for_crashes_as(&self, owner: &str) {
        self.0.answers_for_crashes_as(owner);
    }

    /// Makes an instance. Bodies of `host` run on `runtime`; `on_panic` hears of every panic that was
    /// caught at the boundary, from any thread.
    ///
    /// # Errors
    /// What the plugin's `create` says, or a capability that cannot describe itself.
    pub fn create(
        &self,
        host: Arc<dyn HostServices>,
        runtime: Handle,
        on_panic: impl Fn(Panicked) + Send + Sync + 'static,
    ) -> Result<Arc<dyn Plugin>> {
        let side = Side::host(runtime, |message, location| {
            tracing::error!(location, "a service of the daemon panicked: {message}");
        });
        let on_panic = Arc::new(move |message: &str, location: &str| {
            on_panic(Panicked { message: message.to_owned(), location: location.to_owned() });
        });
        let object = result(self.0.create(serve_host(host, &side, on_panic)))?;
        Ok(Arc::new(RemotePlugin::new(object, &side)?))
    }
}
