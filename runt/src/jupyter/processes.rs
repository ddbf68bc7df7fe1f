//! The system's processes, as far as they are kernels.
//!
//! For: pids of kernels that only have a connection file, and what kernels use.
//! Promises: a kernel is counted with all processes below it; a client of a kernel is not taken for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// The program that keeps a kernel of the daemon.
const KEEPER: &str = "runtimed-kernel";
/// What a client is told, and no kernel, when it is to use a kernel that is there.
const CLIENT: &str = "--existing";

/// The processes as they were when somebody looked.
pub(crate) struct Processes {
    system: System,
}

/// What a kernel and the processes below it use.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// Percent of one processor.
    pub(crate) cpu: f32,
    /// Resident bytes.
    pub(crate) memory: u64,
    /// Age of the kernel itself.
    pub(crate) uptime: Duration,
}

impl Processes {
    /// Looks at all processes.
    pub(crate) fn look() -> Self {
        let mut processes = Self { system: System::new() };
        processes.look_again();
        processes
    }

    /// Looks once more. What a processor did is known from the second time on, if there is a while between.
    pub(crate) fn look_again(&mut self) {
        let what = ProcessRefreshKind::nothing()
            .with_cpu()
            .with_memory()
            .with_cmd(UpdateKind::OnlyIfNotSet)
            .without_tasks();
        self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    }

    /// The kernel that was started with the connection file `path`.
    pub(crate) fn of_file(&self, path: &Path) -> Option<u32> {
        let names = |command: &[std::ffi::OsString]| {
            let is_client = |part: &OsStr| part.to_string_lossy().starts_with(CLIENT);
            command.iter().any(|part| ends_with(part, path)) && !command.iter().any(|part| is_client(part))
        };
        let own = Pid::from_u32(std::process::id());
        let found = self.system.processes().values();
        let found: Vec<_> = found.filter(|process| process.pid() != own && names(process.cmd())).collect();
        // A launcher hands the path on: the kernel is the last in the line. Two that are not one another's may be the
        // kernel and an editor: nobody can tell which is which.
        let is_launcher = |pid| found.iter().any(|other| other.parent() == Some(pid));
        let mut last = found.iter().filter(|process| !is_launcher(process.pid()));
        let kernel = last.next()?.pid().as_u32();
        last.next().is_none().then_some(kernel)
    }

    /// Whether this program was started in a daemon's kernel: whatever it starts ends with that.
    pub(crate) fn are_in_a_kernel(&self) -> bool {
        let process = |pid| self.system.process(pid);
        let own = process(Pid::from_u32(std::process::id()));
        let above = std::iter::successors(own, |below| process(below.parent()?));
        // More are a circle: a number that was used again.
        above.take(1000).any(|process| process.name() == KEEPER)
    }

    /// The connection file the process `pid` was started with.
    pub(crate) fn file_of(&self, pid: u32) -> Option<PathBuf> {
        let command = self.system.process(Pid::from_u32(pid))?.cmd();
        let path = |part: &std::ffi::OsString| {
            let part = part.to_str()?;
            let path = Path::new(part.split_once('=').map_or(part, |(_, path)| path));
            (path.is_absolute() && path.extension() == Some(OsStr::new("json"))).then(|| path.to_owned())
        };
        command.iter().find_map(path)
    }

    /// What a kernel uses; none if it is gone.
    pub(crate) fn usage(&self, pid: u32) -> Option<Usage> {
        let uptime = Duration::from_secs(self.system.process(Pid::from_u32(pid))?.run_time());
        let tree = self.tree(pid);
        let processes = tree.iter().filter_map(|pid| self.system.process(*pid));
        Some(processes.fold(Usage { uptime, ..Usage::default() }, |usage, process| Usage {
            cpu: usage.cpu + process.cpu_usage(),
            memory: usage.memory + process.memory(),
            ..usage
        }))
    }

    /// Signals a kernel and all processes below it.
    pub(crate) fn signal_tree(&self, pid: u32, signal: Signal) {
        for pid in self.tree(pid) {
            let pid = i32::try_from(pid.as_u32()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // One that has ended meanwhile is no error.
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    }

    /// The process and all below it.
    fn tree(&self, pid: u32) -> Vec<Pid> {
        let mut tree = vec![Pid::from_u32(pid)];
        let mut next = 0;
        while let Some(parent) = tree.get(next).copied() {
            next += 1;
            let children = self.system.processes().values().filter(|it| it.parent() == Some(parent));
            let children: Vec<_> =
                children.map(sysinfo::Process::pid).filter(|it| !tree.contains(it)).collect();
            tree.extend(children);
        }
        tree
    }
}

/// Whether an argument is the path, or something with `=` and the path.
fn ends_with(argument: &OsStr, path: &Path) -> bool {
    let rest = argument.as_encoded_bytes().strip_suffix(path.as_os_str().as_encoded_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(b"="))
}
