//! One version of one plugin, and its life.
//!
//! For: the registry. A plugin that is replaced gets a new slot.
//! Promises: started once, however many need it; its row says how it is at all times.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::ENV_PROVIDER;
use runtimed_plugin_api::Plugin;
use runtimed_plugin_api::manifest::{Activate, Carrier, FILE_NAME, Manifest};
use tokio::sync::OnceCell;

use super::config::{Config, Limits};
use super::load::{Note, unknown_capabilities};
use super::row::{Row, Shown, Status};
use super::search::Found;
use super::supervisor::{Supervisor, is_stateless};

/// A plugin that may be started.
pub(super) struct Slot {
    pub(super) plan: Plan,
    pub(super) shown: Arc<Shown>,
    /// Filled by the first start; empty inside if that failed.
    pub(super) plugin: OnceCell<Option<Arc<dyn Plugin>>>,
    /// Who looks after its process, if it is to have one.
    pub(super) supervisor: Option<Supervisor>,
}

/// Everything that decides how a plugin is run. What has an equal plan needs no other slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) found: Found,
    pub(super) manifest: Manifest,
    /// What its files looked like.
    files: Vec<FileState>,
    pub(super) carrier: Carrier,
    pub(super) limits: Limits,
    /// What the user should know while all is well, such as a setting that is not followed.
    pub(super) note: Option<Note>,
}

/// Tells one content of a file from the next without reading it: whoever writes a file changes the last of these.
#[derive(Debug, Clone, PartialEq)]
struct FileState {
    path: PathBuf,
    /// Device, number, length, and the time of the last change; none if there is no such file.
    identity: Option<(u64, u64, u64, i64, i64)>,
}

/// What a search means for a plugin that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays as it is.
    Stays,
    /// It stays until the daemon ends, since it cannot be taken out of the daemon or holds what must not be lost.
    StaysForNow,
    /// It ends when it has done what it has begun. Another one takes its place, if there is one.
    Goes,
}

impl Plan {
    /// How the plugin that was `found` is to be run. Blocks on the file system.
    pub(super) fn new(found: Found, manifest: Manifest, config: &Config) -> Self {
        let library = manifest.library_for_this_target().map(|file| &file.path);
        let others = manifest.files.iter().map(|file| &file.path);
        let schema = manifest.settings.as_ref().map(|settings| &settings.schema);
        let manifests = [PathBuf::from(FILE_NAME)];
        let names = manifests.iter().chain(library).chain(others).chain(schema);
        let files = names.map(|name| FileState::of(&found.folder.join(name))).collect();
        let (carrier, ignored) = config.carrier(&manifest);
        let ignored =
            ignored.map(|reason| Note { reason, remedy: "correct or remove that setting".to_owned() });
        let note = ignored.or_else(|| unknown_capabilities(&manifest));
        let limits = config.limits(&manifest.id);
        Self { files, carrier, limits, note, found, manifest }
    }

    /// What becomes of a plugin that runs by this plan. `bound` says that it cannot be taken out of the daemon
    /// or holds what must not be lost, `works` that nothing is wrong with it, `next` is what was found now.
    fn fate(&self, bound: bool, works: bool, next: Option<&Self>) -> Fate {
        match next {
            Some(next) if next == self && works => Fate::Stays,
            _ if bound => Fate::StaysForNow,
            _ => Fate::Goes,
        }
    }
}

impl FileState {
    fn of(path: &Path) -> Self {
        let identity = |it: fs::Metadata| (it.dev(), it.ino(), it.size(), it.ctime(), it.ctime_nsec());
        Self { path: path.to_owned(), identity: fs::metadata(path).ok().map(identity) }
    }
}

impl Slot {
    /// A plugin that has not been started.
    pub(super) fn new(plan: Plan, shown: Arc<Shown>, supervisor: Option<Supervisor>) -> Arc<Self> {
        Arc::new(Self { plan, shown, plugin: OnceCell::new(), supervisor })
    }

    /// The row of a plugin that is run by this plan and has not been started.
    pub(super) fn first_row(plan: &Plan) -> Row {
        let row = Row::new(&plan.found, Status::NotLoaded);
        let row = Row { carrier: plan.carrier.to_string(), ..row };
        match plan.note.clone() {
            Some(Note { reason, remedy }) => Row { reason, remedy, ..row },
            None => row,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.plan.manifest.id
    }

    /// The plugin, if it has started and was not stopped. Its process may rest.
    pub(super) fn active(&self) -> Option<Arc<dyn Plugin>> {
        let plugin = self.plugin.get()?.clone()?;
        let there = match self.shown.status() {
            Status::Ok | Status::Poisoned => true,
            // It says itself why it takes no calls at the moment.
            Status::Failed => self.supervisor.is_some(),
            _ => false,
        };
        there.then_some(plugin)
    }

    /// What becomes of it, given what was found now.
    pub(super) fn fate(&self, next: Option<&Plan>) -> Fate {
        let started = self.plugin.get().is_some_and(Option::is_some);
        let bound = started && (self.supervisor.is_none() || !is_stateless(&self.plan.manifest));
        let works = matches!(self.shown.status(), Status::Ok | Status::Poisoned | Status::NotLoaded);
        self.plan.fate(bound, works, next)
    }

    /// The capabilities that are looked up by calls that cannot wait for a start; whoever provides one of them
    /// starts with the daemon. Environments are asked for later.
    pub(super) fn starts_with_the_daemon(&self) -> bool {
        let manifest = &self.plan.manifest;
        manifest.run.activate == Activate::Startup && self.plan.carrier == Carrier::InProcess
            || manifest.provides.iter().any(|it| it.capability != ENV_PROVIDER)
    }
}
