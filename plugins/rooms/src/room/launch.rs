//! How a kernel comes and goes.
//!
//! For: moving `Kernel` from stage to stage and showing clients where it is.
//! Promises: clients that wait for an execution never see `Error` or `Shutdown` while one is unfinished;
//! whoever asked for a kernel reads the answer before the document says that it runs.
//! Never: starts or stops a process; that is an effect.

use std::time::Duration;

use runtimed_plugin_api::{
    EnvNeed, ErrorCode, ExitReport, KernelKind, LaunchCommand, LaunchSpec, Lease, PluginError, Progress,
    Release,
};
use runtimed_protocol::documents::runtime_state::{Activity, KernelInfo, KernelState};
use runtimed_protocol::presence::{KernelPresence, PresenceData};
use runtimed_protocol::response::{KernelFacts, NotebookResponse as Response};
use serde_json::{Map, Value as Json, json};

use super::choice::{self, DENO, DENO_LANGUAGES, PYTHON, Said};
use super::core::{RoomCore, kept};
use super::death;
use super::deno::DenoConfig;
use super::event::Effect;
use super::hearing::Hearing;
use super::kernel::{Environment, Launch, Stage, Stopping, Up, Waiting, Wanted};
use super::presence::To;
use super::requests::Ticket;
use super::script;
use crate::ids::LaunchId;

/// Between the answer to a launch request and the document saying that the kernel runs. Without it the
/// client's `restart()` finds the kernel idle already, and waits 30 s for it to become so.
/// Long enough for a client to have read the answer, too short for a user to notice.
const ANSWER_FIRST: Duration = Duration::from_millis(20);

impl RoomCore {
    /// Brings a kernel up because somebody came, unless there is a reason not to.
    pub(super) fn launch_for_visitors(&mut self) {
        let idle = matches!(self.kernel.stage, Stage::Down);
        let stopped = matches!(
            self.documents.runtime.kernel_state(),
            KernelState::AwaitingTrust | KernelState::AwaitingEnvBuild { .. }
        );
        if idle && !stopped && self.may_retry_launch() {
            self.launch(Wanted::default(), None);
        }
    }

    /// What a launch request with these fields wants; empty fields mean: as the notebook says.
    pub(super) fn wanted(kind: &str, source: &str) -> Wanted {
        let kind = if kind == "auto" { "" } else { kind };
        Wanted { kind: kind.to_owned(), source: source.to_owned() }
    }

    /// Launches a kernel, or joins the launch in progress, and answers `ticket` when it is up.
    pub(super) fn launch(&mut self, wanted: Wanted, ticket: Option<Ticket>) {
        if self.closing {
            return self
                .answer(ticket, Response::error("The notebook is being closed. Please open it again."));
        }
        let habit = choice::is_habit(&wanted.kind, &wanted.source);
        let waiting = |began| move |ticket| Waiting { ticket, began, habit };
        match &mut self.kernel.stage {
            Stage::Up(_) | Stage::Announcing(..) => {
                let response = Response::KernelAlreadyRunning(in_their_words(self.kernel_facts(), habit));
                self.answer(ticket, response);
            }
            Stage::Choosing(launch) | Stage::Acquiring(launch) | Stage::Starting(launch) => {
                launch.waiting.extend(ticket.map(waiting(false)));
            }
            Stage::Stopping(stopping) => {
                let (_, others) = stopping.next.get_or_insert_with(|| (wanted, Vec::new()));
                let first = others.is_empty();
                others.extend(ticket.map(waiting(first)));
            }
            Stage::Down => {
                self.begin_launch(wanted, ticket.map(waiting(true)).into_iter().collect());
            }
        }
    }

