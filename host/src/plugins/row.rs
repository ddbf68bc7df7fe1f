//! One line of `runt plugins list`.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtimed_plugin_api::adapter::Panicked;
use serde::Serialize;

use super::load::Note;
use super::search::{Found, Source};

/// What is known about one plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Id, or the folder's name if the manifest does not say.
    pub id: String,
    /// Name for users; empty without a manifest.
    pub name: String,
    /// Version; empty without a manifest.
    pub version: String,
    /// ABI it was built for, `1.0`; empty without a manifest.
    pub abi: String,
    /// How it is run, `in-process` or `child`; empty without a manifest.
    pub carrier: String,
    /// Capabilities with their kinds, such as `env-provider.v1:uv`.
    pub capabilities: Vec<String>,
    /// Where it was found.
    pub source: Source,
    /// Its folder.
    pub folder: PathBuf,
    /// How it is.
    pub status: Status,
    /// Why, in one sentence; empty when all is well.
    pub reason: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
    /// File with everything there is to know, for the plugin's author.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<PathBuf>,
    /// Process id of its child, while there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// What takes effect only after a restart of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
}

impl Row {
    /// The row of a plugin that was found and not run.
    pub(super) fn new(found: &Found, status: Status) -> Self {
        let mut row = Self {
            id: found.id(),
            name: String::new(),
            version: String::new(),
            abi: String::new(),
            carrier: String::new(),
            capabilities: Vec::new(),
            source: found.source,
            folder: found.folder.clone(),
            status,
            reason: String::new(),
            remedy: String::new(),
            report: None,
            process: None,
            pending: None,
        };
        if let Ok(manifest) = &found.manifest {
            row.name = manifest.name.clone();
            row.version = manifest.version.to_string();
            row.abi = format!("{}.{}", manifest.abi.major, manifest.abi.min_minor);
            row.carrier = manifest.carrier().to_string();
            row.capabilities =
                manifest.provides.iter().map(|it| format!("{}:{}", it.capability, it.name)).collect();
        }
        row
    }

    /// The same with why it does not run.
    pub(super) fn because(self, problem: &Problem) -> Self {
        let Problem { status, reason, remedy, .. } = problem;
        Self { status: *status, reason: reason.clone(), remedy: remedy.clone(), ..self }
    }
}

/// A row that follows the life of its plugin.
pub(super) struct Shown {
    row: Mutex<Row>,
    /// What is to be known about it while all is well.
    note: Note,
}

impl Shown {
    /// Begins with `row`, whose reason and remedy hold while all is well.
    pub(super) fn new(row: Row) -> Self {
        let note = Note { reason: row.reason.clone(), remedy: row.remedy.clone() };
        Self { row: Mutex::new(row), note }
    }

    /// The row as it is now.
    pub(super) fn get(&self) -> Row {
        self.row().clone()
    }

    pub(super) fn status(&self) -> Status {
        self.row().status
    }

    /// How it is from now on, without a process.
    pub(super) fn set(&self, status: Status, reason: String, remedy: String, report: Option<PathBuf>) {
        let mut row = self.row();
        *row = Row { status, reason, remedy, report, process: None, ..row.clone() };
    }

    /// It is at work in this process, perhaps with something to say; unless a panic came in between, which counts more.
    pub(super) fn started(&self, note: Option<Note>) {
        let mut row = self.row();
        if row.status == Status::NotLoaded {
            row.status = Status::Ok;
            if let Some(note) = note {
                (row.reason, row.remedy) = (note.reason, note.remedy);
            }
        }
    }

    /// It is at work in a process of its own. Whatever happened in former ones is over; `poisoned` says that
    /// a call panicked in this one.
    pub(super) fn runs(&self, process: u32, poisoned: bool) {
        let mut row = self.row();
        row.process = Some(process);
        if !poisoned {
            row.status = Status::Ok;
            (row.reason, row.remedy) = (self.note.reason.clone(), self.note.remedy.clone());
        }
    }

    /// Its process is gone; whether that is bad is not said by this.
    pub(super) fn process_ended(&self, process: u32) {
        let mut row = self.row();
        if row.process == Some(process) {
            row.process = None;
        }
    }

    /// A call into it panicked. `renewed` says that the next call gets a process of its own.
    pub(super) fn poison(&self, panicked: &Panicked, renewed: bool) {
        let mut row = self.row();
        // Whoever failed or was stopped keeps saying so.
        if matches!(row.status, Status::Ok | Status::NotLoaded | Status::Poisoned) {
            row.status = Status::Poisoned;
            row.reason = format!("it panicked at {}: {}", panicked.location, panicked.message);
            let remedy = match renewed {
                true => "the next use of it gets a new process; report this to the plugin's author",
                false => "save your work, restart the daemon and report this to the plugin's author",
            };
            row.remedy = remedy.to_owned();
        }
    }

    /// What takes effect only after a restart of the daemon, if anything does.
    pub(super) fn pend(&self, pending: Option<String>) {
        self.row().pending = pending;
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        // Plain data, whole at all times.
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Started and at work.
    Ok,
    /// Not needed so far.
    NotLoaded,
    /// Switched off in the settings.
    Disabled,
    /// Another one with the same id comes first in the search order.
    Shadowed,
    /// A check said no; nothing of it was run, or nothing but its constructors.
    Refused,
    /// It was loaded and could not be created or started.
    Failed,
    /// It runs, but a call into it panicked.
    Poisoned,
    /// Stopped with the daemon.
    Stopped,
}

/// Why a plugin is not at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: Status,
    pub(crate) reason: String,
    pub(crate) remedy: String,
    /// Long text for a file.
    pub(crate) report: Option<String>,
}

impl Problem {
    pub(crate) fn refused(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Refused, reason: reason.into(), remedy: remedy.into(), report: None }
    }

    pub(crate) fn failed(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Failed, ..Self::refused(reason, remedy) }
    }
}
