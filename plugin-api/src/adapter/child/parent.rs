//! The daemon's end: starts a child, watches it, and sees to it that nothing of it is left.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtimed_plugin_abi::RResult;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::end::{ChildEnd, ChildFailure};
use super::incoming::Delivery;
use super::link::{Link, LinkEnd, failure};
use super::output::Output;
use super::root::{self, Opened};
use super::serve::NICE;
use super::tree::{self, Tree};
use crate::adapter::host::serve_host;
use crate::adapter::plugin::RemotePlugin;
use crate::adapter::{LibraryFacts, Panicked, Side};
use crate::processes::ProcessLimits;
use crate::{HostServices, Plugin, PluginError};

/// How long the other end of a socket or a pipe may outlive the process or the other way round: only somebody who
/// holds on to it on purpose needs any time at all.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What to start.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// Program and arguments that end up in [`super::serve()`].
    pub command: Vec<OsString>,
    /// Id of the plugin, for messages.
    pub id: String,
    /// The library: an absolute path of a file that was checked to be complete.
    pub library: PathBuf,
    /// What it may use.
    pub limits: ProcessLimits,
}

/// A plugin in a process of its own. Dropping it kills the process and everything that it started.
pub struct Child {
    plugin: Arc<dyn Plugin>,
    facts: LibraryFacts,
    process: Process,
}

impl Child {
    /// Starts the process, opens the library there and makes the plugin, which is not started yet. Services of
    /// `host` run on the current runtime; `on_panic` hears of every panic that was caught in the child. Dropping
    /// the future kills the process.
    ///
    /// # Errors
    /// [`ChildFailure`] says whether the library was refused, could not make its plugin or took the process along.
    pub async fn start(
        spec: ChildSpec,
        host: Arc<dyn HostServices>,
        on_panic: impl Fn(Panicked) + Send + Sync + 'static,
    ) -> Result<Self, ChildFailure> {
        let ChildSpec { command, id, library, limits } = spec;
        let Some(library) = library.to_str().filter(|_| library.is_absolute()) else {
            return Err(ChildFailure {
                reason: format!("`{}` is not an absolute path in UTF-8", library.display()),
                remedy: "install the plugin in a folder with such a path".to_owned(),
                report: None,
                refused: true,
            });
        };
        let process = Process::spawn(&command, &id, limits.nice).map_err(|error| ChildFailure {
            reason: format!("no process could be started for plugin `{id}`: {error}"),
            remedy: "free some memory or processes and try again".to_owned(),
            report: Some(format!("{command:?}")),
            refused: false,
        })?;
        let side = Side::host(Handle::current(), |message, location| {
            tracing::error!(location, "a service of the daemon panicked: {message}");
        });
        let on_panic = Arc::new(move |message: &str, location: &str| {
            on_panic(Panicked { message: message.to_owned(), location: location.to_owned() });
        });
        // Each call is a task already, so it is polled where it is.
        let host = serve_host(host, &side.passing(), on_panic);
        let (plugin, facts) = match root::open(&process.link, library, &limits, host).await {
            RResult::ROk(Opened::Loaded { facts, plugin }) => (plugin, facts),
            RResult::ROk(Opened::Refused(refusal)) => {
                let (reason, remedy, report) = (refusal.reason, refusal.remedy, refusal.report);
                return Err(ChildFailure { reason, remedy, report, refused: true });
            }
            RResult::RErr(failure) => return Err(process.not_opened(&id, failure.into())),
        };
        let plugin = RemotePlugin::new(plugin, &side).map_err(|error| process.not_opened(&id, error))?;
        Ok(Self { plugin: Arc::new(plugin), facts, process })
    }

    /// The plugin. Its calls fail with `Unavailable`, retryable, once the process has ended.
    pub fn plugin(&self) -> &Arc<dyn Plugin> {
        &self.plugin
    }

