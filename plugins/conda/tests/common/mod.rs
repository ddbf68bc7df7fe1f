//! What the tests of this plugin stand on: a host that runs real processes, and a channel on disk with real packages.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{
    EnvProvider, EnvRequest, Environment, LaunchCommand, Progress, ProgressSink, Result, Task,
};
use runtimed_plugin_conda::{CondaProvider, Surroundings};
use runtimed_plugin_testkit::TestHost;
use serde_json::json;
use tempfile::TempDir;

/// Everything one test needs. What it makes goes away with it, but for the packages that all tests share.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) host: Arc<TestHost>,
    /// URL of the channel.
    pub(crate) channel: String,
}

impl Bench {
    /// A bench, or none (with a message) without the channel.
    pub(crate) fn new() -> Option<Self> {
        Self::with(|host| host)
    }

    /// A bench with a host of its own.
    pub(crate) fn with(change: impl FnOnce(TestHost) -> TestHost) -> Option<Self> {
        let channel = channel()?;
        let folder = TempDir::new_in(test_tools()).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_runtimed-conda"));
        let host = TestHost::new(folder.path())
            .with_plugin_folder(program.parent().unwrap())
            .with_env("RATTLER_CACHE_DIR", test_tools().join("rattler-cache").to_str().unwrap())
            .with_settings(json!({ "conda": { "channels": [channel], "python": ">=3.9" } }));
        Some(Self { folder, host: Arc::new(change(host)), channel })
    }

    pub(crate) fn provider(&self) -> CondaProvider {
        let home = Some(self.path("home"));
        CondaProvider::new(self.host.clone(), Surroundings { home, ..Surroundings::default() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An environment at `name`, as the host would have it made.
    pub(crate) async fn create(&self, name: &str, request: EnvRequest, task: Task) -> Result<Environment> {
        let provider = self.provider();
        let plan = provider.plan(request).await?;
        provider.create(plan, &self.path(name), task).await
    }
}

pub(crate) fn request(packages: &[&str]) -> EnvRequest {
    let packages = packages.iter().map(|package| (*package).to_owned()).collect();
    EnvRequest { packages, ..EnvRequest::default() }
}

/// Runs code with an environment's interpreter.
pub(crate) fn python(launch: &LaunchCommand, code: &str) -> Output {
    let mut command = Command::new(&launch.argv[0]);
    command.args(&launch.argv[1..]).args(["-c", code]).envs(&launch.env).output().unwrap()
}

pub(crate) fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap().trim().to_owned()
}

/// Remembers progress.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Vec<Progress>>);

impl ProgressSink for Recorder {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress);
    }
}

impl Recorder {
    pub(crate) fn phases(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|step| step.phase.clone()).collect()
    }

    /// The fields of the last step of `phase`.
    pub(crate) fn last(&self, phase: &str) -> serde_json::Value {
        let steps = self.0.lock().unwrap();
        let step = steps.iter().rev().find(|step| step.phase == phase);
        step.unwrap_or_else(|| panic!("no {phase} in {steps:?}")).fields.clone().into()
    }
}

/// `target/test-tools`: what tests prepare once.
pub(crate) fn test_tools() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools")
}

/// The channel that `cargo xtask test` prepares.
pub(crate) fn channel() -> Option<String> {
    let folder = test_tools().join("conda-channel");
    if !folder.join("complete").is_file() {
        eprintln!("SKIPPED: no conda channel here. `cargo xtask test` makes one.");
        return None;
    }
    Some(format!("file://{}", folder.canonicalize().unwrap().display()))
}
