//! Suites in a process of their own, so that a plugin may end that one.
//!
//! For: `runtimed plugins-check`, which is both the process that waits and the process that is waited for.
//! Promises: a plugin that ends its process, floods its output or hangs is a failure of the case it was in, with a
//! sentence that says how; the other cases are run all the same, in another process; nothing is left running.
//! Shape: the work goes in on stdin as one line of JSON, and stdin stays open; events come out on stdout, one JSON document a line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::bench::{PRINTS, hung, lock};
use crate::case::tame;
use crate::check::{Check, Choice, Event, Listener, is_hopeless, rest};
use crate::companions::{Companion, Companions};
use crate::leftovers;
use crate::report::{CaseReport, Fault, Outcome, Report};
use crate::subject::{Carrier, Subject};
use crate::suites::Suite;

/// What a step may be late before the process is ended: it notices its own limits, and then its hangs, before that.
const MARGIN: Duration = Duration::from_secs(15);
/// Longest time between two cases: companions are started and libraries are read meanwhile.
const BETWEEN: Duration = Duration::from_secs(60);
/// Bytes on stdout and stderr that count as a flood.
const FLOOD: u64 = 4 << 20;
/// Bytes of output that are kept for the report.
const KEPT: usize = 8 << 10;
/// How often a silent process is looked at for a flood.
const LOOK: Duration = Duration::from_millis(100);

/// Everything a process needs to know to run suites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The folder with the manifest.
    pub folder: PathBuf,
    /// The library, absolute; it has passed all checks of files.
    pub library: PathBuf,
    /// In which process the plugin itself runs.
    pub carrier: Carrier,
    /// The program and arguments for a process of the plugin's own, such as `runtimed plugin-child`.
    #[serde(default)]
    pub child: Vec<String>,
    /// Which cases.
    pub choice: Choice,
    /// Plugins whose capabilities it may use.
    #[serde(default)]
    pub companions: Vec<Companion>,
    /// Folder for everything that is made. Its path should be short: sockets go below it.
    pub scratch: PathBuf,
    /// Cases that were run before.
    #[serde(default)]
    pub done: Vec<(Suite, String)>,
}

/// Runs the work that stands on stdin and tells of it on stdout: the body of the command that [`run`] is given. The
/// plugin's own output goes to stderr, whichever it is for.
///
/// # Errors
/// For work that cannot be read, or an outer process that is gone.
pub fn serve() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    let work: Work = serde_json::from_str(&line)?;
    let scratch = work.scratch.clone();
    thread::Builder::new().name("lifeline".to_owned()).spawn(move || hang_on(&scratch))?;
    let events = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    let events = Mutex::new(std::fs::File::from(events));
    let listener: Listener = Arc::new(move |event| {
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        // Whoever does not listen any more ends this process.
        let _ = lock(&events).write_all(&line);
    });
    let companions = Companions::start(&work.companions, &work.scratch).map_err(io::Error::other)?;
    Check::new(subject(&work))
        .choose(work.choice)
        .with(companions.capabilities.clone())
        .in_folder(work.scratch)
        .run_with(&work.done, &listener);
    Ok(())
}

/// Waits until nobody waits for this process any more, and ends it with its group and what it has made.
fn hang_on(scratch: &Path) {
    // The outer process writes nothing more; what comes is its end.
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    let _ = std::fs::remove_dir_all(scratch);
    let _ = rustix::process::kill_current_process_group(Signal::KILL);
}

/// Runs `work` with `command`, a program and arguments that end in [`serve`]. `heard` hears of every case. Blocks.
pub fn run(command: &[String], mut work: Work, mut heard: impl FnMut(&CaseReport)) -> Report {
    let mut report = Report { plugin: subject(&work).id(), cases: Vec::new() };
    loop {
        let (cases, end) = attempt(command, &work, &mut heard);
        work.done.extend(cases.iter().filter_map(|case| Some((case.suite.parse().ok()?, case.case.clone()))));
        let progress = !cases.is_empty();
        let hopeless = cases.iter().any(is_hopeless);
        report.cases.extend(cases);
        if hopeless {
            let done = |suite: Suite, case: &str| report.cases.iter().any(|it| it.is(suite, case));
            let rest = rest(&subject(&work), &work.choice, done);
            rest.iter().for_each(&mut heard);
            report.cases.extend(rest);
            return report;
        }
        match end {
            End::Finished => return report,
            // A process that ends before it has begun a case would do so for ever.
            End::Ended if progress => {}
            End::Ended => return report,
        }
    }
}

