//! The program.

use std::process::ExitCode;

use tokio::runtime;

use crate::progress::tell;
use crate::{Event, Failure, JOB_VARIABLE, Job, Stage, work};

/// Threads for files, of which rattler would take hundreds: each one costs address space, which may be limited, and a
/// small machine has no use for more.
const FILE_THREADS: usize = 16;

/// Does the job in [`JOB_VARIABLE`] and tells of it on standard output. Returns once it is done.
pub fn run() -> ExitCode {
    let done = job().and_then(|job| {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(FILE_THREADS)
            .enable_all()
            .build()
            .map_err(|error| Failure::of(Stage::Request, &error))?;
        runtime.block_on(work::carry_out(job))
    });
    match done {
        Ok(done) => {
            tell(&Event::Done(done));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            tell(&Event::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn job() -> Result<Job, Failure> {
    let text = std::env::var(JOB_VARIABLE)
        .map_err(|_| Failure::new(Stage::Request, format!("there is no job in {JOB_VARIABLE}")))?;
    serde_json::from_str(&text).map_err(|error| Failure::of(Stage::Request, &error))
}
