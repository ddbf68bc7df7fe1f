//! What a notebook declares about where it wants to run, and what the host says to that.
//!
//! For: trust, the project around the notebook, the difference between what its kernel runs in and what it declares,
//! and the requests about them.
//! Promises: the host is asked again after every change of what is declared, soon and once; what it says is shown
//! when it is news; nothing is installed that it does not allow.
//! Never: decides what is trusted, or what a project is.

use std::path::PathBuf;
use std::time::Duration;

use runtimed_plugin_api::{EnvNeed, ErrorCode, PluginError, TrustVerdict};
use runtimed_protocol::documents::runtime_state::{Drift, KernelState, Trust};
use runtimed_protocol::response::NotebookResponse as Response;
use runtimed_protocol::session_control::InitialLoad;
use serde_json::{Map, Value as Json};

use super::core::{RoomCore, kept};
use super::deno::DenoConfig;
use super::event::Effect;
use super::kernel::Environment;
use super::launch::words;
use super::moment::{Moment, earliest};
use super::requests::{Task, Ticket};
use super::script;
use crate::ids::JobId;

/// After an edit, the host is asked this much later: a person who types a name is one question.
const PAUSE: Duration = Duration::from_millis(250);
/// After something happened to a project's file: programs write files in several steps. Source: the reference daemon.
const QUIET: Duration = Duration::from_millis(500);
/// Why a sync does nothing.
const NEEDS_RESTART: &str =
    "Environment changes include removals or config changes that require a kernel restart";
/// When the project was looked at: differs every time, and is no news.
const OBSERVED_AT: &str = "observed_at";

/// What was asked, and what was said.
#[derive(Default)]
pub(crate) struct Declarations {
    /// What the host was asked about last.
    asked: Option<EnvNeed>,
    /// When to look whether there is something else to ask about.
    due: Option<Moment>,
    /// When to ask again though the notebook says the same.
    overdue: Option<Moment>,
    /// The project that was shown, but for when it was looked at.
    project: Map<String, Json>,
    /// What the host calls what that project asks to have installed.
    project_asks: String,
    /// The files that are watched.
    files: Vec<PathBuf>,
    /// How the environment differs, as the host said last.
    drift: runtimed_plugin_api::Drift,
}

/// What somebody wants to know.
pub(crate) enum Asks {
    /// What is to be shown.
    Opinion,
    /// That what the notebook declares may be installed, and who says so.
    Approval { ticket: Option<Ticket> },
    /// That the environment of the project may be built.
    ProjectApproval { ticket: Ticket },
    /// What is missing in the running environment.
    Sync { ticket: Ticket },
}

impl Declarations {
    /// The notebook changed, or where its kernel runs.
    pub(super) fn touched(&mut self, now: Moment) {
        self.due.get_or_insert(now + PAUSE);
    }

    /// When to have a look.
    pub(super) fn deadline(&self) -> Option<Moment> {
        earliest([self.due, self.overdue])
    }

    fn is_due(&mut self, now: Moment) -> bool {
        let again = self.overdue.take_if(|at| *at <= now).is_some();
        if again {
            self.asked = None;
        }
        self.due.take_if(|at| *at <= now).is_some() || again
    }
}

impl RoomCore {
    /// Something happened to a project's file.
    pub(super) fn project_touched(&mut self) {
        self.declarations.overdue = Some(self.now + QUIET);
    }

    /// Asks the host, if it is time and there is something new to ask about.
    pub(super) fn ask_if_due(&mut self) {
        if !self.declarations.is_due(self.now) || self.load != InitialLoad::NotNeeded {
            return;
        }
        let need = self.declared();
        if self.declarations.asked.as_ref() != Some(&need) {
            self.ask_about(need, Asks::Opinion);
        }
    }

    /// Asks the host.
    pub(super) fn ask_host(&mut self, asks: Asks) {
        self.ask_about(self.declared(), asks);
    }

    fn ask_about(&mut self, mut need: EnvNeed, asks: Asks) {
        let job = self.ids.job();
        self.declarations.asked = Some(need.clone());
        need.about_project = matches!(asks, Asks::ProjectApproval { .. });
        if need.about_project {
            // What the user was shown, whatever the file says by then.
            need.project_asks.clone_from(&self.declarations.project_asks);
        }
        let approve = need.about_project || matches!(asks, Asks::Approval { .. });
        self.effects.push(Effect::Trust { job, need, approve });
        self.tasks.insert(job, Task::Trust { asks });
    }

    /// What the notebook declares, and what its kernel runs in.
    fn declared(&self) -> EnvNeed {
        let environment = self.kernel.environment.as_ref().filter(|_| self.kernel.live().is_some());
        EnvNeed { running: environment.map(Environment::running), ..self.need("") }
    }

