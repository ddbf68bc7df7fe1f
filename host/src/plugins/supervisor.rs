//! One plugin in a process of its own: started when it is called, closed when it is idle, started again after it
//! died.
//!
//! For: the registry, which holds a supervisor for each plugin that is carried by a child, and the
//! [proxies](super::proxy), which call through it.
//! Promises: at most one process takes new calls; whoever asks for it while it starts, waits for the same start,
//! and nobody who stops waiting stops it; a process that died is started again by the next call, within a
//! [budget](super::budget); one that is replaced, or that panicked, ends when it has answered its calls.
//! Never: holds a lock while it waits.
//!
//! How: one task owns all of it and is asked through a channel. It ends when nobody can ask any more and the last
//! process is gone, or when it is told to stop.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::adapter::Panicked;
use runtimed_plugin_api::adapter::child::{Child, ChildSpec};
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::processes::ProcessLimits;
use runtimed_plugin_api::{ENV_PROVIDER, ErrorCode, HostServices, PluginError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use super::budget::{Budget, COOL_DOWN, RESTARTS, Verdict, WINDOW};
use super::config::Limits;
use super::load::{LOAD_DEADLINE, Loader, START_DEADLINE, compare, is_the_same};
use super::report;
use super::row::{Problem, Shown, Status};
use super::running::{Borrowed, Need, Outcome, Running, asked};
use super::search::Found;
use super::services::HostContext;

/// By how much providers of environments give way: cells come first, and without them they are as fast as ever.
/// The same as for background work (`ProcessSpec::nice`).
const NICE: u8 = 10;

/// What a supervisor starts.
pub(super) struct Ward {
    pub(super) found: Found,
    pub(super) manifest: Manifest,
    /// The program that serves a plugin, with its arguments.
    pub(super) command: Vec<OsString>,
    pub(super) limits: Limits,
    pub(super) host: Arc<dyn HostServices>,
    pub(super) loader: Arc<Loader>,
    pub(super) context: Arc<HostContext>,
    pub(super) shown: Arc<Shown>,
}

/// Whoever wants a process sends where to.
type Request = oneshot::Sender<Result<Borrowed, PluginError>>;

/// The handle of a supervisor. Cheap to clone; the process ends some time after the last clone is gone.
#[derive(Clone)]
pub(super) struct Supervisor {
    requests: mpsc::UnboundedSender<Request>,
    stop: watch::Sender<Option<Duration>>,
    ended: watch::Receiver<bool>,
}

impl Supervisor {
    /// A supervisor, and its work, which is to be run once.
    pub(super) fn new(ward: Ward) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (requests, asking) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(None);
        let (ending, ended) = watch::channel(false);
        let keeper = Keeper {
            stateless: is_stateless(&ward.manifest),
            ward,
            stop: stopping,
            library: None,
            current: None,
            looked_after: JoinSet::new(),
            budget: Budget::default(),
            refused: None,
        };
        let work = async move {
            keeper.run(asking).await;
            ending.send_replace(true);
        };
        (Self { requests, stop, ended }, work)
    }

    /// A process for a call; starts one if there is none.
    ///
    /// # Errors
    /// Why none can be started, or not now.
    pub(super) async fn borrow(&self) -> Result<Borrowed, PluginError> {
        let (tell, told) = oneshot::channel();
        // Fails if it has ended, and so does the wait then.
        let _ = self.requests.send(tell);
        told.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Ends its process within `grace`, and takes no more calls.
    pub(super) async fn stop(&self, grace: Duration) {
        self.stop.send_replace(Some(grace));
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// Whether the plugin's process may be closed and started again without anybody noticing: between two calls a
/// provider of environments holds nothing, all others hold notebooks, kernels or blobs.
pub(super) fn is_stateless(manifest: &Manifest) -> bool {
    manifest.provides.iter().all(|it| it.capability == ENV_PROVIDER)
}

/// Owns the processes of one plugin.
struct Keeper {
    ward: Ward,
    stateless: bool,
    stop: watch::Receiver<Option<Duration>>,
    /// The copy of the library that was checked, from the first start on.
    library: Option<PathBuf>,
    /// Takes the next call.
    current: Option<Arc<Running>>,
    /// All processes, also those that are leaving.
    looked_after: JoinSet<(Arc<Running>, Outcome)>,
    budget: Budget,
    /// Why it can never be started.
    refused: Option<PluginError>,
}

impl Keeper {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = asked(&mut stop) => break,
                Some(Ok((running, outcome))) = self.looked_after.join_next() => self.ended(&running, outcome).await,
                request = requests.recv() => {
                    let Some(tell) = request else {
                        // Nobody can call any more.
                        if let Some(current) = self.current.take() {
                            current.leave();
                        }
                        break;
                    };
                    if tell.is_closed() {
                        continue; // Nobody waits any more.
                    }
                    let borrowed = tokio::select! {
                        biased;
                        _ = asked(&mut stop) => break,
                        borrowed = self.borrow() => borrowed,
                    };
                    // Fails if nobody waits any more.
                    let _ = tell.send(borrowed);
                }
            }
        }
        // Each ends by itself: it has nothing to do any more, or was told to stop.
        while let Some(ended) = self.looked_after.join_next().await {
            if let Ok((running, outcome)) = ended {
                self.ended(&running, outcome).await;
            }
        }
    }

    async fn borrow(&mut self) -> Result<Borrowed, PluginError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        if let Some(borrowed) = self.current.as_ref().and_then(Running::borrow) {
            return Ok(borrowed);
        }
        self.current = None;
        match self.budget.verdict(Instant::now()) {
            Verdict::After(pause) => sleep(pause).await,
            Verdict::Spent(_) => {
                let row = self.ward.shown.get();
                return Err(unusable(&row.reason, &row.remedy));
            }
        }
        let need = Need::new();
        match self.start(&need).await {
            Ok(child) => {
                self.ward.shown.runs(child.pid(), need.is_poisoned());
                let (running, borrowed) = Running::new(child, need);
                let settings = self.ward.context.settings.clone();
                let looked_after =
                    Arc::clone(&running).look_after(self.stateless, settings, self.stop.clone());
                self.current = Some(Arc::clone(&running));
                self.looked_after.spawn(async move { (running, looked_after.await) });
                Ok(borrowed)
            }
            Err(problem) => {
                let error = unusable(&problem.reason, &problem.remedy);
                if problem.status == Status::Refused {
                    self.refused = Some(error.clone());
                } else {
                    self.budget.died(Instant::now());
                }
                self.show(problem).await;
                Err(error)
            }
        }
    }

    async fn start(&mut self, need: &Need) -> Result<Child, Problem> {
        let id = self.ward.manifest.id.clone();
        let late = |limit: Duration, what: &str| {
            Problem::failed(
                format!("plugin `{id}` {what} within {} s", limit.as_secs()),
                "report it to the plugin's author, or reinstall the plugin",
            )
        };
        let loading = timeout(LOAD_DEADLINE, self.load(need)).await;
        let child = loading.unwrap_or_else(|_| Err(late(LOAD_DEADLINE, "could not be loaded")))?;
        match timeout(START_DEADLINE, child.plugin().start()).await {
            Ok(Ok(())) => Ok(child),
            Ok(Err(error)) => Err(Problem::failed(
                format!("plugin `{id}` could not start: {error}"),
                error
                    .help
                    .unwrap_or_else(|| "report it to the plugin's author, or reinstall the plugin".into()),
            )),
            Err(_) => Err(late(START_DEADLINE, "did not start")),
        }
    }

    async fn load(&mut self, need: &Need) -> Result<Child, Problem> {
        let library = self.checked_library().await?;
        let ward = &self.ward;
        let command = ward.command.clone();
        let limits = ProcessLimits { nice: if self.stateless { NICE } else { 0 }, ..ward.limits.into() };
        let spec = ChildSpec { command, id: ward.manifest.id.clone(), library, limits };
        let (shown, need, stateless) = (Arc::clone(&ward.shown), need.clone(), self.stateless);
        let on_panic = move |panicked: Panicked| {
            shown.poison(&panicked, stateless);
            need.poison();
            // The next call gets a process in which nothing is broken, if nothing is lost with this one.
            if stateless {
                need.leave();
            }
        };
        let child = Child::start(spec, Arc::clone(&ward.host), on_panic).await.map_err(|failure| {
            let kind = if failure.refused { Problem::refused } else { Problem::failed };
            Problem { report: failure.report, ..kind(failure.reason, failure.remedy) }
        })?;
        is_the_same(&ward.manifest, &ward.found, child.facts())?;
        compare(&ward.manifest, &**child.plugin())?;
        Ok(child)
    }

    /// The copy of the library that was checked; checked again if somebody has removed it.
    async fn checked_library(&mut self) -> Result<PathBuf, Problem> {
        if let Some(library) = &self.library
            && tokio::fs::try_exists(library).await.is_ok_and(|there| there)
        {
            return Ok(library.clone());
        }
        let Ward { loader, found, manifest, .. } = &self.ward;
        let (loader, found, manifest) = (Arc::clone(loader), found.clone(), manifest.clone());
        let checked = spawn_blocking(move || loader.check(&found, &manifest)).await;
        let checked = checked.unwrap_or_else(|error| {
            Err(Problem::failed(format!("loading was interrupted: {error}"), "try again"))
        })?;
        Ok(self.library.insert(checked.path).clone())
    }

    /// A process is gone.
    async fn ended(&mut self, running: &Arc<Running>, outcome: Outcome) {
        let id = &self.ward.manifest.id;
        if self.current.as_ref().is_some_and(|current| Arc::ptr_eq(current, running)) {
            self.current = None;
        }
        let (how, words) = match outcome {
            Outcome::Closed => return self.ward.shown.process_ended(running.pid()),
            Outcome::Died(end) => (format!("its process {}", end.describe()), end.stderr),
            Outcome::Stuck => (
                "its process answered nothing any more after a call was cancelled, and was ended".to_owned(),
                String::new(),
            ),
        };
        let now = Instant::now();
        self.budget.died(now);
        if self.current.is_some() {
            // One that was leaving; who takes the calls is well.
            tracing::warn!(plugin = %id, pid = running.pid(), "{how}");
            return self.ward.shown.process_ended(running.pid());
        }
        let report = format!("{id} {}: {how}\n\n{words}", self.ward.manifest.version);
        let problem = match self.budget.verdict(now) {
            Verdict::After(_) => {
                Problem { status: Status::Ok, ..Problem::failed(how, "the next use of it starts it again") }
            }
            Verdict::Spent(_) => Problem::failed(
                format!(
                    "its processes died {} times within {} s; the last time: {how}",
                    RESTARTS + 1,
                    WINDOW.as_secs()
                ),
                format!(
                    "update or repair it, then run: runt plugins enable {id}; otherwise it is tried again in {} minutes",
                    COOL_DOWN.as_secs() / 60
                ),
            ),
        };
        self.show(Problem { report: Some(report), ..problem }).await;
    }

    /// Makes it visible: row, and the long form in a file.
    async fn show(&self, problem: Problem) {
        let Problem { status, reason, remedy, report } = problem;
        let (base, id) = (&self.ward.context.directories.base, &self.ward.manifest.id);
        tracing::warn!(plugin = %id, "{reason}; {remedy}");
        let file = match report {
            Some(text) => report::write(base, id, text).await,
            None => None,
        };
        self.ward.shown.set(status, reason, remedy, file);
    }
}

/// What a call hears for which there is no process.
fn unusable(reason: &str, remedy: &str) -> PluginError {
    PluginError::unavailable(reason).help(remedy)
}

fn stopping() -> PluginError {
    PluginError::new(ErrorCode::Cancelled, "The daemon is stopping.")
}
