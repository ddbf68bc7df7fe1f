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
