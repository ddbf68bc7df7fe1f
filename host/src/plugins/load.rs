//! From a folder to a started plugin.
//!
//! For: the registry, in-process; for a child it is what may be loaded there.
//! Promises: checks before anything is run; each step has its deadline; what is remembered of a plugin that
//! took the daemon down is asked before it runs, and whoever is being loaded is known to the next life.
//! Never: retries.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::adapter::{Library, LibraryFacts, Panicked, crash};
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::{BLOB_STORE, ENV_PROVIDER, HostServices, KERNEL_BACKEND, Plugin, ROOMS};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout, timeout_at};

use super::checks::{Checked, check, expected_library};
use super::copies::Copies;
use super::probe::probe;
use super::row::Problem;
use super::search::{Found, Source};
use super::sentinel::{Sentinel, Verdict};

/// Longest time from the first check of a plugin's files to its `create`. Hashing and loading 40 MB takes a
/// second on a slow disk, and `create` does nothing slow, so this is generous.
pub(super) const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// Longest start of a plugin. `start` only schedules long work, so this is generous.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(20);
/// Capabilities this daemon has a use for.
const KNOWN: [&str; 4] = [ENV_PROVIDER, BLOB_STORE, KERNEL_BACKEND, ROOMS];

/// What one daemon loads plugins with.
pub(super) struct Loader {
    copies: Copies,
    sentinel: Arc<Sentinel>,
    /// Program and arguments that serve a plugin in a process of its own, or try its library out there.
    command: Vec<OsString>,
}

/// A plugin at work.
pub(super) struct Loaded {
    pub(super) plugin: Arc<dyn Plugin>,
    /// What the user should know about it all the same.
    pub(super) note: Option<Note>,
}

/// Something about a plugin that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) reason: String,
    pub(super) remedy: String,
}

impl Loader {
    /// Learns how the last life of the daemon with this base ended, and watches over this one. `command`
    /// is the program that serves plugins in processes of their own; without one nothing is tried out there.
    /// Blocks on the file system.
    pub(super) fn open(base: &Path, command: Vec<OsString>) -> Arc<Self> {
        Arc::new(Self { copies: Copies::new(base), sentinel: Sentinel::open(base), command })
    }

    /// Everything that can be done before a plugin runs anywhere: checks its files and copies its library.
    /// What comes back may be loaded, by whoever carries it. Blocks on the file system.
    pub(super) fn check(&self, found: &Found, manifest: &Manifest) -> Result<Checked, Problem> {
        check(manifest, found, &self.copies)
    }

    /// Checks, loads, creates and starts a plugin in this process.
    pub(super) async fn load(
        self: &Arc<Self>,
        found: Found,
        manifest: Manifest,
        host: Arc<dyn HostServices>,
        on_panic: impl Fn(Panicked) + Send + Sync + 'static,
    ) -> Result<Loaded, Problem> {
        let id = manifest.id.clone();
        let limit = Instant::now() + LOAD_DEADLINE;
        let late = || {
            Problem::failed(
                format!("plugin `{id}` could not be loaded within {} s", LOAD_DEADLINE.as_secs()),
                "restart the daemon, or reinstall the plugin",
            )
        };
        let (loader, on_disk) = (Arc::clone(self), (found.clone(), manifest.clone()));
        let checking = spawn_blocking(move || loader.check(&on_disk.0, &on_disk.1));
        let checked = timeout_at(limit, blocking(checking)).await.unwrap_or_else(|_| Err(late()))?;
        let mut note = unknown_capabilities(&manifest);
        match self.sentinel.verdict(&id, &checked.sha256, found.source) {
            Verdict::Welcome => {}
            Verdict::Suspect(Problem { reason, remedy, .. }) => {
                tracing::error!(plugin = %id, "{reason}; {remedy}");
                note = Some(Note { reason, remedy });
            }
            Verdict::KeptOut(problem) => return Err(problem),
        }
        if !matches!(found.source, Source::Bundled | Source::System) {
            probe(&self.command, &id, &checked).await?;
        }
        // Until the plugin has started or failed to, whichever way this ends.
        let (sentinel, whom) = (Arc::clone(&self.sentinel), (id.clone(), checked.sha256.clone()));
        let writing = spawn_blocking(move || Ok(sentinel.loading(&whom.0, &whom.1)));
        let _loading = blocking(writing).await?;
        let runtime = Handle::current();
        // Constructors run: nothing for a runtime's worker. They cannot be interrupted; one that takes too long
        // is left to itself, and its plugin is dropped unused.
        let creating = spawn_blocking(move || create(&manifest, &found, &checked, host, runtime, on_panic));
        let plugin = timeout_at(limit, blocking(creating)).await.unwrap_or_else(|_| Err(late()))?;
        match timeout(START_DEADLINE, plugin.start()).await {
            Ok(Ok(())) => Ok(Loaded { plugin, note }),
            Ok(Err(error)) => Err(Problem::failed(
                format!("plugin `{id}` could not start: {error}"),
                error.help.unwrap_or_else(|| "restart the daemon, or reinstall the plugin".to_owned()),
            )),
            Err(_) => Err(Problem::failed(
                format!("plugin `{id}` did not start within {} s", START_DEADLINE.as_secs()),
                "restart the daemon, or reinstall the plugin",
            )),
        }
    }

