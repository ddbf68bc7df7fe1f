//! A home with a daemon of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::{Execution, Status};
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::{Client, NotebookSession};
use serde_json::Value;

const SETTINGS: &str = r#"{ "install_default_data_packages": false, "uv_pool_size": 1, "keep_alive_secs": 600, "kernels": { "warm": 0 } }"#;

/// A user. Daemon and kernels end when it is dropped.
pub(crate) struct World {
    home: tempfile::TempDir,
    bin: PathBuf,
}

/// What a command said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    /// None, with a message, where nothing is staged.
    pub(crate) fn new() -> Option<Self> {
        let (Some(dist), Some(_)) =
            (env::var_os("RUNTIMED_TEST_DIST"), env::var_os("RUNTIMED_TEST_KERNEL_PYTHON"))
        else {
            eprintln!("skipped: no staged build or no kernel here. `cargo xtask test` makes them.");
            return None;
        };
        let home = tempfile::Builder::new().prefix("rt").tempdir().unwrap();
        let config = home.path().join(".config/nteract");
        fs::create_dir_all(&config).unwrap();
        fs::write(config.join("settings.json"), SETTINGS).unwrap();
        fs::create_dir(home.path().join("work")).unwrap();
        fs::create_dir(home.path().join("tmp")).unwrap();
        Some(Self { home, bin: PathBuf::from(dist).join("bin") })
    }

    /// The home folder, as kernels see it.
    pub(crate) fn home(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap()
    }

    /// A command in this home.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        let passed = env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            ["SSL_CERT_", "UV_", "PIP_", "RUNTIMED_PLUGIN_PATH"].iter().any(|it| name.starts_with(it))
                || name.to_ascii_lowercase().ends_with("_proxy")
        });
        command
            .env_clear()
            .envs(passed)
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("USER", "tester")
            .env("JUPYTER_PATH", kernel_prefix().join("share/jupyter"))
            .env("IPYTHONDIR", self.home.path().join("ipython"))
            .env("TMPDIR", self.home.path().join("tmp"))
            .env("XDG_RUNTIME_DIR", self.home.path().join("run"))
            .current_dir(self.home.path().join("work"))
            .stdin(Stdio::null());
        command
    }

    /// Runs `runt`.
    pub(crate) fn runt(&self, arguments: &[&str]) -> Said {
        Said::of(self.command("runt").args(arguments).output().unwrap())
    }

    /// Runs `runt` with something on its standard input.
    pub(crate) fn runt_with_input(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command("runt");
        command.args(arguments);
        self.said_with_input(command, input)
    }

    /// Runs a command with something on its standard input.
    pub(crate) fn said_with_input(&self, mut command: Command, input: &str) -> Said {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that does not read to the end is no failure here.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Said::of(child.wait_with_output().unwrap())
    }

    /// Rows of `runt ps`.
    pub(crate) fn ps(&self) -> Vec<Value> {
        self.runt(&["ps", "--json"]).json().as_array().unwrap().clone()
    }

    /// Python that has ipykernel and jupyter_client, in this home.
    pub(crate) fn python(&self, script: &str) -> Command {
        let mut command = self.command("runt");
        let environment: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.unwrap().to_owned())).collect();
        command = Command::new(kernel_prefix().join("bin/python"));
        command.env_clear().envs(environment).args(["-c", script]).current_dir(self.home.path().join("work"));
        command
    }

    /// A client of this home's daemon.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.home.path().join(".cache/runt/runtimed.sock"))
    }

    /// Opens, or makes, a notebook in the folder `work`.
    pub(crate) async fn notebook(&self, name: &str) -> NotebookSession {
        let path = self.home().join("work").join(name);
        let open = OpenNotebook { path: path.display().to_string(), ..OpenNotebook::default() };
        let session = NotebookSession::open(&self.client(), open).await.unwrap();
        session.ready().await.unwrap();
        session
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let kernels = self.runt(&["jupyter", "stop", "--all"]);
        assert!(kernels.code == 0 || std::thread::panicking(), "{}", kernels.err);
        let stopped = self.runt(&["daemon", "stop"]);
        if stopped.code != 0 && !std::thread::panicking() {
            panic!("the daemon does not stop: {}", stopped.err);
        }
    }
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.good().out).unwrap()
    }
}

/// Where ipykernel and its kernelspec are installed.
fn kernel_prefix() -> PathBuf {
    let python = PathBuf::from(env::var_os("RUNTIMED_TEST_KERNEL_PYTHON").unwrap());
    python.parent().unwrap().parent().unwrap().to_owned()
}

/// Runs code in a new cell to its end. Returns the execution and the plain text of its result.
pub(crate) async fn run(session: &NotebookSession, source: &str) -> (Execution, Option<String>) {
    let id = uuid::Uuid::new_v4().to_string();
    let cell = NewCell {
        id: id.clone(),
        cell_type: "code".to_owned(),
        source: source.to_owned(),
        ..NewCell::default()
    };
    session.edit(|notebook| notebook.insert_cell(Place::End, &cell)).unwrap();
    let execution = session.execute_cell(&id).await.unwrap().execution_id;
    let ended = session.wait_for(|it| {
        it.runtime_state.execution(&execution).filter(|execution| execution.status.is_terminal())
    });
    let ended = ended.await.unwrap();
    let outputs = session.read(|it| it.runtime_state.outputs(&execution));
    let result = outputs
        .iter()
        .find_map(|output| Some(output.manifest.pointer("/data/text~1plain/inline")?.as_str()?.to_owned()));
    (ended, result)
}

/// The same for code that succeeds with a number.
pub(crate) async fn number(session: &NotebookSession, source: &str) -> u64 {
    let (execution, result) = run(session, source).await;
    assert_eq!(execution.status, Status::Done);
    result.unwrap().parse().unwrap()
}

/// Whether the process `pid` is there and no zombie.
pub(crate) fn is_running(pid: u64) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
