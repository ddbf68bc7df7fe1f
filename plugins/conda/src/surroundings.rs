//! What conda's own tools read from the environment.

use std::env;
use std::path::PathBuf;

/// The variables that matter here.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// `HOME`.
    pub home: Option<PathBuf>,
    /// `CONDA_ENVS_DIRS`, as a list.
    pub envs_dirs: Vec<PathBuf>,
    /// `CONDA_PREFIX`.
    pub conda_prefix: Option<PathBuf>,
    /// `MAMBA_ROOT_PREFIX`.
    pub mamba_root: Option<PathBuf>,
    /// `CONDA_CHANNELS`, as a list: what is used when neither the notebook nor the settings name a channel.
    pub channels: Vec<String>,
    /// `CONDA_DEFAULT_PYTHON`: what is used when neither the notebook nor the settings name a Python.
    pub python: Option<String>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let channels = text("CONDA_CHANNELS").unwrap_or_default();
        let channels = channels.split(',').map(str::trim).filter(|channel| !channel.is_empty());
        Self {
            home: path("HOME"),
            envs_dirs: env::var_os("CONDA_ENVS_DIRS")
                .map(|dirs| env::split_paths(&dirs).filter(|dir| dir.is_absolute()).collect())
                .unwrap_or_default(),
            conda_prefix: path("CONDA_PREFIX"),
            mamba_root: path("MAMBA_ROOT_PREFIX"),
            channels: channels.map(str::to_owned).collect(),
            python: text("CONDA_DEFAULT_PYTHON"),
        }
    }
}