    /// Ends the kernel, or the launch of one. Every execution ends first.
    pub(super) fn shut_down_kernel(&mut self, ticket: Option<Ticket>) {
        let ended = self.queue.kernel_lost();
        self.settle(ended);
        match std::mem::take(&mut self.kernel.stage) {
            Stage::Down => {
                let response =
                    if self.kernel.existed { Response::KernelShuttingDown } else { Response::NoKernel };
                if self.kernel.existed {
                    self.show_kernel(KernelState::Shutdown);
                }
                self.answer(ticket, response);
            }
            Stage::Choosing(launch) | Stage::Acquiring(launch) | Stage::Starting(launch) => {
                self.effects.push(Effect::CancelLaunch { launch: launch.id });
                self.show_kernel(KernelState::Shutdown);
                kept(self.documents.runtime.set_env_progress(None));
                self.cancel_waiting(launch.waiting);
                self.answer(ticket, Response::KernelShuttingDown);
            }
            Stage::Announcing(up, _) | Stage::Up(up) => {
                self.fail_questions();
                self.nothing_more_comes();
                self.show_kernel(KernelState::Shutdown);
                self.effects.push(Effect::Stop { launch: up.id });
                let waiting = ticket.into_iter().collect();
                self.kernel.stage =
                    Stage::Stopping(Stopping { id: up.id, waiting, next: None, release: false });
            }
            Stage::Stopping(mut stopping) => {
                stopping.waiting.extend(ticket);
                let next = stopping.next.take();
                self.kernel.stage = Stage::Stopping(stopping);
                self.cancel_waiting(next.map(|(_, waiting)| waiting).unwrap_or_default());
            }
        }
    }

    fn cancel_waiting(&mut self, waiting: Vec<Waiting>) {
        for Waiting { ticket, .. } in waiting {
            self.answer(Some(ticket), Response::error("Kernel launch was cancelled by shutdown"));
        }
    }

    /// The environment is there, or could not be had.
    pub(super) fn environment_came(&mut self, id: LaunchId, result: Result<Box<Lease>, PluginError>) {
        let launch = match std::mem::take(&mut self.kernel.stage) {
            Stage::Acquiring(launch) if launch.id == id => launch,
            other => {
                self.kernel.stage = other;
                // Cancelled meanwhile: nobody wants it any more.
                if let Ok(lease) = result {
                    self.effects.push(Effect::Release { lease: lease.id, how: Release::Keep });
                }
                return;
            }
        };
        kept(self.documents.runtime.set_env_progress(None));
        match result {
            Ok(lease) => {
                let need = launch.need.clone();
                kept(self.documents.runtime.set_prewarmed_packages(&lease.prewarmed_packages));
                self.kernel.environment = Some(Environment { need, lease: *lease });
                self.start_process(launch);
            }
            Err(error) => {
                let state = held(&error).unwrap_or_else(|| error_state(&error, "environment_prepare_failed"));
                self.launch_failed(launch, state, &error);
            }
        }
    }

    /// The build of the environment came a step further.
    pub(super) fn environment_progressed(&mut self, id: LaunchId, progress: &Progress) {
        if !matches!(&self.kernel.stage, Stage::Acquiring(launch) if launch.id == id) {
            return;
        }
        let mut event = progress.fields.clone();
        event.insert("phase".to_owned(), json!(progress.phase));
        kept(self.documents.runtime.set_env_progress(Some(&Json::Object(event))));
        self.show_kernel(KernelState::PreparingEnv);
    }

    /// The kernel answers, or could not be started.
    pub(super) fn kernel_came(&mut self, id: LaunchId, result: Result<(), PluginError>) {
        let launch = match std::mem::take(&mut self.kernel.stage) {
            Stage::Starting(launch) if launch.id == id => launch,
            other => {
                self.kernel.stage = other;
                // Cancelled meanwhile, but too late to stop it from starting.
                if result.is_ok() {
                    self.effects.push(Effect::Stop { launch: id });
                }
                return;
            }
        };
        if let Err(error) = result {
            return self.start_failed(launch, &error);
        }
        self.launch_failed_at = None;
        self.hearing = Hearing::default();
        let facts = self.facts(&launch.kind.name, &launch.deno);
        kept(self.documents.runtime.set_kernel_info(&KernelInfo {
            name: facts.kernel_type.clone(),
            language: shown_language(&launch.kind).to_owned(),
            env_source: facts.env_source.clone(),
            runtime_agent_id: format!("runtime-agent:{:.8}", launch.id.0.simple().to_string()),
        }));
        self.show_kernel(KernelState::Connecting);
        let up = Up { id, kind: launch.kind.name, deno: launch.deno };
        if launch.waiting.is_empty() {
            return self.announce(up);
        }
        for Waiting { ticket, began, habit } in launch.waiting {
            let facts = in_their_words(facts.clone(), habit);
            let response =
                if began { Response::KernelLaunched(facts) } else { Response::KernelAlreadyRunning(facts) };
            self.answer(Some(ticket), response);
        }
        self.kernel.stage = Stage::Announcing(up, self.now + ANSWER_FIRST);
    }

