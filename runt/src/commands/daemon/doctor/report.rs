//! What the facts mean: one line for each thing that was looked at, and each problem with what to do.
//!
//! Promises: pure; the first problem is the one to solve first, for it may be the reason of the others.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::facts::{Daemon, Facts, Room, RuntimeFolder, ServiceFacts, SocketFile};
use crate::terminal::tilde;

/// Longest path of a socket, in bytes: `sun_path` without its last byte.
const MAX_SOCKET: usize = if cfg!(target_os = "linux") { 107 } else { 103 };
/// Less than this is soon used up: one environment takes that much (our choice).
const LITTLE: u64 = 200_000_000;

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// As in JSON.
    pub(super) name: &'static str,
    /// Before it, in text.
    pub(super) label: &'static str,
    /// Where it is.
    pub(super) path: Option<String>,
    /// A word: `ok`, `missing`, `stale` and the like.
    pub(super) status: &'static str,
    pub(super) detail: Option<String>,
}

/// Something is wrong.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// One sentence.
    pub(super) what: String,
    /// What to do about it.
    pub(super) to_do: String,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) checks: Vec<Check>,
    pub(super) problems: Vec<Problem>,
}

impl Report {
    /// What `facts` mean to a `runt` of this version.
    pub(super) fn of(facts: &Facts, version: &str) -> Self {
        let mut problems: Vec<_> = places(facts).collect();
        problems.extend(running(facts, version));
        problems.extend(runtime_folder(facts));
        Self { checks: checks(facts, version), problems }
    }

    /// The one sentence.
    pub(super) fn diagnosis(&self) -> &str {
        self.problems.first().map_or("Daemon is healthy and running.", |problem| &problem.what)
    }

    pub(super) fn as_json(&self, actions: &[String]) -> Value {
        let checks = self.checks.iter().map(|check| {
            let body = json!({ "path": check.path, "status": check.status, "detail": check.detail });
            (check.name.to_owned(), body)
        });
        let mut document: Map<String, Value> = checks.collect();
        document.insert("diagnosis".to_owned(), json!(self.diagnosis()));
        document.insert("problems".to_owned(), json!(self.problems));
        document.insert("actions_taken".to_owned(), json!(actions));
        Value::Object(document)
    }
}

/// What keeps a daemon from starting, as far as places are concerned.
pub(super) fn in_the_way(facts: &Facts) -> Option<Problem> {
    places(facts).next()
}

fn places(facts: &Facts) -> impl Iterator<Item = Problem> {
    [socket_path(facts), folder(facts), socket_file(facts)].into_iter().flatten()
}

fn problem(what: impl Into<String>, to_do: impl Into<String>) -> Option<Problem> {
    Some(Problem { what: what.into(), to_do: to_do.into() })
}

fn socket_path(facts: &Facts) -> Option<Problem> {
    let (path, length) = (tilde(&facts.places.socket), facts.places.socket.as_os_str().len());
    if !facts.has_home && !facts.names_socket {
        return problem(
            "HOME is not set, so there is no place for settings and caches of yours.",
            "Set HOME to your home folder.",
        );
    }
    if length > MAX_SOCKET {
        return problem(
            format!("The socket's path has {length} bytes, and a socket's has at most {MAX_SOCKET}: {path}"),
            "Name a shorter one with RUNTIMED_SOCKET_PATH, or a shorter cache folder with XDG_CACHE_HOME.",
        );
    }
    if facts.names_socket && facts.socket == SocketFile::NoFolder {
        return problem(
            format!("RUNTIMED_SOCKET_PATH names {path}, whose folder does not exist."),
            "Correct the variable, or unset it.",
        );
    }
    None
}

