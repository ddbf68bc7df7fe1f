//! The daemon's life: boot, serve, stop.
//!
//! For: `main.rs`.
//! Promises: one daemon per base; pings are answered before plugins are even looked for; whatever a
//! connection or a background task does, the others go on; socket and `daemon.json` are gone after a clean end.
//!
//! Order of boot: lock, log, settings, socket, HTTP, then side by side: accept and load plugins.
//! Order of stop: accept nothing, close rooms, close connections, stop plugins, remove the socket.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use runtimed_plugin_api::adapter::crash;
use runtimed_plugin_api::{Directories, Environments, ErrorCode, PluginError, RoomReply, RoomRequest, Rooms};
use runtimed_protocol::identity::local_principal;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::announcement::Announcement;
use crate::cli::{Cli, VERSION};
use crate::ipc::{self, PoolDocument};
use crate::lock::DaemonLock;
use crate::log::Seldom;
use crate::manager::Watchdog;
use crate::paths::{Paths, PathsEnv, PathsOptions};
use crate::plugins::{HostContext, Registry, SearchPath};
use crate::pools::{EnvironmentService, Pools, TrustStore};
use crate::settings::{Mirror, Settings};
use crate::shutdown::{Shutdown, Signals};
use crate::socket::{DIRECTORY_MODE, Socket, create_private, make_private};
use crate::{http, limits, log, manager};

/// Threads of the host's runtime: it moves bytes and waits; the work is done in plugins, which have
/// threads of their own.
const WORKERS: usize = 2;
/// Time rooms have to make everything durable and end their kernels.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);
/// Time each plugin has to stop.
const PLUGIN_STOP_LIMIT: Duration = Duration::from_secs(5);
/// Time connections and background tasks have to notice that the daemon stops.
const TASKS_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, which passes when files are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection can reach.
pub struct Daemon {
    /// Where things are.
    pub paths: Paths,
    /// When this life began.
    pub started: Instant,
    /// The same as RFC 3339, UTC.
    pub started_at: String,
    /// Who local clients are: `local:<user>`.
    pub principal: String,
    /// The user's settings.
    pub settings: Settings,
    /// Environments that are ready.
    pub pools: Pools,
    /// Environments for rooms.
    pub environments: EnvironmentService,
    /// How full the pools are, as a document.
    pub pool_document: PoolDocument,
    /// Port of the HTTP server, once it is bound.
    pub http_port: OnceLock<u16>,
    /// The daemon begins to stop.
    pub shutdown: Shutdown,
    /// Rooms are closed; connections end now.
    pub disconnect: CancellationToken,
    /// The plugins, loaded or not: a stop in the middle of loading must find what has started.
    pub(crate) registry: Arc<Registry>,
}

/// Runs a daemon from its lock to its last act. The exit code is 0 after a clean stop, and also when
/// another daemon has the base already.
pub fn run(cli: &Cli) -> ExitCode {
    let env = PathsEnv::of_this_process(cli.dev);
    let options = PathsOptions {
        socket: cli.run.socket.clone(),
        envs: cli.run.cache_dir.clone(),
        blobs: cli.run.blob_store_dir.clone(),
        settings: cli.run.settings_json.clone(),
    };
    let paths = Paths::new(&env, options);
    let lock = match take_lock(&paths) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            say(&format!(
                "Another process holds the daemon lock at {}; exiting cleanly (socket readiness is not yet known)",
                paths.lock().display()
            ));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            say(&in_words(&error));
            return ExitCode::FAILURE;
        }
    };
    let ended = log::init(&paths.log(), cli.log_level.as_deref(), &lock)
        .with_context(|| format!("could not start the log `{}`", paths.log().display()))
        .and_then(|()| run_locked(cli, paths));
    match ended {
        Ok(()) => {
            log::lifecycle("STARTUP", "Daemon exited: Ok (graceful shutdown)");
            ExitCode::SUCCESS
        }
        Err(error) => {
            log::lifecycle("STARTUP", &format!("Daemon exited: {error:#}"));
            say(&in_words(&error));
            ExitCode::FAILURE
        }
    }
}

