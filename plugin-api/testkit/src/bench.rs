//! What a case works with: a host, plugins, and calls that are watched.
//!
//! Promises: a call that panics, hangs or floods its host ends the case with a sentence that names the method;
//! what a case started is stopped after it, and whatever is still there then is held against the plugin.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use runtimed_plugin_api::adapter::Panicked;
use runtimed_plugin_api::adapter::child::Child;
use runtimed_plugin_api::{Environment, ErrorCode, PluginError, Progress, ProgressSink, Result, Task};
use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::case::{Stop, Verdict, require, tame};
use crate::host::{Capabilities, TestHost};
use crate::leftovers;
use crate::report::Fault;
use crate::subject::{Carrier, Instance, Subject};

/// Grace that `stop` gets.
const GRACE: Duration = Duration::from_secs(5);
/// How long processes may take to go away after whoever started them has.
const ENDING: Duration = Duration::from_secs(5);
/// Log lines of one case that count as a storm. A build that repeats each line of its tool has hundreds.
const STORM: u64 = 20_000;
/// The same for a plugin in a process of its own, whose carrier leaves lines out beyond 2000 at once.
const CHILD_STORM: u64 = 1_500;
/// Bytes on stdout and stderr of a plugin's own process that count as a flood: a plugin has no business there.
const PRINTED: u64 = 256 << 10;
/// Steps of progress of one call that count as a storm, for the same reason.
const PROGRESS_STORM: u64 = 20_000;
/// The level that hosts listen to unless a case is about logging.
const INFO: u8 = 3;
/// Longest document in bytes. Control data is read and kept by the daemon, often in its own documents; a request
/// with a thousand packages has 30 KiB.
const DOCUMENT: usize = 1 << 20;

/// Longest part of a log line that a sentence quotes, in characters.
const LINE: usize = 120;
/// What a plugin that prints has to change.
pub(crate) const PRINTS: &str = "log with `tracing`, and only what a user can act on";

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// A call that builds nothing.
    pub(crate) call: Duration,
    /// A call that may download and build an environment or start a kernel.
    pub(crate) build: Duration,
}

/// What the cases of one run share.
pub(crate) struct Session {
    pub(crate) subject: Subject,
    pub(crate) limits: Limits,
    /// A package that installs everywhere and needs nothing.
    pub(crate) package: String,
    /// Everything that is made goes below this folder.
    pub(crate) scratch: PathBuf,
    pub(crate) capabilities: Capabilities,
    /// An environment that cases look at and do not change, once somebody has built one; by kind.
    pub(crate) environments: Mutex<Vec<Environment>>,
    /// Environments that nobody needs any more.
    pub(crate) spare: Mutex<Vec<Environment>>,
    number: AtomicUsize,
}

/// Where a case is, for whoever has to say where it hangs or died.
pub(crate) struct Steps {
    now: Mutex<Step>,
    entered: Entered,
}

/// Hears of every step and how long it may take.
type Entered = Box<dyn Fn(&str, Duration) + Send + Sync>;

/// One step of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) limit: Duration,
    pub(crate) since: Instant,
}

/// One case's own things.
pub(crate) struct Bench {
    pub(crate) session: Arc<Session>,
    pub(crate) host: Arc<TestHost>,
    /// A folder of this case.
    pub(crate) folder: PathBuf,
    steps: Arc<Steps>,
    panics: Arc<Mutex<Vec<Panicked>>>,
    plugins: Mutex<Vec<Arc<Instance>>>,
    storm: Arc<Storm>,
}

/// Notices that the host is being flooded.
struct Storm {
    /// Log lines that are too many.
    most: u64,
    logged: AtomicU64,
    progressed: AtomicU64,
    flooded: Notify,
}

impl Session {
    pub(crate) fn new(subject: Subject, limits: Limits, package: String, scratch: PathBuf) -> Self {
        Self {
            subject,
            limits,
            package,
            scratch,
            capabilities: Capabilities::default(),
            environments: Mutex::default(),
            spare: Mutex::default(),
            number: AtomicUsize::new(0),
        }
    }

    /// A folder that nobody has been given before. It is not made.
    fn fresh_folder(&self) -> PathBuf {
        // A process that ended early has left its folders behind.
        loop {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let folder = self.scratch.join(number.to_string());
            if !folder.exists() {
                return folder;
            }
        }
    }
}

impl Steps {
    pub(crate) fn new(entered: impl Fn(&str, Duration) + Send + Sync + 'static) -> Self {
        let now = Step { name: String::new(), limit: Duration::MAX, since: Instant::now() };
        Self { now: Mutex::new(now), entered: Box::new(entered) }
    }

