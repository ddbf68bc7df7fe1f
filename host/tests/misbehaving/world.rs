//! A daemon with the misbehaving plugin, a well-behaved twin of it, and a notebook that runs in the twin's
//! environment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs};

use runtimed_client::protocol::documents::Output;
use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use runtimed_client::protocol::documents::runtime_state::{KernelState, Status};
use runtimed_client::protocol::handshake::CreateNotebook;
use runtimed_client::protocol::pool::{PluginRow, PoolStatus};
use runtimed_client::{Client, NotebookSession};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::daemon::{Daemon, PATIENCE};
use crate::processes;

/// Id and kind of the plugin under test.
pub(crate) const BAD: &str = "misbehaving";
/// Id and kind of its twin: as long, because the library's bytes are patched.
const GOOD: &str = "wellbehaved";
/// Plugins that notebooks need.
const NEEDED: [&str; 3] = ["blobs", "jupyter", "rooms"];
/// Pause between two looks at something that is to come true.
const PAUSE: Duration = Duration::from_millis(10);

/// Everything a test has.
pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) client: Client,
    notebook: NotebookSession,
    cell: String,
}

/// The staged plugins and a Python with ipykernel, if they are there.
pub(crate) struct Tools {
    staged: PathBuf,
    python: PathBuf,
}

impl Tools {
    /// None, and a word about it, where `cargo xtask test` has not prepared them.
    pub(crate) fn find() -> Option<Self> {
        let dist = env::var_os("RUNTIMED_TEST_DIST").map(|dist| PathBuf::from(dist).join("lib/runt/plugins"));
        let staged = dist.or_else(|| env::var_os("RUNTIMED_PLUGIN_PATH").map(PathBuf::from));
        let staged = staged.filter(|folder| NEEDED.iter().all(|id| folder.join(id).is_dir()));
        let python = env::var_os("RUNTIMED_TEST_KERNEL_PYTHON").map(PathBuf::from);
        let tools = staged.zip(python).map(|(staged, python)| Self { staged, python });
        if tools.is_none() {
            eprintln!("skipped: no staged plugins or no kernel here. `cargo xtask test` prepares them.");
        }
        tools
    }

    /// Starts a daemon, waits for both pools, and opens a notebook whose kernel runs.
    pub(crate) async fn world(&self, carrier: &str, mode: &str) -> World {
        let world = World::open(self.daemon(carrier, mode, |_, _| {})).await;
        world.pool_until(BAD, |pool| pool.available == 1).await;
        world
    }

    /// A daemon with both plugins, after `prepare` had a look at its home and command. For a `mode` that takes
    /// memory there is a limit.
    pub(crate) fn daemon(
        &self,
        carrier: &str,
        mode: &str,
        prepare: impl FnOnce(&Path, &mut Command),
    ) -> Daemon {
        Daemon::start_with(|home, command| {
            let plugins = home.join("plugins");
            for id in NEEDED {
                std::os::unix::fs::symlink(self.staged.join(id), plugins.join(id)).unwrap();
            }
            let library = fs::read(library()).unwrap();
            install(&plugins, BAD, &library, carrier);
            install(&plugins, GOOD, &twin(library), carrier);
            let config = home.join(".config/nteract");
            fs::create_dir_all(&config).unwrap();
            let settings = json!({
                "default_python_env": GOOD,
                "install_default_data_packages": false,
                "keep_alive_secs": 5,
                "uv_pool_size": 0,
                "misbehaving_pool_size": 1,
                "wellbehaved_pool_size": 1,
                // More than it needs, and less than it takes when it takes all it can get.
                "plugins": { "limits": if mode.starts_with("memory") { json!({ BAD: { "memory_mb": 1000 } }) } else { json!({}) } },
                BAD: { "python": self.python },
                GOOD: { "python": self.python },
            });
            fs::write(config.join("settings.json"), settings.to_string()).unwrap();
            // Far longer than any good build here. What hangs is waited for, so it is short there.
            let hangs = ["hang:create", "block:create", "progress:create"].contains(&mode);
            command.env("RUNTIMED_WARM_ENV_TIMEOUT_SECS", if hangs { "5" } else { "60" });
            prepare(home, command);
        })
    }
}

