//! Runs suites on a subject.
//!
//! For: a plugin's own tests, and [`crate::isolated`], which runs this in a process of its own.
//! Promises: each case has a thread, a runtime and folders of its own; one that hangs is reported with the call
//! it hangs in, and left behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde::{Deserialize, Serialize};

use crate::bench::{Bench, Limits, Session, Steps, hung};
use crate::case::{Case, Stop, Verdict};
use crate::host::Capabilities;
use crate::report::{CaseReport, Fault, Outcome, Report};
use crate::subject::{Carrier, Subject};
use crate::suites::Suite;

/// Longest call that builds nothing. Such calls take milliseconds; this is for machines that are very busy.
const CALL: Duration = Duration::from_secs(60);
/// Longest build. A conda environment on a slow line takes minutes.
const BUILD: Duration = Duration::from_secs(600);
/// A package that installs with every manager of Python packages, is tiny and needs nothing.
const PACKAGE: &str = "six";
/// What a step may be late before its thread counts as hanging: a call notices its own limit before that.
const MARGIN: Duration = Duration::from_secs(5);
/// How long the threads of a finished case may take to end.
const WINDING_DOWN: Duration = Duration::from_secs(2);

/// A run of suites on one subject.
///
/// ```no_run
/// # use runtimed_plugin_api::{Host, Plugin, Result, async_trait};
/// use runtimed_plugin_testkit::{Check, Subject, Suite};
///
/// # struct MyPlugin;
/// # #[async_trait]
/// # impl Plugin for MyPlugin {
/// #     fn create(_: Host) -> Result<Self> { Ok(Self) }
/// # }
/// Check::new(Subject::of::<MyPlugin>(env!("CARGO_MANIFEST_DIR"))).run().assert_passed();
/// ```
pub struct Check {
    subject: Subject,
    choice: Choice,
    capabilities: Capabilities,
    scratch: Option<PathBuf>,
}

/// Which cases are run, and how patiently.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Suites by name; empty for all that fit the plugin.
    #[serde(default)]
    pub only: Vec<Suite>,
    /// Cases by name; empty for all of those suites.
    #[serde(default)]
    pub cases: Vec<String>,
    /// Only what takes a moment.
    #[serde(default)]
    pub quick: bool,
    /// Longest call; none for a minute, or ten minutes where something is built.
    #[serde(default)]
    pub patience: Option<Duration>,
    /// Package that is installed where any will do; none for `six`.
    #[serde(default)]
    pub package: Option<String>,
}

impl Choice {
    /// Whether a case of a chosen suite is chosen, too.
    fn wants(&self, case: &Case) -> bool {
        let named = self.cases.is_empty() || self.cases.iter().any(|name| name == case.name);
        named && (case.quick || !self.quick)
    }
}

/// What happens during a run, for whoever watches it from outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A case begins.
    Begun { suite: Suite, case: String },
    /// It enters a step that may take so long.
    Step { name: String, limit: Duration },
    /// It ended.
    Ended { report: CaseReport },
    /// It will never end: whoever wants the rest needs a new process.
    Stuck { report: CaseReport },
}

/// Hears of every event. Must return at once.
pub(crate) type Listener = Arc<dyn Fn(Event) + Send + Sync>;

impl Check {
    /// Runs everything that fits the plugin, unless told otherwise.
    pub fn new(subject: Subject) -> Self {
        Self { subject, choice: Choice::default(), capabilities: Capabilities::default(), scratch: None }
    }

    /// Runs this suite, and others that are named the same way.
    #[must_use]
    pub fn only(mut self, suite: Suite) -> Self {
        self.choice.only.push(suite);
        self
    }

    /// Runs what was chosen.
    #[must_use]
    pub fn choose(mut self, choice: Choice) -> Self {
        self.choice = choice;
        self
    }

