//! Runs the program that solves and installs.
//!
//! Promises: it has a time limit and dies with the dropped future; what was downloaded stays in rattler's cache.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtimed_conda_builder::{Done, Event, JOB_VARIABLE, Job};
use runtimed_plugin_api::{Host, ProcessLines, ProcessSpec, Progress, Result, Task};

use crate::errors;

/// Its name, in the plugin's folder.
const PROGRAM: &str = "runtimed-conda";
/// Longest job. Source: the reference gives a whole environment 900 s.
const LIMIT: Duration = Duration::from_secs(900);

/// Does `job`, with progress on `task`; `nice` is a niceness of 0 to 19.
pub(crate) async fn run(host: &Host, job: &Job, nice: u8, task: &Task) -> Result<Done> {
    let program = host.directories().plugin.join(PROGRAM);
    let spec = ProcessSpec {
        env: [(JOB_VARIABLE.to_owned(), serde_json::to_string(job)?)].into(),
        timeout: Some(LIMIT),
        nice,
        ..ProcessSpec::new(program)
    };
    let heard = Arc::new(Heard { task: task.clone(), last: Mutex::new(None) });
    let exit = host.run_process(spec, heard.clone()).await;
    let exit =
        exit.map_err(|error| errors::step_failed(error, "Building the environment", LIMIT.as_secs()))?;
    match heard.take() {
        Some(Event::Done(done)) if exit.success() => Ok(done),
        Some(Event::Failed(failure)) => Err(errors::not_built(failure)),
        _ => Err(errors::silent(&exit)),
    }
}

/// Reads the program's lines.
struct Heard {
    task: Task,
    last: Mutex<Option<Event>>,
}

impl Heard {
    fn take(&self) -> Option<Event> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ProcessLines for Heard {
    fn line(&self, stderr: bool, line: &str) {
        if stderr {
            tracing::debug!(line, "runtimed-conda");
            return;
        }
        match serde_json::from_str(line) {
            Ok(Event::Progress { phase, fields }) => self.task.sink().progress(Progress { phase, fields }),
            Ok(last) => *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last),
            Err(error) => tracing::debug!(line, %error, "runtimed-conda said something unknown"),
        }
    }
}
