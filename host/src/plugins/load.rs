//! From a checked file to a plugin: open, compare with the manifest, create.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use runtimed_plugin_api::adapter::{Library, Panicked};
use runtimed_plugin_api::manifest::{Carrier, Manifest};
use runtimed_plugin_api::{BLOB_STORE, ENV_PROVIDER, HostServices, KERNEL_BACKEND, Plugin, ROOMS};
use tokio::runtime::Handle;

use super::checks;
use super::row::Problem;

/// Checks, loads and creates the plugin in `folder`, in the carrier its manifest asks for.
pub(super) async fn load(
    manifest: Manifest,
    folder: PathBuf,
    host: Arc<dyn HostServices>,
    on_panic: impl Fn(Panicked) + Send + Sync + 'static,
) -> Result<Arc<dyn Plugin>, Problem> {
    match manifest.carrier() {
        Carrier::InProcess => {
            let runtime = Handle::current();
            // Files are read and constructors run: nothing for a runtime's worker.
            let loading =
                tokio::task::spawn_blocking(move || in_process(&manifest, folder, host, runtime, on_panic));
            loading.await.unwrap_or_else(|error| {
                Err(Problem::failed(format!("loading was interrupted: {error}"), "restart the daemon"))
            })
        }
        Carrier::Child => Err(Problem::refused(
            format!(
                "plugin `{}` asks for a process of its own, which this version cannot give it",
                manifest.id
            ),
            "update runtimed, or set carrier = \"in-process\" under [run] in plugin.toml if you trust the plugin",
        )),
    }
}

fn in_process(
    manifest: &Manifest,
    folder: PathBuf,
    host: Arc<dyn HostServices>,
    runtime: Handle,
    on_panic: impl Fn(Panicked) + Send + Sync + 'static,
) -> Result<Arc<dyn Plugin>, Problem> {
    let path = checks::check(manifest, &folder)?;
    let library = Library::open(&path).map_err(|refusal| Problem {
        report: refusal.report,
        ..Problem::refused(refusal.reason, refusal.remedy)
    })?;
    let facts = library.facts();
    if facts.id != manifest.id {
        return Err(Problem::refused(
            format!("the library in `{}` is the plugin `{}`", folder.display(), facts.id),
            "reinstall the plugin",
        ));
    }
    tracing::debug!(plugin = %facts.id, version = %facts.version, rustc = %facts.rustc, "loaded");
    let plugin = library.create(host, runtime, on_panic).map_err(|error| {
        Problem::failed(
            format!("plugin `{}` could not be created: {error}", manifest.id),
            error.help.unwrap_or_else(|| "report it to the plugin's author".to_owned()),
        )
    })?;
    compare(manifest, &*plugin)?;
    Ok(plugin)
}

/// What the plugin provides must be what its manifest says, no more and no less.
fn compare(manifest: &Manifest, plugin: &dyn Plugin) -> Result<(), Problem> {
    let mut provided: BTreeSet<(&str, String)> = BTreeSet::new();
    for provider in plugin.env_providers() {
        provided.insert((ENV_PROVIDER, format!(" `{}`", provider.info().kind)));
    }
    // The other capabilities have no kinds that can be asked for without I/O.
    let others = [
        (BLOB_STORE, plugin.blob_store().is_some()),
        (KERNEL_BACKEND, !plugin.kernel_backends().is_empty()),
        (ROOMS, plugin.rooms().is_some()),
    ];
    provided.extend(
        others.into_iter().filter(|(_, there)| *there).map(|(capability, _)| (capability, String::new())),
    );
    let promised: BTreeSet<(&str, String)> = manifest
        .provides
        .iter()
        .map(|it| match it.capability.as_str() {
            ENV_PROVIDER => (ENV_PROVIDER, format!(" `{}`", it.name)),
            other => (other, String::new()),
        })
        .collect();
    let difference = match (promised.difference(&provided).next(), provided.difference(&promised).next()) {
        (Some((capability, kind)), _) => format!("its library does not provide {capability}{kind}"),
        (None, Some((capability, kind))) => format!("its manifest does not mention {capability}{kind}"),
        (None, None) => return Ok(()),
    };
    Err(Problem::failed(
        format!("plugin `{}` is not what its manifest says: {difference}", manifest.id),
        "correct [[provides]] in plugin.toml, or reinstall the plugin",
    ))
}
