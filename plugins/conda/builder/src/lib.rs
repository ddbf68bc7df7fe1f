//! Solves and installs conda environments with rattler.
//!
//! For: the program `runtimed-conda`, which is [`run()`]; the conda plugin uses the rest.
//! Promises: one job for each process, so that the end of the process ends the work with everything it holds: threads,
//! downloads, locks and the memory of the solver.
//! Map: `job` and `event` are what goes in and comes out; `work` carries a job out with `repodata`, `solve`, `install`,
//! `saved`, `installed` and `bytecode`; `progress` tells of it.

mod bytecode;
mod channels;
mod event;
mod failure;
mod install;
mod installed;
mod job;
mod progress;
mod repodata;
mod run;
mod saved;
mod solve;
mod work;

pub use event::{Done, Event};
pub use failure::{Failure, Stage};
pub use job::{JOB_VARIABLE, Job, Work};
pub use run::run;
pub use saved::{SAVED_SOLVE, SavedNames};
