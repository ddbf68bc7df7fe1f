//! The unmodified PyPI client, and our own command line, against the real daemon, with real environments
//! and kernels.
//!
//! Each test has a daemon of its own in a home of its own. `cargo xtask test` prepares the tools and says
//! where they are; without them the tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

#[path = "real_client/scripts.rs"]
mod scripts;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use serde_json::Value;
use support::Daemon;

#[test]
fn cells_are_edited() {
    script("editing.py");
}

#[test]
fn cells_are_executed() {
    script("execution.py");
}

/// One sentence in the notebook, nothing left behind, and the next cell has a new kernel.
#[cfg(target_os = "linux")]
mod a_kernel_that {
    use super::script;

    #[test]
    fn dies_by_itself() {
        script("deaths.py by_itself");
    }

    #[test]
    fn is_killed() {
        script("deaths.py killed");
    }

    #[test]
    fn is_out_of_memory() {
        script("deaths.py out_of_memory");
    }

    #[test]
    fn hangs() {
        script("deaths.py hangs");
    }

    #[test]
    fn closes_its_sockets() {
        script("deaths.py closes_its_sockets");
    }

    #[test]
    fn leaves_children() {
        script("deaths.py leaves_children");
    }

    #[test]
    fn asks() {
        script("deaths.py asks");
    }