    /// Shows a kernel that is up, once its time has come.
    pub(super) fn announce_due(&mut self) {
        if self.kernel.deadline().is_some_and(|at| at <= self.now)
            && let Stage::Announcing(up, _) = std::mem::take(&mut self.kernel.stage)
        {
            self.announce(up);
        }
    }

    /// The kernel's process is gone without our asking.
    pub(super) fn kernel_died(&mut self, id: LaunchId, report: &ExitReport) {
        match std::mem::take(&mut self.kernel.stage) {
            Stage::Announcing(up, _) | Stage::Up(up) if up.id == id => {}
            Stage::Starting(launch) if launch.id == id => {
                return self.start_failed(launch, &PluginError::internal(death::notice(report)));
            }
            other => {
                self.kernel.stage = other;
                return;
            }
        }
        self.fail_questions();
        self.nothing_more_comes();
        if let Some(running) = self.queue.request().map(|execution| execution.id.clone()) {
            self.collect(&running, "error", death::error(report).to_string().as_bytes());
        }
        let ended = self.queue.kernel_lost();
        self.settle(ended);
        self.show_kernel(KernelState::Error { reason: String::new(), details: death::notice(report) });
        self.effects.push(Effect::Stop { launch: id });
    }

    /// The kernel we ended is gone.
    pub(super) fn kernel_stopped(&mut self, id: LaunchId) {
        let stopping = match std::mem::take(&mut self.kernel.stage) {
            Stage::Stopping(stopping) if stopping.id == id => stopping,
            other => {
                self.kernel.stage = other;
                return;
            }
        };
        for ticket in stopping.waiting {
            self.answer(Some(ticket), Response::KernelShuttingDown);
        }
        if let Some((wanted, waiting)) = stopping.next {
            self.begin_launch(wanted, waiting);
        } else if stopping.release {
            self.release_environment();
        }
    }

    /// Ends the kernel and gives its environment back: nobody will need them soon.
    pub(super) fn give_up_kernel(&mut self) {
        if !matches!(self.kernel.stage, Stage::Down) {
            self.shut_down_kernel(None);
        }
        match &mut self.kernel.stage {
            Stage::Stopping(stopping) => stopping.release = true,
            _ => self.release_environment(),
        }
    }

    fn release_environment(&mut self) {
        let release = self.take_environment();
        self.effects.extend(release);
    }

    /// Takes the environment from the room; what is left to do with it.
    pub(crate) fn take_environment(&mut self) -> Option<Effect> {
        let Environment { lease, .. } = self.kernel.environment.take()?;
        // The notebook's own waits for it to be opened again; without a file it cannot be.
        let lost = lease.source.ends_with(":prewarmed") && self.saving.path().is_none();
        let how = if lost { Release::Delete } else { Release::Keep };
        Some(Effect::Release { lease: lease.id, how })
    }

    /// What the notebook declares about its environment.
    pub(super) fn need(&self, source: &str) -> EnvNeed {
        EnvNeed {
            room: self.id.to_string(),
            source: source.to_owned(),
            metadata: Json::Object(self.documents.notebook.metadata()),
            notebook_path: self.saving.path().map(ToOwned::to_owned),
            working_dir: self.working_dir.clone(),
            environment_mode: self.environment_mode.clone(),
            script_blocks: script::blocks(&self.documents.notebook),
            ..EnvNeed::default()
        }
    }

    /// Shows clients where the kernel is, after the end of every execution that has ended.
    pub(super) fn show_kernel(&mut self, state: KernelState) {
        if self.publication.has_ends() {
            self.publication.next.kernel = Some(state);
        } else {
            self.write_kernel(state);
        }
    }