    /// Gives the plugin what others provide.
    #[must_use]
    pub fn with(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Works below this folder instead of one of its own. Downloaded tools stay there.
    #[must_use]
    pub fn in_folder(mut self, scratch: PathBuf) -> Self {
        self.scratch = Some(scratch);
        self
    }

    /// Runs the suites, one case after the other. Blocks.
    pub fn run(self) -> Report {
        self.run_with(&[], &(Arc::new(|_| {}) as Listener))
    }

    /// Runs the suites but for the cases in `done`.
    pub(crate) fn run_with(self, done: &[(Suite, String)], listener: &Listener) -> Report {
        let Self { subject, choice, capabilities, scratch } = self;
        let mut report = Report { plugin: subject.id(), cases: Vec::new() };
        // Sockets go below it, and their paths must be short: the temporary folder of macOS is not.
        let own = scratch
            .is_none()
            .then(|| tempfile::Builder::new().prefix("runt-check-").tempdir_in("/tmp").ok())
            .flatten();
        let folder = scratch
            .or_else(|| own.as_ref().map(|own| own.path().to_owned()))
            .unwrap_or_else(std::env::temp_dir);
        let limits = Limits {
            call: choice.patience.unwrap_or(CALL).min(CALL),
            build: choice.patience.unwrap_or(BUILD).min(BUILD),
        };
        let suites = Suite::for_subject(&subject, &choice);
        let is_done = |suite: Suite, case: &str| {
            done.iter().any(|(other, name)| (*other, name.as_str()) == (suite, case))
        };
        let package = choice.package.clone().unwrap_or_else(|| PACKAGE.to_owned());
        let mut session = Session::new(subject, limits, package, folder);
        session.capabilities = capabilities;
        let session = Arc::new(session);
        for suite in suites {
            for case in suite.cases().iter().filter(|case| choice.wants(case)) {
                if is_done(suite, case.name) {
                    continue;
                }
                let (ended, stuck) = run_case(&session, suite, case, listener);
                let hopeless = is_hopeless(&ended);
                report.cases.push(ended);
                if hopeless || stuck && session.subject.carrier() != Carrier::Static {
                    if hopeless && !stuck {
                        let rest = rest(&session.subject, &choice, |suite, case| {
                            report.cases.iter().any(|it| it.is(suite, case)) || is_done(suite, case)
                        });
                        rest.iter().for_each(|case| listener(Event::Ended { report: case.clone() }));
                        report.cases.extend(rest);
                    }
                    return report;
                }
            }
        }
        report
    }
}

/// Whether a case shows that the plugin cannot even be started, so that all others would fail the same way.
pub(crate) fn is_hopeless(case: &CaseReport) -> bool {
    let needed = ["loads", "starts-and-stops"].into_iter().any(|needed| case.is(Suite::Life, needed));
    needed && matches!(case.outcome, Outcome::Failed(_))
}

/// The chosen cases that are not `done`, skipped because there is no hope for them.
pub(crate) fn rest(
    subject: &Subject,
    choice: &Choice,
    done: impl Fn(Suite, &str) -> bool,
) -> Vec<CaseReport> {
    let suites = Suite::for_subject(subject, choice).into_iter();
    let cases = suites.flat_map(|suite| suite.cases().iter().map(move |case| (suite, case)));
    let left = cases.filter(|(suite, case)| choice.wants(case) && !done(*suite, case.name));
    let why = "the plugin cannot be started".to_owned();
    left.map(|(suite, case)| CaseReport {
        suite: suite.name().to_owned(),
        case: case.name.to_owned(),
        shows: case.shows.to_owned(),
        carrier: suite.carrier_name(subject.carrier()).to_owned(),
        outcome: Outcome::Skipped { why: why.clone() },
        seconds: 0.0,
    })
    .collect()
}

/// Runs a case; also says whether it hangs for ever.
fn run_case(
    session: &Arc<Session>,
    suite: Suite,
    case: &'static Case,
    listener: &Listener,
) -> (CaseReport, bool) {
    listener(Event::Begun { suite, case: case.name.to_owned() });
    let begin = Instant::now();
    let told = listener.clone();
    let steps = Arc::new(Steps::new(move |name, limit| told(Event::Step { name: name.to_owned(), limit })));
    steps.enter("its beginning", session.limits.call);
    let (tell, verdicts) = channel();
    let (session_there, steps_there) = (session.clone(), steps.clone());
    let spawned = thread::Builder::new()
        .name(format!("{}/{}", suite.name(), case.name))
        .spawn(move || case_thread(session_there, steps_there, case, &tell));
    let (verdict, stuck) = match spawned {
        Ok(thread) => {
            let (verdict, stuck) = wait(&verdicts, &steps);
            if !stuck {
                // It has said its last word. What it panics with now was caught and reported before.
                let _ = thread.join();
            }
            (verdict, stuck)
        }
        Err(error) => (Err(Stop::skipped(format!("no thread could be started for it: {error}"))), false),
    };
    let report = CaseReport {
        suite: suite.name().to_owned(),
        case: case.name.to_owned(),
        shows: case.shows.to_owned(),
        carrier: suite.carrier_name(session.subject.carrier()).to_owned(),
        outcome: match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Failed(fault)) => Outcome::Failed(fault.tamed()),
            Err(Stop::Skipped(why)) => Outcome::Skipped { why: crate::case::tame(&why, 400) },
        },
        seconds: begin.elapsed().as_secs_f64(),
    };
    let event =
        if stuck { Event::Stuck { report: report.clone() } } else { Event::Ended { report: report.clone() } };
    listener(event);
    (report, stuck)
}

/// The case itself: first its verdict, then that on what it left behind.
fn case_thread(session: Arc<Session>, steps: Arc<Steps>, case: &'static Case, tell: &Sender<Verdict>) {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = tell.send(Err(Stop::skipped(format!("no threads could be started for it: {error}"))));
            return;
        }
    };
    runtime.block_on(async {
        let bench = Arc::new(Bench::new(session, steps));
        let verdict = std::panic::AssertUnwindSafe((case.run)(bench.clone())).catch_unwind().await;
        let verdict = verdict.unwrap_or_else(|_| {
            Err(Fault::new(
                "the conformance kit itself panicked",
                "report this to the authors of the conformance kit, with what stands on stderr",
            )
            .into())
        });
        // Fails when nobody waits any more.
        let _ = tell.send(verdict);
        let _ = tell.send(bench.aftermath().await);
    });
    runtime.shutdown_timeout(WINDING_DOWN);
}

/// Waits for both verdicts as long as the steps allow. The first that is no pass counts.
fn wait(verdicts: &Receiver<Verdict>, steps: &Steps) -> (Verdict, bool) {
    let mut verdict = Ok(());
    let mut heard = 0;
    while heard < 2 {
        let step = steps.now();
        let left = (step.limit + MARGIN).saturating_sub(step.since.elapsed());
        match verdicts.recv_timeout(left) {
            Ok(next) => {
                heard += 1;
                verdict = verdict.and(next);
            }
            Err(RecvTimeoutError::Disconnected) => return (verdict, false),
            // It may have entered another step meanwhile.
            Err(RecvTimeoutError::Timeout) if steps.now() != step => {}
            Err(RecvTimeoutError::Timeout) => {
                return (verdict.and(Err(hung(step.name, step.limit).into())), true);
            }
        }
    }
    (verdict, false)
}
