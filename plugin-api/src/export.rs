//! `export_plugin!`: how a crate becomes a library the daemon can load.
//!
//! For: the one line at the end of a plugin's `lib.rs`.
//! Promises: loading starts no thread; the first asynchronous call starts the plugin's runtime.
//! Note: the exported symbol is the same for every plugin, so a test binary links at most one plugin's rlib.

use std::marker::PhantomData;
use std::sync::Arc;

use runtimed_plugin_abi::{Entry, HostServicesObject, Outcome, PluginObject, RResult};

pub use runtimed_plugin_abi::{Descriptor, LibHeader, header};

use crate::Plugin;
use crate::adapter::{RemoteHost, Side, bridge, install_hook, serve_plugin};

/// What the macro says about a plugin.
pub trait Export: 'static {
    /// The plugin.
    type Plugin: Plugin;
    /// Id of the plugin, which names its threads.
    const ID: &'static str;
    /// Workers of its runtime; zero means one per core.
    const WORKERS: usize;
}

/// Connects an [`Export`] to the ABI.
pub struct Exported<E>(PhantomData<E>);

impl<E: Export> Entry for Exported<E> {
    fn create(host: HostServicesObject) -> Outcome<PluginObject> {
        let host = Arc::new(host);
        let reporter = host.clone();
        let side = Side::plugin(E::ID, E::WORKERS, move |message, location| {
            reporter.panicked(message.into(), location.into());
        });
        // From here on a panic is an error; one that got out would end the process.
        let made = side.attempt(|| {
            bridge(host.clone());
            install_hook();
            let host = RemoteHost::new(host, &side)?;
            Ok(serve_plugin(E::Plugin::create(Arc::new(host))?, &side))
        });
        match made {
            Ok(plugin) => RResult::ROk(plugin),
            Err(error) => RResult::RErr(error.into()),
        }
    }
}

/// Exports a [`Plugin`] from a `cdylib`.
///
/// `id` is the plugin's id, the same as in `plugin.toml`. `workers` is the number of threads of its runtime:
/// one unless said otherwise, `cores` for as many as the machine has.
///
/// ```
/// use runtimed_plugin_api::{Host, Plugin, Result, async_trait, export_plugin};
///
/// struct Pixi;
///
/// #[async_trait]
/// impl Plugin for Pixi {
///     fn create(_: Host) -> Result<Self> {
///         Ok(Self)
///     }
/// }
///
/// export_plugin!(Pixi, id = "org.example.pixi", workers = cores);
/// ```
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty, id = $id:literal $(,)?) => {
        $crate::export_plugin!($plugin, id = $id, workers = 1);
    };
    ($plugin:ty, id = $id:literal, workers = cores $(,)?) => {
        $crate::export_plugin!($plugin, id = $id, workers = 0);
    };
    ($plugin:ty, id = $id:literal, workers = $workers:literal $(,)?) => {
        const _: () = {
            struct Export;

            impl $crate::export::Export for Export {
                type Plugin = $plugin;
                const ID: &'static str = $id;
                const WORKERS: usize = $workers;
            }

            static HEADER: $crate::export::LibHeader =
                $crate::export::header::<$crate::export::Exported<Export>>();

            /// What the daemon looks for.
            // SAFETY: the name is this ABI's own; a library exports one plugin.
            #[allow(unsafe_code, reason = "exporting a symbol by its name is unsafe by definition")]
            #[unsafe(no_mangle)]
            pub static RUNTIMED_PLUGIN_V1: $crate::export::Descriptor =
                $crate::export::Descriptor::new($id, ::core::env!("CARGO_PKG_VERSION"), &HEADER);
        };
    };
}
