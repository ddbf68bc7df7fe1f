//! pip: its command lines and its chatter.
//!
//! For: installing packages, with progress.
//! Promises: pip never asks, and installs into the environment whatever pip.conf says; a line it does
//! not know is no progress and no error. Everything else of pip.conf and of the `PIP_` and proxy
//! variables holds.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtimed_plugin_api::{Environment, ProcessLines, ProcessSpec, Task};
use serde_json::json;

/// Downloading and perhaps building packages on a slow line; pip itself ends a stalled connection.
/// Source: the host gives a whole environment 900 s.
const LIMIT: Duration = Duration::from_secs(900);

/// Options of every installation: no questions, no advice, no moving bars.
const PLAIN: [&str; 5] =
    ["--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off"];

/// When modules are compiled to bytecode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compile {
    /// While installing: a kernel is running and will import them now.
    Now,
    /// Once the environment is usable, in `optimize`.
    Later,
}

/// Installs `packages`, which are checked, into `env`.
pub(crate) fn install(env: &Environment, packages: &[String], compile: Compile) -> ProcessSpec {
    let later = (compile == Compile::Later).then_some("--no-compile");
    let mut spec = ProcessSpec::new(&env.python)
        // Isolated: a package in the daemon's PYTHONPATH is not one in the environment.
        .args(["-I", "-m", "pip", "install"])
        .args(PLAIN)
        .args(later)
        // What comes after is never read as an option.
        .arg("--")
        .args(packages)
        .timeout(LIMIT);
    // A `user = true` in pip.conf is an error in an environment.
    spec.env.insert("PIP_USER".to_owned(), "0".to_owned());
    spec.cwd = Some(env.prefix.clone());
    spec
}

/// Reads the lines of one `pip install` and reports to a task.
pub(crate) struct Lines {
    task: Task,
    started: Instant,
    seen: Mutex<Seen>,
}

/// What pip said so far.
#[derive(Default)]
struct Seen {
    /// Downloads that are done, and their bytes.
    done: (u64, u64),
    /// Bytes of the one under way. pip does one at a time.
    current: Option<u64>,
}

impl Lines {
    pub(crate) fn new(task: Task) -> Self {
        Self { task, started: Instant::now(), seen: Mutex::default() }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn downloading(&self, file: &str, size: u64) {
        let (completed, bytes) = {
            let mut seen = self.seen();
            seen.finish_download();
            seen.current = Some(size);
            seen.done
        };
        let seconds = self.started.elapsed().as_secs_f64();
        let report = json!({
            "completed": completed,
            "total": completed + 1,
            "current_package": file.split('-').next(),
            "bytes_downloaded": bytes,
            "bytes_total": bytes + size,
            "bytes_per_second": if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 },
        });
        self.task.report("download_progress", report);
    }
}

impl Seen {
    fn finish_download(&mut self) {
        if let Some(bytes) = self.current.take() {
            self.done = (self.done.0 + 1, self.done.1 + bytes);
        }
    }
}

