//! A registry over folders of fixtures.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{env, fs};

use runtimed_host::plugins::{HostContext, Registry, Row, SearchPath, Source};
use runtimed_plugin_api::manifest::this_target;
use runtimed_plugin_api::{
    Directories, EnvPlan, EnvProvider, Environment, PluginError, Progress, ProgressSink, SettingsView, Task,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, yield_now};
use tokio_util::sync::CancellationToken;

/// A registry at work.
pub(crate) struct World {
    pub(crate) registry: Arc<Registry>,
    pub(crate) folder: TempDir,
    settings: watch::Sender<SettingsView>,
    running: JoinHandle<()>,
}

impl World {
    /// Starts a registry once `prepare` has put plugins into the folder it gets.
    pub(crate) async fn start(settings: Value, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("base");
        fs::create_dir(&base).unwrap();
        fs::create_dir(folder.path().join("plugins")).unwrap();
        prepare(&folder.path().join("plugins"));
        let directories = Directories {
            runtime: base.join("run"),
            blobs: base.join("blobs"),
            executions: base.join("executions"),
            tools: base.join("tools"),
            plugin: PathBuf::new(),
            base,
        };
        let (settings, view) = watch::channel(SettingsView { revision: 1, values: settings });
        let context = HostContext {
            directories,
            settings: view,
            shutdown: CancellationToken::new(),
            environments: OnceLock::new(),
        };
        let path = SearchPath(vec![(Source::Argument, folder.path().join("plugins"))]);
        let command: Vec<OsString> = vec![env!("CARGO_BIN_EXE_runtimed").into(), "plugin-child".into()];
        let registry = Registry::new(Arc::new(context), path, command);
        let work = Arc::clone(&registry);
        let running = tokio::spawn(async move { work.run().await });
        registry.env_providers().wait_for(Option::is_some).await.unwrap();
        Self { registry, folder, settings, running }
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.folder.path().join("plugins")
    }

    /// The settings say this from now on.
    pub(crate) fn set(&self, values: Value) {
        self.settings.send_modify(|view| {
            view.revision += 1;
            view.values = values;
        });
    }

    pub(crate) async fn reload(&self) {
        self.registry.reload().await.unwrap();
    }

    /// The one row with this id.
    pub(crate) fn row(&self, id: &str) -> Row {
        let mut rows = self.registry.rows();
        rows.retain(|row| row.id == id);
        assert_eq!(rows.len(), 1, "{id}: {rows:?}");
        rows.remove(0)
    }

    /// Waits until that row is as wanted.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&Row) -> bool) -> Row {
        loop {
            let row = self.registry.rows().into_iter().find(|row| row.id == id);
            match row.filter(|row| wanted(row)) {
                Some(row) => return row,
                None => yield_now().await,
            }
        }
    }

    /// The provider of the kind `fixture`.
    pub(crate) fn provider(&self) -> Arc<dyn EnvProvider> {
        self.find_provider().unwrap()
    }

    pub(crate) fn find_provider(&self) -> Option<Arc<dyn EnvProvider>> {
        self.registry.env_providers().borrow().as_ref().unwrap().get("fixture").map(|it| it.provider.clone())
    }

    pub(crate) async fn stop(self) {
        self.registry.stop(std::time::Duration::from_secs(5)).await;
        self.running.abort();
    }
}

/// Installs the fixture as a plugin of this version that provides environments, and rooms if `rooms`.
pub(crate) fn install(plugins: &Path, version: &str, rooms: bool) -> PathBuf {
    let folder = plugins.join("fixture");
    fs::create_dir_all(&folder).unwrap();
    let also = if rooms { "[[provides]]\ncapability = \"rooms.v1\"\nname = \"echo\"\n" } else { "" };
    if !rooms {
        fs::write(folder.join("no-rooms"), "").unwrap();
    }
    // Replaced, not overwritten, as whoever updates a plugin does.
    fs::copy(library(), folder.join("new.so")).unwrap();
    fs::rename(folder.join("new.so"), folder.join("lib.so")).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"fixture\"\nname = \"Fixture\"\nversion = \"{version}\"\n[abi]\nmajor = 1\n\
         [library]\n{target} = {{ path = \"lib.so\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture\"\n{also}",
        target = this_target()
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
    folder
}

/// The library that cargo builds with the tests, seen from the test binary in `target/<profile>/deps`.
fn library() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// Lets the fixture's `create` misbehave in this way from now on.
pub(crate) fn switch(folder: &Path, mode: &str, on: bool) {
    if on {
        fs::write(folder.join(mode), "").unwrap();
    } else {
        fs::remove_file(folder.join(mode)).unwrap();
    }
}

/// Settings under which a held `create` goes on.
pub(crate) fn go() -> Value {
    json!({"fixture": {"go": true}})
}

/// Calls `create`, in a task of its own; returns once it is under way in the plugin.
pub(crate) async fn begin_create(
    provider: &Arc<dyn EnvProvider>,
) -> JoinHandle<Result<Environment, PluginError>> {
    let begun = Arc::new(Begun::default());
    let (provider, task) = (Arc::clone(provider), Task::new(Arc::clone(&begun) as Arc<dyn ProgressSink>));
    let mut creating =
        tokio::spawn(async move { provider.create(EnvPlan::default(), Path::new("/envs/a"), task).await });
    tokio::select! {
        biased;
        () = begun.0.notified() => creating,
        ended = &mut creating => panic!("it is over before it has begun: {ended:?}"),
    }
}

/// Hears of the first progress.
#[derive(Default)]
struct Begun(Notify);

impl ProgressSink for Begun {
    fn progress(&self, _: Progress) {
        self.0.notify_one();
    }
}

/// Whether there is such a process.
pub(crate) fn is_alive(pid: u32) -> bool {
    rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid.cast_signed()).unwrap()).is_ok()
}
