//! Every asynchronous method of every capability, with arguments made of one text.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use runtimed_plugin_api::{
    Bytes, Channel, CreateNotebook, Credit, Digest, EnvPlan, EnvProvider, EnvRequest, Environment,
    ExitReport, Join, JoinTarget, KernelBackend, KernelEvents, LaunchCommand, LaunchSpec, LiveSet, PeerLink,
    Project, Result, RoomRequest, Rooms, Task,
};
use serde_json::{Map, Value, json};

use crate::subject::Instance;

/// A plain text, for calls that make sense as far as they can.
const PLAIN: &str = "six";

/// Texts that whole builds are tried with: those that command lines and paths are made wrong with.
const BUILT: [&str; 3] = ["a NUL", "an option", "a way out of a folder"];

/// What arguments are made of.
pub(super) struct Words<'a> {
    /// What the text is, for a sentence; empty for a plain one.
    pub(super) what: &'static str,
    pub(super) text: &'a str,
    /// Paths stay below it.
    pub(super) folder: &'a Path,
}

/// A call that can be made any number of times.
pub(super) struct Call<'a> {
    /// The method and what it is given, as sentences name it.
    pub(super) method: String,
    /// Whether it may build something.
    pub(super) builds: bool,
    pub(super) make: Box<dyn Fn() -> BoxFuture<'a, Result<()>> + 'a>,
}

impl<'a> Words<'a> {
    pub(super) fn plain(folder: &'a Path) -> Self {
        Self { what: "", text: PLAIN, folder }
    }

    fn is_plain(&self) -> bool {
        self.what.is_empty()
    }

    fn text(&self) -> String {
        self.text.to_owned()
    }

    fn some(&self) -> Option<String> {
        Some(self.text())
    }

    /// A path below the folder whose last part is the text, as far as paths allow.
    fn path(&self) -> PathBuf {
        self.folder.join(self.text.trim_start_matches(['.', '/']))
    }

    fn options(&self) -> Map<String, Value> {
        let odd = json!({ "prerelease": 5, "channels": {}, "": null, "deep": [[[[{}]]]] });
        let mut options = odd.as_object().cloned().unwrap_or_default();
        options.insert(self.text(), json!(self.text));
        options
    }

    fn request(&self) -> EnvRequest {
        let plain = EnvRequest { packages: vec![self.text()], ..EnvRequest::default() };
        if self.is_plain() {
            return plain;
        }
        EnvRequest {
            python: self.some(),
            channels: vec![self.text()],
            env_id: self.some(),
            options: self.options(),
            ..plain
        }
    }

    /// A project that is not there.
    fn project(&self) -> EnvRequest {
        let project = Project {
            kind: self.text(),
            file: self.path(),
            dependencies: vec![self.text()],
            dev_dependencies: vec![self.text()],
            requires_python: self.some(),
            extra: self.options(),
        };
        EnvRequest { project: Some(project), ..EnvRequest::default() }
    }

    /// An environment that is not there.
    fn environment(&self, kind: &str) -> Environment {
        let prefix = self.path();
        Environment {
            kind: if self.is_plain() { kind.to_owned() } else { self.text() },
            python: prefix.join("bin/python"),
            prefix,
            python_version: self.some(),
            packages: vec![self.text()],
            extra: if self.is_plain() { Map::new() } else { self.options() },
        }
    }

    fn launch(&self) -> LaunchSpec {
        let command = LaunchCommand {
            argv: vec![self.folder.join("no-such-program").display().to_string(), self.text()],
            env: [(self.text(), self.text())].into(),
            path: vec![self.path()],
            cwd: Some(self.path()),
        };
        let cwd = self.path();
        LaunchSpec {
            kernel: self.text(),
            kind: self.text(),
            room: self.text(),
            notebook_path: None,
            command,
            cwd,
            options: self.options(),
        }
    }

    fn targets(&self) -> Vec<JoinTarget> {
        let attach = JoinTarget::Attach {
            // What is no id is a path, and a file may be written there.
            notebook_id: self.path().display().to_string(),
            working_dir: Some(self.path()),
            initial_metadata: self.some(),
        };
        let create = JoinTarget::Create(CreateNotebook {
            runtime: self.text(),
            working_dir: Some(self.path()),
            notebook_id: self.some(),
            ephemeral: true,
            package_manager: self.some(),
            environment_mode: self.some(),
            dependencies: vec![self.text()],
        });
        vec![attach, create]
    }
}

/// Every call there is to make.
pub(super) fn calls<'a>(plugin: &'a Instance, words: &'a Words<'a>) -> Vec<Call<'a>> {
    let mut calls = Calls { words, list: Vec::new() };
    plugin.env_providers().into_iter().for_each(|provider| calls.env_provider(&provider));
    plugin.blob_store().into_iter().for_each(|store| calls.blob_store(&store));
    plugin.kernel_backends().into_iter().for_each(|backend| calls.kernel_backend(&backend));
    plugin.rooms().into_iter().for_each(|rooms| calls.rooms(&rooms));
    calls.list
}

struct Calls<'a> {
    words: &'a Words<'a>,
    list: Vec<Call<'a>>,
}

/// Adds a call of a method: `call!(calls, object, "Trait::method", |it| future)`.
macro_rules! call {
    ($calls:expr, $object:expr, $method:literal, |$it:ident| $future:expr) => {{
        let object = $object.clone();
        $calls.add($method, move || {
            let $it = object.clone();
            Box::pin(async move { $future.await.map(drop) })
        });
    }};
}

