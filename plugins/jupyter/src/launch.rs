//! Starting a kernel, in the keeping of a shim, up to the moment it can be used.
//!
//! For: [`crate::backend`].
//! Promises: what is returned answers on shell and is heard on IOPub, so no output of the first execution
//! can be lost; a process that ends is noticed at once; dropping the future ends shim and kernel and deletes
//! their folder.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use runtimed_kernel_shim::protocol::{
    Attached, Exit, Failed, Hello, Launch, Reason, document, from_shim, to_shim,
};
use runtimed_plugin_api::{ErrorCode, ExitReport, LaunchCommand, LaunchSpec, PluginError, Result};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::environment;
use crate::folder;
use crate::kind::Kind;
use crate::link::Link;

/// Where shims come from and what they are told.
pub(crate) struct Shims {
    /// The program.
    pub(crate) program: PathBuf,
    /// The host's directory for sockets.
    pub(crate) runtime: PathBuf,
    /// What every kernel is launched with.
    pub(crate) defaults: Launch,
}

/// A shim on its way to a kernel. Dropping it ends both.
pub(crate) struct Starting {
    link: Link,
    launch: Launch,
    /// The kernel's, and the shim's from now on.
    pub(crate) folder: PathBuf,
}

/// A kernel that is up. Dropping it before it was accepted ends it.
pub(crate) struct Started {
    pub(crate) link: Link,
    pub(crate) kernel: Attached,
    pub(crate) folder: PathBuf,
}

impl Shims {
    /// Starts a shim for the kernel that `spec` describes. Its process has to be waited for.
    ///
    /// # Errors
    /// As [`Kind::command`]; `NotFound` when the working directory does not exist; as [`folder::create`] and
    /// [`folder::configured`]; `Unavailable` when the shim itself cannot be started.
    pub(crate) fn start(&self, spec: &LaunchSpec, kind: &Kind) -> Result<(Starting, Child)> {
        let command = kind.command(&spec.command)?;
        let mut launch = self.launch(spec, kind, &command)?;
        let folder = folder::create(&self.runtime)?;
        if let Some(configuration) = &kind.configuration {
            launch.cwd = folder::configured(folder.path(), &launch.cwd, configuration)?;
        }
        let (process, stream) = spawn(&self.program, folder.path(), &command).map_err(|error| {
            PluginError::unavailable(format!(
                "could not start `{}`, which keeps kernels: {error}",
                self.program.display()
            ))
            .help("Nothing was started. Reinstall runtimed and start the kernel again.")
        })?;
        Ok((Starting { link: Link::new(stream), launch, folder: folder.keep() }, process))
    }

    fn launch(&self, spec: &LaunchSpec, kind: &Kind, command: &LaunchCommand) -> Result<Launch> {
        let cwd = cwd(spec);
        if !cwd.is_dir() {
            return Err(PluginError::not_found(format!(
                "the kernel's working directory `{}` does not exist",
                cwd.display()
            ))
            .help("Nothing was started. Make the directory, or save the notebook in another one."));
        }
        Ok(Launch {
            kernel: spec.kernel.clone(),
            argv: command.argv.clone(),
            // PATH is the shim's own.
            env: command.env.clone().into_iter().filter(|(name, _)| name != environment::PATH).collect(),
            cwd: cwd.to_owned(),
            kernel_name: kind.kernel_name.clone(),
            interrupt: kind.interrupt,
            transport: kind.transport,
            idle_early: kind.idle_early,
            preparation: kind.preparation.clone(),
            start_limit_ms: kind.start_limit_ms,
            label: label(spec),
            ..self.defaults.clone()
        })
    }
}

/// Where the kernel that `spec` describes works.
pub(crate) fn cwd(spec: &LaunchSpec) -> &Path {
    spec.command.cwd.as_ref().unwrap_or(&spec.cwd)
}

/// What the record of the kernel that `spec` describes says.
pub(crate) fn label(spec: &LaunchSpec) -> Value {
    json!({ "spec": spec })
}

