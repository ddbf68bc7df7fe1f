//! Tells of the work on standard output.
//!
//! Promises: every phase is told; what moves within a phase is told ten times a second at the most, and once more at its
//! end; when nobody listens any more, the process ends.

use std::io::Write;
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rattler::install::{Reporter, Transaction};
use rattler_conda_types::{PrefixRecord, RepoDataRecord};
use serde_json::{Value, json};

use crate::Event;

/// Pause between two lines of one phase. Source: the wire contract.
const PAUSE: Duration = Duration::from_millis(100);

/// Exit code of a process that nobody listens to.
const UNHEARD: i32 = 3;

/// Writes one line.
#[expect(
    clippy::disallowed_methods,
    reason = "the job is all there is here, and nobody waits for it any more"
)]
pub(crate) fn tell(event: &Event) {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(&line).and_then(|()| stdout.flush()).is_err() {
        process::exit(UNHEARD);
    }
}

/// Tells of a phase; `fields` is a JSON object.
pub(crate) fn phase(phase: &str, fields: Value) {
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    tell(&Event::Progress { phase: phase.to_owned(), fields });
}

/// Milliseconds since `begin`.
pub(crate) fn elapsed_ms(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Listens to rattler's installer.
pub(crate) struct Watch(Mutex<Installing>);

struct Installing {
    begin: Instant,
    /// Names of the packages, by number of the operation.
    names: Vec<String>,
    downloads: Vec<Download>,
    /// When its first download began.
    downloading: Option<Instant>,
    linked: usize,
    last: Instant,
}

struct Download {
    name: String,
    size: Option<u64>,
    done: u64,
    finished: bool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Installing {
            begin: now,
            names: Vec::new(),
            downloads: Vec::new(),
            downloading: None,
            linked: 0,
            last: now,
        }))
    }

    fn state(&self) -> MutexGuard<'_, Installing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Installing {
    fn name(&self, operation: usize) -> &str {
        self.names.get(operation).map_or("", String::as_str)
    }

    /// Whether it is time for another line.
    fn due(&mut self, must: bool) -> bool {
        let due = must || self.last.elapsed() >= PAUSE;
        if due {
            self.last = Instant::now();
        }
        due
    }

    fn tell_download(&mut self, current: usize, must: bool) {
        if !self.due(must) {
            return;
        }
        let begin = *self.downloading.get_or_insert_with(Instant::now);
        let bytes: u64 = self.downloads.iter().map(|one| one.done).sum();
        let total: Option<u64> = self.downloads.iter().map(|one| one.size).sum();
        let seconds = begin.elapsed().as_secs_f64();
        phase(
            "download_progress",
            json!({
                "completed": self.downloads.iter().filter(|one| one.finished).count(),
                "total": self.downloads.len(),
                "current_package": self.downloads.get(current).map_or("", |one| one.name.as_str()),
                "bytes_downloaded": bytes,
                "bytes_total": total,
                "bytes_per_second": if seconds > 0.0 { bytes as f64 / seconds } else { 0.0 },
            }),
        );
    }
}

impl Reporter for Watch {
    fn on_transaction_start(&self, transaction: &Transaction<PrefixRecord, RepoDataRecord>) {
        let mut state = self.state();
        let operations = transaction.operations.iter();
        let name = |record: Option<&RepoDataRecord>| {
            record.map_or_else(String::new, |record| record.package_record.name.as_normalized().to_owned())
        };
        state.names = operations.map(|operation| name(operation.record_to_install())).collect();
        state.begin = Instant::now();
        phase("installing", json!({ "total": transaction.packages_to_install() }));
    }

    fn on_populate_cache_start(&self, operation: usize, _: &RepoDataRecord) -> usize {
        operation
    }

    fn on_download_start(&self, operation: usize) -> usize {
        let mut state = self.state();
        let name = state.name(operation).to_owned();
        state.downloads.push(Download { name, size: None, done: 0, finished: false });
        let number = state.downloads.len() - 1;
        state.tell_download(number, number == 0);
        number
    }

    fn on_download_progress(&self, download: usize, progress: u64, total: Option<u64>) {
        let mut state = self.state();
        if let Some(one) = state.downloads.get_mut(download) {
            (one.done, one.size) = (progress, total);
        }
        state.tell_download(download, false);
    }

    fn on_download_completed(&self, download: usize) {
        let mut state = self.state();
        if let Some(one) = state.downloads.get_mut(download) {
            one.finished = true;
        }
        let all = state.downloads.iter().all(|one| one.finished);
        state.tell_download(download, all);
    }

    fn on_link_start(&self, operation: usize, _: &RepoDataRecord) -> usize {
        operation
    }

    fn on_link_complete(&self, operation: usize) {
        let mut state = self.state();
        state.linked += 1;
        let total = state.names.iter().filter(|name| !name.is_empty()).count();
        let last = state.linked == total;
        if state.due(last) {
            let (completed, current) = (state.linked, state.name(operation));
            phase(
                "link_progress",
                json!({ "completed": completed, "total": total, "current_package": current }),
            );
        }
    }

    fn on_transaction_complete(&self) {
        phase("install_complete", json!({ "elapsed_ms": elapsed_ms(self.state().begin) }));
    }

    fn on_unlink_start(&self, operation: usize, _: &PrefixRecord) -> usize {
        operation
    }

    fn on_validate_start(&self, operation: usize) -> usize {
        operation
    }

    fn on_transaction_operation_start(&self, _: usize) {}
    fn on_validate_complete(&self, _: usize) {}
    fn on_populate_cache_complete(&self, _: usize) {}
    fn on_unlink_complete(&self, _: usize) {}
    fn on_transaction_operation_complete(&self, _: usize) {}
    // Link scripts of packages are not run.
    fn on_post_link_start(&self, _: &str, _: &str) -> usize {
        0
    }
    fn on_post_link_complete(&self, _: usize, _: bool) {}
    fn on_pre_unlink_start(&self, _: &str, _: &str) -> usize {
        0
    }
    fn on_pre_unlink_complete(&self, _: usize, _: bool) {}
}