impl<'a> Calls<'a> {
    fn add(&mut self, method: &str, make: impl Fn() -> BoxFuture<'a, Result<()>> + 'a) {
        let what = self.words.what;
        let method = if what.is_empty() { method.to_owned() } else { format!("{method}, given {what}") };
        self.list.push(Call { method, builds: false, make: Box::new(make) });
    }

    fn env_provider(&mut self, provider: &Arc<dyn EnvProvider>) {
        let words = self.words;
        let kind = provider.info().kind;
        let env = move || words.environment(&kind);
        let (env, packages) = (Arc::new(env), move || vec![words.text()]);
        call!(self, provider, "EnvProvider::detect", |it| it.detect(&words.path()));
        call!(self, provider, "EnvProvider::plan", |it| it.plan(words.request()));
        call!(self, provider, "EnvProvider::plan", |it| it.plan(words.project()));
        call!(self, provider, "EnvProvider::identities", |it| it.identities(&words.request()));
        let gone = env.clone();
        self.environment(provider, "EnvProvider::verify", gone.clone(), |it, env| {
            Box::pin(async move { it.verify(&env).await.map(drop) })
        });
        self.environment(provider, "EnvProvider::launch", gone.clone(), |it, env| {
            Box::pin(async move { it.launch(&env).await.map(drop) })
        });
        self.environment(provider, "EnvProvider::optimize", gone.clone(), |it, env| {
            Box::pin(async move { it.optimize(&env).await })
        });
        self.environment(provider, "EnvProvider::install", gone.clone(), move |it, env| {
            Box::pin(async move { it.install(&env, &packages(), Task::silent()).await })
        });
        self.environment(provider, "EnvProvider::clone_env", gone, move |it, env| {
            Box::pin(async move { it.clone_env(&env, &words.path(), Task::silent()).await.map(drop) })
        });
        // A plan can be made by anybody. What is planned from a plain word would really be built, and tools take
        // seconds to find out that they cannot build something, so not every text is tried.
        if BUILT.contains(&words.what) {
            call!(self, provider, "EnvProvider::create", |it| it.create(
                EnvPlan { key: words.text(), request: words.project() },
                &words.folder.join("hostile"),
                Task::silent()
            ));
            self.list.last_mut().into_iter().for_each(|call| call.builds = true);
        }
    }

    fn environment(
        &mut self,
        provider: &Arc<dyn EnvProvider>,
        method: &str,
        env: Arc<impl Fn() -> Environment + 'a>,
        body: impl Fn(Arc<dyn EnvProvider>, Environment) -> BoxFuture<'a, Result<()>> + 'a,
    ) {
        let provider = provider.clone();
        self.add(method, move || body(provider.clone(), env()));
    }

    fn blob_store(&mut self, store: &Arc<dyn runtimed_plugin_api::BlobStore>) {
        let words = self.words;
        let digest = Digest([7; 32]);
        call!(self, store, "BlobStore::put", |it| it
            .put(Bytes::copy_from_slice(words.text.as_bytes()), words.text));
        call!(self, store, "BlobStore::get", |it| it.get(digest));
        call!(self, store, "BlobStore::locate", |it| it.locate(digest));
        call!(self, store, "BlobStore::sweep", |it| it
            .sweep(LiveSet { digests: [digest].into(), grace_secs: u64::MAX }));
        call!(self, store, "BlobStore::flush", |it| it.flush());
    }

    fn kernel_backend(&mut self, backend: &Arc<dyn KernelBackend>) {
        let words = self.words;
        call!(self, backend, "KernelBackend::kinds", |it| it.kinds());
        call!(self, backend, "KernelBackend::running", |it| it.running());
        call!(self, backend, "KernelBackend::launch", |it| it.launch(words.launch(), Arc::new(Deaf)));
        call!(self, backend, "KernelBackend::attach", |it| it.attach(words.text, u64::MAX, Arc::new(Deaf)));
        call!(self, backend, "KernelBackend::adopt", |it| it.adopt(
            words.text,
            words.launch(),
            Arc::new(Deaf)
        ));
    }

    fn rooms(&mut self, rooms: &Arc<dyn Rooms>) {
        let words = self.words;
        let text = || words.text();
        for request in [
            RoomRequest::List,
            RoomRequest::ActiveEnvironments,
            RoomRequest::Inspect { notebook_id: text() },
            RoomRequest::Shutdown { notebook_id: text() },
            RoomRequest::ExecutionResult { execution_id: text() },
        ] {
            let rooms = rooms.clone();
            self.add("Rooms::ask", move || {
                let (rooms, request) = (rooms.clone(), request.clone());
                Box::pin(async move { rooms.ask(request).await.map(drop) })
            });
        }
        for target in words.targets() {
            let rooms = rooms.clone();
            self.add("Rooms::attach", move || {
                let join = Join {
                    target: target.clone(),
                    principal: "local:testkit".into(),
                    operator: words.text(),
                };
                let rooms = rooms.clone();
                Box::pin(async move {
                    let attached = rooms.attach(join, Arc::new(Deaf)).await?;
                    attached.session.detach().await;
                    let shutdown = RoomRequest::Shutdown { notebook_id: attached.info.notebook_id };
                    rooms.ask(shutdown).await.map(drop)
                })
            });
        }
    }
}

/// Takes what comes and does nothing with it.
struct Deaf;

impl KernelEvents for Deaf {
    fn message(&self, _: u64, _: Channel, _: Bytes) {}

    fn exited(&self, _: ExitReport) {}
}

impl PeerLink for Deaf {
    fn send(&self, _: u8, _: Bytes) -> Credit {
        Credit::MAX
    }

    fn grant(&self, _: u64) {}

    fn close(&self) {}
}