    /// Shows clients where the kernel is.
    pub(super) fn write_kernel(&mut self, state: KernelState) {
        kept(self.documents.runtime.set_kernel_state(&state));
        let status = match state {
            KernelState::Running(_) => KernelPresence::Idle,
            KernelState::Shutdown => KernelPresence::Shutdown,
            KernelState::Error { .. } => KernelPresence::Errored,
            _ => return,
        };
        let env_source =
            self.kernel.environment.as_ref().map(|it| it.lease.source.clone()).unwrap_or_default();
        if let Some(update) = self.presence.kernel(PresenceData::KernelState { status, env_source }) {
            self.tell(To::All, &update);
        }
    }

    fn begin_launch(&mut self, wanted: Wanted, waiting: Vec<Waiting>) {
        let launch = Launch {
            id: self.ids.launch(),
            wanted,
            kind: choice::unknown(""),
            need: EnvNeed::default(),
            failed: None,
            deno: DenoConfig::default(),
            waiting,
        };
        self.kernel.existed = true;
        self.kernel.held = Wanted::default();
        self.forget_widgets();
        self.show_kernel(KernelState::Resolving);
        let metadata = self.documents.notebook.metadata();
        let said = self.said(&launch.wanted, &metadata);
        if said.is_python() {
            let kind = said.choose(&[]);
            return self.chosen(Launch { kind, ..launch });
        }
        self.effects.push(Effect::FindKernels { launch: launch.id });
        self.kernel.stage = Stage::Choosing(launch);
    }

    fn said<'a>(&'a self, wanted: &'a Wanted, metadata: &'a Map<String, Json>) -> Said<'a> {
        Said { asked: &wanted.kind, source: &wanted.source, metadata, default: self.default_runtime() }
    }

    /// It is known what is installed.
    pub(super) fn kernels_found(&mut self, id: LaunchId, installed: Result<Vec<KernelKind>, PluginError>) {
        let launch = match std::mem::take(&mut self.kernel.stage) {
            Stage::Choosing(launch) if launch.id == id => launch,
            other => {
                self.kernel.stage = other;
                return;
            }
        };
        match installed {
            Ok(installed) => {
                let metadata = self.documents.notebook.metadata();
                let kind = self.said(&launch.wanted, &metadata).choose(&installed);
                self.chosen(Launch { kind, ..launch });
            }
            Err(error) => self.launch_failed(launch, error_state(&error, ""), &error),
        }
    }

    /// It is known which kernel it will be.
    fn chosen(&mut self, mut launch: Launch) {
        if launch.kind.name != PYTHON {
            self.release_environment();
            kept(self.documents.runtime.set_prewarmed_packages(&[]));
            launch.deno = self.deno_config(&launch.kind);
            return self.start_process(launch);
        }
        let need = self.need(&launch.wanted.source);
        let fits =
            |environment: &Environment| environment.fits(&need) && !self.is_drawn_to_a_project(environment);
        if self.kernel.environment.as_ref().is_some_and(fits) {
            return self.start_process(launch);
        }
        self.release_environment();
        launch.need = need.clone();
        self.effects.push(Effect::Acquire { launch: launch.id, need, instead_of: None });
        self.kernel.stage = Stage::Acquiring(launch);
    }

    /// What the notebook says about a kernel of `kind`, if that may be Deno under whatever name.
    fn deno_config(&self, kind: &KernelKind) -> DenoConfig {
        match kind.name == DENO || DENO_LANGUAGES.contains(&kind.language.as_str()) {
            true => DenoConfig::of(&self.documents.notebook.metadata()),
            false => DenoConfig::default(),
        }
    }

    fn start_process(&mut self, launch: Launch) {
        self.show_kernel(KernelState::Launching);
        let command = match &self.kernel.environment {
            Some(environment) => environment.lease.launch.clone(),
            None => LaunchCommand::default(),
        };
        let spec = LaunchSpec {
            kernel: launch.id.0.to_string(),
            kind: launch.kind.name.clone(),
            room: self.id.to_string(),
            notebook_path: self.saving.path().map(ToOwned::to_owned),
            cwd: command.cwd.clone().unwrap_or_else(|| self.kernel_dir()),
            command,
            options: launch.deno.options(),
        };
        self.effects.push(Effect::Launch { launch: launch.id, spec: Box::new(spec) });
        self.kernel.stage = Stage::Starting(launch);
    }

    /// The process did not come up. The environment may be why: it is made anew, once.
    fn start_failed(&mut self, mut launch: Launch, error: &PluginError) {
        let Some(Environment { need, lease }) = self.kernel.environment.take() else {
            return self.launch_failed(launch, error_state(error, ""), error);
        };
        let Some(first) = launch.failed else {
            let reason = words(error);
            let progress =
                json!({"env_type": lease.environment.kind, "phase": "rebuilding", "reason": reason});
            kept(self.documents.runtime.set_env_progress(Some(&progress)));
            self.show_kernel(KernelState::PreparingEnv);
            (launch.failed, launch.need) = (Some(reason), need.clone());
            self.effects.push(Effect::Acquire { launch: launch.id, need, instead_of: Some(lease.id) });
            self.kernel.stage = Stage::Acquiring(launch);
            return;
        };
        self.effects.push(Effect::Release { lease: lease.id, how: Release::Delete });
        let second = "The environment was made anew once, and the kernel did not start in that one either.";
        let error = PluginError { message: first, help: Some(second.to_owned()), ..error.clone() };
        launch.failed = None;
        self.launch_failed(launch, error_state(&error, ""), &error);
    }

    fn launch_failed(&mut self, launch: Launch, state: KernelState, error: &PluginError) {
        self.launch_failed_at = Some(self.now);
        if matches!(state, KernelState::AwaitingTrust | KernelState::AwaitingEnvBuild { .. }) {
            self.kernel.held = launch.wanted;
        }
        let ended = self.queue.kernel_lost();
        self.settle(ended);
        self.show_kernel(state);
        for Waiting { ticket, .. } in launch.waiting {
            self.answer(Some(ticket), Response::error(words(error)));
        }
    }

    fn announce(&mut self, up: Up) {
        self.kernel.stage = Stage::Up(up);
        self.declarations.touched(self.now);
        self.show_drift();
        self.show_kernel(KernelState::Running(Activity::Idle));
    }

    fn kernel_facts(&self) -> KernelFacts {
        let deno = self.kernel.deno().cloned().unwrap_or_default();
        self.facts(self.kernel.kind().unwrap_or_default(), &deno)
    }

    fn facts(&self, kind: &str, deno: &DenoConfig) -> KernelFacts {
        match &self.kernel.environment {
            Some(Environment { lease, .. }) => KernelFacts {
                kernel_type: kind.to_owned(),
                env_source: lease.source.clone(),
                launched_config: lease.launched_config.clone(),
            },
            None => KernelFacts {
                kernel_type: kind.to_owned(),
                env_source: kind.to_owned(),
                launched_config: if kind == DENO || !deno.is_default() { deno.launched() } else { json!({}) },
            },
        }
    }
}

