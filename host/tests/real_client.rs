//! The unmodified PyPI client against the real daemon, with real environments and kernels.
//!
//! Each test is one script of `real_client/`, against a daemon of its own in a home of its own.
//! `cargo xtask test` prepares the tools and says where they are; without them the tests say so and pass.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn cells_are_edited() {
    script("editing.py");
}

#[test]
fn cells_are_executed() {
    script("execution.py");
}

#[test]
fn two_clients_share_a_notebook() {
    script("sharing.py");
}

#[test]
fn files_are_opened_and_saved() {
    script("files.py");
}

#[test]
fn the_daemon_answers() {
    script("daemon.py");
}

/// Runs a script with the client's Python against a fresh daemon.
fn script(name: &str) {
    let Some(python) = std::env::var_os("RUNTIMED_TEST_CLIENT_PYTHON") else {
        eprintln!("skipped: no PyPI client here. `cargo xtask test` installs it (needs the package index).");
        return;
    };
    let mut daemon = Daemon::start();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_client");
    let output = Command::new(python)
        .arg("-B")
        .arg(folder.join(name))
        .env("HOME", daemon.home.path())
        .env("RUNTIMED_SOCKET_PATH", &daemon.socket)
        .output()
        .expect("the client's python starts");
    assert!(
        output.status.success(),
        "{name} ended with {}\n{}{}\n--- daemon\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        daemon.log(),
    );
    daemon.stop();
    let log = daemon.log();
    assert!(!log.contains("panicked"), "the daemon's log tells of a panic:\n{log}");
}

/// A daemon in a temporary home. Ended with its kernels when dropped.
struct Daemon {
    child: Child,
    home: tempfile::TempDir,
    socket: PathBuf,
}

impl Daemon {
    fn start() -> Self {
        let home = tempfile::Builder::new().prefix("rt").tempdir().expect("a temporary home");
        let config = home.path().join(".config/nteract");
        std::fs::create_dir_all(&config).expect("a config folder");
        let settings =
            r#"{ "install_default_data_packages": false, "uv_pool_size": 1, "keep_alive_secs": 5 }"#;
        std::fs::write(config.join("settings.json"), settings).expect("settings");
        let socket = home.path().join("s.sock");
        let child = Command::new(env!("CARGO_BIN_EXE_runtimed"))
            .args(["--log-level", "info", "run", "--socket"])
            .arg(&socket)
            .env("HOME", home.path())
            .env("USER", "tester")
            .env("XDG_RUNTIME_DIR", home.path().join("run"))
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let daemon = Self { child, home, socket };
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            assert!(start.elapsed() < Duration::from_secs(30), "the daemon listens\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(self.home.path().join(".cache/runt/runtimed.log"));
        log.unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// Ends it the way a service manager does and checks that it ends well.
    fn stop(&mut self) {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the daemon's exit") {
                assert!(status.success(), "the daemon ended with {status}\n{}", self.log());
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "the daemon ends on SIGTERM\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!self.socket.exists(), "the socket is gone after a clean end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failed script: the daemon ends its kernels on SIGTERM, so do not kill it outright.
        if self.child.try_wait().is_ok_and(|exit| exit.is_none()) {
            let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(10)
                && self.child.try_wait().is_ok_and(|exit| exit.is_none())
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