    /// Whether a launch would find a project by now, though the room has another environment.
    pub(super) fn is_drawn_to_a_project(&self, environment: &Environment) -> bool {
        self.declarations.project.get("state").and_then(Json::as_str) == Some("detected")
            && environment.need.environment_mode.as_deref() != Some("notebook")
            && !environment.need.source.contains(':')
            && !environment.is_projects()
    }

    /// The host has spoken.
    pub(super) fn trust_answered(&mut self, job: JobId, result: Result<TrustVerdict, PluginError>) {
        let Some(Task::Trust { asks }) = self.tasks.remove(&job) else { return };
        let verdict = match result {
            Ok(verdict) => verdict,
            Err(error) => {
                // Not what it would say now.
                self.declarations.asked = None;
                let ticket = match asks {
                    Asks::Opinion => None,
                    Asks::Approval { ticket } => ticket,
                    Asks::ProjectApproval { ticket } if error.code == ErrorCode::Conflict => {
                        // What it asks for now is shown next.
                        self.ask_host(Asks::Opinion);
                        let reason = error.message;
                        return self.answer(Some(ticket), Response::GuardRejected { reason });
                    }
                    Asks::ProjectApproval { ticket } | Asks::Sync { ticket } => Some(ticket),
                };
                return self.answer(ticket, Response::error(words(&error)));
            }
        };
        self.show_verdict(&verdict);
        // What was not allowed is allowed by now, or not declared any more.
        let goes_on = match (&asks, self.documents.runtime.kernel_state()) {
            (Asks::Opinion | Asks::Approval { .. }, KernelState::AwaitingTrust) => !verdict.needs_approval,
            (Asks::ProjectApproval { .. }, KernelState::AwaitingEnvBuild { .. }) => true,
            _ => false,
        };
        if goes_on {
            let wanted = std::mem::take(&mut self.kernel.held);
            self.launch(wanted, None);
        }
        match asks {
            Asks::Opinion => {}
            Asks::Approval { ticket } => self.answer(ticket, Response::Ok),
            Asks::ProjectApproval { ticket } => self.answer(Some(ticket), Response::Ok),
            Asks::Sync { ticket } => self.install_missing(ticket, &verdict),
        }
    }

    fn show_verdict(&mut self, verdict: &TrustVerdict) {
        let strip = |key: &str| key.strip_prefix("approved_").unwrap_or(key).to_owned();
        let approved = verdict.approved.iter().map(|(key, specs)| (strip(key), specs.clone())).collect();
        let runtime = &mut self.documents.runtime;
        kept(runtime.set_trust(&Trust {
            status: verdict.status.clone(),
            needs_approval: verdict.needs_approval,
            approved,
        }));
        self.declarations.drift = verdict.drift.clone().unwrap_or_default();
        self.show_drift();
        let runtime = &mut self.documents.runtime;
        let mut project = verdict.project_context.clone();
        project.remove(OBSERVED_AT);
        if project != self.declarations.project {
            kept(runtime.set_project_context(&verdict.project_context));
            self.declarations.project = project;
        }
        self.declarations.project_asks.clone_from(&verdict.project_asks);
        if verdict.project_files != self.declarations.files {
            self.declarations.files.clone_from(&verdict.project_files);
            self.effects.push(Effect::WatchProject { files: verdict.project_files.clone() });
        }
    }

    /// Shows how what runs differs from what the notebook declares.
    pub(super) fn show_drift(&mut self) {
        let deno_changed = self.has_other_deno();
        let drift = self.declarations.drift.clone();
        kept(self.documents.runtime.set_env_drift(&Drift {
            added: drift.added,
            removed: drift.removed,
            channels_changed: drift.channels_changed,
            deno_changed,
        }));
    }

    /// Whether the notebook says something else about Deno than when its kernel was launched.
    fn has_other_deno(&self) -> bool {
        let now = || DenoConfig::of(&self.documents.notebook.metadata());
        self.kernel.deno().is_some_and(|launched| *launched != now())
    }

    /// Approves the project around the notebook: the one that the user was shown.
    pub(super) fn approve_project(&mut self, ticket: Ticket, file: Option<&str>) {
        if self.working_dir.is_none() && self.saving.path().is_none() {
            let error = "No notebook path or working directory for project environment approval";
            return self.answer(Some(ticket), Response::error(error));
        }
        let shown = self.declarations.project.get("absolute_path").and_then(Json::as_str);
        if file.is_some() && file != shown {
            let reason =
                "The project around the notebook changed while the dialog was open. Review before approving.";
            return self.answer(Some(ticket), Response::GuardRejected { reason: reason.to_owned() });
        }
        self.ask_host(Asks::ProjectApproval { ticket });
    }