fn take_lock(paths: &Paths) -> Result<Option<DaemonLock>> {
    create_private(&paths.base).with_context(|| format!("could not make `{}`", paths.base.display()))?;
    // Log, outputs and journals are the user's own, wherever the socket is.
    make_private(&paths.base)
        .with_context(|| format!("could not make `{}` private", paths.base.display()))?;
    let path = paths.lock();
    DaemonLock::take_soon(&path).with_context(|| format!("could not lock `{}`", path.display()))
}

/// Why the daemon cannot run: what happened, what was kept, what to do.
fn in_words(error: &anyhow::Error) -> String {
    let kind = error.chain().find_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
    let remedy = match kind {
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => "Free some space",
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            "Make that place writable for your user, or name another one with XDG_CACHE_HOME"
        }
        _ => "Correct that",
    };
    let text = format!("{error:#}");
    format!(
        "Error: {}.\nNotebooks, settings and environments are as they were.\n{remedy}, then start the daemon again.",
        text.trim_end_matches('.')
    )
}

/// Says something before there is a log, or beside it.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").ok();
}

fn run_locked(cli: &Cli, paths: Paths) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok();
    let (home, user) = (variable("HOME").unwrap_or_default(), variable("USER"));
    log::lifecycle(
        "STARTUP",
        &format!(
            "runtimed starting: pid={}, HOME={home}, USER={}, version={VERSION}",
            std::process::id(),
            user.as_deref().unwrap_or_default()
        ),
    );
    limits::raise_open_files();
    let activated = manager::activated_socket();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("runtimed")
        .on_thread_start(crash::provide_signal_stack)
        .enable_all()
        .build()
        .context("could not start threads")?;
    let principal = local_principal(user.as_deref(), variable("USERNAME").as_deref());
    let plugins = SearchPath::of_this_process(&cli.run.plugin_dir);
    let (settings, mirror) = Settings::open(&paths.settings, &paths.base, plugins.clone());
    let served = runtime.block_on(async {
        let signals = Signals::catch().context("could not wait for signals")?;
        let socket = match activated {
            Some(listener) => Socket::adopt(listener, &paths.socket),
            None => Socket::bind(&paths.socket).await,
        };
        let socket = socket.with_context(|| format!("could not listen on `{}`", paths.socket.display()))?;
        let shutdown = Shutdown::default();
        let pools = Pools::new(paths.envs.clone(), settings.clone(), cli.run.pool_sizes(), shutdown.clone());
        let trust = TrustStore::new(paths.base.clone());
        let home = paths.home.as_ref().map(|home| home.canonicalize().unwrap_or_else(|_| home.clone()));
        let environments = EnvironmentService::new(pools.clone(), settings.clone(), trust, &paths.base, home);
        let registry = registry(plugins, &paths, &settings, &environments, &shutdown);
        let daemon = Arc::new(Daemon {
            environments,
            pool_document: PoolDocument::new()?,
            started: Instant::now(),
            started_at: jiff::Timestamp::now().to_string(),
            http_port: OnceLock::new(),
            disconnect: CancellationToken::new(),
            registry,
            paths,
            principal,
            settings,
            pools,
            shutdown,
        });
        daemon.serve(socket, signals, mirror).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

impl Daemon {
    /// The plugins, once they are loaded.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before that.
    pub async fn registry(&self) -> Result<Arc<Registry>, PluginError> {
        tokio::select! {
            biased;
            () = self.registry.wait_until_loaded() => Ok(Arc::clone(&self.registry)),
            () = self.shutdown.begun() => Err(stopping()),
        }
    }

    /// The rooms.
    ///
    /// # Errors
    /// `Cancelled` when the daemon stops before they are there; `Unavailable`, naming what is missing, when no
    /// plugin provides them.
    pub async fn rooms(&self) -> Result<Arc<dyn Rooms>, PluginError> {
        let rooms = tokio::select! {
            biased;
            rooms = self.registry.rooms_once_started() => rooms,
            () = self.shutdown.begun() => return Err(stopping()),
        };
        rooms.ok_or_else(|| {
            PluginError::unavailable(
                "The `rooms` plugin is not running, so notebooks cannot be opened. Your files are untouched.",
            )
            .help("`runt plugins list` says why; a missing plugin comes back by installing runtimed again.")
        })
    }

    /// Asks the rooms a question.
    ///
    /// # Errors
    /// Those of [`Daemon::rooms`] and of the rooms.
    pub async fn ask_rooms(&self, request: RoomRequest) -> Result<RoomReply, PluginError> {
        self.rooms().await?.ask(request).await
    }

    /// Serves until somebody asks the daemon to stop, then stops.
    async fn serve(self: Arc<Self>, socket: Socket, mut signals: Signals, mirror: Mirror) -> Result<()> {
        let mut background = JoinSet::new();
        let (daemon, listener) = (Arc::clone(&self), http::bind().await);
        match listener.and_then(|listener| Ok((listener.local_addr()?.port(), listener))) {
            Ok((port, listener)) => {
                self.http_port.set(port).ok();
                background.spawn(async move {
                    if let Err(error) = http::serve(listener, daemon).await {
                        tracing::error!("the HTTP server ended: {error}");
                    }
                });
            }
            Err(error) => tracing::error!("outputs are not served over HTTP: {error}"),
        }
        let announced = self.announce();
        log::lifecycle("STARTUP", &format!("listening on {}", self.paths.socket.display()));
        let daemon = Arc::clone(&self);
        background.spawn(async move { daemon.registry.run().await });
        let daemon = Arc::clone(&self);
        background.spawn(async move { daemon.pools.run(daemon.registry.env_providers()).await });
        let daemon = Arc::clone(&self);
        background.spawn(async move { daemon.collect_environments().await });
        background.spawn(mirror.run(self.shutdown.clone()));
        let daemon = Arc::clone(&self);
        background.spawn(async move { daemon.follow_log_level().await });
        let daemon = Arc::clone(&self);
        background.spawn(async move { daemon.pool_document.follow(&daemon.pools, &daemon.shutdown).await });

        manager::ready(VERSION);
        let mut watchdog = Watchdog::of_this_process();
        let mut connections = JoinSet::new();
        let most = limits::connections();
        let (mut refused, mut crowded) = (Seldom::default(), Seldom::default());
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.begun() => break,
                name = signals.next() => {
                    log::lifecycle("STARTUP", &format!("stopping: {name}"));
                    self.shutdown.begin();
                }
                () = watchdog.tick() => {}
                Some(ended) = connections.join_next() => note_panic("a connection", ended),
                Some(ended) = background.join_next() => note_panic("a background task", ended),
                // Others wait in the system's queue. Who says nothing leaves within seconds.
                accepted = socket.accept(), if connections.len() < most => match accepted {
                    Ok(stream) => {
                        connections.spawn(ipc::serve(Arc::clone(&self), stream));
                        if connections.len() == most && crowded.may_say() {
                            tracing::error!("{most} connections are open, and no more files are for them: others wait until one ends");
                        }
                    }
                    Err(error) => {
                        if refused.may_say() {
                            tracing::error!("could not accept a connection, and will try again: {error}");
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        manager::stopping();
        self.stop(connections, background).await;
        drop(socket);
        drop(announced);
        Ok(())
    }

    /// Keeps the log at the level that the settings name, until the daemon stops.
    async fn follow_log_level(&self) {
        let mut settings = self.settings.watch();
        loop {
            log::set_level(
                settings.borrow_and_update().values.pointer("/log/level").and_then(|level| level.as_str()),
            );
            tokio::select! {
                () = self.shutdown.begun() => return,
                changed = settings.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Says in a file that this daemon is here. Without the file everything works.
    fn announce(&self) -> Option<Announcement> {
        let (paths, port) = (&self.paths, self.http_port.get().copied());
        Announcement::write(&paths.base, &paths.socket, &self.started_at, port)
            .inspect_err(|error| tracing::warn!("`daemon.json` was not written: {error}"))
            .ok()
    }

    async fn stop(&self, connections: JoinSet<()>, background: JoinSet<()>) {
        if let Some(rooms) = self.registry.rooms() {
            if let Some(reason) = self.refuses_to_stop().await {
                // Whoever asked was refused; a signal is not.
                tracing::error!("stopping all the same: {reason}");
            }
            let end = if self.shutdown.ends_kernels() { RoomRequest::Close } else { RoomRequest::Detach };
            match timeout(CLOSE_LIMIT, rooms.ask(end)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::error!("closing the notebooks failed: {error}"),
                Err(_) => tracing::error!("the notebooks were not closed within {CLOSE_LIMIT:?}"),
            }
        }
        self.disconnect.cancel();
        end(connections, "connection").await;
        end(background, "background task").await;
        self.registry.stop(PLUGIN_STOP_LIMIT).await;
    }
}

fn stopping() -> PluginError {
    PluginError::new(ErrorCode::Cancelled, "The daemon is stopping.")
}

/// The plugins that this daemon will look for in `plugins`.
fn registry(
    plugins: SearchPath,
    paths: &Paths,
    settings: &Settings,
    environments: &EnvironmentService,
    shutdown: &Shutdown,
) -> Arc<Registry> {
    let environments: Arc<dyn Environments> = Arc::new(environments.clone());
    let context = HostContext {
        directories: Directories {
            base: paths.base.clone(),
            runtime: runtime_directory(paths),
            blobs: paths.blobs.clone(),
            executions: paths.executions(),
            tools: paths.tools(),
            plugin: PathBuf::new(),
        },
        settings: settings.watch(),
        shutdown: shutdown.token().clone(),
        environments: OnceLock::from(environments),
    };
    Registry::new(Arc::new(context), plugins, child_command())
}

/// The program that serves a plugin in a process of its own: this one, even if its file has been replaced by that
/// of a newer version meanwhile.
fn child_command() -> Vec<OsString> {
    let ourselves = if cfg!(target_os = "linux") {
        OsString::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_default().into()
    };
    vec![ourselves, "plugin-child".into()]
}

/// Makes the folder for sockets of kernels and helpers. Where the usual one is not the user's alone, it
/// is a folder of the base instead.
fn runtime_directory(paths: &Paths) -> PathBuf {
    match make_private_folders(&paths.runtime) {
        Ok(()) => paths.runtime.clone(),
        Err(error) => {
            tracing::warn!("`{}` cannot be used for sockets: {error}", paths.runtime.display());
            paths.base.join("run")
        }
    }
}

/// Makes `directory` and the one above it, and both readable by the user alone. Nothing is made in a folder that is not ours.
fn make_private_folders(directory: &Path) -> io::Result<()> {
    for folder in [directory.parent(), Some(directory)].into_iter().flatten() {
        // What leads there is the system's, if it is not there yet.
        folder.parent().map(create_private).transpose()?;
        match DirBuilder::new().mode(DIRECTORY_MODE).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let metadata = std::fs::symlink_metadata(folder)?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("`{}` is not ours", folder.display())));
        }
        make_private(folder)?;
    }
    Ok(())
}

/// Waits for tasks that were asked to end; those that do not are cut off.
async fn end(mut tasks: JoinSet<()>, what: &str) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            note_panic(what, ended);
        }
    };
    if timeout(TASKS_LIMIT, all).await.is_err() {
        tracing::warn!("a {what} did not end within {TASKS_LIMIT:?} and was cut off");
        tasks.shutdown().await;
    }
}

fn note_panic(what: &str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("{what} panicked; everything else goes on: {error}");
    }
}