    /// The case is now at `step`, which ends within `limit`.
    pub(crate) fn enter(&self, step: &str, limit: Duration) {
        *lock(&self.now) = Step { name: step.to_owned(), limit, since: Instant::now() };
        (self.entered)(step, limit);
    }

    /// Where the case is.
    pub(crate) fn now(&self) -> Step {
        lock(&self.now).clone()
    }
}

impl Bench {
    pub(crate) fn new(session: Arc<Session>, steps: Arc<Steps>) -> Self {
        let folder = session.fresh_folder();
        let most = if session.subject.carrier() == Carrier::Child { CHILD_STORM } else { STORM };
        let (logged, progressed) = (AtomicU64::new(0), AtomicU64::new(0));
        let storm = Arc::new(Storm { most, logged, progressed, flooded: Notify::new() });
        let host = new_host(&session, &folder, &storm);
        Self {
            session,
            host: Arc::new(host),
            folder,
            steps,
            panics: Arc::default(),
            plugins: Mutex::default(),
            storm,
        }
    }

    /// Another host, as another daemon of the same user would be.
    pub(crate) fn another_host(&self) -> Arc<TestHost> {
        Arc::new(new_host(&self.session, &self.session.fresh_folder(), &self.storm))
    }

    /// A plugin that has started with this case's host.
    pub(crate) async fn start(&self) -> Result<Arc<Instance>, Stop> {
        let plugin = self.make(&self.host).await?;
        self.started(&plugin).await?;
        Ok(plugin)
    }

    /// A plugin that has not started.
    pub(crate) async fn make(&self, host: &Arc<TestHost>) -> Result<Arc<Instance>, Stop> {
        self.steps.enter("Plugin::create", self.session.limits.call);
        let panics = self.panics.clone();
        let on_panic = move |panicked| lock(&panics).push(panicked);
        let making = AssertUnwindSafe(self.session.subject.make(host.clone(), on_panic));
        let plugin = match making.catch_unwind().await {
            Ok(Ok(made)) => Arc::new(made),
            Ok(Err(stop)) => return Err(self.first_panic(culprit(&stop)).unwrap_or(stop)),
            Err(payload) => return Err(Fault::of_panic("Plugin::create", &text_of(&*payload), "").into()),
        };
        lock(&self.plugins).push(plugin.clone());
        Ok(plugin)
    }

    /// Starts a plugin.
    pub(crate) async fn started(&self, plugin: &Arc<Instance>) -> Verdict {
        let started = self.call("Plugin::start", plugin.start()).await?;
        started.map_err(|error| {
            Fault::of_error("Plugin::start", &error, "let `start` succeed, and put off what may fail").into()
        })
    }

    /// Stops a plugin that this case started, and forgets it.
    pub(crate) async fn stop(&self, plugin: Arc<Instance>) -> Verdict {
        lock(&self.plugins).retain(|one| !Arc::ptr_eq(one, &plugin));
        let stopped = self.call("Plugin::stop", plugin.stop(GRACE)).await?;
        if let Some(child) = &plugin.child {
            self.alive("Plugin::stop", child)?;
            self.silent("Plugin::stop", child)?;
            self.wait("the end of the plugin's process", 2 * GRACE, child.close(GRACE)).await?;
        }
        self.drop_plugin(plugin)?;
        stopped.map_err(|error| {
            Fault::of_error("Plugin::stop", &error, "let `stop` end everything within its grace").into()
        })
    }

    /// Forgets a plugin without stopping it.
    pub(crate) fn forget(&self, plugin: Arc<Instance>) -> Verdict {
        lock(&self.plugins).retain(|one| !Arc::ptr_eq(one, &plugin));
        self.drop_plugin(plugin)
    }

    fn drop_plugin(&self, plugin: Arc<Instance>) -> Verdict {
        self.at_once("drop of the plugin", move || drop(plugin)).map(drop)
    }

    /// Waits for a call that builds nothing.
    pub(crate) async fn call<T>(
        &self,
        method: &str,
        future: impl Future<Output = Result<T>>,
    ) -> Result<Result<T>, Stop> {
        let result = self.wait(method, self.session.limits.call, future).await?;
        self.came_back(method, result)
    }

    /// Waits for a call that may take minutes.
    pub(crate) async fn build<T>(
        &self,
        method: &str,
        future: impl Future<Output = Result<T>>,
    ) -> Result<Result<T>, Stop> {
        let result = self.wait(method, self.session.limits.build, future).await?;
        self.came_back(method, result)
    }

