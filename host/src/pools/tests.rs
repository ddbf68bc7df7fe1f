//! The pools with their keepers, on a provider that makes folders.

use std::sync::atomic::Ordering;

use runtimed_plugin_api::{
    Drift, EnvNeed, EnvProvider, Environments, ErrorCode, Lease, PluginError, Progress, ProgressSink,
    Release, Running, ScriptBlock,
};
use serde_json::{Value, json};

use super::fake::FakeProvider;
use super::*;
use crate::plugins::Provided;
use runtimed_plugin_api::search::SearchPath;

/// Pools in a temp folder, running.
struct World {
    dir: tempfile::TempDir,
    pools: Pools,
    service: EnvironmentService,
    settings: Settings,
    shutdown: Shutdown,
    providers: watch::Sender<Option<Arc<Providers>>>,
    running: tokio::task::JoinHandle<()>,
}

impl World {
    async fn start(provider: Arc<FakeProvider>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), provider).await
    }

    async fn start_in(dir: tempfile::TempDir, provider: Arc<FakeProvider>) -> Self {
        Self::start_with(dir, provider, BTreeMap::new()).await
    }

    /// One whose command line says how large the pools are.
    async fn start_with(
        dir: tempfile::TempDir,
        provider: Arc<FakeProvider>,
        sizes: BTreeMap<String, usize>,
    ) -> Self {
        let (settings, _) =
            Settings::open(&dir.path().join("settings.json"), dir.path(), SearchPath::default());
        let shutdown = Shutdown::default();
        let pools = Pools::new(dir.path().join("envs"), settings.clone(), sizes, shutdown.clone());
        let trust = TrustStore::new(dir.path().to_owned());
        let home = Some(PathBuf::from("/"));
        let service = EnvironmentService::new(pools.clone(), settings.clone(), trust, dir.path(), home);
        let background = pools.clone();
        let (providers, receiver) = watch::channel(Some(Arc::new(of(provider))));
        let running = tokio::spawn(async move { background.run(receiver).await });
        Self { dir, pools, service, settings, shutdown, providers, running }
    }

    /// Waits until the status of the `uv` pool is as wanted.
    async fn until(&self, wanted: impl Fn(&PoolStatus) -> bool) {
        self.until_all(|all| all.get("uv").is_some_and(&wanted)).await;
    }

    /// Waits until the status of all pools is as wanted.
    async fn until_all(&self, wanted: impl Fn(&BTreeMap<String, PoolStatus>) -> bool) {
        self.pools.watch().wait_for(wanted).await.unwrap();
    }

    /// These are the providers from now on.
    fn provide(&self, providers: impl IntoIterator<Item = Arc<FakeProvider>>) {
        self.providers.send_replace(Some(Arc::new(providers.into_iter().flat_map(of).collect())));
    }

    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.begin();
        self.running.await.unwrap();
        self.dir
    }
}

fn of(provider: Arc<FakeProvider>) -> Providers {
    Providers::from([(provider.info().kind, Provided { provider, edition: "1".into() })])
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
    let torn = world.pools.envs().join("runtimed-uv-00000000-0000-4000-8000-000000000000");
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

    let lease = world.service.acquire(need("uv:prewarmed"), Task::silent()).await.unwrap();
    let prefix = lease.environment.prefix;
    let a_rooms = TakenEnv { venv_path: prefix.to_string_lossy().into_owned(), ..taken };
    assert!(!world.pools.give_back(&a_rooms).await);
    assert!(record::is_leased(&prefix));
    world.stop().await;
}