fn folder(facts: &Facts) -> Option<Problem> {
    let base = tilde(&facts.places.base);
    let elsewhere = "or name another cache folder with XDG_CACHE_HOME.";
    match &facts.room {
        Room::ReadOnly => problem(
            format!("{base} cannot be written: its file system is read-only."),
            format!("Have it mounted for writing, {elsewhere}"),
        ),
        Room::Full => problem(
            format!("The disk of {base} is full."),
            "Free some space, for instance with 'runt env clean'. Nothing that was saved is lost.",
        ),
        Room::Denied(owner) => problem(
            format!(
                "{base} cannot be written by you: it, or the folder it is to be made in, belongs to user {owner}."
            ),
            format!("Make it yours (chown), {elsewhere}"),
        ),
        Room::Other(error) => {
            problem(format!("{base} cannot be written: {error}."), format!("Correct that, {elsewhere}"))
        }
        Room::Writable => match facts.free {
            Some(free) if free < LITTLE => problem(
                format!("Only {} MB are free on the disk of {base}.", free / 1_000_000),
                "Free some space before notebooks cannot be saved, for instance with 'runt env clean'.",
            ),
            _ => None,
        },
    }
}

fn socket_file(facts: &Facts) -> Option<Problem> {
    let path = tilde(&facts.places.socket);
    let remedy = "Log in as that user, or unset what leads there: RUNTIMED_SOCKET_PATH, XDG_CACHE_HOME, HOME (sudo keeps them).";
    match facts.socket {
        SocketFile::OfUser(owner) => problem(
            format!(
                "The socket {path} belongs to user {owner}, and a daemon serves its own user only; you are user {}.",
                facts.user
            ),
            remedy,
        ),
        SocketFile::Hidden => {
            problem(format!("You may not look at the socket {path}: its folder is another user's."), remedy)
        }
        SocketFile::NotASocket => problem(
            format!("{path} is in the place of the socket, and is none. Daemons leave it as it is."),
            "Move it away, or name another place with RUNTIMED_SOCKET_PATH.",
        ),
        _ => None,
    }
}

fn running(facts: &Facts, version: &str) -> Vec<Problem> {
    let socket = tilde(&facts.places.socket);
    let installed = facts.service.as_ref().filter(|service| service.is_installed);
    let found = match &facts.daemon {
        Daemon::Answers { info, failing, plugins } => {
            let mismatch = (!same(&info.daemon_version, version)).then(|| {
                problem(
                    format!(
                        "Daemon is running but version mismatch detected. It has {}, and this runt {version}.",
                        info.daemon_version
                    ),
                    "Run 'runt daemon restart' to upgrade it. Kernels go on.",
                )
            });
            let pools = failing.iter().map(|(kind, error)| {
                problem(
                    format!("Environments of the pool {kind} cannot be built: {}", error.trim()),
                    "Notebooks with an environment of their own still run. The pool tries again by itself; \
                     'runt env rebuild' has it try now.",
                )
            });
            let plugins = (*plugins > 0).then(|| {
                problem(format!("Plugins have problems ({plugins})."), "See 'runt plugins doctor'.")
            });
            let broken = installed.and_then(broken_service);
            return mismatch.into_iter().chain([broken]).chain(pools).chain(plugins).flatten().collect();
        }
        Daemon::Silent(error) => {
            let who = facts
                .holder
                .map_or_else(|| "The daemon".to_owned(), |pid| format!("The daemon (process {pid})"));
            problem(
                format!("{who} listens at {socket} and does not answer: {error}."),
                "It may be starting or stopping: try again. If it stays so: 'runt daemon logs' may say why, and \
                 'runt daemon restart' replaces it; kernels go on.",
            )
        }
        Daemon::Down(_) => match (facts.holder, installed) {
            (Some(pid), _) => problem(
                format!("Process {pid} is a daemon of yours and does not listen at {socket}."),
                if facts.names_socket {
                    "It may listen elsewhere: unset RUNTIMED_SOCKET_PATH, or end it with 'runt daemon stop'."
                } else {
                    "It may listen where RUNTIMED_SOCKET_PATH or --socket said when it was started, or be stopping. \
                     'runt daemon stop' ends it."
                },
            ),
            (None, Some(service)) if service.version.is_none() => broken_service(service),
            (None, Some(_)) => problem(
                "Daemon installed but not running. Try 'runt daemon start'.",
                "Run 'runt daemon start'.",
            ),
            (None, None) if facts.socket == SocketFile::Ours => problem(
                format!(
                    "Daemon state is stale (process crashed): {socket} is left, and nobody holds the lock."
                ),
                "Run 'runt daemon start', which takes both over. Kernels that go on are found again.",
            ),
            (None, None)
                if facts
                    .service
                    .as_ref()
                    .is_some_and(|service| service.version.is_some() && service.of_another.is_none()) =>
            {
                problem(
                    "Daemon binary installed but service config missing.",
                    "Run 'runt daemon install' or 'runt daemon start'.",
                )
            }
            (None, None) => problem(
                "Daemon service not installed. No daemon is running.",
                "Run 'runt daemon start' to start one in the background, or 'runt daemon install' and then \
                 'runt daemon start' to have it at every login.",
            ),
        },
    };
    let last = facts.last_words.as_ref().and_then(|words| {
        problem(format!("The last daemon could not go on: {words}."), "Correct that, then start it again.")
    });
    let missing = facts.bundled.as_ref().err().and_then(|error| {
        problem(error.lines().next().unwrap_or_default(), "Put runtimed beside runt: both belong together.")
    });
    found.into_iter().chain(missing).chain(last).collect()
}