impl World {
    /// Opens a notebook in the twin's environment and runs a cell, so that the kernel is there.
    pub(crate) async fn open(daemon: Daemon) -> Self {
        let client = Client::new(&daemon.socket);
        let create = CreateNotebook { runtime: "python".into(), ..CreateNotebook::default() };
        let notebook = NotebookSession::create(&client, create).await.unwrap();
        notebook.ready().await.unwrap();
        let cell = NewCell {
            id: "c1".into(),
            cell_type: "code".into(),
            source: "6 * 7".into(),
            ..NewCell::default()
        };
        notebook.edit(|document| document.insert_cell(Place::End, &cell)).unwrap();
        let world = Self { daemon, client, notebook, cell: cell.id };
        world.runs_a_cell().await;
        world.pool_until(GOOD, |pool| pool.available == 1).await;
        world
    }

    /// Runs the cell and checks its value.
    pub(crate) async fn runs_a_cell(&self) {
        let run = async {
            let id = self.notebook.execute_cell(&self.cell).await.unwrap().execution_id;
            let ended = self.notebook.wait_for(|documents| {
                let state = &documents.runtime_state;
                let status = state.execution(&id)?.status;
                let outputs = state.outputs(&id);
                let values = outputs.iter().filter_map(|entry| value(&Output::from_json(&entry.manifest)?));
                status.is_terminal().then(|| (status, values.collect::<Vec<_>>()))
            });
            ended.await.unwrap()
        };
        let (status, values) = tokio::time::timeout(PATIENCE, run).await.unwrap();
        assert_eq!((status, values), (Status::Done, vec!["42".to_owned()]), "{}", self.log());
    }

    /// Opens another notebook with an environment of `kind`: whether its kernel runs, or why not.
    pub(crate) async fn kernel_of(&self, kind: &str) -> Result<(), String> {
        let create = CreateNotebook {
            runtime: "python".into(),
            package_manager: Some(kind.to_owned()),
            ..CreateNotebook::default()
        };
        let notebook = NotebookSession::create(&self.client, create).await.unwrap();
        notebook.ready().await.unwrap();
        let decided = notebook.wait_for(|documents| match documents.runtime_state.kernel_state() {
            KernelState::Running(_) => Some(Ok(())),
            KernelState::Error { details, .. } => Some(Err(details)),
            _ => None,
        });
        let decided =
            tokio::time::timeout(PATIENCE, decided).await.expect("the kernel runs or does not").unwrap();
        notebook.close().await;
        decided
    }

    /// Tells the plugin what to do and makes every pool build anew.
    pub(crate) async fn misbehave(&self, mode: &str) {
        fs::write(self.plugin().join("misbehave"), mode).unwrap();
        self.client.flush().await.unwrap();
    }

    /// Waits until the plugin has done `what` this many times.
    pub(crate) async fn done(&self, what: &str, times: usize) {
        self.until(&format!("{what} is done {times} times"), async || {
            let done = fs::read_to_string(self.plugin().join("done")).unwrap_or_default();
            done.lines().filter(|line| *line == what).count() >= times
        })
        .await;
    }

    /// Tells the plugin to behave again, and waits until its pool is full and shows no error.
    pub(crate) async fn recovers(&self) {
        self.misbehave("").await;
        self.pool_until(BAD, |pool| pool.available == 1 && pool.error.is_none()).await;
    }

    /// Runs cells, and checks that the twin's pool is as if nothing had happened.
    pub(crate) async fn others_are_untouched(&self) {
        self.runs_a_cell().await;
        self.pool_until(GOOD, |pool| pool.available == 1).await;
        assert_eq!(self.pool(GOOD).await.error, None);
        assert_eq!(self.row(GOOD).await.status, "ok");
        self.runs_a_cell().await;
    }

    /// What `list_plugins` says about a plugin.
    pub(crate) async fn row(&self, id: &str) -> PluginRow {
        let rows = self.client.list_plugins().await.unwrap();
        rows.into_iter().find(|row| row.id == id).unwrap()
    }

    /// Waits until `list_plugins` says so about the plugin under test, and returns what it says.
    pub(crate) async fn row_until(&self, said: impl Fn(&PluginRow) -> bool) -> PluginRow {
        self.until("a row of `list_plugins`", async || said(&self.row(BAD).await)).await;
        self.row(BAD).await
    }

    pub(crate) async fn pool(&self, kind: &str) -> PoolStatus {
        self.client.status().await.unwrap().pools().get(kind).cloned().unwrap_or_default()
    }

