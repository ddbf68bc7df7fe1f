//! The pools with their keepers, on a provider that makes folders.

use std::sync::atomic::Ordering;

use runtimed_plugin_api::{EnvNeed, Environments, ErrorCode, PluginError, Progress, ProgressSink, Release};
use serde_json::json;

use super::fake::FakeProvider;
use super::*;

/// Pools in a temp folder, running.
struct World {
    dir: tempfile::TempDir,
    pools: Pools,
    service: EnvironmentService,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<()>,
}

impl World {
    async fn start(provider: Arc<FakeProvider>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), provider).await
    }

    async fn start_in(dir: tempfile::TempDir, provider: Arc<FakeProvider>) -> Self {
        let (settings, _) = Settings::open(&dir.path().join("settings.json"), dir.path());
        let shutdown = Shutdown::default();
        let pools = Pools::new(dir.path().join("envs"), settings.clone(), Vec::new(), shutdown.clone());
        let trust = TrustStore::new(dir.path().join("trusted.json"));
        let service = EnvironmentService::new(pools.clone(), settings, trust, dir.path().join("inline-envs"));
        let background = pools.clone();
        let running = tokio::spawn(async move { background.run(vec![provider]).await });
        Self { dir, pools, service, shutdown, running }
    }

    /// Waits until the status of the `uv` pool is as wanted.
    async fn until(&self, wanted: impl Fn(&PoolStatus) -> bool) {
        let mut watch = self.pools.watch();
        watch.wait_for(|all| all.get("uv").is_some_and(&wanted)).await.unwrap();
    }

    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.begin();
        self.running.await.unwrap();
        self.dir
    }
}

fn need(source: &str) -> EnvNeed {
    EnvNeed {
        room: "room".into(),
        source: source.into(),
        metadata: json!({"runt": {"uv": {"dependencies": ["cowsay"]}}}),
        ..EnvNeed::default()
    }
}

#[tokio::test]
async fn a_pool_fills_serves_and_refills() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    world.until(|uv| uv.available == 2).await;
    let lease = world.service.acquire(need("uv:prewarmed"), Task::silent()).await.unwrap();
    assert_eq!(lease.source, "uv:prewarmed");
    assert_eq!(lease.prewarmed_packages, ["pandas", "nbformat"]);
    assert_eq!(lease.launched_config["python_path"], json!(lease.environment.python));
    assert_eq!(world.service.leased(), std::slice::from_ref(&lease.environment.prefix));
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    assert_eq!(std::fs::read_dir(world.pools.envs()).unwrap().count(), 3);
    world.service.release(&lease.id, Release::Delete).await.unwrap();
    assert!(world.service.release(&lease.id, Release::Delete).await.is_err());
    world.stop().await;
}

#[tokio::test]
async fn the_next_daemon_finds_what_is_free_and_collects_what_was_taken() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    world.until(|uv| uv.available == 2).await;
    let taken = world.pools.take("uv").await.unwrap();
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    let torn = world.pools.envs().join("runtimed-uv-torn");
    std::fs::create_dir(&torn).unwrap();
    let dir = world.stop().await;

    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start_in(dir, Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    assert_eq!(provider.built.load(Ordering::SeqCst), 0);
    let dir = world.stop().await;
    // The janitor may have been stopped first; the start after that has nothing but the trash left.
    trash::empty_at_start(&dir.path().join("envs"));
    for gone in [torn, PathBuf::from(taken.venv_path)] {
        assert!(!record::is_leased(&gone) || record::Record::read(&gone).is_some(), "{}", gone.display());
    }
}

#[tokio::test]
async fn a_client_takes_and_returns_but_only_what_it_took() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    let taken = world.pools.take("uv").await.unwrap();
    assert!(world.pools.take("conda").await.is_none());
    let elsewhere = TakenEnv { venv_path: world.dir.path().to_string_lossy().into_owned(), ..taken.clone() };
    assert!(!world.pools.give_back(&elsewhere).await);
    assert!(world.dir.path().exists());
    assert!(world.pools.give_back(&taken).await);
    assert!(!world.pools.give_back(&taken).await);
    world.stop().await;
}

#[tokio::test]
async fn a_failed_build_is_told_to_the_room_and_leaves_no_folder() {
    let error = PluginError::invalid("no such package").detail(json!({"failed_package": "numpyy"}));
    let world = World::start(Arc::new(FakeProvider::failing("uv", vec![error.clone(), error]))).await;
    world.until(|uv| uv.consecutive_failures == 1).await;
    let error = world.service.acquire(need("uv:prewarmed"), Task::silent()).await.unwrap_err();
    assert_eq!(error.message, "Failed to acquire prewarmed environment for uv:prewarmed. no such package");
    let status = world.pools.status()["uv"].clone();
    assert_eq!(
        (status.error_kind.as_deref(), status.failed_package.as_deref()),
        (Some("invalid_package"), Some("numpyy"))
    );
    // The user tries again: no back-off for somebody who waits.
    let lease = world.service.acquire(need("uv:prewarmed"), Task::silent()).await.unwrap();
    world.until(|uv| uv.available == 2 && uv.error.is_none()).await;
    assert!(lease.environment.prefix.exists());
    world.stop().await;
}

#[tokio::test]
async fn a_flush_rebuilds_the_pool() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    world.pools.flush();
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    assert_eq!(provider.built.load(Ordering::SeqCst), 4);
    world.stop().await;
}

/// Remembers phases.
#[derive(Default)]
struct Phases(std::sync::Mutex<Vec<String>>);

impl ProgressSink for Phases {
    fn progress(&self, progress: Progress) {
        self.0.lock().unwrap().push(progress.phase);
    }
}

#[tokio::test]
async fn declared_packages_are_built_once_they_are_trusted_and_shared_afterwards() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let denied = world.service.acquire(need("auto"), Task::silent()).await.unwrap_err();
    assert_eq!(denied.code, ErrorCode::Denied);
    assert_eq!(world.service.approve(need("auto")).await.unwrap().status, "trusted");

    let (first, second) = (Arc::new(Phases::default()), Arc::new(Phases::default()));
    let (a, b) = (Task::new(first.clone()), Task::new(second.clone()));
    let (a, b) =
        tokio::join!(world.service.acquire(need("auto"), a), world.service.acquire(need("uv:inline"), b));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.environment, b.environment);
    assert_eq!(a.environment.packages, ["ipykernel", "cowsay", "nbformat"]);
    assert_eq!(a.launched_config["uv_deps"], json!(["cowsay"]));
    assert_eq!(provider.built.load(Ordering::SeqCst), 3);
    let mut phases = [first.0.lock().unwrap().join(" "), second.0.lock().unwrap().join(" ")];
    phases.sort();
    assert_eq!(phases, ["cache_hit ready", "creating_venv ready"]);

    // What is changed under a running kernel is not given to the next notebook.
    world.service.install(&a.id, vec!["six".into()], Task::silent()).await.unwrap();
    assert!(record::Record::read(&a.environment.prefix).is_none());
    world.stop().await;
}