    /// Lets a plugin that took the daemon down try again. Whether there was anything to forgive. Blocks on the
    /// file system.
    pub(super) fn forgive(&self, id: &str) -> bool {
        self.sentinel.forgive(id)
    }

    /// Removes copies of libraries that neither this life has used nor any of `wanted` will. Blocks on the
    /// file system.
    pub(super) fn sweep<'a>(&self, wanted: impl IntoIterator<Item = &'a Found>) {
        let hash =
            |found: &'a Found| Some(expected_library(found.manifest.as_ref().ok()?, found)?.to_owned());
        self.copies.sweep(&wanted.into_iter().filter_map(hash).collect());
    }

    /// The daemon ends in an orderly way from here on.
    pub(super) fn expect_end(&self) {
        crash::expect_exit();
    }
}

/// Waits for work on a thread of its own; that it panicked is a problem like others.
async fn blocking<T>(work: JoinHandle<Result<T, Problem>>) -> Result<T, Problem> {
    work.await.unwrap_or_else(|error| {
        Err(Problem::failed(format!("loading was interrupted: {error}"), "restart the daemon"))
    })
}

fn create(
    manifest: &Manifest,
    found: &Found,
    checked: &Checked,
    host: Arc<dyn HostServices>,
    runtime: Handle,
    on_panic: impl Fn(Panicked) + Send + Sync + 'static,
) -> Result<Arc<dyn Plugin>, Problem> {
    let library = Library::open(&checked.path).map_err(|refusal| Problem {
        report: refusal.report,
        ..Problem::refused(checked.in_users_words(&refusal.reason), refusal.remedy)
    })?;
    // The sentinel reads this back.
    library.answers_for_crashes_as(&format!("{} {}", manifest.id, checked.sha256));
    let facts = library.facts();
    is_the_same(manifest, found, facts)?;
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

/// The library must be the plugin its manifest names: everything about a plugin is kept under its id.
pub(super) fn is_the_same(manifest: &Manifest, found: &Found, facts: &LibraryFacts) -> Result<(), Problem> {
    if facts.id == manifest.id {
        return Ok(());
    }
    Err(Problem::refused(
        format!("the library in `{}` is the plugin `{}`", found.folder.display(), facts.id),
        "reinstall the plugin",
    ))
}

/// What a plugin would also do for a newer daemon.
pub(super) fn unknown_capabilities(manifest: &Manifest) -> Option<Note> {
    let ids = manifest.provides.iter().map(|it| it.capability.as_str());
    let unknown: BTreeSet<&str> = ids.filter(|id| !KNOWN.contains(id)).collect();
    if unknown.is_empty() {
        return None;
    }
    let unknown = unknown.into_iter().collect::<Vec<_>>().join(", ");
    Some(Note {
        reason: format!(
            "it also provides {unknown}, which this daemon does not know; everything else is used"
        ),
        remedy: "update runtimed to use all of it".to_owned(),
    })
}

/// What the plugin provides must be what its manifest says, no more and no less, as far as this daemon knows
/// what that is.
pub(super) fn compare(manifest: &Manifest, plugin: &dyn Plugin) -> Result<(), Problem> {
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
        .filter(|it| KNOWN.contains(&it.capability.as_str()))
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