/// The answer to who asked out of habit says what they asked for: the Python client takes anything else for an error.
/// The runtime state says what it is.
fn in_their_words(facts: KernelFacts, habit: bool) -> KernelFacts {
    match habit {
        true => KernelFacts { kernel_type: PYTHON.to_owned(), ..facts },
        false => facts,
    }
}

/// A kernel's language as clients expect it: Python and Deno say what they are.
fn shown_language(kind: &KernelKind) -> &str {
    match choice::built_in(&kind.name) {
        None if !kind.language.is_empty() => &kind.language,
        _ => &kind.name,
    }
}

/// What went wrong and what to do about it, for a user.
pub(super) fn words(error: &PluginError) -> String {
    match &error.help {
        Some(help) => format!("{}\n{help}", error.message),
        None => error.message.clone(),
    }
}

/// What a kernel waits for that may not have its environment yet.
fn held(error: &PluginError) -> Option<KernelState> {
    if error.code != ErrorCode::Denied {
        return None;
    }
    if error.detail.get("awaiting").and_then(Json::as_str) != Some("env_build") {
        return Some(KernelState::AwaitingTrust);
    }
    let reason = error.detail.get("error_reason").and_then(Json::as_str).unwrap_or_default().to_owned();
    Some(KernelState::AwaitingEnvBuild { reason, details: words(error) })
}

fn error_state(error: &PluginError, reason: &str) -> KernelState {
    let reason = error.detail.get("error_reason").and_then(Json::as_str).unwrap_or(reason);
    KernelState::Error { reason: reason.to_owned(), details: words(error) }
}