fn spawn(program: &Path, folder: &Path, command: &LaunchCommand) -> io::Result<(Child, UnixStream)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let log = std::fs::File::create(folder.join("log"))?;
    let inherited: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let process = Command::new(program)
        .arg(folder)
        .env_clear()
        .envs(environment::variables(command, inherited.into_iter()))
        .stdin(OwnedFd::from(theirs))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok((process, UnixStream::from_std(ours)?))
}

impl Starting {
    /// Waits until the kernel can be used.
    ///
    /// # Errors
    /// `NotFound` when there is no such program; `Unavailable` with the last lines of stderr when it ends early,
    /// `Timeout` with them when it does not answer in time.
    pub(crate) async fn up(self, kind: &Kind) -> Result<Started> {
        let Self { mut link, launch, folder } = self;
        link.writer.send(&document(to_shim::HELLO, &Hello::default())).await.map_err(lost)?;
        link.writer.send(&document(to_shim::LAUNCH, &launch)).await.map_err(lost)?;
        while let Some(frame) = link.reader.next().await.map_err(lost)? {
            match frame.kind {
                from_shim::LAUNCHED => {
                    let kernel = frame.document().map_err(lost)?;
                    return Ok(Started { link, kernel, folder });
                }
                from_shim::FAILED => {
                    let program = launch.argv.first().map_or("", String::as_str);
                    return Err(explain(frame.document().map_err(lost)?, program, kind));
                }
                _ => {}
            }
        }
        Err(lost(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// A kernel's end as the contract has it.
pub(crate) fn report(exit: Exit) -> ExitReport {
    let Exit { code, signal, out_of_memory, requested, unreachable, stderr_tail } = exit;
    ExitReport { code, signal, out_of_memory, requested, unreachable, stderr_tail }
}

/// The shim is gone, or is none.
pub(crate) fn lost(error: io::Error) -> PluginError {
    PluginError::unavailable(format!("the process that keeps the kernel was lost: {error}"))
        .help("Nothing of the notebook is lost. Start the kernel again.")
}

fn explain(failed: Failed, program: &str, kind: &Kind) -> PluginError {
    let Failed { reason, message, exit } = failed;
    let exit = report(exit);
    let tail = exit.stderr_tail.clone();
    match reason {
        Reason::NotFound => {
            PluginError::new(ErrorCode::NotFound, format!("could not start `{program}`: {message}"))
                .help(kind.mend())
        }
        Reason::NotStarted => PluginError::unavailable(format!("could not start `{program}`: {message}"))
            .help("Nothing was started. Mend what the system says, and start the kernel again."),
        Reason::Exited => died(&exit),
        Reason::Silent => {
            with_tail(ErrorCode::Timeout, "the kernel did not answer in time; it was ended".to_owned(), &tail)
                .retryable()
        }
        Reason::Confused | Reason::Other => {
            with_tail(ErrorCode::Unavailable, format!("the kernel could not be used: {message}"), &tail)
        }
    }
}

/// Whether a kernel could not be started because somebody else had one of its ports, going by what it said.
pub(crate) fn port_was_taken(error: &PluginError) -> bool {
    // The system's words, in every language that does not translate them, and their short form.
    let said = error.message.to_lowercase();
    ["address already in use", "address in use", "eaddrinuse"].iter().any(|words| said.contains(words))
}

fn died(report: &ExitReport) -> PluginError {
    let how = match (report.code, report.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    };
    with_tail(ErrorCode::Unavailable, format!("Kernel process exited: {how}"), &report.stderr_tail)
        .detail(json!({ "exit": report }))
}

/// The error texts clients show: one line, then what the kernel wrote last.
fn with_tail(code: ErrorCode, message: String, tail: &str) -> PluginError {
    let message = if tail.is_empty() { message } else { format!("{message}\nstderr tail:\n{tail}") };
    PluginError::new(code, message)
}