    /// A panic, or the end of the plugin's process, is a fault whatever else the case thinks of errors.
    pub(crate) fn came_back<T>(&self, method: &str, result: Result<T>) -> Result<Result<T>, Stop> {
        for plugin in lock(&self.plugins).iter() {
            if let Some(child) = &plugin.child {
                self.silent(method, child)?;
            }
        }
        let Err(error) = result else { return Ok(result) };
        if error.code == ErrorCode::Panicked {
            return Err(Fault::of_error(method, &error, "").into());
        }
        for plugin in lock(&self.plugins).iter() {
            if let Some(child) = &plugin.child {
                self.alive(method, child)?;
            }
        }
        Ok(Err(error))
    }

    /// Fails if the process of a plugin has ended.
    fn alive(&self, method: &str, child: &Child) -> Verdict {
        match child.ended().now_or_never() {
            None => Ok(()),
            Some(end) => Err(Fault::new(
                format!("the plugin's process {} during `{method}`", end.describe()),
                "return errors, and leave the process to its owner; a debugger shows where a signal came from",
            )
            .detail(end.stderr)
            .into()),
        }
    }

    /// Waits for anything, at most for `limit`; `what` is how a sentence names it.
    pub(crate) async fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Stop> {
        self.steps.enter(what, limit);
        let result = tokio::select! {
            ended = tokio::time::timeout(limit, AssertUnwindSafe(future).catch_unwind()) => match ended {
                Ok(Ok(result)) => result,
                Ok(Err(payload)) => return Err(Fault::of_panic(what, &text_of(&*payload), "").into()),
                Err(_) => return Err(hung(what, limit).into()),
            },
            () = self.storm.flooded.notified() => return Err(self.flood(what).into()),
        };
        self.steps.enter(&format!("after {what}"), self.session.limits.call);
        Ok(result)
    }

