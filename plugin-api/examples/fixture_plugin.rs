//! A small plugin that the tests load: some of it behaves, some of it does not. Files in its folder choose: `panic`
//! in `create`, `hang` in `start`, `no-rooms` for environments only, and see [`Provider::create`].
#![expect(clippy::panic, reason = "misbehaving is its purpose")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtimed_plugin_api::{
    Attached, Bytes, Credit, EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host,
    Join, LaunchCommand, PackageIdentity, PeerLink, Plugin, PluginError, Project, Result, RoomInfo,
    RoomReply, RoomRequest, RoomSession, Rooms, Task, async_trait,
};

struct Fixture {
    host: Host,
}

#[async_trait]
impl Plugin for Fixture {
    fn create(host: Host) -> Result<Self> {
        assert!(!host.directories().plugin.join("panic").exists(), "create panics, as the test asked");
        Ok(Self { host })
    }

    async fn start(&self) -> Result<()> {
        if self.host.directories().plugin.join("hang").exists() {
            std::future::pending::<()>().await;
        }
        tracing::info!(answer = 42, "the fixture is ready");
        Ok(())
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![Arc::new(Provider { host: self.host.clone() })]
    }

    fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        let asked = !self.host.directories().plugin.join("no-rooms").exists();
        asked.then(|| Arc::new(EchoRooms) as Arc<dyn Rooms>)
    }
}

/// Each method does one thing a test wants to see.
struct Provider {
    host: Host,
}

/// Says that the call it was made in has been dropped.
struct Dropped {
    host: Host,
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.host.log(2, "fixture", "cancelled", "{}");
    }
}

#[async_trait]
impl EnvProvider for Provider {
    fn info(&self) -> EnvProviderInfo {
        EnvProviderInfo {
            kind: "fixture".to_owned(),
            label: "Fixture".to_owned(),
            markers: vec!["fixture.toml".to_owned()],
            base_packages: Vec::new(),
            data_packages: Vec::new(),
            tail_packages: Vec::new(),
            default_channels: Vec::new(),
        }
    }

    /// Needs a timer, so it proves that bodies run on a runtime of the plugin's own.
    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        let file = dir.join("fixture.toml");
        Ok(file.exists().then(|| Project {
            kind: "fixture_toml".to_owned(),
            file,
            dependencies: Vec::new(),
            dev_dependencies: Vec::new(),
            requires_python: None,
            extra: serde_json::Map::new(),
        }))
    }

    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        Ok(EnvPlan { key: "0123456789abcdef".to_owned(), request })
    }

    /// With a file `abort` in the plugin's folder it takes the process along; with `stubborn` it goes on for ever,
    /// also when nobody waits any more; with `hold` it waits until the setting `fixture.go` is true.
    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        task.report("installing_packages", serde_json::json!({ "packages": plan.request.packages }));
        let told = |name: &str| self.host.directories().plugin.join(name).exists();
        if told("abort") {
            // Nobody can be told if that fails.
            let _ = writeln!(std::io::stderr(), "last words");
            std::process::abort();
        }
        if told("stubborn") {
            loop {
                std::thread::park();
            }
        }
        if told("hold") {
            let mut settings = self.host.settings();
            while settings.values["fixture"]["go"] != true {
                settings = self.host.settings_changed(settings.revision).await;
            }
        }
        Ok(Environment {
            kind: "fixture".to_owned(),
            prefix: prefix.to_owned(),
            python: prefix.join("bin/python"),
            python_version: None,
            packages: plan.request.packages,
            extra: serde_json::Map::new(),
        })
    }

    /// Never ends by itself.
    async fn optimize(&self, _: &Environment) -> Result<()> {
        let _dropped = Dropped { host: self.host.clone() };
        self.host.log(2, "fixture", "waiting", "{}");
        std::future::pending().await
    }

    async fn verify(&self, _: &Environment) -> Result<Health> {
        panic!("verify panics, as the test asked")
    }

    /// Says something at two levels, inside a span.
    async fn launch(&self, _: &Environment) -> Result<LaunchCommand> {
        let span = tracing::info_span!("launch", cell = "c1");
        let _entered = span.enter();
        tracing::debug!(step = 1, "a detail");
        tracing::info!(step = 2, "a fact");
        Ok(LaunchCommand::default())
    }

    async fn identities(&self, _: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        Err(PluginError::unavailable("no network")
            .help("plug it in")
            .detail(serde_json::json!({ "failed_package": "numpyy" })))
    }
}

/// Sends every frame back.
struct EchoRooms;

#[async_trait]
impl Rooms for EchoRooms {
    async fn attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Attached> {
        let info = RoomInfo {
            notebook_path: Some(PathBuf::from("/a.ipynb")),
            actor_label: join.operator,
            ..RoomInfo::default()
        };
        Ok(Attached { info, session: Box::new(Echo { link }) })
    }

    async fn ask(&self, _: RoomRequest) -> Result<RoomReply> {
        Ok(RoomReply::Closed)
    }
}

struct Echo {
    link: Arc<dyn PeerLink>,
}

/// A frame of this type makes `receive` panic.
const PANIC_FRAME: u8 = 0xff;

#[async_trait]
impl RoomSession for Echo {
    fn receive(&self, frame_type: u8, payload: Bytes) -> Credit {
        assert_ne!(frame_type, PANIC_FRAME, "receive panics, as the test asked");
        self.link.send(frame_type, payload)
    }

    fn writable(&self) {}

    async fn detach(&self) {}
}

impl Drop for Echo {
    fn drop(&mut self) {
        panic!("a destructor that panics");
    }
}

runtimed_plugin_api::export_plugin!(Fixture, id = "fixture");
