//! Finds the user's pixi.
//!
//! Promises: a failure is never remembered, so a pixi that was installed meanwhile is found without a restart.
//! Never: downloads one.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use runtimed_plugin_api::{PluginError, Result};
use serde_json::json;

/// The program.
const PROGRAM: &str = "pixi";

/// Where pixi may be.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// A search path in the form of `PATH`.
    pub path: OsString,
    /// Where pixi's installer put it: `$PIXI_HOME`, else `~/.pixi`.
    pub pixi_home: Option<PathBuf>,
}

impl Surroundings {
    /// What this process's environment says.
    pub fn of_this_process() -> Self {
        let folder =
            |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            path: env::var_os("PATH").unwrap_or_default(),
            pixi_home: folder("PIXI_HOME").or_else(|| Some(folder("HOME")?.join(".pixi"))),
        }
    }

    /// The first pixi on the search path, else the installer's. Reads folders.
    ///
    /// # Errors
    /// `Unavailable` when there is none.
    pub(crate) fn pixi(&self) -> Result<PathBuf> {
        let folders = env::split_paths(&self.path).filter(|folder| folder.is_absolute());
        let installed = self.pixi_home.as_ref().map(|home| home.join("bin"));
        let mut programs = folders.chain(installed).map(|folder| folder.join(PROGRAM));
        programs.find(|program| is_executable(program)).ok_or_else(|| self.missing())
    }

    fn missing(&self) -> PluginError {
        let beside = match &self.pixi_home {
            Some(home) => format!(" nor in `{}`", home.join("bin").display()),
            None => String::new(),
        };
        PluginError::unavailable(format!(
            "pixi is not installed: it is not on the daemon's PATH{beside}. Nothing was created."
        ))
        .help(
            "Install pixi the way its documentation says; it is found without a restart of the daemon. Or use \
             another kind of environment: set `default_python_env` to `uv`, and `pixi_pool_size` to 0 so that \
             no pool of pixi's is tried.",
        )
        .detail(json!({ "error_kind": "setup_failed", "network": false }))
    }
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use runtimed_plugin_api::ErrorCode;

    use super::*;

    fn install(folder: &Path, mode: u32) -> PathBuf {
        fs::create_dir_all(folder).unwrap();
        let program = folder.join(PROGRAM);
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        program
    }

    #[test]
    fn the_search_path_comes_first_and_what_cannot_run_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (no, on_path) = (dir.path().join("no"), dir.path().join("on_path"));
        install(&no, 0o644);
        let surroundings = Surroundings {
            path: env::join_paths([Path::new("bin"), &no, &on_path]).unwrap(),
            pixi_home: Some(dir.path().join("home")),
        };
        let error = surroundings.pixi().unwrap_err();
        // Retryable: the conformance kit and pools take it for something that may be there next time.
        assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
        assert!(error.message.contains("home/bin`. Nothing was created."), "{error}");
        assert!(error.help.unwrap().starts_with("Install pixi"));

        let at_home = install(&dir.path().join("home/bin"), 0o755);
        assert_eq!(surroundings.pixi().unwrap(), at_home);
        let first = install(&on_path, 0o755);
        assert_eq!(surroundings.pixi().unwrap(), first);
    }
}
