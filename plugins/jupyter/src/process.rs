//! The kernel's process: its own session and process group, and an end that is always noticed.
//!
//! For: starting, signalling and outliving a kernel.
//! Promises: dropping it kills the whole group; the exit is seen by waiting for the process, never by a
//! heartbeat; stdin and stdout are null, the last lines of stderr are kept.
//! A session of its own keeps code in a kernel from reading the terminal of a daemon in the foreground.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
use runtimed_plugin_api::{ErrorCode, ExitReport, LaunchSpec, PluginError, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::environment;
use crate::kind::Kind;
use crate::out_of_memory;
use crate::stderr_tail::StderrTail;

/// How long stderr may stay open after the process has ended, before its last lines count as complete:
/// processes that left the group can hold it open for ever.
const STDERR_DRAIN: Duration = Duration::from_millis(100);

/// A running kernel process. Dropping it kills the process group.
pub(crate) struct KernelProcess {
    child: Box<dyn ChildWrapper>,
    group: Pid,
    tail: Arc<Mutex<StderrTail>>,
    /// Holds the one task that reads stderr.
    stderr: JoinSet<()>,
    /// [`out_of_memory::kills`] before the start.
    kills_before: Option<u64>,
    /// How it ended, once that is known. From then on the group's number may be another's.
    ended: Option<ExitReport>,
}

impl KernelProcess {
    /// Starts the kernel that `spec` describes, to be met at `connection`.
    ///
    /// # Errors
    /// `Invalid` when the command is empty, `NotFound` when program or working directory do not exist,
    /// otherwise `Unavailable` with the system's reason.
    pub(crate) fn spawn(spec: &LaunchSpec, kind: Kind, connection: &Connection) -> Result<Self> {
        let Some((program, arguments)) = spec.command.argv.split_first() else {
            return Err(PluginError::invalid("the environment names no interpreter to start a kernel with"));
        };
        let directory = spec.command.cwd.as_ref().unwrap_or(&spec.cwd);
        if !directory.is_dir() {
            return Err(PluginError::not_found(format!(
                "the kernel's working directory `{}` does not exist",
                directory.display()
            ))
            .help("Nothing was started. Make the directory, or save the notebook in another one."));
        }
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(kind.arguments(&connection.file()))
            .current_dir(directory)
            .env_clear()
            .envs(environment::variables(&spec.command, std::env::vars_os(), std::process::id()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let kills_before = out_of_memory::kills();
        let failed = |error: std::io::Error| {
            let message = format!("could not start `{program}`: {error}");
            match error.kind() {
                std::io::ErrorKind::NotFound => PluginError::new(ErrorCode::NotFound, message).help(
                    "Nothing was started. The environment may have been deleted; start the kernel again.",
                ),
                _ => PluginError::unavailable(message),
            }
        };
        // The plain child is enough: the group is ours to signal, and only its leader is our child.
        let mut child = CommandWrap::from(command).wrap(ProcessSession).spawn().map_err(failed)?.into_inner();
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| PluginError::internal("the kernel's process has no id"))?;
        let tail = Arc::<Mutex<StderrTail>>::default();
        let mut stderr = JoinSet::new();
        if let Some(pipe) = child.stderr().take() {
            stderr.spawn(read_stderr(pipe, tail.clone()));
        }
        Ok(Self { child, group, tail, stderr, kills_before, ended: None })
    }

    /// The process id, which is also the id of its group and session.
    pub(crate) fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for the process to end, ends what is left of its group and says how it ended.
    /// Cancel-safe; after the end it answers at once.
    pub(crate) async fn exited(&mut self) -> ExitReport {
        if let Some(report) = &self.ended {
            return report.clone();
        }
        let status = self.child.wait().await;
        signal_group(self.group, Signal::KILL);
        // Times out only when a process that left the group holds the pipe.
        let _ = timeout(STDERR_DRAIN, self.stderr.join_next()).await;
        self.ended.insert(self.report(status.ok())).clone()
    }

    /// Signals the whole group, unless the process is known to have ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.child.id().is_some() {
            signal_group(self.group, signal);
        }
    }

    /// The last lines of stderr so far.
    pub(crate) fn stderr_tail(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    fn report(&self, status: Option<ExitStatus>) -> ExitReport {
        let signal = status.and_then(|status| status.signal());
        let killed = signal == Some(Signal::KILL.as_raw());
        ExitReport {
            code: status.and_then(|status| status.code()),
            signal,
            out_of_memory: killed && out_of_memory::kills() > self.kills_before,
            requested: false,
            stderr_tail: self.stderr_tail(),
        }
    }
}

impl Drop for KernelProcess {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Signals a process group. A group that is gone is not an error.
pub(crate) fn signal_group(group: Pid, signal: Signal) {
    if let Err(error) = kill_process_group(group, signal)
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(group = group.as_raw_nonzero().get(), ?signal, %error, "could not signal a kernel");
    }
}

async fn read_stderr(mut pipe: ChildStderr, tail: Arc<Mutex<StderrTail>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
}