fn broken_service(service: &ServiceFacts) -> Option<Problem> {
    let to_do = "Run 'runt daemon doctor --fix'.";
    if service.version.is_none() {
        problem("Service config exists but binary missing. Need to reinstall.", to_do)
    } else if !service.is_current {
        problem("The service's definition is not what this version of runt writes.", to_do)
    } else {
        None
    }
}

fn runtime_folder(facts: &Facts) -> Option<Problem> {
    let instead = format!("kernels' sockets go to {}/run", tilde(&facts.places.base));
    match &facts.runtime {
        RuntimeFolder::Missing(folder) => problem(
            format!("XDG_RUNTIME_DIR names {}, which does not exist; {instead}.", folder.display()),
            "Use a login session, or unset the variable. Everything works but services of the user.",
        ),
        RuntimeFolder::OfUser(folder, owner) => problem(
            format!("XDG_RUNTIME_DIR names {}, which belongs to user {owner}; {instead}.", folder.display()),
            "Use a login session of your own (sudo and su keep the variable), or unset it.",
        ),
        RuntimeFolder::Unset | RuntimeFolder::Good(_) => None,
    }
}

/// Whether two versions are the same but for changes that were not committed.
fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches("+dirty") == other.trim_end_matches("+dirty")
}

fn checks(facts: &Facts, version: &str) -> Vec<Check> {
    let shown = |path: &Path| Some(tilde(path));
    let mut checks = Vec::new();
    let mut add = |name, label, path, status, detail| {
        checks.push(Check { name, label, path, status, detail });
    };
    if let Some(service) = &facts.service {
        let status = if service.version.is_some() { "ok" } else { "missing" };
        add("installed_binary", "Installed binary:", shown(&service.binary), status, service.version.clone());
        let first = |why: &str| why.lines().next().map(str::to_owned);
        let (status, detail) = match (service.is_installed, service.is_current, &service.unavailable) {
            (false, _, why) => match (&service.of_another, why) {
                (Some(why), _) => ("other", first(why)),
                (None, why) => ("missing", why.as_deref().and_then(first)),
            },
            (true, true, _) => ("ok", None),
            (true, false, _) => ("stale", Some("not what this version writes".to_owned())),
        };
        add("service_config", "Service config:", shown(&service.definition), status, detail);
    }
    let (status, detail) = match (facts.socket, &facts.daemon) {
        (SocketFile::Ours, Daemon::Down(_)) => ("stale", Some("nobody listens".to_owned())),
        (SocketFile::Ours, _) => ("ok", None),
        (SocketFile::Missing | SocketFile::NoFolder, _) => ("missing", None),
        (SocketFile::NotASocket, _) => ("error", Some("not a socket".to_owned())),
        (SocketFile::Hidden, _) => ("error", Some("not for you to see".to_owned())),
        (SocketFile::OfUser(owner), _) => ("error", Some(format!("of user {owner}"))),
    };
    add("socket_file", "Socket file:", shown(&facts.places.socket), status, detail);
    let (status, detail) = match (facts.holder, facts.has_lock_file) {
        (Some(pid), _) => ("ok", Some(format!("held by process {pid}"))),
        (None, true) => ("ok", Some("free; the file stays on purpose".to_owned())),
        (None, false) => ("missing", None),
    };
    add("lock_file", "Lock:", shown(&facts.places.lock()), status, detail);
    let managed = facts.service.as_ref().and_then(|service| service.process);
    let (status, detail) = match &facts.daemon {
        Daemon::Answers { info, .. } => {
            let by = if managed == Some(info.pid) { ", started by the service" } else { "" };
            ("ok", Some(format!("pid {}{by}", info.pid)))
        }
        Daemon::Silent(_) => ("unknown", facts.holder.map(|pid| format!("pid {pid}"))),
        Daemon::Down(_) if facts.holder.is_some() => {
            ("unknown", facts.holder.map(|pid| format!("pid {pid}")))
        }
        Daemon::Down(_) if facts.socket == SocketFile::Ours => ("stale", None),
        Daemon::Down(_) => ("not_running", None),
    };
    add("daemon_state", "Daemon state:", None, status, detail);
    let mut versions = vec![format!("runt {version}")];
    let mut known = Vec::new();
    if let Ok(bundled) = &facts.bundled {
        versions.push(format!("beside it {bundled}"));
        known.push(bundled);
    }
    if let Some(installed) = facts.service.as_ref().and_then(|service| service.version.as_ref()) {
        versions.push(format!("installed {installed}"));
        known.push(installed);
    }
    if let Daemon::Answers { info, .. } = &facts.daemon {
        versions.push(format!("running {}", info.daemon_version));
        known.push(&info.daemon_version);
    }
    let status = if known.into_iter().all(|known| same(known, version)) { "ok" } else { "mismatch" };
    add("version_match", "Versions:", None, status, Some(versions.join(", ")));
    let (status, detail) = match &facts.daemon {
        Daemon::Answers { .. } => ("ok", None),
        Daemon::Silent(error) => ("error", Some(error.clone())),
        Daemon::Down(error) => ("not_running", Some(error.clone())),
    };
    add("daemon_running", "Daemon running:", None, status, detail);
    let free = facts.free.map(|free| format!("{} MB free", free / 1_000_000));
    let (status, detail) = match &facts.room {
        Room::Writable => ("ok", free),
        Room::Full => ("error", Some("full".to_owned())),
        Room::ReadOnly => ("error", Some("read-only".to_owned())),
        Room::Denied(owner) => ("error", Some(format!("of user {owner}"))),
        Room::Other(error) => ("error", Some(error.clone())),
    };
    add("base_folder", "Caches and log:", shown(&facts.places.base), status, detail);
    let (path, status, detail) = match &facts.runtime {
        RuntimeFolder::Good(folder) => (folder.display().to_string(), "ok", None),
        RuntimeFolder::Missing(folder) => (folder.display().to_string(), "missing", None),
        RuntimeFolder::OfUser(folder, owner) => {
            (folder.display().to_string(), "error", Some(format!("of user {owner}")))
        }
        RuntimeFolder::Unset => {
            let detail = "used because XDG_RUNTIME_DIR is not set".to_owned();
            (format!("/tmp/runt-{}", facts.user), "ok", Some(detail))
        }
    };
    add("runtime_folder", "Kernels' sockets:", Some(path), status, detail);
    checks
}