/// Whether there is more to do after a process has ended.
enum End {
    Finished,
    Ended,
}

/// A case that has begun.
struct Current {
    suite: Suite,
    case: String,
    step: String,
    limit: Duration,
    begun: Instant,
    since: Instant,
    /// Bytes of output before it.
    output: u64,
}

/// Runs as many cases as one process survives.
fn attempt(command: &[String], work: &Work, heard: &mut impl FnMut(&CaseReport)) -> (Vec<CaseReport>, End) {
    let mut cases = Vec::new();
    let mut tell = |case: CaseReport| {
        heard(&case);
        cases.push(case);
    };
    let mut process = match Process::start(command, work) {
        Ok(process) => process,
        Err(error) => {
            let fault = Fault::new(
                format!("no process could be started for the plugin: {error}"),
                "free some memory and processes, and try again",
            );
            tell(own_case(work, fault));
            return (cases, End::Finished);
        }
    };
    let mut current: Option<Current> = None;
    let fault = loop {
        let (since, limit) = match &current {
            Some(current) => (current.since, current.limit.saturating_add(MARGIN)),
            None => (process.since, BETWEEN),
        };
        match process.events.recv_timeout(LOOK.min(limit.saturating_sub(since.elapsed()))) {
            Ok(Event::Begun { suite, case }) => {
                let now = Instant::now();
                let step = "its beginning".to_owned();
                let output = process.output.count();
                current = Some(Current { suite, case, step, limit: BETWEEN, begun: now, since: now, output });
            }
            Ok(Event::Step { name, limit }) => {
                if let Some(current) = &mut current {
                    (current.step, current.limit, current.since) = (name, limit, Instant::now());
                }
            }
            Ok(Event::Ended { report }) => {
                current = None;
                process.since = Instant::now();
                tell(report);
            }
            Ok(Event::Stuck { report }) => {
                tell(report);
                return (cases, End::Ended);
            }
            Err(RecvTimeoutError::Disconnected) => match (process.ended(), &current) {
                (Some(status), None) if status.success() => return (cases, End::Finished),
                (Some(status), current) => break ended_process(status, current.as_ref()),
                (None, _) => break hung("the end of the plugin's process", MARGIN),
            },
            Err(RecvTimeoutError::Timeout) if since.elapsed() >= limit => match &current {
                Some(current) => break hung(&current.step, current.limit),
                None => break hung("the process of the plugin", BETWEEN),
            },
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(current) = &current
            && process.output.count() - current.output > FLOOD
        {
            break Fault::new(
                format!(
                    "the plugin wrote more than {} MiB to stdout and stderr {}",
                    FLOOD >> 20,
                    place(&current.step)
                ),
                PRINTS,
            );
        }
    };
    process.stop();
    let fault = fault.detail(process.output.tail()).tamed();
    tell(match current {
        Some(current) => CaseReport {
            suite: current.suite.name().to_owned(),
            shows: current.suite.shows(&current.case).to_owned(),
            carrier: current.suite.carrier_name(work.carrier).to_owned(),
            case: current.case,
            outcome: Outcome::Failed(fault),
            seconds: current.begun.elapsed().as_secs_f64(),
        },
        None => own_case(work, fault),
    });
    (cases, End::Ended)
}

/// The case of the process itself, for what happens in no other.
fn own_case(work: &Work, fault: Fault) -> CaseReport {
    CaseReport {
        suite: Suite::Life.name().to_owned(),
        case: "process".to_owned(),
        shows: "the process that holds the plugin begins and ends as it should".to_owned(),
        carrier: work.carrier.name().to_owned(),
        outcome: Outcome::Failed(fault),
        seconds: 0.0,
    }
}

fn ended_process(status: ExitStatus, current: Option<&Current>) -> Fault {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => signal_name(signal),
        (None, None) => "an unknown status".to_owned(),
    };
    let place = current.map_or_else(|| "outside of every case".to_owned(), |it| place(&it.step));
    Fault::new(
        format!("the plugin ended the process with {how} {place}"),
        "return errors, and leave the process to its owner; a debugger shows where a signal came from",
    )
}

/// Where a case was, as a sentence says it.
fn place(step: &str) -> String {
    match step.strip_prefix("after ") {
        Some(method) => format!("after `{method}`"),
        None => format!("during `{step}`"),
    }
}