    /// Waits until a pool is so, and returns how it is.
    pub(crate) async fn pool_until(&self, kind: &str, is_so: impl Fn(&PoolStatus) -> bool) -> PoolStatus {
        self.until(&format!("the pool `{kind}`"), async || is_so(&self.pool(kind).await)).await;
        self.pool(kind).await
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl AsyncFn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so().await {
            if Instant::now() > end {
                let rows = self.client.list_plugins().await.unwrap_or_default();
                let rows = rows.iter().map(|row| format!("{} {} {:?}\n", row.id, row.status, row.reason));
                let pools = self.client.status().await.map(|status| status.pools().clone());
                panic!("never came true: {what}\n{}{pools:?}\n{}", rows.collect::<String>(), self.log());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The folder of the plugin under test.
    pub(crate) fn plugin(&self) -> PathBuf {
        self.daemon.home.path().join("plugins").join(BAD)
    }

    pub(crate) fn log(&self) -> String {
        let log = fs::read(self.daemon.base().join("runtimed.log")).unwrap_or_default();
        let tail = log.len().saturating_sub(5_000);
        String::from_utf8_lossy(&log[tail..]).into_owned()
    }

    /// Stops the daemon, and checks that it ended well and that nothing is left: no process that was started
    /// in its home, and before that no folder of an environment that is not whole.
    pub(crate) async fn ends_well(&mut self) {
        // What is being built when the daemon stops is deleted at its next start.
        self.pool_until(GOOD, |pool| pool.available == 1 && pool.warming == 0).await;
        self.pool_until(BAD, |pool| pool.warming == 0).await;
        let envs = self.daemon.base().join("envs");
        // One that is being replaced by a copy becomes whole; what a build has left behind never does.
        self.until("every environment is whole", async || {
            fs::read_dir(&envs).unwrap().flatten().all(|entry| {
                let name = entry.file_name().into_string().unwrap();
                let pooled = !name.starts_with('.') && !name.starts_with("template-");
                !pooled || entry.path().join("environment.json").exists()
            })
        })
        .await;
        let log = self.daemon.base().join("runtimed.log");
        let orphans = processes::listed(&self.plugin().join("orphans"));
        self.daemon.ask(json!({"type": "shutdown"}));
        assert!(self.daemon.ended().success(), "{}", fs::read_to_string(&log).unwrap());
        // What has been told to end may take a moment longer than the daemon: a kernel's shim clears up behind it.
        let end = Instant::now() + PATIENCE;
        loop {
            let left = processes::of_home(self.daemon.home.path());
            let orphans = processes::alive(&orphans);
            if left.is_empty() && orphans.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "left behind: {left:?} {orphans:?}");
            tokio::time::sleep(PAUSE).await;
        }
        assert!(!fs::read_to_string(&log).unwrap().contains("[PANIC]"));
    }
}

/// The text of a result.
fn value(output: &Output) -> Option<String> {
    let Output::ExecuteResult { .. } = output else { return None };
    let json = output.to_json();
    json.pointer("/data/text~1plain/inline")
        .or_else(|| json.pointer("/data/text~1plain"))?
        .as_str()
        .map(str::to_owned)
}

/// The library that cargo builds with the tests, beside the test binary.
fn library() -> PathBuf {
    let name = format!("{}runtimed_plugin_misbehaving{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    env::current_exe().unwrap().with_file_name(name)
}

/// The same library under another name: id, kind and settings are the twin's.
fn twin(mut library: Vec<u8>) -> Vec<u8> {
    let mut from = 0;
    while let Some(at) = library[from..].iter().position(|byte| *byte == BAD.as_bytes()[0]) {
        from += at;
        if library[from..].starts_with(BAD.as_bytes()) {
            library[from..from + GOOD.len()].copy_from_slice(GOOD.as_bytes());
        }
        from += 1;
    }
    library
}

/// Puts a plugin into a folder of its own, with a manifest that is right about everything.
fn install(plugins: &Path, id: &str, library: &[u8], carrier: &str) {
    let folder = plugins.join(id);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("lib.so"), library).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"{id}\"\nversion = \"0.1.0\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\", sha256 = \"{}\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"{id}\"\n\
         [run]\ncarrier = \"{carrier}\"\n",
        env::consts::OS,
        env::consts::ARCH,
        hex::encode(Sha256::digest(library)),
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
}