    #[test]
    fn is_stopped_while_it_runs() {
        script("deaths.py is_stopped_while_it_runs");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_flood_arrives_whole_and_takes_bounded_memory() {
    script("floods.py");
}

#[test]
fn recorded_cells_show_what_the_reference_shows() {
    script("samples.py");
}

/// Each label that can be had here, asked for by a notebook and proved by its interpreter; what is held, and what is said.
#[test]
fn a_notebook_gets_the_environment_that_is_right_and_allowed() {
    script("choosing.py");
}

#[test]
fn two_clients_share_a_notebook() {
    script("sharing.py");
}

/// Every public name of the package, used by two clients at once and by five.
#[test]
fn the_whole_api_works_for_two_and_for_five_at_once() {
    script("api.py");
}

#[test]
fn files_are_opened_and_saved() {
    script("files.py");
}

#[test]
fn files_that_other_programs_write_are_followed() {
    script("outside.py");
}

/// Without environments, so that a hundred notebooks do not start as many kernels.
#[test]
fn notebooks_of_many_origins_lose_nothing() {
    if env::var_os("RUNTIMED_TEST_NOTEBOOKS").is_none() {
        eprintln!("skipped: no notebooks here. `cargo xtask test` downloads them (needs the package index).");
        return;
    }
    let settings = r#"{ "plugins": { "disabled": ["uv", "conda"] } }"#;
    scripts::run("corpus.py", || scripts::start(settings, |_| {}), |_| {});
}

/// The daemon is a user whom permissions stop, which root is not; the script becomes that user as well.
#[test]
fn files_that_cannot_be_used_say_why() {
    const NOBODY: u32 = 65534;
    let settings = r#"{ "install_default_data_packages": false, "uv_pool_size": 0 }"#;
    let start = || {
        scripts::start(settings, |command| {
            let home = command.get_envs().find(|(name, _)| *name == "HOME").and_then(|(_, home)| home);
            if rustix::process::geteuid().is_root() {
                let owner = format!("{NOBODY}:{NOBODY}");
                let changed = Command::new("chown").args(["-R", &owner]).arg(home.unwrap()).status();
                assert!(changed.unwrap().success());
                command.uid(NOBODY).gid(NOBODY);
            }
        })
    };
    scripts::run("errors.py", start, |_| {});
}

#[test]
fn a_bash_notebook_does_what_python_does() {
    of_other_languages("bash");
}

#[test]
fn a_new_notebook_can_be_for_bash() {
    of_other_languages("created");
}

#[test]
fn a_deno_notebook_does_what_python_does() {
    of_other_languages("deno");
}

#[test]
fn what_a_notebook_says_about_deno_holds() {
    of_other_languages("deno_told");
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    of_other_languages("not_there");
}

/// Bash and Deno as a user has them: one installed for Jupyter in the home, one on `PATH`. No environment is made.
fn of_other_languages(function: &str) {
    let Some(kernels) = env::var_os("RUNTIMED_TEST_KERNELS").map(PathBuf::from) else {
        eprintln!("skipped: no kernels here. `cargo xtask test` installs them (needs the package index).");
        return;
    };
    let settings = r#"{ "plugins": { "disabled": ["uv", "conda"] } }"#;
    let start = || {
        scripts::start(settings, |command| {
            let home = command.get_envs().find(|(name, _)| *name == "HOME").and_then(|(_, home)| home);
            let home = PathBuf::from(home.unwrap());
            install_bash(&kernels, &home);
            let bin = home.join("bin");
            fs::create_dir(&bin).unwrap();
            std::os::unix::fs::symlink(kernels.join("bin/deno"), bin.join("deno")).unwrap();
            let path = env::var_os("PATH").unwrap_or_default();
            let path = env::join_paths(std::iter::once(bin).chain(env::split_paths(&path))).unwrap();
            command.env("PATH", path).env("NTERACT_API_KEY", "secret").env("KEPT", "kept");
        })
    };
    scripts::run(&format!("kernels.py {function}"), start, |_| {});
}

/// Bash's kernel installs itself; then its variables are added to, and another kernelspec beside it is broken.
fn install_bash(kernels: &Path, home: &Path) {
    let mut install = Command::new(kernels.join("bin/python"));
    let install = install.args(["-m", "bash_kernel.install", "--user"]).env_clear().env("HOME", home);
    assert!(install.output().unwrap().status.success());
    let folder = home.join(".local/share/jupyter/kernels");
    let file = folder.join("bash/kernel.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    spec["env"]["ADDED"] = "/added/${KEPT}".into();
    fs::write(&file, spec.to_string()).unwrap();
    fs::create_dir(folder.join("broken")).unwrap();
    fs::write(folder.join("broken/kernel.json"), "{").unwrap();
}

#[test]
fn the_daemon_answers() {
    script("daemon.py");
}

/// The agent is the MCP client of the package index and talks to `runt mcp`; the window is the PyPI client.
#[test]
fn an_agent_works_in_a_notebook_and_a_window_sees_it() {
    if let Some(python) = agent_python() {
        scripts::run_in(&python, "agent.py works", start, |_| {});
    }
}

#[test]
fn an_agent_goes_on_with_the_next_daemon() {
    let Some(python) = agent_python() else { return };
    let mut daemon = start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_client/agent.py");
    let mut agent = Command::new(python);
    agent.arg("-B").arg(script).arg("outlives").stdin(Stdio::piped()).stdout(Stdio::piped());
    agent.env("HOME", daemon.home.path()).env("RUNTIMED_SOCKET_PATH", &daemon.socket);
    let mut agent = agent.spawn().unwrap();
    let mut said = String::new();
    BufReader::new(agent.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    daemon.signal("KILL");
    daemon.ended();
    agent.stdin.as_mut().unwrap().write_all(b"gone\n").unwrap();
    let mut daemon = daemon.start_again_with(|_, command| scripts::pass_environment(command));
    assert!(agent.wait().unwrap().success());
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}

/// The Python that has the MCP client; none, and a word about it, if tools are missing.
fn agent_python() -> Option<OsString> {
    let tools =
        ["RUNTIMED_TEST_CLIENT_PYTHON", "RUNTIMED_TEST_DIST", "RUNTIMED_TEST_MCP_PYTHON"].map(env::var_os);
    let [Some(_), Some(_), python @ Some(_)] = tools else {
        eprintln!("skipped: no MCP client here. `cargo xtask test` installs it (needs the package index).");
        return None;
    };
    python
}

/// `runt run` shows what the notebook shows, saves it, and fails when a cell fails.
#[test]
fn a_notebook_runs_like_a_script() {
    let Some(dist) = env::var_os("RUNTIMED_TEST_DIST").map(PathBuf::from) else {
        eprintln!("skipped: no staged build here. `cargo xtask test` makes one.");
        return;
    };
    let mut daemon = start();
    let runt = |daemon: &Daemon, arguments: &[&str]| -> Output {
        let mut command = Command::new(dist.join("bin/runt"));
        command.args(arguments).env("HOME", daemon.home.path()).env("RUNTIMED_SOCKET_PATH", &daemon.socket);
        command.output().unwrap()
    };
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/example.ipynb");
    let output = daemon.home.path().join("out/done.ipynb");
    let before = fs::read(&example).unwrap();

    let run = runt(&daemon, &["run", example.to_str().unwrap(), "--output", output.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{shown}{}", String::from_utf8_lossy(&run.stderr));
    for expected in ["Hello from Python", "4│16│64", "[image/png,", "#################### 100%", "\n42\n"]
    {
        assert!(shown.contains(expected), "`{expected}` is not in:\n{shown}");
    }
    assert_eq!(fs::read(&example).unwrap(), before, "the notebook itself is left alone");
    let saved: Value = serde_json::from_slice(&fs::read(&output).unwrap()).unwrap();
    assert_eq!(saved["cells"][5]["outputs"][0]["data"]["text/plain"][0], "42");

    let mut failing = saved;
    failing["cells"][1]["source"] = "import os\nprint(os.getcwd())\n1 / 0".into();
    let failing_path = daemon.home.path().join("failing.ipynb");
    fs::write(&failing_path, failing.to_string()).unwrap();
    let run = runt(&daemon, &["run", failing_path.to_str().unwrap(), "--output", output.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    let (shown, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(errors.contains("ZeroDivisionError") && !shown.contains("ZeroDivisionError"), "{shown}{errors}");
    let folder = daemon.home.path().canonicalize().unwrap();
    assert!(shown.starts_with(folder.to_str().unwrap()), "a notebook runs in its own folder: {shown}");

    let run = runt(&daemon, &["run", failing_path.to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&report["success"], &report["cells"][0]["status"]), (&false.into(), &"error".into()));

    let run = runt(&daemon, &["daemon", "stop"]);
    let shown = String::from_utf8_lossy(&run.stdout);
    assert!(
        shown.ends_with("Daemon stopped gracefully.\n"),
        "{shown}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(daemon.ended().success());
}

fn script(name: &str) {
    scripts::run(name, start, |_| {});
}

/// A daemon with the staged plugins and one environment in its pool.
fn start() -> Daemon {
    scripts::start(
        r#"{ "install_default_data_packages": false, "uv_pool_size": 1, "keep_alive_secs": 5 }"#,
        |_| {},
    )
}
