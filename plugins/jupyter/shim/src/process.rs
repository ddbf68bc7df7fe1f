//! The kernel's process: its own session and process group, and an end that is always noticed.
//!
//! For: starting, signalling and outliving a kernel.
//! Promises: its end is the end of everything it started, on Linux also of what left its group and session; the exit
//! is seen by waiting for the process, never by a heartbeat; stdin and stdout are null, the last lines of stderr are
//! kept; a signal goes to no other process that got the same number later.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::thread;

use process_wrap::std::{ChildWrapper, CommandWrap, ProcessSession, ResetSigmask};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::descendants;
use crate::ending::Ending;
use crate::out_of_memory;
use crate::protocol::{CONNECTION_FILE, Exit, Launch};
use crate::stderr_tail::StderrTail;

/// ipykernel compares its parent's process id with this once a second and exits when it differs: a kernel does not
/// outlive a shim that was killed.
const PARENT: &str = "JPY_PARENT_PID";

/// A running kernel process. Dropping it ends it, and what it started.
pub(crate) struct KernelProcess {
    child: Box<dyn ChildWrapper>,
    group: Pid,
    /// What it writes to stderr, until it closes that.
    stderr: Option<ChildStderr>,
    tail: StderrTail,
    /// [`out_of_memory::kills`] before the start.
    kills_before: Option<u64>,
    /// Ends when the process does.
    life: PipeReader,
    /// How it ended. From then on the group's number may be another's.
    ended: Option<Option<ExitStatus>>,
}

impl KernelProcess {
    /// Starts the kernel that `launch` describes, to be met at `connection_file`.
    ///
    /// # Errors
    /// The system's: `NotFound` when there is no such program.
    pub(crate) fn spawn(launch: &Launch, connection_file: &Path) -> io::Result<Self> {
        let mut argv = launch.argv.iter().map(|part| match part.split_once(CONNECTION_FILE) {
            None => part.into(),
            Some((before, after)) => {
                let mut whole = std::ffi::OsString::from(before);
                whole.push(connection_file);
                whole.push(after);
                whole
            }
        });
        let program = argv.next().ok_or_else(|| io::Error::other("there is no program to start"))?;
        let mut command = Command::new(program);
        command
            .args(argv)
            .current_dir(&launch.cwd)
            .env(PARENT, std::process::id().to_string())
            .envs(&launch.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        descendants::adopt();
        let kills_before = out_of_memory::kills();
        let (life, held) = io::pipe()?;
        // The plain child is enough: the group is ours to signal, and only its leader is our child.
        let mut child =
            CommandWrap::from(command).wrap(ProcessSession).wrap(ResetSigmask).spawn()?.into_inner();
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let group = group.ok_or_else(|| io::Error::other("the kernel's process has no id"))?;
        let stderr = child.stderr().take();
        let process =
            Self { child, group, stderr, tail: StderrTail::default(), kills_before, life, ended: None };
        // Ends with the kernel.
        thread::Builder::new().name("kernel".into()).spawn(move || {
            descendants::outlive(group.as_raw_nonzero().get());
            drop(held);
        })?;
        Ok(process)
    }

    /// The process id, which is also the id of its group and session.
    pub(crate) fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// What can be read when the process has ended; nothing once that was noticed.
    pub(crate) fn life(&self) -> Option<BorrowedFd<'_>> {
        self.ended.is_none().then_some(self.life.as_fd())
    }

    /// What can be read when there is something on stderr, or when that is closed.
    pub(crate) fn stderr(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(AsFd::as_fd)
    }

    /// Reads what stderr has. To be called when there is something, else it waits for it.
    pub(crate) fn read_stderr(&mut self) {
        let Some(pipe) = &mut self.stderr else { return };
        let mut buffer = [0; 4096];
        match pipe.read(&mut buffer) {
            Ok(length @ 1..) => self.tail.push(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => self.stderr = None,
        }
    }

    /// Takes note of the end and ends what is left of the group. To be called when [`KernelProcess::life`] says so,
    /// else it waits for the end.
    pub(crate) fn bury(&mut self) {
        if self.ended.is_none() {
            self.signal(Signal::KILL);
            // What the kernel has started goes first. A pipe that cannot be read has closed as well.
            let _ = self.life.read(&mut [0]);
            self.ended = Some(self.child.wait().ok());
        }
    }

    /// Whether the end was noticed.
    pub(crate) fn is_buried(&self) -> bool {
        self.ended.is_some()
    }

    /// Signals the whole group, unless the process is known to have ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // A group that is gone is no error.
            let _ = kill_process_group(self.group, signal);
        }
    }

    /// How it ended, and its last words so far.
    pub(crate) fn report(&self, ending: &Ending) -> Exit {
        let status = self.ended.flatten();
        let signal = status.and_then(|status| status.signal());
        let killed = signal == Some(Signal::KILL.as_raw());
        Exit {
            code: status.and_then(|status| status.code()),
            signal,
            out_of_memory: killed && out_of_memory::kills() > self.kills_before,
            requested: ending.requested(),
            unreachable: ending.forced(),
            stderr_tail: self.tail.text(),
        }
    }
}

impl Drop for KernelProcess {
    fn drop(&mut self) {
        self.bury();
    }
}
