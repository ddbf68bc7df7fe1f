//! Runs a process for a plugin: what a host does when `run_process` is called.
//!
//! For: the daemon and the testkit.
//! Promises: output is passed on line by line and kept within bounds; when the process ends, runs too long or
//! nobody waits for it any more, everything left of its process group is killed.
//! Never: a shell, a terminal, standard input.

use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::{ErrorCode, PluginError, ProcessExit, ProcessLines, ProcessSpec, Result};

mod limits;

pub use limits::ProcessLimits;

/// Bytes of stdout that are kept, as `ProcessExit` documents.
const STDOUT_KEPT: usize = 1 << 20;
/// Bytes of stderr that are kept, as `ProcessExit` documents.
const STDERR_KEPT: usize = 64 << 10;
/// A line longer than this many bytes is passed on in pieces.
const LONGEST_LINE: usize = 64 << 10;
/// Read at once: the capacity of a pipe on Linux.
const CHUNK: usize = 64 << 10;
/// How long a pipe may stay open after the process and its group are gone: only somebody who left the group
/// can still hold it.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs `spec` to its end.
///
/// # Errors
/// `NotFound` if there is no such program, `Timeout` after `spec.timeout`, `Internal` if it cannot be watched.
pub async fn run(spec: ProcessSpec, lines: &dyn ProcessLines) -> Result<ProcessExit> {
    run_within(spec, &ProcessLimits::default(), lines).await
}

/// As [`run`], with limits for the process and everything that it starts. Its niceness is the `spec`'s.
///
/// # Errors
/// As [`run`]; `Internal` if it cannot be limited.
pub async fn run_within(
    spec: ProcessSpec,
    limits: &ProcessLimits,
    lines: &dyn ProcessLines,
) -> Result<ProcessExit> {
    let name = spec.argv.first().cloned().unwrap_or_default();
    let running = watch(&spec, &name, limits, lines);
    let Some(limit) = spec.timeout else { return running.await };
    tokio::time::timeout(limit, running).await.unwrap_or_else(|_| {
        let message = format!("`{name}` was stopped after {} s without finishing", limit.as_secs_f32());
        Err(PluginError::new(ErrorCode::Timeout, message).retryable())
    })
}

async fn watch(
    spec: &ProcessSpec,
    name: &str,
    limits: &ProcessLimits,
    lines: &dyn ProcessLines,
) -> Result<ProcessExit> {
    let mut child = command(spec)?.spawn().map_err(|error| not_started(spec, name, &error))?;
    let group = Group::of(&child, spec.nice);
    match group.0.map(|leader| limits.set_on(Some(leader))) {
        None | Some(Ok(())) => {}
        // It has ended already.
        Some(Err(error)) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => {}
        Some(Err(error)) => {
            return Err(PluginError::internal(format!("`{name}` could not be limited: {error}")));
        }
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut kept_out, mut kept_err) = (Tail::new(STDOUT_KEPT), Tail::new(STDERR_KEPT));
    let ended = {
        let reading = async {
            tokio::join!(
                pass_on(stdout, &mut kept_out, |line| lines.line(false, line)),
                pass_on(stderr, &mut kept_err, |line| lines.line(true, line)),
            );
        };
        tokio::pin!(reading);
        tokio::select! {
            ended = child.wait() => {
                drop(group);
                let _ = tokio::time::timeout(LAST_WORDS, reading).await;
                ended
            }
            // Closed both pipes and goes on.
            () = &mut reading => child.wait().await,
        }
    };
    let ended = ended.map_err(|error| PluginError::internal(format!("`{name}` was lost: {error}")))?;
    Ok(ProcessExit { code: ended.code(), stdout: kept_out.into_text(), stderr: kept_err.into_text() })
}

