//! A small plugin that the tests load: some of it behaves, some of it does not. Files in its folder choose: `panic`
//! in `create`, `hang` in `start`, `no-rooms` for environments only, and see [`Provider::create`].
#![expect(clippy::panic, reason = "misbehaving is its purpose")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtimed_plugin_api::{
    Attached, Bytes, Credit, EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host,
    Join, LaunchCommand, PackageIdentity, PeerLink, Plugin, PluginError, ProcessLines, ProcessSpec, Project,
    Result, RoomInfo, RoomReply, RoomRequest, RoomSession, Rooms, Task, async_trait,
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
            script_packages: None,
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

    /// Does what the first package says, if it is one of the words of [`obey`]; the key is the answer.
    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
        let key = match obey(&self.host, &request.packages).await? {
            Some(answer) => answer,
            None => "0123456789abcdef".to_owned(),
        };
        Ok(EnvPlan { key, request })
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
        if let [word, times] = plan.request.packages.as_slice()
            && word == "many-steps"
        {
            (0..number(times)?).for_each(|_| task.phase("step"));
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

/// What the tests of carriers want to see done in the plugin's process.
async fn obey(host: &Host, words: &[String]) -> Result<Option<String>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Ok(Some(match words.as_slice() {
        ["pid"] => std::process::id().to_string(),
        ["exit", code] => exit(number(code)?),
        ["signal", name] => {
            // More than once: Rust looks whether the first is a stack overflow and waits for it to happen again.
            shell(&format!("while kill -{name} {} 2>/dev/null; do :; done", std::process::id()))?;
            std::future::pending().await
        }
        ["print", lines, code] => {
            let mut out = std::io::stdout().lock();
            for line in 0..number::<u64>(lines)? {
                let _ = writeln!(out, "printed {line}");
            }
            drop(out);
            exit(number(code)?)
        }
        ["log", lines] => {
            (0..number(lines)?).for_each(|line: u64| tracing::info!(line, "a line"));
            String::new()
        }
        // Leaves a process behind that has left the group and holds `fifo` open.
        ["leave", fifo] => {
            shell(&format!("setsid sh -c 'exec 9>{fifo}; echo up >&9; exec sleep 600 >&9 2>&9' &"))?;
            String::new()
        }
        ["reserve", bytes] => Vec::<u8>::with_capacity(number(bytes)?).capacity().to_string(),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        ["open"] => {
            let files: Vec<_> =
                std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).take(10_000).collect();
            files.len().to_string()
        }
        ["settings"] => host.settings().values.to_string(),
        ["new-settings"] => {
            let revision = host.settings().revision;
            host.log(2, "fixture", "waiting", "{}");
            host.settings_changed(revision).await.values.to_string()
        }
        ["stopping"] => {
            host.log(2, "fixture", "waiting", "{}");
            host.shutting_down().await;
            "stopping".to_owned()
        }
        ["capabilities"] => {
            let blobs = host.blob_store().ok_or_else(|| PluginError::not_found("no blob store"))?;
            let digest = blobs.put(Bytes::from_static(b"content"), "text/plain").await?;
            let blob = blobs.get(digest).await?.ok_or_else(|| PluginError::not_found("no blob"))?;
            let kinds = host.kernel_backend("echo").ok_or_else(|| PluginError::not_found("no backend"))?;
            let kinds = kinds.kinds().await?;
            format!(
                "{} {} {} {} {}",
                digest,
                blob.bytes.len(),
                kinds.len(),
                host.kernel_backend("other").is_some(),
                host.environments().is_some()
            )
        }
        ["run", "slowly", fifo, argv @ ..] => run(host, argv, Some(fifo.into())).await?,
        ["run", argv @ ..] => run(host, argv, None).await?,
        _ => return Ok(None),
    }))
}

#[expect(clippy::disallowed_methods, reason = "a plugin that ends its process is what is tested")]
fn exit(code: i32) -> ! {
    std::process::exit(code)
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T> {
    word.parse().map_err(|_| PluginError::invalid(format!("`{word}` is not a number")))
}

fn shell(script: &str) -> Result<()> {
    let status = std::process::Command::new("/bin/sh").args(["-c", script]).status();
    status.map(|_| ()).map_err(|error| PluginError::internal(error.to_string()))
}

/// Runs a process; the answer is its exit code and how many lines came. The first line waits until something can
/// be read from `gate`.
async fn run(host: &Host, argv: &[&str], gate: Option<PathBuf>) -> Result<String> {
    struct Lines(AtomicU64, Option<PathBuf>);
    impl ProcessLines for Lines {
        fn line(&self, _: bool, _: &str) {
            if self.0.fetch_add(1, Ordering::Relaxed) == 0
                && let Some(gate) = &self.1
            {
                let _ = std::fs::read(gate);
            }
        }
    }
    let lines = Arc::new(Lines(AtomicU64::new(0), gate));
    let argv = argv.iter().map(|&word| word.to_owned()).collect();
    let exit = host.run_process(ProcessSpec { argv, ..ProcessSpec::default() }, lines.clone()).await?;
    Ok(format!("{:?} {}", exit.code, lines.0.load(Ordering::Relaxed)))
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
