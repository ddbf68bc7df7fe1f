//! uv's chatter, as progress phases.
//!
//! For: showing which package a build is at while `uv pip install` runs.
//! Promises: a line it does not know is no progress and no error.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtimed_plugin_api::{ProcessLines, Task};
use serde_json::json;

/// Reads the lines of one `uv pip install` and reports to `task`.
pub(crate) struct InstallLines {
    task: Task,
    downloads: Mutex<Downloads>,
}

/// What is being downloaded. uv announces large files only, each with its size.
#[derive(Default)]
struct Downloads {
    started: Option<Instant>,
    announced: Vec<(String, u64)>,
    done: Vec<String>,
}

impl InstallLines {
    pub(crate) fn new(task: Task) -> Self {
        Self { task, downloads: Mutex::default() }
    }
}

impl ProcessLines for InstallLines {
    fn line(&self, stderr: bool, line: &str) {
        if !stderr {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words.as_slice() {
            ["Resolved", count, "package" | "packages", "in", ref time @ ..] => self.task.report(
                "solve_complete",
                json!({ "package_count": count.parse().unwrap_or(0u64), "elapsed_ms": millis(time) }),
            ),
            ["Downloading", package, size] => self.downloading(|downloads| {
                downloads.started.get_or_insert_with(Instant::now);
                downloads.announced.push((package.to_owned(), bytes(size)));
                package.to_owned()
            }),
            ["Downloaded", package] => self.downloading(|downloads| {
                downloads.done.push(package.to_owned());
                package.to_owned()
            }),
            ["Installed", _, "package" | "packages", "in", ref time @ ..] => {
                self.task.report("install_complete", json!({ "elapsed_ms": millis(time) }));
            }
            _ => {}
        }
    }
}

impl InstallLines {
    fn downloading(&self, change: impl FnOnce(&mut Downloads) -> String) {
        let fields = {
            let mut downloads = self.downloads.lock().unwrap_or_else(PoisonError::into_inner);
            let current = change(&mut downloads);
            let Downloads { started, announced, done } = &*downloads;
            let sum = |keep: &dyn Fn(&str) -> bool| -> u64 {
                announced.iter().filter(|(name, _)| keep(name)).map(|(_, bytes)| bytes).sum()
            };
            let (total, downloaded) = (sum(&|_| true), sum(&|name| done.iter().any(|one| one == name)));
            let elapsed = started.map_or(Duration::ZERO, |started| started.elapsed()).as_secs_f64();
            json!({
                "completed": done.len(),
                "total": announced.len(),
                "current_package": current,
                "bytes_downloaded": downloaded,
                "bytes_total": total,
                "bytes_per_second": if elapsed > 0.0 { downloaded as f64 / elapsed } else { 0.0 },
            })
        };
        self.task.report("download_progress", fields);
    }
}

/// `1m 2s`, `1.20s`, `15ms` as milliseconds; what cannot be read counts as nothing.
fn millis(time: &[&str]) -> u64 {
    let part = |part: &&str| -> f64 {
        let digits = part.trim_end_matches(char::is_alphabetic);
        let unit = match &part[digits.len()..] {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            _ => 0.0,
        };
        digits.parse().unwrap_or(0.0) * unit
    };
    time.iter().map(part).sum::<f64>() as u64
}

/// `(4.7MiB)` as bytes; what cannot be read counts as nothing.
fn bytes(size: &str) -> u64 {
    let size = size.trim_matches(['(', ')']);
    let digits = size.trim_end_matches(char::is_alphabetic);
    let unit = match &size[digits.len()..] {
        "B" => 1u64,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    (digits.parse().unwrap_or(0.0) * unit as f64) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

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
    fn lines_become_phases() {
        let recorded = Arc::new(Recorded::default());
        let lines = InstallLines::new(Task::new(recorded.clone()));
        for line in [
            "Using Python 3.11.2 environment at: e1",
            "Resolved 35 packages in 1m 2.5s",
            "Downloading jedi (4.5MiB)",
            "Downloading uv (16MiB)",
            " Downloaded jedi",
            "Installed 1 package in 120ms",
            " + jedi==0.20.1",
        ] {
            lines.line(true, line);
        }
        let steps = recorded.0.lock().unwrap();
        let phases: Vec<&str> = steps.iter().map(|step| step.phase.as_str()).collect();
        let download = "download_progress";
        assert_eq!(phases, ["solve_complete", download, download, download, "install_complete"]);
        assert_eq!(steps[0].fields["elapsed_ms"], 62_500);
        assert_eq!(steps[3].fields["completed"], 1);
        assert_eq!(steps[3].fields["total"], 2);
        assert_eq!(steps[3].fields["bytes_downloaded"], 4_718_592);
        assert_eq!(steps[4].fields["elapsed_ms"], 120);
    }
}