    /// Makes a synchronous call and says how long it took.
    pub(crate) fn at_once<T>(&self, method: &str, body: impl FnOnce() -> T) -> Result<(T, Duration), Stop> {
        self.steps.enter(method, self.session.limits.call);
        let begin = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(body));
        let took = begin.elapsed();
        self.steps.enter(&format!("after {method}"), self.session.limits.call);
        match result {
            Ok(value) => Ok((value, took)),
            Err(payload) => Err(Fault::of_panic(method, &text_of(&*payload), "").into()),
        }
    }

    /// A task whose progress is counted, and the counter.
    pub(crate) fn task(&self) -> (Task, Arc<Progressed>) {
        let progressed = Arc::new(Progressed { count: watch::Sender::new(0), storm: self.storm.clone() });
        (Task::new(progressed.clone()), progressed)
    }

    /// Stops every plugin of this case.
    pub(crate) async fn stop_all(&self) -> Verdict {
        let plugins = std::mem::take(&mut *lock(&self.plugins));
        for plugin in plugins {
            self.stop(plugin).await?;
        }
        Ok(())
    }

    /// What is held against a plugin after its case: call it last.
    pub(crate) async fn aftermath(&self) -> Verdict {
        self.stop_all().await?;
        if let Some(stop) = self.first_panic("a destructor, or a method that says what the plugin provides,")
        {
            return Err(stop);
        }
        if self.storm.logged.load(Ordering::SeqCst) >= self.storm.most {
            return Err(self.flood("Plugin::stop").into());
        }
        self.nothing_left().await
    }

    /// What to say of the first panic that was caught at the boundary in this case.
    fn first_panic(&self, method: &str) -> Option<Stop> {
        let panics = lock(&self.panics);
        panics.first().map(|it| Fault::of_panic(method, &it.message, &it.location).into())
    }

    /// Fails if a process that was started for the plugin is still there; ends those.
    pub(crate) async fn nothing_left(&self) -> Verdict {
        self.steps.enter("the end of all processes", ENDING + self.session.limits.call);
        // A plugin that has not stopped yet may keep the process it is in, and no other.
        let own: Vec<u32> =
            lock(&self.plugins).iter().filter_map(|it| it.child.as_ref()).map(Child::pid).collect();
        let left = self.host.all_ended_but(&own, ENDING).await;
        left.iter().for_each(leftovers::end);
        require(left.is_empty(), || {
            let names: Vec<String> = left.iter().take(5).map(ToString::to_string).collect();
            Fault::new(
                format!("{} process(es) were left running: {}", left.len(), names.join(", ")),
                "start processes with `run_process`, which ends the whole tree of a call that is dropped, or end them in `stop`",
            )
        })
    }

    /// What logs or reports may go on beside the call that began it, so the line is named, too.
    fn flood(&self, method: &str) -> Fault {
        let logged = self.storm.logged.load(Ordering::SeqCst);
        if logged < self.storm.most {
            return Fault::new(
                format!("`{method}` reported progress more than {PROGRESS_STORM} times"),
                "report a step when there is something new to see",
            );
        }
        let lines = self.host.log_lines();
        let line = lines.last().map_or_else(String::new, |line| {
            format!("; one of them, of `{}`, is \"{}\"", line.target, tame(&line.message, LINE))
        });
        Fault::new(
            format!(
                "the plugin had logged more than {} lines when `{method}` was called{line}",
                self.storm.most
            ),
            "say what a user can act on, once, and end what goes on beside a call with the call",
        )
    }

    /// Fails if the process of a plugin prints.
    fn silent(&self, method: &str, child: &Child) -> Verdict {
        require(child.printed() <= PRINTED, || {
            Fault::new(
                format!(
                    "the plugin had written more than {} KiB to stdout and stderr when `{method}` returned",
                    PRINTED >> 10
                ),
                PRINTS,
            )
        })
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The whole scratch folder is deleted in the end; this only keeps it small until then.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn new_host(session: &Session, folder: &std::path::Path, storm: &Arc<Storm>) -> TestHost {
    let storm = storm.clone();
    let host = TestHost::new(folder)
        .with_tools(&session.scratch.join("tools"))
        .with_plugin_folder(session.subject.folder())
        .with_capabilities(session.capabilities.clone())
        .with_log(move |_| {
            if storm.logged.fetch_add(1, Ordering::SeqCst) == storm.most {
                storm.flooded.notify_one();
            }
        });
    host.set_log_level(INFO);
    host
}

/// Counts the progress of one call.
pub(crate) struct Progressed {
    count: watch::Sender<u64>,
    storm: Arc<Storm>,
}

impl Progressed {
    /// Steps so far.
    pub(crate) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Waits until there were so many steps.
    pub(crate) async fn reach(&self, steps: u64) {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.count.subscribe().wait_for(|count| *count >= steps).await;
    }
}

impl ProgressSink for Progressed {
    fn progress(&self, _: Progress) {
        self.count.send_modify(|count| *count += 1);
        if self.storm.progressed.fetch_add(1, Ordering::SeqCst) == PROGRESS_STORM {
            self.storm.flooded.notify_one();
        }
    }
}

/// What a method must answer; for anything else the case fails.
pub(crate) fn answered<T>(method: &str, result: Result<T>, remedy: &str) -> Result<T, Stop> {
    result.map_err(|error| Fault::of_error(method, &error, remedy).into())
}

/// The same where the network or a tool may be missing, which is nobody's fault: the case is skipped then.
pub(crate) fn built<T>(method: &str, result: Result<T>, remedy: &str) -> Result<T, Stop> {
    match result {
        Err(error) if is_out_of_reach(&error) => {
            Err(Stop::skipped(format!("`{method}` says that something is out of reach: {}", error.message)))
        }
        result => answered(method, result, remedy),
    }
}

/// Whether an error says that the same call may succeed another time.
pub(crate) fn is_out_of_reach(error: &PluginError) -> bool {
    error.retryable || error.code == ErrorCode::Unavailable
}

/// Fails if a document is larger than the daemon should have to keep.
pub(crate) fn small(method: &str, document: &impl Serialize) -> Verdict {
    let size = serde_json::to_vec(document).map_or(0, |text| text.len());
    require(size <= DOCUMENT, || {
        Fault::new(
            format!("`{method}` answered with a document of {} MiB", size >> 20),
            "keep large things in files and answer with their path",
        )
    })
}

/// The fault of a method that did not return.
pub(crate) fn hung(method: impl Display, limit: Duration) -> Fault {
    Fault::new(
        format!("`{method}` did not return within {} s", limit.as_secs_f32()),
        "give everything it waits for a deadline, and never block a thread that answers calls",
    )
}

impl Session {
    /// Whether the process that holds the plugin holds nothing else, so that its resources can be counted.
    pub(crate) fn is_alone(&self) -> bool {
        self.subject.carrier() != Carrier::Static
    }
}

/// The method that panicked while a plugin was made: carriers ask it for what it provides at once, and name the
/// method that did not answer.
fn culprit(not_made: &Stop) -> &'static str {
    const INFO: &str = "EnvProvider::info";
    match not_made {
        Stop::Failed(fault) if fault.sentence.contains(INFO) => INFO,
        _ => "Plugin::create",
    }
}

fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "a panic without a message".to_owned(),
    }
}

/// Locks for a moment; what is behind is plain data, whole at all times.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