#[tokio::test]
async fn nothing_is_installed_from_a_channel_that_nobody_approved() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let need = |channel: &str| EnvNeed {
        metadata: json!({"runt": {"uv": {"dependencies": [], "channels": [channel]}}}),
        ..need("uv:inline")
    };
    let evil = need("https://evil.example");
    assert_eq!(world.service.trust(evil.clone()).await.unwrap().status, "no_dependencies");
    let denied = world.service.acquire(evil.clone(), Task::silent()).await.unwrap_err();
    assert_eq!((denied.code, provider.built.load(Ordering::SeqCst)), (ErrorCode::Denied, 2));
    world.service.acquire(need("conda-forge"), Task::silent()).await.unwrap();
    world.service.approve(evil.clone()).await.unwrap();
    world.service.acquire(evil, Task::silent()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn who_waits_hears_that_the_daemon_stops() {
    let world = World::start(Arc::new(FakeProvider::gated("uv"))).await;
    world.until(|uv| uv.warming > 0).await;
    let (service, task) = (world.service.clone(), Task::silent());
    let waiting = tokio::spawn(async move { service.acquire(need("uv:prewarmed"), task).await });
    world.stop().await;
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::Cancelled);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_environment_that_a_process_still_uses_outlives_the_next_start() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    let taken = world.pools.take("uv").await.unwrap();
    let python = PathBuf::from(&taken.venv_path).join("python-of-a-kernel");
    std::os::unix::fs::symlink("/bin/sleep", &python).unwrap();
    let mut kernel = std::process::Command::new(&python).arg("600").spawn().unwrap();
    let dir = world.stop().await;
    let world = World::start_in(dir, Arc::new(FakeProvider::new("uv"))).await;
    // Recovery is over once the pool is full.
    world.until(|uv| uv.available == 2).await;
    let dir = world.stop().await;
    trash::empty_at_start(&dir.path().join("envs"));
    kernel.kill().unwrap();
    kernel.wait().unwrap();
    assert!(python.exists());
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
async fn a_new_kind_gets_a_pool_and_everything_else_at_once() {
    let uv = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&uv)).await;
    world.until(|uv| uv.available == 2).await;
    let metadata = json!({"runt": {"venv": {"dependencies": ["numpy"]}}});
    let declared = EnvNeed { metadata, ..need("auto") };
    assert_eq!(world.service.acquire(declared.clone(), Task::silent()).await.unwrap().source, "uv:prewarmed");

    let venv = Arc::new(FakeProvider::new("venv"));
    world.provide([uv, Arc::clone(&venv)]);
    world.until_all(|all| all.get("venv").is_some_and(|venv| venv.available == 1)).await;
    assert_eq!(world.service.acquire(declared, Task::silent()).await.unwrap().source, "venv:inline");
    let edit = json!({"default_python_env": "venv", "venv_pool_size": 3});
    world.settings.edit(|_| edit.as_object().unwrap().clone());
    world.until_all(|all| all["venv"].available == 3).await;
    let nothing = EnvNeed { metadata: json!({}), ..need("") };
    assert_eq!(world.service.acquire(nothing, Task::silent()).await.unwrap().source, "venv:prewarmed");
    world.stop().await;
}

#[tokio::test]
async fn what_the_command_line_says_of_a_size_stands_above_the_settings() {
    let (uv, sizes) = (Arc::new(FakeProvider::new("uv")), BTreeMap::from([("uv".to_owned(), 25)]));
    let world = World::start_with(tempfile::tempdir().unwrap(), uv, sizes).await;
    world.until(|uv| (uv.available, uv.pool_size) == (25, 25)).await;
    let edit = json!({"uv_pool_size": 1, "theme": "dark"});
    world.settings.edit(|_| edit.as_object().unwrap().clone());
    tokio::task::yield_now().await;
    world.until(|uv| (uv.available, uv.pool_size) == (25, 25)).await;
    world.stop().await;
}

