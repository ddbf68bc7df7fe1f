//! The log: one file and stderr, the same lines on both.
//!
//! For: `tracing` events of the daemon, lines of plugins, start and end of the process, panics.
//! Promises: a line is written whole or not at all; logging never fails and never panics.
//! Never: rotates a file this process does not own: [`init`] wants the proof of the lock.
//!
//! A line: `YYYY-MM-DD HH:MM:SS LEVEL target: message`, local time, level right-aligned to 5.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::lock::DaemonLock;

/// The file starts anew beyond this size (our choice: a few days of debug output).
const MAX_FILE_BYTES: u64 = 32 * 1024 * 1024;

/// For the user alone: a log tells what they work on.
const FILE_MODE: u32 = 0o600;

/// Bytes of a message that are written (our choice). A peer's words may be in it, and it may say a lot.
const MAX_MESSAGE: usize = 16 * 1024;

/// What is logged if nobody says.
const LEVEL: Level = Level::WARN;

/// Pause between two lines of the same trouble: enough for who reads them, and the file stays readable.
const SELDOM: Duration = Duration::from_secs(60);

/// Where lines go. One per process, because panics must find it.
static SINK: OnceLock<Arc<Sink>> = OnceLock::new();

/// Trouble that comes and goes many times a second, of which the log needs one line a minute.
#[derive(Debug, Default)]
pub struct Seldom(Option<Instant>);

impl Seldom {
    /// Whether a line is due; it is then taken to have been written.
    pub fn may_say(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= SELDOM);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// Starts the file at `path` anew (the old one becomes `.1`) and sends `tracing` and panics there.
/// `filter` is `--log-level`, and `RUST_LOG` wins; an unreadable one counts as `warn`. Without either, the level is what
/// [`set_level`] says.
///
/// # Errors
/// When the file cannot be made.
pub fn init(path: &Path, filter: Option<&str>, _owner: &DaemonLock) -> io::Result<()> {
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let named = variable.as_deref().or(filter);
    let targets = named.map(str::parse::<Targets>);
    let unreadable = matches!(targets, Some(Err(_)));
    let targets = targets.and_then(Result::ok).unwrap_or_else(|| all_at(LEVEL));
    let (filter, handle) = reload::Layer::new(targets.clone());
    let sink = Arc::new(Sink {
        file: Mutex::new(LogFile::start(path)?),
        stderr_color: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        targets: RwLock::new(targets),
        follows: named.is_none().then_some(handle),
    });
    if SINK.set(Arc::clone(&sink)).is_err() {
        return Ok(());
    }
    install_panic_hook();
    tracing_subscriber::registry().with(Lines(sink).with_filter(filter)).try_init().ok();
    if let Some(filter) = named.filter(|_| unreadable) {
        tracing::warn!("the log filter `{filter}` cannot be read; logging warnings and errors");
    }
    Ok(())
}

/// Logs from now on what is of this level or worse, `warn` if none is named; unless `RUST_LOG` or `--log-level` said
/// what to log.
pub fn set_level(level: Option<&str>) {
    let Some((sink, handle)) = SINK.get().and_then(|sink| Some((sink, sink.follows.as_ref()?))) else {
        return;
    };
    let targets = all_at(level.and_then(|level| level.parse().ok()).unwrap_or(LEVEL));
    let mut now = sink.targets.write().unwrap_or_else(PoisonError::into_inner);
    if *now != targets {
        now.clone_from(&targets);
        drop(now);
        // It fails once nobody logs any more.
        handle.reload(targets).ok();
    }
}

fn all_at(level: Level) -> Targets {
    Targets::new().with_default(level)
}

/// Whether a line of this level and target would be written.
pub fn enabled(level: Level, target: &str) -> bool {
    SINK.get().is_some_and(|sink| {
        sink.targets.read().unwrap_or_else(PoisonError::into_inner).would_enable(target, &level)
    })
}

/// Writes a line that does not come from a `tracing` event of ours, whatever the filter says: ask
/// [`enabled`] first.
pub fn line(level: Level, source: &str, message: &str) {
    if let Some(sink) = SINK.get() {
        sink.line(level, source, message);
    }
}

/// Writes a line about the life of the process, whatever the filter says.
pub fn lifecycle(tag: &str, message: &str) {
    if let Some(sink) = SINK.get() {
        sink.write(&format!("{} [{tag}] {message}\n", now()), None);
    }
}

fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::force_capture();
        lifecycle("PANIC", &format!("runtimed: {panic}\n{backtrace}"));
    }));
}

fn now() -> impl fmt::Display {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

struct Sink {
    file: Mutex<LogFile>,
    stderr_color: bool,
    /// What is logged.
    targets: RwLock<Targets>,
    /// Changes it, if it follows the settings.
    follows: Option<reload::Handle<Targets, Registry>>,
}

impl Sink {
    fn line(&self, level: Level, target: &str, message: &str) {
        let now = now();
        // The limit may be within a character.
        let beginning = (0..4).find_map(|less| message.get(..MAX_MESSAGE - less));
        let message = beginning.unwrap_or(message);
        let plain = format!("{now} {level:>5} {target}: {message}\n");
        let color = self.stderr_color.then_some(match level {
            Level::ERROR => 31,
            Level::WARN => 33,
            Level::INFO => 32,
            Level::DEBUG => 34,
            Level::TRACE => 35,
        });
        let colored = color.map(|code| format!("{now} \x1b[{code}m{level:>5}\x1b[0m {target}: {message}\n"));
        self.write(&plain, colored.as_deref());
    }

    /// Writes `text` to the file and to stderr, there as `colored` if given. Failures have no place to
    /// be reported and are dropped.
    fn write(&self, text: &str, colored: Option<&str>) {
        io::stderr().lock().write_all(colored.unwrap_or(text).as_bytes()).ok();
        let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        file.write(text.as_bytes()).ok();
    }
}

/// The file with its size, so that it is rotated without asking the system at each line.
struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl LogFile {
    fn start(path: &Path) -> io::Result<Self> {
        match std::fs::rename(path, path.with_extension("log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().create(true).append(true).mode(FILE_MODE).open(path)?;
        Ok(Self { path: path.to_path_buf(), file, bytes: 0 })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        // Where no new file can be had, the old one goes on.
        if self.bytes > MAX_FILE_BYTES
            && let Ok(next) = Self::start(&self.path)
        {
            *self = next;
        }
        self.bytes += line.len() as u64;
        self.file.write_all(line)
    }
}

/// Turns `tracing` events into lines.
struct Lines(Arc<Sink>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        self.0.line(*metadata.level(), metadata.target(), &(text.message + &text.fields));
    }
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let done = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        done.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_generation_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runtimed.log");
        for generation in ["first", "second", "third"] {
            LogFile::start(&path).unwrap().write(generation.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third");
        assert_eq!(std::fs::read_to_string(dir.path().join("runtimed.log.1")).unwrap(), "second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