fn command(spec: &ProcessSpec) -> Result<Command> {
    let [program, arguments @ ..] = spec.argv.as_slice() else {
        return Err(PluginError::invalid("there is no program to run: argv is empty"));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(&spec.env);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    Ok(command)
}

fn not_started(spec: &ProcessSpec, name: &str, error: &std::io::Error) -> PluginError {
    // The system gives the same answer for a missing program and for a missing folder to run it in.
    if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
        return PluginError::invalid(format!(
            "`{name}` could not be started in `{}`, which is not a folder",
            cwd.display()
        ));
    }
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorCode::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorCode::Denied,
        _ => ErrorCode::Internal,
    };
    PluginError::new(code, format!("`{name}` could not be started: {error}"))
        .help(format!("check that `{name}` is installed and on the PATH of the daemon"))
}

/// A process group that is killed when this is dropped. Dropped at the latest when its leader has been
/// waited for, so the number cannot have passed to somebody else.
struct Group(Option<Pid>);

impl Group {
    /// The group of a child that was started with one of its own, made nicer by `nice`.
    fn of(child: &tokio::process::Child, nice: u8) -> Self {
        let leader = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if nice > 0 && leader.is_some() {
            // Being less nice than asked for hurts nobody.
            let _ = rustix::process::setpriority_pgrp(leader, i32::from(nice.min(19)));
        }
        Self(leader)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Fails when nobody is left, which is what we want.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Reads a pipe to its end: every line to `line`, every byte to `kept`.
async fn pass_on(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Tail, line: impl Fn(&str)) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK];
    let mut pending: Vec<u8> = Vec::new();
    // A pipe that cannot be read any more is at its end.
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let bytes = chunk.get(..count).unwrap_or_default();
        kept.push(bytes);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(piece);
            if pending.ends_with(b"\n") || pending.len() >= LONGEST_LINE {
                line(&text_of(&pending));
                pending.clear();
            }
        }
    }
    if !pending.is_empty() {
        line(&text_of(&pending));
    }
}