    /// What the library says about itself.
    pub fn facts(&self) -> &LibraryFacts {
        &self.facts
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Calls under way into the child, with its live kernels and room sessions; 0 means that nobody needs it now.
    pub fn in_flight(&self) -> watch::Receiver<usize> {
        self.process.link.busy()
    }

    /// Bytes that the process and what it started have written to stdout and stderr, as far as they were read: a
    /// flood is read slowly.
    pub fn printed(&self) -> u64 {
        self.process.output.bytes()
    }

    /// Waits for the end of the process and of everything it started, and says how it ended. Any number may wait,
    /// also after the end.
    pub async fn ended(&self) -> ChildEnd {
        self.process.ended().await
    }

    /// Asks the process to end, and kills it with everything it started after `grace`. To be called after
    /// [`Plugin::stop`]; what is still under way fails.
    pub async fn close(&self, grace: Duration) {
        self.process.closing.store(true, Ordering::Relaxed);
        self.process.link.ask_to_close();
        if timeout(grace, self.ended()).await.is_err() {
            self.process.tree.kill_group();
            self.ended().await;
        }
    }
}

/// A process and what watches it.
struct Process {
    pid: u32,
    link: Link,
    tree: Arc<Tree>,
    output: Arc<Output>,
    /// Whether its end is wanted.
    closing: Arc<AtomicBool>,
    ended: watch::Receiver<Option<ChildEnd>>,
    life: JoinHandle<()>,
}

impl Process {
    fn spawn(command: &[OsString], id: &str, nice: u8) -> io::Result<Self> {
        let [program, arguments @ ..] = command else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no program to run"));
        };
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (reader, writer) = io::pipe()?;
        let mark = tree::new_mark();
        let process = Command::new(program)
            .args(arguments)
            .env(tree::MARK, &mark)
            .env(NICE, nice.to_string())
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::from(writer.try_clone()?))
            .stderr(Stdio::from(writer))
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id();
        let tree = Arc::new(Tree::new(pid, mark));
        let (link, socket) = Link::new(UnixStream::from_std(ours)?, true);
        let pipe = Receiver::from_owned_fd(reader.into())?;
        let closing = Arc::new(AtomicBool::new(false));
        let (sender, ended) = watch::channel(None);
        let news = News { id: id.to_owned(), link: link.clone(), ended: sender, closing: closing.clone() };
        let output = Arc::new(Output::default());
        let life = tokio::spawn(live(process, tree.clone(), socket, (pipe, output.clone()), news));
        Ok(Self { pid: pid.unwrap_or_default(), link, tree, output, closing, ended, life })
    }

    async fn ended(&self) -> ChildEnd {
        let mut ended = self.ended.clone();
        // Its sender tells the end before it goes.
        let end = ended.wait_for(Option::is_some).await.map(|end| end.clone());
        end.ok().flatten().unwrap_or_default()
    }

    /// Why the plugin is not there.
    fn not_opened(&self, id: &str, error: PluginError) -> ChildFailure {
        let Some(end) = self.ended.borrow().clone() else {
            let remedy = error.help.unwrap_or_else(|| "report it to the plugin's author".to_owned());
            let reason = format!("plugin `{id}` could not be made: {}", error.message);
            return ChildFailure { reason, remedy, report: None, refused: false };
        };
        ChildFailure {
            reason: format!("plugin `{id}` {} while it was loaded", end.describe()),
            remedy: "report it to the plugin's author".to_owned(),
            report: Some(end.stderr).filter(|stderr| !stderr.is_empty()),
            refused: false,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.tree.kill_group();
        self.life.abort();
    }
}

/// Tells everybody who waits that a child has ended; at the latest when it is dropped.
struct News {
    id: String,
    link: Link,
    ended: watch::Sender<Option<ChildEnd>>,
    closing: Arc<AtomicBool>,
}

impl News {
    fn tell(&self, end: ChildEnd) {
        let id = &self.id;
        let message = if self.closing.load(Ordering::Relaxed) {
            format!("plugin `{id}` was stopped")
        } else {
            format!("plugin `{id}` {}", end.describe_with_last_words())
        };
        let error = PluginError::unavailable(message)
            .help(format!("try again; `runt plugins show {id}` says whether the plugin is running"));
        self.ended.send_if_modified(|told| {
            let news = told.is_none();
            told.get_or_insert(end);
            news
        });
        self.link.end(failure(error));
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let reason = Some("it is not needed any more".to_owned());
        self.tell(ChildEnd { reason, ..ChildEnd::default() });
    }
}

/// The life of a child, from its start until nothing of it is left.
async fn live(
    mut process: tokio::process::Child,
    tree: Arc<Tree>,
    socket: OwnedReadHalf,
    (pipe, output): (Receiver, Arc<Output>),
    news: News,
) {
    let over = Notify::new();
    let relayed = async {
        let ended = relay(&mut process, &tree, news.link.run(socket, Delivery::AtOnce)).await;
        over.notify_one();
        ended
    };
    let heard = async {
        tokio::select! {
            () = output.follow(&news.id, pipe) => {}
            () = async { over.notified().await; tokio::time::sleep(LAST_WORDS).await } => {}
        }
    };
    let ((status, reason), ()) = tokio::join!(relayed, heard);
    // Fails only when the runtime is shutting down, and then the tree's end does it.
    let _ = tokio::task::spawn_blocking(move || tree.bury()).await;
    news.tell(ChildEnd::new(status.ok(), reason, output.text()));
}

/// Relays until the child has ended, by itself or because it has to.
async fn relay(
    process: &mut tokio::process::Child,
    tree: &Tree,
    link: impl Future<Output = LinkEnd>,
) -> (io::Result<ExitStatus>, Option<String>) {
    let mut link = pin!(link);
    let end = tokio::select! {
        status = process.wait() => {
            tree.kill_group();
            // What it sent before.
            let _ = timeout(LAST_WORDS, link).await;
            return (status, None);
        }
        end = &mut link => end,
    };
    let reason = match end {
        LinkEnd::Garbage(garbage) => Some(format!("it sent {}", garbage.0)),
        LinkEnd::Greedy(reason) => Some(reason),
        LinkEnd::Asked => Some("it asked the daemon to end".to_owned()),
        LinkEnd::Closed => None,
    };
    if reason.is_some() {
        tree.kill_group();
        return (process.wait().await, reason);
    }
    // Closed by the system, because the process is ending, or by the process.
    if let Ok(status) = timeout(LAST_WORDS, process.wait()).await {
        return (status, None);
    }
    tree.kill_group();
    (process.wait().await, Some("it closed its connection".to_owned()))
}
