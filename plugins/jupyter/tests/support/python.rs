//! The interpreter kernel tests start: `RUNTIMED_TEST_KERNEL_PYTHON`, or a venv made once per target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// What the venv holds, one a line; also its marker of completeness, shared with `cargo xtask test`.
const PACKAGES: &str = "ipykernel\njupyter_client\nnbformat";

/// An interpreter that has ipykernel; none when it would have to be installed and cannot be.
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
pub(crate) fn kernel_python() -> Option<PathBuf> {
    static PYTHON: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        if let Some(python) = std::env::var_os("RUNTIMED_TEST_KERNEL_PYTHON") {
            return Some(python.into());
        }
        // This binary is `<target>/<profile>/deps/<name>`.
        let tools = std::env::current_exe().ok()?.ancestors().nth(3)?.join("test-tools");
        fs::create_dir_all(&tools).ok()?;
        // Test processes take turns; the first one makes it.
        let lock = File::create(tools.join("kernel-venv.lock")).ok()?;
        lock.lock().ok()?;
        make(&tools.join("kernel-venv"))
    });
    if PYTHON.is_none() {
        println!("skipped: no interpreter with ipykernel, and the Python package index cannot be reached");
    }
    PYTHON.clone()
}

fn make(venv: &Path) -> Option<PathBuf> {
    let (python, marker) = (venv.join("bin/python"), venv.join("complete"));
    if fs::read_to_string(&marker).is_ok_and(|have| have == PACKAGES) {
        return Some(python);
    }
    let run = |command: &mut Command| command.status().is_ok_and(|status| status.success()).then_some(());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES.lines()))?;
    fs::write(marker, PACKAGES).ok()?;
    Some(python)
}
