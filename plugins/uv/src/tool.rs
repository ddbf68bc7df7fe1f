//! Finds a uv to work with.
//!
//! Promises: the user's own uv is preferred if it is recent enough; a failure is never remembered, and
//! a uv that has gone since is looked for again.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtimed_plugin_api::{Host, NoLines, ProcessSpec, Result, Task};
use semver::Version;

use crate::{bootstrap, commands, index};

/// Oldest uv whose options and JSON this plugin relies on: `python list --output-format json` with the
/// build variant of each interpreter.
const OLDEST: Version = Version::new(0, 8, 0);

/// How long `uv --version` may take. A cold disk needs a second or two.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// Where uv may come from.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// A search path in the form of `PATH`.
    pub path: OsString,
    /// URL of the package index to fetch uv from.
    pub index: String,
}

impl Surroundings {
    /// What this process's environment says.
    pub fn of_this_process() -> Self {
        Self { path: env::var_os("PATH").unwrap_or_default(), index: index::from_environment() }
    }
}

/// Knows where uv is once it was found.
pub(crate) struct Tool {
    host: Host,
    surroundings: Surroundings,
    /// Held for a copy only, never across an await.
    found: Mutex<Option<PathBuf>>,
}

impl Tool {
    pub(crate) fn new(host: Host, surroundings: Surroundings) -> Self {
        Self { host, surroundings, found: Mutex::default() }
    }

    /// The path of a usable uv, fetched if need be.
    pub(crate) async fn path(&self, task: &Task) -> Result<PathBuf> {
        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(path) = known.filter(|path| path.is_file()) {
            return Ok(path);
        }
        let path = match self.on_search_path().await {
            Some(path) => path,
            None => {
                let tools = self.host.directories().tools;
                bootstrap::ensure(tools, self.surroundings.index.clone(), task.clone()).await?
            }
        };
        tracing::info!(path = %path.display(), "using uv");
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(path.clone());
        Ok(path)
    }

    /// The first uv of the search path that answers with a recent version.
    async fn on_search_path(&self) -> Option<PathBuf> {
        for folder in env::split_paths(&self.surroundings.path).filter(|folder| folder.is_absolute()) {
            let path = folder.join("uv");
            if !executable(&path) {
                continue;
            }
            match self.version(&path).await {
                Some(version) if version >= OLDEST => return Some(path),
                Some(version) => tracing::info!(path = %path.display(), %version, "this uv is too old"),
                None => tracing::info!(path = %path.display(), "this uv does not answer"),
            }
        }
        None
    }

    async fn version(&self, uv: &Path) -> Option<Version> {
        let argv = commands::version(uv);
        let spec = ProcessSpec { argv, timeout: Some(VERSION_LIMIT), ..ProcessSpec::default() };
        let exit = self.host.run_process(spec, std::sync::Arc::new(NoLines)).await.ok()?;
        exit.success().then(|| version_of(&exit.stdout)).flatten()
    }
}

/// The version in `uv 0.13.9 (x86_64-unknown-linux-gnu)`.
fn version_of(answer: &str) -> Option<Version> {
    let mut words = answer.split_whitespace();
    let (name, version) = (words.next()?, words.next()?);
    (name == "uv").then(|| Version::parse(version).ok()).flatten()
}

fn executable(path: &Path) -> bool {
    #[cfg(unix)]
    let may_run = |metadata: &fs::Metadata| std::os::unix::fs::MetadataExt::mode(metadata) & 0o111 != 0;
    #[cfg(not(unix))]
    let may_run = |_: &fs::Metadata| true;
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && may_run(&metadata))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_uv() {
        assert_eq!(version_of("uv 0.13.9 (x86_64-unknown-linux-gnu)\n"), Some(Version::new(0, 13, 9)));
        assert_eq!(version_of("uv 0.4.1"), Some(Version::new(0, 4, 1)));
        assert_eq!(version_of("pyenv: uv: command not found"), None);
        assert_eq!(version_of(""), None);
    }
}