fn signal_name(number: i32) -> String {
    let known = [
        (Signal::SEGV, "SIGSEGV"),
        (Signal::BUS, "SIGBUS"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::ILL, "SIGILL"),
        (Signal::FPE, "SIGFPE"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::KILL, "SIGKILL"),
        (Signal::TERM, "SIGTERM"),
        (Signal::SYS, "SIGSYS"),
        (Signal::PIPE, "SIGPIPE"),
    ];
    let name = known.iter().find(|(signal, _)| signal.as_raw() == number).map(|(_, name)| *name);
    name.map_or_else(|| format!("signal {number}"), str::to_owned)
}

/// The plugin that the work is about.
fn subject(work: &Work) -> Subject {
    match work.carrier {
        Carrier::Static | Carrier::InProcess => Subject::in_process(&work.folder, &work.library),
        Carrier::Child => {
            let command = work.child.iter().map(Into::into).collect();
            Subject::child(&work.folder, &work.library, command)
        }
    }
}

/// The process that runs cases. Dropping it ends it, and every process that it has left.
struct Process {
    child: Child,
    /// Its end is the end of the process.
    lifeline: Option<ChildStdin>,
    events: Receiver<Event>,
    output: Arc<Output>,
    mark: String,
    since: Instant,
    readers: Vec<JoinHandle<()>>,
}

/// What a process writes beside its events.
#[derive(Default)]
struct Output {
    count: AtomicU64,
    tail: Mutex<Vec<u8>>,
}

impl Output {
    fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    fn push(&self, bytes: &[u8]) {
        self.count.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let mut tail = lock(&self.tail);
        tail.extend_from_slice(bytes);
        let surplus = tail.len().saturating_sub(KEPT);
        tail.drain(..surplus);
    }

    fn tail(&self) -> String {
        tame(&String::from_utf8_lossy(&lock(&self.tail)), KEPT)
    }
}

impl Process {
    fn start(command: &[String], work: &Work) -> io::Result<Self> {
        let [program, arguments @ ..] = command else { return Err(io::Error::other("there is no program")) };
        let mark = leftovers::new_mark();
        let home = work.scratch.join("home");
        std::fs::create_dir_all(&home)?;
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(&work.scratch)
            .env(leftovers::VARIABLE, &mark)
            .env("HOME", &home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let (lifeline, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (sender, events) = channel();
        let output = Arc::new(Output::default());
        let beside = output.clone();
        let lines = thread::spawn(move || {
            let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).split(b'\n')).flatten();
            for line in lines {
                // What is no event was written by somebody else.
                match serde_json::from_slice(&line) {
                    // Fails when nobody waits any more; the rest is read all the same, or the process would block.
                    Ok(event) => drop(sender.send(event)),
                    Err(_) => beside.push(&line),
                }
            }
        });
        let beside = output.clone();
        let errors = thread::spawn(move || {
            let mut chunk = [0; 16 << 10];
            let Some(mut stderr) = stderr else { return };
            while let Ok(count @ 1..) = stderr.read(&mut chunk) {
                beside.push(chunk.get(..count).unwrap_or_default());
            }
        });
        let (since, readers) = (Instant::now(), vec![lines, errors]);
        let mut process = Self { child, lifeline, events, output, mark, since, readers };
        if let Some(stdin) = &mut process.lifeline {
            let mut line = serde_json::to_vec(work)?;
            line.push(b'\n');
            // One that ends before it has read its work is noticed by its end.
            let _ = stdin.write_all(&line);
        }
        Ok(process)
    }

    /// How it ended; none if it is still there after a while.
    fn ended(&mut self) -> Option<ExitStatus> {
        let begin = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if begin.elapsed() >= MARGIN {
                return None;
            }
            thread::sleep(LOOK / 10);
        }
    }

    /// Ends it, its group and everything with its mark. Its output so far has been read afterwards.
    fn stop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
            && matches!(self.child.try_wait(), Ok(None))
        {
            // Fails when it has just ended.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
        leftovers::find(&self.mark).iter().for_each(leftovers::end);
        // Whoever fled from the group and lost the mark may hold a pipe open, and nobody waits for that.
        let begin = Instant::now();
        while self.readers.iter().any(|reader| !reader.is_finished()) && begin.elapsed() < 10 * LOOK {
            thread::sleep(LOOK / 10);
        }
        for reader in self.readers.drain(..).filter(JoinHandle::is_finished) {
            // It cannot panic.
            let _ = reader.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
