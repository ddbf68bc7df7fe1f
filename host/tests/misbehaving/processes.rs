//! Which processes there are, as /proc tells it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Command lines of processes whose environment or command line names `home`.
pub(crate) fn of_home(home: &Path) -> Vec<String> {
    let needle = home.as_os_str().as_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if !entry.file_name().as_bytes()[0].is_ascii_digit() {
            continue;
        }
        // What is gone meanwhile, or a zombie, has neither.
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let (line, environment) = (read("cmdline"), read("environ"));
        if [&line, &environment].iter().any(|text| text.windows(needle.len()).any(|part| part == needle)) {
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

/// The process ids in a file, one a line; none if there is no file.
pub(crate) fn listed(file: &Path) -> Vec<i32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Which of these still run.
pub(crate) fn alive(pids: &[i32]) -> Vec<i32> {
    let state = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    pids.iter().copied().filter(state).collect()
}
/// The niceness of each thread of a process.
pub(crate) fn niceness(pid: u32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(Result::unwrap);
    let nice = threads.map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap();
        // Field 19 of proc_pid_stat(5), the 17th after the name.
        let after_name = stat.rsplit_once(") ").unwrap().1.to_owned();
        after_name.split(' ').nth(16).unwrap().parse().unwrap()
    });
    nice.collect()
}

/// Forgets the peak of a process's memory.
pub(crate) fn forget_peak(pid: u32) {
    // 5: see clear_refs in proc(5).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

/// KiB a process has now and had at most.
pub(crate) fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmHWM:"))
}