    /// Installs into the running environment what the notebook declares.
    pub(super) fn sync_environment(&mut self, ticket: Ticket, observed: Option<&[String]>) {
        if let Some(reason) = self.guard_dependencies(observed, "syncing") {
            return self.answer(Some(ticket), Response::GuardRejected { reason });
        }
        if self.has_other_deno() {
            return self.answer(Some(ticket), sync_failed(NEEDS_RESTART, true));
        }
        let running = self.kernel.environment.is_some() && self.kernel.live().is_some();
        if !running {
            let synced_packages = Vec::new();
            return self.answer(Some(ticket), Response::SyncEnvironmentComplete { synced_packages });
        }
        let syncs =
            |task: &Task| matches!(task, Task::Install { .. } | Task::Trust { asks: Asks::Sync { .. } });
        if self.tasks.values().any(syncs) {
            return self.answer(Some(ticket), sync_failed("Environment sync already in progress", false));
        }
        self.ask_host(Asks::Sync { ticket });
    }

    /// It is known what is missing.
    fn install_missing(&mut self, ticket: Ticket, verdict: &TrustVerdict) {
        let done = |synced_packages| Response::SyncEnvironmentComplete { synced_packages };
        if verdict.needs_approval {
            return self.answer(Some(ticket), trust_changed());
        }
        let environment = self.kernel.environment.as_ref().filter(|_| self.kernel.live().is_some());
        let (Some(environment), Some(drift)) = (environment, &verdict.drift) else {
            return self.answer(Some(ticket), sync_failed("No kernel running", false));
        };
        let mut packages = drift.added.clone();
        if drift.of_project {
            // What only the project's file says is there with the next kernel.
            let kind = runtimed_protocol::documents::notebook::DependencyKind::Packages;
            let declared = self.documents.notebook.dependencies(&environment.lease.environment.kind, kind);
            packages.retain(|package| declared.contains(package));
        } else if drift.channels_changed || !drift.removed.is_empty() {
            return self.answer(Some(ticket), sync_failed(NEEDS_RESTART, true));
        }
        if packages.is_empty() {
            // What else the project's file says now is there with the next kernel.
            let rest = drift.channels_changed || !drift.added.is_empty() || !drift.removed.is_empty();
            let answer = if rest { sync_failed(NEEDS_RESTART, true) } else { done(packages) };
            return self.answer(Some(ticket), answer);
        }
        let (job, need, lease) =
            (self.ids.job(), self.need(&environment.need.source), environment.lease.id.clone());
        let (into, packages_too) = (lease.clone(), packages.clone());
        let task = Task::Install { ticket, lease: into, packages: packages_too, need: Box::new(need) };
        self.tasks.insert(job, task);
        self.effects.push(Effect::Install { job, lease, packages });
    }

    /// Packages were installed, or not.
    pub(super) fn installed(&mut self, job: JobId, result: Result<(), PluginError>) {
        let Some(Task::Install { ticket, lease, packages, need }) = self.tasks.remove(&job) else { return };
        // The kernel may have got another one meanwhile.
        let environment = self.kernel.environment.as_mut().filter(|it| it.lease.id == lease);
        let response = match (result, environment) {
            (Ok(()), Some(environment)) if environment.is_projects() => {
                let added: Vec<String> = packages.iter().map(|package| format!("+{package}")).collect();
                let said =
                    format!("Updated project file ({}). Restart kernel to apply changes.", added.join(", "));
                sync_failed(&said, true)
            }
            (Ok(()), Some(environment)) => {
                environment.installed(&packages, *need);
                self.durable.environment_changed();
                Response::SyncEnvironmentComplete { synced_packages: packages }
            }
            (Ok(()), None) => sync_failed("No kernel running", false),
            (Err(error), _) if error.code == ErrorCode::Denied => trust_changed(),
            (Err(error), _) => {
                let needs_restart = error.code == ErrorCode::Unsupported;
                sync_failed(&format!("Failed to install packages: {}", words(&error)), needs_restart)
            }
        };
        self.ask_host(Asks::Opinion);
        self.answer(Some(ticket), response);
    }

    /// Why something may not be done to the dependencies, given what the user saw.
    pub(super) fn guard_dependencies(&mut self, observed: Option<&[String]>, doing: &str) -> Option<String> {
        let same = match self.observed(observed?) {
            Ok(before) => {
                let now = &self.documents.notebook;
                before.runt() == now.runt() && script::blocks(&before) == script::blocks(now)
            }
            Err(_) => false,
        };
        (!same)
            .then(|| format!("Dependencies changed while the trust dialog was open. Review before {doing}."))
    }
}

fn sync_failed(error: &str, needs_restart: bool) -> Response {
    Response::SyncEnvironmentFailed { error: error.to_owned(), needs_restart }
}

fn trust_changed() -> Response {
    Response::GuardRejected {
        reason: "Trust changed before the action could run. Review the notebook again.".to_owned(),
    }
}