impl ProcessLines for Lines {
    fn line(&self, stderr: bool, line: &str) {
        tracing::debug!("{line}");
        if stderr {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["Collecting", ..] => self.seen().finish_download(),
            ["Downloading", file, ref size @ ..] => self.downloading(file, bytes(size)),
            ["Installing", "collected", "packages:", ref packages @ ..] => {
                self.seen().finish_download();
                let elapsed = millis(self.started);
                let solved = json!({ "package_count": packages.len(), "elapsed_ms": elapsed });
                self.task.report("solve_complete", solved);
                self.task.report("installing", json!({ "total": packages.len() }));
            }
            ["Successfully", "installed", ..] => {
                self.task.report("install_complete", json!({ "elapsed_ms": millis(self.started) }));
            }
            _ => {}
        }
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// `(3.1 MB)` as bytes; what cannot be read counts as nothing.
fn bytes(size: &[&str]) -> u64 {
    let [number, unit] = size else { return 0 };
    let unit = match unit.trim_end_matches(')') {
        "bytes" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => 0.0,
    };
    (number.trim_start_matches('(').parse().unwrap_or(0.0) * unit) as u64
}

/// Imports what a kernel needs, and what is nice to have imported once, so that its bytecode is there
/// when the first kernel starts. Fails with the import error on stderr.
const VALIDATION: &str = "\
import importlib, ipykernel, IPython
from ipykernel.kernelbase import Kernel
from ipykernel.ipkernel import IPythonKernel
for name in ('ipywidgets', 'anywidget', 'nbformat'):
    try: importlib.import_module(name)
    except Exception: pass
";

/// Importing takes seconds from a cold disk. Source: the wire contract.
const VALIDATION_LIMIT: Duration = Duration::from_secs(60);

/// One worker: this runs behind the user's back.
const COMPILATION: &str = "\
import compileall, sysconfig
compileall.compile_dir(sysconfig.get_path('purelib'), quiet=2, workers=1)
";

/// A data science stack takes a minute or two of one core.
const COMPILATION_LIMIT: Duration = Duration::from_secs(900);

/// Proves that a kernel could start.
pub(crate) fn validate(python: &Path) -> ProcessSpec {
    ProcessSpec::new(python).args(["-I", "-c", VALIDATION]).timeout(VALIDATION_LIMIT)
}

/// Compiles every module of the environment.
pub(crate) fn compile(python: &Path) -> ProcessSpec {
    ProcessSpec::new(python).args(["-I", "-c", COMPILATION]).timeout(COMPILATION_LIMIT)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use runtimed_plugin_api::{Progress, ProgressSink};

    use super::*;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<Progress>>);
    impl ProgressSink for Recorded {
        fn progress(&self, progress: Progress) {
            self.0.lock().unwrap().push(progress);
        }
    }

    #[test]
    fn what_pip_says_becomes_phases() {
        let recorded = Arc::new(Recorded::default());
        let lines = Lines::new(Task::new(recorded.clone()));
        for line in [
            "Looking in links: /wheels",
            "Collecting ipykernel",
            "  Downloading ipykernel-7.4.0-py3-none-any.whl (123 kB)",
            "Collecting debugpy>=1.6.5 (from ipykernel)",
            "  Downloading debugpy-1.8.22-cp311-cp311-manylinux_2_34_x86_64.whl (3.1 MB)",
            "Installing collected packages: debugpy, ipykernel",
            "Successfully installed debugpy-1.8.22 ipykernel-7.4.0",
        ] {
            lines.line(false, line);
        }
        lines.line(true, "Collecting is not said here");
        let steps = recorded.0.lock().unwrap();
        let phases: Vec<&str> = steps.iter().map(|step| step.phase.as_str()).collect();
        let download = "download_progress";
        let all = [download, download, "solve_complete", "installing", "install_complete"];
        assert_eq!(phases, all);
        let second = &steps[1].fields;
        assert_eq!(
            (&second["completed"], &second["total"], &second["current_package"]),
            (&json!(1), &json!(2), &json!("debugpy"))
        );
        assert_eq!(
            (&second["bytes_downloaded"], &second["bytes_total"]),
            (&json!(123_000), &json!(3_223_000))
        );
        assert_eq!(steps[2].fields["package_count"], 2);
    }

    #[test]
    fn a_package_is_never_an_option() {
        let env = Environment::at(Path::new("/e"), "venv", Vec::new());
        let spec = install(&env, &["six>=1".to_owned()], Compile::Later);
        let line = spec.argv.join(" ");
        assert!(line.starts_with("/e/bin/python -I -m pip install --no-input "), "{line}");
        assert!(line.ends_with(" --no-compile -- six>=1"), "{line}");
        assert_eq!(spec.env["PIP_USER"], "0");
        assert!(!install(&env, &[], Compile::Now).argv.contains(&"--no-compile".to_owned()));
    }
}
