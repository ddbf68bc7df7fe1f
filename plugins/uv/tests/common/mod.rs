//! What the tests of this plugin stand on: a host that runs real processes, a package index on
//! loopback, and one real uv shared by all of them.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]
#![allow(clippy::print_stderr, reason = "a skipped test says why")]

mod server;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{EnvPlan, EnvProvider, EnvRequest, Progress, ProgressSink, Task};
use runtimed_plugin_uv::{PinnedWheel, Surroundings, UV_VERSION, UvProvider};
use tempfile::TempDir;

pub(crate) use runtimed_plugin_testkit::TestHost;
pub(crate) use server::{Reply, Server};

/// Everything one test needs. What it makes goes away with it, but for the downloads all tests share.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    pub(crate) index: Server,
    pub(crate) host: Arc<TestHost>,
}

impl Bench {
    /// A bench with the shared uv and the shared cache, or none (with a message) without a network.
    pub(crate) fn new() -> Option<Self> {
        let wheel = wheel()?;
        let folder = TempDir::new_in(test_tools()).unwrap();
        let index = Server::with_wheel(std::fs::read(wheel).unwrap());
        let host = TestHost::new(folder.path())
            .with_tools(&test_tools().join("tools"))
            .with_env("UV_CACHE_DIR", test_tools().join("uv-cache").to_str().unwrap());
        Some(Self { folder, index, host: Arc::new(host) })
    }

    /// Changes the host; call it before the first provider.
    pub(crate) fn host(&mut self, change: impl FnOnce(TestHost) -> TestHost) {
        let host = std::mem::replace(&mut self.host, Arc::new(TestHost::new(self.folder.path())));
        self.host = Arc::new(change(Arc::into_inner(host).expect("no provider has the host yet")));
    }

    /// A provider that finds no uv on PATH.
    pub(crate) fn provider(&self) -> UvProvider {
        self.provider_in("", &self.index.url("/simple"))
    }

    pub(crate) fn provider_in(&self, path: &str, index: &str) -> UvProvider {
        UvProvider::new(self.host.clone(), Surroundings { path: path.into(), index: index.to_owned() })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A small environment at `name`; the plan is as it stands, without the additions of `plan`.
    pub(crate) async fn create(
        &self,
        provider: &UvProvider,
        name: &str,
        packages: &[&str],
        task: Task,
    ) -> runtimed_plugin_api::Result<runtimed_plugin_api::Environment> {
        let plan = EnvPlan { key: "0".repeat(16), request: request(packages) };
        provider.create(plan, &self.path(name), task).await
    }
}

pub(crate) fn request(packages: &[&str]) -> EnvRequest {
    let packages = packages.iter().map(|package| (*package).to_owned()).collect();
    EnvRequest { packages, ..EnvRequest::default() }
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
}

/// `target/test-tools`: what tests download once.
pub(crate) fn test_tools() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The pinned wheel, fetched once by pip, which knows how to reach the package index from here.
pub(crate) fn wheel() -> Option<PathBuf> {
    let folder = test_tools();
    let lock = File::create(folder.join("uv-wheel.lock")).unwrap();
    lock.lock().unwrap();
    let file = PinnedWheel::for_this_machine().unwrap().file;
    let wheel = folder.join(file);
    if !wheel.is_file() {
        let platform = file.rsplit('-').next().unwrap().split('.').next().unwrap();
        let fetched = Command::new("python3")
            .args(["-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--quiet"])
            .args(["--platform", platform, "--dest", folder.to_str().unwrap()])
            .arg(format!("uv=={UV_VERSION}"))
            .stdin(Stdio::null())
            .status();
        if !fetched.is_ok_and(|status| status.success()) || !wheel.is_file() {
            eprintln!("SKIPPED: pip could not fetch {file}; is the package index reachable?");
            return None;
        }
    }
    Some(wheel)
}