fn text_of(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

/// The last bytes of a stream.
struct Tail {
    bytes: Vec<u8>,
    limit: usize,
}

impl Tail {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    /// Lets it grow to twice the limit before cutting, so that cutting is rare.
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > 2 * self.limit {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let surplus = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..surplus);
    }

    fn into_text(mut self) -> String {
        self.cut();
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::NoLines;

    fn shell(script: &str) -> ProcessSpec {
        ProcessSpec { argv: vec!["/bin/sh".into(), "-c".into(), script.into()], ..ProcessSpec::default() }
    }

    #[derive(Default)]
    struct Seen(Mutex<Vec<(bool, String)>>);

    impl ProcessLines for Seen {
        fn line(&self, stderr: bool, line: &str) {
            self.0.lock().unwrap().push((stderr, line.to_owned()));
        }
    }

    #[tokio::test]
    async fn lines_and_exit_code_arrive() {
        let seen = Seen::default();
        let spec = shell("printf 'one\\ntwo\\r\\nthr'; printf ee; echo $KEY >&2; exit 3");
        let spec = ProcessSpec { env: [("KEY".to_owned(), "value".to_owned())].into(), nice: 10, ..spec };
        let exit = run(spec, &seen).await.unwrap();
        assert_eq!((exit.code, exit.success()), (Some(3), false));
        assert_eq!((exit.stdout.as_str(), exit.stderr.as_str()), ("one\ntwo\r\nthree", "value\n"));
        let seen = seen.0.into_inner().unwrap();
        let lines = |from: bool| {
            seen.iter().filter(move |(stderr, _)| *stderr == from).map(|(_, line)| line.as_str())
        };
        assert_eq!(lines(false).collect::<Vec<_>>(), ["one", "two", "three"]);
        assert_eq!(lines(true).collect::<Vec<_>>(), ["value"]);
    }

    #[tokio::test]
    async fn output_is_bounded() {
        let exit = run(shell("yes 0123456789 | head -c 5000000; echo; echo end"), &NoLines).await.unwrap();
        assert_eq!(exit.stdout.len(), STDOUT_KEPT);
        assert!(exit.stdout.ends_with("\nend\n"));
    }

    #[tokio::test]
    async fn a_missing_program_and_an_empty_command_are_errors() {
        let spec = ProcessSpec { argv: vec!["/no/such/program".into()], ..ProcessSpec::default() };
        assert_eq!(run(spec, &NoLines).await.unwrap_err().code, ErrorCode::NotFound);
        let spec = ProcessSpec { cwd: Some("/no/such/folder".into()), ..shell("true") };
        let error = run(spec, &NoLines).await.unwrap_err();
        assert!(error.code == ErrorCode::Invalid && error.message.contains("/no/such/folder"), "{error}");
        assert_eq!(run(ProcessSpec::default(), &NoLines).await.unwrap_err().code, ErrorCode::Invalid);
    }

    #[tokio::test]
    async fn a_signal_leaves_no_code() {
        assert_eq!(run(shell("kill -9 $$"), &NoLines).await.unwrap().code, None);
    }

    /// A script whose grandchild sleeps and keeps the write end of a fifo open: the fifo's end of file is
    /// the proof that the grandchild is gone.
    fn fifo_holder(folder: &Path) -> (ProcessSpec, std::path::PathBuf) {
        let fifo = folder.join("alive");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let script = format!("(exec 9>'{}'; echo up >&9; sleep 600) & wait", fifo.display());
        (shell(&script), fifo)
    }

    async fn read_to_end(fifo: std::path::PathBuf, up: mpsc::Sender<()>) {
        let mut fifo = tokio::fs::File::open(fifo).await.unwrap();
        let mut word = [0; 3];
        fifo.read_exact(&mut word).await.unwrap();
        up.send(()).await.unwrap();
        assert_eq!(fifo.read(&mut word).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn dropping_the_call_kills_the_whole_tree() {
        let folder = tempfile::tempdir().unwrap();
        let (spec, fifo) = fifo_holder(folder.path());
        let (up, mut started) = mpsc::channel(1);
        let reader = tokio::spawn(read_to_end(fifo, up));
        let call = tokio::spawn(async move { run(spec, &NoLines).await });
        started.recv().await.unwrap();
        call.abort();
        reader.await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_left_the_group_and_keeps_the_pipe_open_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("pid");
        // Ends once the other one is in a session of its own and has said its number.
        let script = format!(
            "mkfifo '{0}'; setsid sh -c 'echo $$ >\"{0}\"; exec sleep 600' & cat '{0}'",
            fifo.display()
        );
        let exit = run(shell(&script), &NoLines).await.unwrap();
        assert!(exit.success());
        let pid = Pid::from_raw(exit.stdout.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).expect("it was still there");
    }

    #[tokio::test]
    async fn the_time_limit_kills_the_whole_tree() {
        let folder = tempfile::tempdir().unwrap();
        let (spec, fifo) = fifo_holder(folder.path());
        let (up, _started) = mpsc::channel(1);
        let reader = tokio::spawn(read_to_end(fifo, up));
        let spec = ProcessSpec { timeout: Some(Duration::from_secs(1)), ..spec };
        let error = run(spec, &NoLines).await.unwrap_err();
        assert_eq!((error.code, error.retryable), (ErrorCode::Timeout, true));
        reader.await.unwrap();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn limits_hold_for_the_process_and_for_what_it_starts() {
        // They come right after the start, open files last.
        let script = "until [ $(ulimit -n) = 64 ]; do :; done; sh -c 'ulimit -n; ulimit -v; ulimit -t'";
        let limits = ProcessLimits {
            memory: Some(1 << 30),
            cpu: Some(Duration::from_secs(60)),
            files: Some(64),
            nice: 0,
        };
        let exit = run_within(shell(script), &limits, &NoLines).await.unwrap();
        assert_eq!(exit.stdout, "64\n1048576\n60\n", "{}", exit.stderr);
    }
}