#[tokio::test]
async fn a_replaced_provider_ends_what_it_has_begun_and_begins_nothing_new() {
    let old = Arc::new(FakeProvider::gated("uv"));
    let world = World::start(Arc::clone(&old)).await;
    let (service, task) = (world.service.clone(), Task::silent());
    let metadata = json!({"runt": {"uv": {"dependencies": ["numpy"]}}});
    let declared = EnvNeed { metadata, ..need("uv:inline") };
    let building = tokio::spawn(async move { service.acquire(declared, task).await });
    // The pool's build and the notebook's.
    while old.creating.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    let new = Arc::new(FakeProvider::new("uv"));
    world.provide([Arc::clone(&new)]);
    old.gate.as_ref().unwrap().add_permits(9);
    building.await.unwrap().unwrap();
    world.until(|uv| uv.available == 2).await;
    let built = |provider: &FakeProvider| provider.built.load(Ordering::SeqCst);
    assert_eq!((built(&old), built(&new)), (2, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_kind_that_is_gone_disappears_when_nobody_has_an_environment_of_it() {
    let (uv, venv) = (Arc::new(FakeProvider::new("uv")), Arc::new(FakeProvider::gated("venv")));
    let world = World::start(Arc::clone(&uv)).await;
    world.provide([Arc::clone(&uv), Arc::clone(&venv)]);
    venv.gate.as_ref().unwrap().add_permits(1);
    let lease = world.service.acquire(need("venv:prewarmed"), Task::silent()).await.unwrap();
    world.until_all(|all| all["venv"].warming == 1).await;
    let (service, task) = (world.service.clone(), Task::silent());
    let waiting = tokio::spawn(async move { service.acquire(need("venv:prewarmed"), task).await });
    world.until_all(|all| all["venv"].warming == 2).await;

    world.provide([Arc::clone(&uv)]);
    let gone = waiting.await.unwrap().unwrap_err();
    assert_eq!(gone.code, ErrorCode::Unavailable);
    assert!(gone.message.contains("`venv`") && gone.message.contains("removed or switched off"), "{gone}");
    let refused = world.service.acquire(need("venv:prewarmed"), Task::silent()).await.unwrap_err();
    assert!(refused.message.contains("No plugin provides `venv`"), "{refused}");
    let install = world.service.install(&lease.id, vec!["six".into()], Task::silent()).await.unwrap_err();
    assert_eq!(install.code, ErrorCode::Unavailable);
    world.until_all(|all| all["venv"].warming == 0 && all["venv"].pool_size == 0).await;
    assert!(world.pools.leased().contains(&lease.environment.prefix));
    world.service.release(&lease.id, Release::Delete).await.unwrap();
    world.until_all(|all| !all.contains_key("venv")).await;
    assert!(!world.pools.status().contains_key("venv"));

    // And it may come back.
    venv.gate.as_ref().unwrap().add_permits(9);
    world.provide([uv, venv]);
    world.until_all(|all| all.get("venv").is_some_and(|venv| venv.available == 1)).await;
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

#[tokio::test]
async fn a_spare_environment_goes_to_the_notebook_that_would_get_one_like_it() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    let acquire = |need: EnvNeed| world.service.acquire(need, Task::silent());
    let spare = || EnvNeed { spare: true, ..need("uv:prewarmed") };
    let prefer = |lease: &Lease, source: &str| EnvNeed { prefer: Some(lease.id.clone()), ..need(source) };
    let warm = acquire(spare()).await.unwrap();
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    world.service.approve(need("uv:inline")).await.unwrap();
    let declared = acquire(prefer(&warm, "uv:inline")).await.unwrap();
    assert_ne!(declared.id, warm.id, "another kind of environment");
    let room = EnvNeed { room: "another".into(), ..prefer(&warm, "uv:prewarmed") };
    assert_eq!(acquire(room).await.unwrap(), warm);
    assert!(record::is_leased_to(&warm.environment.prefix, "another"));
    assert_ne!(acquire(prefer(&warm, "uv:prewarmed")).await.unwrap().id, warm.id, "it is somebody's now");

    let outdated = acquire(spare()).await.unwrap();
    world.pools.flush();
    assert_ne!(acquire(prefer(&outdated, "uv:prewarmed")).await.unwrap().id, outdated.id);
    world.service.release(&outdated.id, Release::Delete).await.unwrap();
    assert_ne!(acquire(prefer(&outdated, "uv:prewarmed")).await.unwrap().id, outdated.id);
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
    let six = json!({"runt": {"uv": {"dependencies": ["six"]}}});
    world.service.approve(EnvNeed { metadata: six, ..need("auto") }).await.unwrap();
    world.service.install(&a.id, vec!["six".into()], Task::silent()).await.unwrap();
    assert!(record::Record::read(&a.environment.prefix).is_none());
    // Nor is it rebuilt under that kernel.
    let next = world.service.acquire(need("auto"), Task::silent()).await.unwrap();
    assert_ne!(next.environment.prefix, a.environment.prefix);
    assert!(a.environment.python.exists() && next.environment.python.exists());
    for lease in [&a, &b] {
        world.service.release(&lease.id, Release::Delete).await.unwrap();
    }
    let fresh = world.service.acquire(need("auto"), Task::silent()).await.unwrap();
    assert_eq!(fresh.environment.prefix, a.environment.prefix);
    world.stop().await;
}

/// The template of the `uv` pool, once it is as fast as it gets and everything in the pool is a copy of it.
async fn settled(world: &World) -> template::Template {
    let mut watch = world.pools.watch();
    loop {
        let pool = world.pools.by_kind().await.unwrap()["uv"].clone();
        let idle = matches!(pool.next(), state::Next::Wait(_)) && pool.status().warming == 0;
        if let Some(template) = pool.template().filter(|_| idle) {
            return template;
        }
        // Nothing is published when a template becomes faster.
        drop(timeout(Duration::from_millis(5), watch.changed()).await);
    }
}

#[tokio::test]
async fn a_pool_installs_once_and_then_makes_copies() {
    let provider = Arc::new(FakeProvider::cloning("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    let template = settled(&world).await;
    let count = |number: &std::sync::atomic::AtomicUsize| number.load(Ordering::SeqCst);
    assert!(template.optimized && !world.pools.leased().contains(&template.environment.prefix));
    assert_eq!(count(&provider.optimized), 1, "once for all");
    let built = count(&provider.built);
    for _ in 0..6 {
        let taken = world.pools.take("uv").await.unwrap();
        assert_ne!(Path::new(&taken.venv_path), template.environment.prefix);
    }
    assert_eq!(settled(&world).await, template);
    assert_eq!((count(&provider.built), count(&provider.optimized)), (built, 1));

    // The next daemon goes on with it.
    let dir = world.stop().await;
    let provider = Arc::new(FakeProvider::cloning("uv"));
    let world = World::start_in(dir, Arc::clone(&provider)).await;
    assert_eq!(settled(&world).await, template);
    world.pools.take("uv").await.unwrap();
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    assert_eq!((count(&provider.built), count(&provider.cloned)), (0, 1));

    // Other packages, another template.
    world.settings.edit(|_| json!({"uv": {"default_packages": ["six"]}}).as_object().unwrap().clone());
    while settled(&world).await.key == template.key {
        tokio::task::yield_now().await;
    }
    while template.environment.prefix.exists() {
        // Deleting tells nobody.
        sleep(Duration::from_millis(5)).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn without_copies_a_pool_installs_and_says_so_once() {
    let provider = Arc::new(FakeProvider::cloning("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    settled(&world).await;
    let built = provider.built.load(Ordering::SeqCst);
    provider
        .clone_failures
        .lock()
        .unwrap()
        .extend([PluginError::internal("no space"), PluginError::internal("no space")]);
    let taken = world.pools.take("uv").await.unwrap();
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    assert_eq!(world.pools.status()["uv"].consecutive_failures, 0, "nobody need know");
    assert!(provider.built.load(Ordering::SeqCst) > built);
    world.pools.give_back(&taken).await;
    world.stop().await;
}

#[tokio::test]
async fn a_template_that_was_changed_is_thrown_away_and_made_again() {
    let provider = Arc::new(FakeProvider::cloning("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    let changed = settled(&world).await;
    std::fs::write(changed.environment.prefix.join("evil.py"), "").unwrap();
    let taken = world.pools.take("uv").await.unwrap();
    assert!(!Path::new(&taken.venv_path).join("evil.py").exists());
    while settled(&world).await.environment.prefix == changed.environment.prefix {
        tokio::task::yield_now().await;
    }
    for _ in 0..4 {
        let taken = world.pools.take("uv").await.unwrap();
        assert!(!Path::new(&taken.venv_path).join("evil.py").exists());
    }
    world.stop().await;
}

#[tokio::test]
async fn declared_packages_are_added_to_a_copy_where_that_is_the_same() {
    let provider = Arc::new(FakeProvider::cloning("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    settled(&world).await;
    let built = || provider.built.load(Ordering::SeqCst);
    let (before, copies) = (built(), provider.cloned.load(Ordering::SeqCst));
    let declare = |package: &str| EnvNeed {
        metadata: json!({"runt": {"uv": {"dependencies": [package]}}}),
        ..need("uv:inline")
    };
    let acquire = async |package: &str| {
        world.service.approve(declare(package)).await.unwrap();
        world.service.acquire(declare(package), Task::silent()).await.unwrap().environment
    };
    let added = acquire("cowsay").await;
    assert_eq!((built(), provider.cloned.load(Ordering::SeqCst)), (before, copies + 1));
    assert!(added.packages.contains(&"cowsay".to_owned()) && !added.packages.contains(&"pandas".to_owned()));
    assert!(added.prefix.starts_with(world.dir.path().join("inline-envs")));
    let pinned = acquire("cowsay==5").await;
    assert_eq!(built(), before + 1);

    // Without a template, or if copying fails, it is installed.
    provider.clone_failures.lock().unwrap().push(PluginError::internal("no space"));
    let installed = acquire("moo").await;
    assert_eq!(built(), before + 2);
    for env in [added, pinned, installed] {
        assert_eq!(record::Record::read(&env.prefix).unwrap().environment, env);
    }
    world.stop().await;
}

#[tokio::test]
async fn what_nobody_needs_is_deleted_and_what_somebody_has_is_not() {
    let world = World::start(Arc::new(FakeProvider::cloning("uv"))).await;
    settled(&world).await;
    world.service.approve(need("uv:inline")).await.unwrap();
    let lease = world.service.acquire(need("uv:inline"), Task::silent()).await.unwrap();
    let prefix = lease.environment.prefix.clone();
    let old = || std::fs::write(prefix.join(".last-used"), "1000000000").unwrap();
    let (envs, stranger) = (world.pools.envs().to_path_buf(), world.pools.envs().join("mine"));
    std::fs::create_dir(&stranger).unwrap();
    let torn = envs.join("runtimed-uv-00000000-0000-4000-8000-000000000000");
    std::fs::create_dir(&torn).unwrap();
    std::fs::write(torn.join(".last-used"), "1000000000").unwrap();
    old();
    let clean = async |dry_run| {
        let survey = world.service.survey(Default::default(), true).await.unwrap();
        let cleaned = world.service.clean(survey, dry_run, true).await;
        cleaned.removed.into_iter().map(|gone| PathBuf::from(gone.path)).collect::<Vec<_>>()
    };
    assert_eq!(clean(true).await, std::slice::from_ref(&torn));
    assert!(torn.exists());
    assert_eq!(clean(false).await, std::slice::from_ref(&torn));
    assert!(!torn.exists() && prefix.exists() && stranger.exists());
    assert_eq!(world.pools.status()["uv"].available, 2);

    world.service.release(&lease.id, Release::Keep).await.unwrap();
    // Between the look and the deed somebody got it.
    let survey = world.service.survey(Default::default(), true).await.unwrap();
    let again = world.service.acquire(need("uv:inline"), Task::silent()).await.unwrap();
    assert!(world.service.clean(survey, false, true).await.removed.is_empty());
    assert_eq!(again.environment.prefix, prefix);
    world.service.release(&again.id, Release::Keep).await.unwrap();
    assert!(clean(false).await.is_empty(), "it was used a moment ago");
    old();
    assert_eq!(clean(false).await, [prefix]);
    assert!(world.service.remove_unused(&stranger).await.is_err());
    world.stop().await;
}

/// A need of the notebook at `path`, which declares nothing.
fn of_file(path: &Path) -> EnvNeed {
    EnvNeed { metadata: json!({}), notebook_path: Some(path.to_owned()), ..need("") }
}

#[tokio::test]
async fn a_script_block_is_built_once_it_is_trusted_and_says_where_it_is() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let block = |cell: usize, text: &str| ScriptBlock { cell, text: text.to_owned() };
    let scripted = EnvNeed {
        metadata: json!({}),
        script_blocks: vec![block(2, "dependencies = ['cowsay']")],
        ..need("auto")
    };
    assert!(world.service.trust(scripted.clone()).await.unwrap().needs_approval);
    let denied = world.service.acquire(scripted.clone(), Task::silent()).await.unwrap_err();
    assert_eq!((denied.code, provider.built.load(Ordering::SeqCst)), (ErrorCode::Denied, 2));
    world.service.approve(scripted.clone()).await.unwrap();
    let lease = world.service.acquire(scripted.clone(), Task::silent()).await.unwrap();
    assert_eq!((lease.source.as_str(), &lease.launched_config["uv_deps"]), ("uv:pep723", &json!(["cowsay"])));
    let running = Some(Running {
        lease: lease.id.clone(),
        source: lease.source.clone(),
        launched_config: lease.launched_config.clone(),
        environment: None,
    });
    let without = EnvNeed { script_blocks: Vec::new(), running, ..scripted.clone() };
    assert_eq!(world.service.trust(without).await.unwrap().drift.unwrap().removed, ["cowsay"]);

    // What is wrong is said with its place.
    let failure = PluginError::invalid("no such package").detail(json!({"failed_package": "cowsay"}));
    world.service.release(&lease.id, Release::Delete).await.unwrap();
    provider.fail(failure);
    let failed = world.service.acquire(scripted.clone(), Task::silent()).await.unwrap_err();
    assert_eq!(failed.message, "Failed to prepare PEP 723 environment: no such package");
    assert!(failed.help.unwrap().contains("`cowsay` in the script block of cell 2"));
    let twice = EnvNeed { script_blocks: vec![block(1, ""), block(3, "")], ..scripted };
    let error = world.service.acquire(twice, Task::silent()).await.unwrap_err();
    assert_eq!(error.detail["error_reason"], "environment_prepare_failed");
    world.stop().await;
}

#[tokio::test]
async fn a_project_comes_first_and_is_built_once_the_user_allows_it() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("uv.project");
    std::fs::write(&file, "six").unwrap();
    let notebook = of_file(&folder.path().join("a.ipynb"));
    let denied = world.service.acquire(notebook.clone(), Task::silent()).await.unwrap_err();
    assert_eq!((denied.code, &denied.detail["awaiting"]), (ErrorCode::Denied, &json!("env_build")));
    assert_eq!(world.service.trust(notebook.clone()).await.unwrap().status, "no_dependencies");
    let about = EnvNeed { about_project: true, ..notebook.clone() };
    let verdict = world.service.approve(about).await.unwrap();
    assert_eq!(verdict.project_context["absolute_path"], json!(file));
    assert!(verdict.project_files.contains(&file));
    let lease = world.service.acquire(notebook.clone(), Task::silent()).await.unwrap();
    assert_eq!(lease.source, "uv:uv_project");
    assert_eq!(lease.launched_config["uv_project_deps"], json!(["six"]));

    // The notebook's own packages go into the file, if they are trusted.
    let adds =
        EnvNeed { metadata: json!({"runt": {"uv": {"dependencies": ["cowsay"]}}}), ..notebook.clone() };
    let denied = world.service.acquire(adds.clone(), Task::silent()).await.unwrap_err();
    assert_eq!((denied.code, denied.detail.get("awaiting")), (ErrorCode::Denied, None));
    let install = world.service.install(&lease.id, vec!["cowsay".into()], Task::silent()).await.unwrap_err();
    assert_eq!(install.code, ErrorCode::Denied);
    world.service.approve(adds.clone()).await.unwrap();
    let lease = world.service.acquire(adds, Task::silent()).await.unwrap();
    assert_eq!(lease.environment.packages, ["cowsay"]);

    let alone = EnvNeed { environment_mode: Some("notebook".into()), ..notebook.clone() };
    assert_eq!(world.service.acquire(alone, Task::silent()).await.unwrap().source, "uv:prewarmed");
    std::fs::write(&file, "broken").unwrap();
    let error = world.service.acquire(notebook.clone(), Task::silent()).await.unwrap_err();
    assert_eq!(error.message, "this is no project");
    assert_eq!(world.service.trust(notebook).await.unwrap().project_context["state"], "unreadable");
    world.stop().await;
}

#[tokio::test]
async fn a_notebook_that_is_opened_again_has_what_it_had() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let path = world.dir.path().join("a.ipynb");
    std::fs::write(&path, "").unwrap();
    let notebook = of_file(&path);
    let first = world.service.acquire(notebook.clone(), Task::silent()).await.unwrap();
    let prefix = first.environment.prefix.clone();
    let other = EnvNeed { room: "another".into(), ..of_file(&world.dir.path().join("b.ipynb")) };
    assert_ne!(world.service.acquire(other, Task::silent()).await.unwrap().environment.prefix, prefix);

    // What is installed meanwhile belongs to it.
    world.service.approve(need("")).await.unwrap();
    world.service.install(&first.id, vec!["cowsay".into()], Task::silent()).await.unwrap();
    let mut config = first.launched_config.clone();
    config["uv_deps"] = json!(["cowsay"]);
    let (lease, source) = (first.id.clone(), first.source.clone());
    let running = Running { lease, source, launched_config: config, environment: None };
    let declares = EnvNeed { metadata: need("").metadata, ..notebook.clone() };
    let asks = EnvNeed { running: Some(running), ..declares.clone() };
    assert_eq!(world.service.trust(asks).await.unwrap().drift, Some(Drift::default()));
    world.service.release(&first.id, Release::Keep).await.unwrap();

    let dir = world.stop().await;
    let world = World::start_in(dir, Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let again = world.service.acquire(declares.clone(), Task::silent()).await.unwrap();
    assert_eq!((again.source.as_str(), &again.environment.prefix), ("uv:prewarmed", &prefix));
    assert_eq!(again.launched_config["uv_deps"], json!(["cowsay"]));
    world.service.release(&again.id, Release::Keep).await.unwrap();
    let declare =
        |section: Value| EnvNeed { metadata: json!({ "runt": { "uv": section } }), ..notebook.clone() };
    let inline = world.service.acquire(declare(json!({"dependencies": ["numpy"]})), Task::silent());
    assert_eq!(inline.await.unwrap().source, "uv:inline", "it declares something else by now");
    let again = world.service.acquire(declares.clone(), Task::silent()).await.unwrap();
    let running = Some(Running {
        lease: again.id.clone(),
        source: again.source.clone(),
        launched_config: again.launched_config.clone(),
        environment: None,
    });
    let python = declare(json!({"dependencies": ["cowsay"], "requires-python": "3.12"}));
    let asks = EnvNeed { running, ..python.clone() };
    let drift = world.service.trust(asks).await.unwrap().drift.unwrap();
    assert!(drift.channels_changed && drift.added.is_empty());
    world.service.release(&again.id, Release::Keep).await.unwrap();
    let other = world.service.acquire(python, Task::silent()).await.unwrap();
    assert_eq!(other.source, "uv:inline", "a restart brings the other Python");

    // Broken, it is made anew in its place, and that is said.
    std::fs::remove_file(prefix.join("python")).unwrap();
    let (phases, built) = (Arc::new(Phases::default()), provider.built.load(Ordering::SeqCst));
    let mended = world.service.acquire(declares, Task::new(phases.clone())).await.unwrap();
    assert_eq!(mended.environment.prefix, prefix);
    assert_eq!(provider.built.load(Ordering::SeqCst), built + 1);
    assert!(mended.environment.packages.contains(&"cowsay".to_owned()));
    assert_eq!(phases.0.lock().unwrap().join(" "), "rebuilding creating_venv cache_hit");

    // Unwanted, it goes.
    world.service.release(&mended.id, Release::Delete).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_kernel_that_outlives_its_daemon_has_its_environment_as_before() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    world.until(|uv| uv.available == 2).await;
    world.service.approve(need("")).await.unwrap();
    let path = world.dir.path().join("a.ipynb");
    std::fs::write(&path, "").unwrap();
    let pooled = world.service.acquire(of_file(&path), Task::silent()).await.unwrap();
    let shared = world.service.acquire(need("uv:inline"), Task::silent()).await.unwrap();
    let dir = world.stop().await;

    let world = World::start_in(dir, Arc::new(FakeProvider::new("uv"))).await;
    let running = |lease: &Lease| Running {
        lease: lease.id.clone(),
        source: lease.source.clone(),
        launched_config: lease.launched_config.clone(),
        environment: Some(lease.environment.clone()),
    };
    let install =
        async |lease: &str| world.service.install(lease, vec!["cowsay".into()], Task::silent()).await;
    assert_eq!(install(&pooled.id).await.unwrap_err().code, ErrorCode::NotFound, "nobody has said so yet");
    for (lease, need) in [(&pooled, of_file(&path)), (&shared, need(""))] {
        // A room that does not have it, by what is on disk.
        let other = EnvNeed { room: "other".into(), running: Some(running(lease)), ..need.clone() };
        if lease.id == pooled.id {
            world.service.trust(other).await.unwrap();
            assert!(world.service.leased().is_empty());
        }
        let asks = EnvNeed { running: Some(running(lease)), ..need };
        world.service.trust(asks.clone()).await.unwrap();
        world.service.trust(asks).await.unwrap();
        install(&lease.id).await.unwrap();
        assert!(world.service.leased().contains(&lease.environment.prefix));
    }
    assert_eq!(world.pools.leased(), std::slice::from_ref(&pooled.environment.prefix));
    for lease in [pooled, shared] {
        world.service.release(&lease.id, Release::Keep).await.unwrap();
        assert!(!record::is_leased(&lease.environment.prefix));
    }
    assert!(world.service.leased().is_empty() && world.pools.leased().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn what_a_project_asked_for_when_it_was_shown_is_what_is_approved() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("uv.project");
    std::fs::write(&file, "six").unwrap();
    let notebook = of_file(&folder.path().join("a.ipynb"));
    let shown = world.service.trust(notebook.clone()).await.unwrap().project_asks;
    std::fs::write(&file, "six evil").unwrap();
    let about = EnvNeed { about_project: true, project_asks: shown, ..notebook.clone() };
    assert_eq!(world.service.approve(about.clone()).await.unwrap_err().code, ErrorCode::Conflict);
    let denied = world.service.acquire(notebook.clone(), Task::silent()).await.unwrap_err();
    assert_eq!(denied.code, ErrorCode::Denied);
    let project_asks = world.service.trust(notebook.clone()).await.unwrap().project_asks;
    world.service.approve(EnvNeed { project_asks, ..about }).await.unwrap();
    world.service.acquire(notebook, Task::silent()).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_notebook_keeps_its_environment_though_it_could_not_be_made_anew_at_once() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let path = world.dir.path().join("a.ipynb");
    std::fs::write(&path, "").unwrap();
    let first = world.service.acquire(of_file(&path), Task::silent()).await.unwrap();
    let prefix = first.environment.prefix.clone();
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    world.service.release(&first.id, Release::Keep).await.unwrap();
    std::fs::remove_file(prefix.join("python")).unwrap();
    provider.fail(PluginError::unavailable("offline"));
    let failed = world.service.acquire(of_file(&path), Task::silent()).await.unwrap_err();
    assert_eq!(failed.message, "offline");

    let dir = world.stop().await;
    let world = World::start_in(dir, Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    let again = world.service.acquire(of_file(&path), Task::silent()).await.unwrap();
    assert_eq!(again.environment.prefix, prefix);
    assert!(!prefix.with_extension("kept.json").exists());
    world.stop().await;
}

#[tokio::test]
async fn another_python_in_the_settings_makes_what_is_ready_outdated() {
    let provider = Arc::new(FakeProvider::new("uv"));
    let world = World::start(Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    let before = world.pools.by_kind().await.unwrap()["uv"].recipe();
    world.settings.edit(|_| json!({"uv": {"python": "3.12"}}).as_object().unwrap().clone());
    while provider.built.load(Ordering::SeqCst) < 4 {
        world.pools.watch().changed().await.unwrap();
    }
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    let recipe = world.pools.by_kind().await.unwrap()["uv"].recipe();
    assert!(recipe != before && recipe.packages == before.packages);
    let taken = world.pools.take("uv").await.unwrap();
    let record = record::Record::read(Path::new(&taken.venv_path)).unwrap();
    assert_eq!(record.settings, recipe.settings);

    // They are still right for the next daemon.
    world.until(|uv| uv.available == 2 && uv.warming == 0).await;
    let built = provider.built.load(Ordering::SeqCst);
    let dir = world.stop().await;
    let settings = json!({"uv": {"python": "3.12"}}).to_string();
    std::fs::write(dir.path().join("settings.json"), settings).unwrap();
    let world = World::start_in(dir, Arc::clone(&provider)).await;
    world.until(|uv| uv.available == 2).await;
    assert_eq!(provider.built.load(Ordering::SeqCst), built);
    world.stop().await;
}

#[tokio::test]
async fn what_a_notebook_kept_goes_when_that_is_gone_for_good() {
    let world = World::start(Arc::new(FakeProvider::new("uv"))).await;
    world.until(|uv| uv.available == 2).await;
    let path = world.dir.path().join("a.ipynb");
    let lease = world.service.acquire(of_file(&path), Task::silent()).await.unwrap();
    let prefix = lease.environment.prefix.clone();
    world.service.release(&lease.id, Release::Keep).await.unwrap();
    std::fs::write(prefix.join(".last-used"), "1000000000").unwrap();
    let clean = async || {
        let survey = world.service.survey(Default::default(), false).await.unwrap();
        world.service.clean(survey, false, true).await.removed
    };
    assert!(clean().await.is_empty(), "it may only have moved");
    std::fs::write(prefix.join("notebook-gone"), "29 2026-01-01").unwrap();
    std::fs::write(&path, "").unwrap();
    assert!(clean().await.is_empty(), "it is back");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(prefix.join("notebook-gone"), "29 2026-01-01").unwrap();
    assert_eq!(clean().await[0].path, prefix.display().to_string());
    assert!(!prefix.exists());
    world.stop().await;
}
