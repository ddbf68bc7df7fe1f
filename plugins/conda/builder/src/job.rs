//! What the program is asked to do.
//!
//! Shape: one JSON document in the environment variable [`JOB_VARIABLE`], which only the same user can read: a channel's
//! URL may hold a token, and command lines are public.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The variable that holds the job.
pub const JOB_VARIABLE: &str = "RUNTIMED_CONDA_JOB";

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// What to do.
    pub work: Work,
    /// Names, URLs or paths of channels, the most important first.
    pub channels: Vec<String>,
    /// Where relative paths of channels start.
    pub folder: PathBuf,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Make an environment.
    Create {
        /// Where to put it; nothing is there yet.
        prefix: PathBuf,
        /// Where it will be moved to, if it is not to stay there.
        #[serde(default)]
        home: Option<PathBuf>,
        /// What it must hold, as conda's match specifications.
        specs: Vec<String>,
        /// What it must hold if any channel has it.
        #[serde(default)]
        optional: Vec<String>,
        /// A solve that an earlier environment of the same kind left.
        #[serde(default)]
        saved: Option<PathBuf>,
    },
    /// Add to an environment, and take nothing away from it.
    Install {
        /// Where it is.
        prefix: PathBuf,
        /// What is to be added, as conda's match specifications.
        specs: Vec<String>,
    },
    /// Make an environment with the very packages of another one, without asking any channel for metadata.
    Copy {
        /// The other one.
        template: PathBuf,
        /// Where to put it; nothing is there yet.
        prefix: PathBuf,
    },
}
