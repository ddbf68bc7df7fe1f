//! Questions to the daemon as a whole, and its answers.
//!
//! For: the pool channel, which carries length-prefixed JSON, one reply for each request, in order.
//! Promises: an encoded reply is never longer than a client reads ([`POOL_MAX`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::environments::{EnvironmentList, EnvironmentsCleaned};
use crate::frame::POOL_MAX;
use crate::lenient::null_is_default;

/// How the error begins that answers `shutdown` and `detach` while an open notebook has edits that no disk holds.
pub const STOP_REFUSED: &str = "clean shutdown blocked";

/// A request on the pool channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PoolRequest {
    /// Is anybody there? Answer: `pong`.
    Ping,
    /// How full the pools are. Answer: `stats`.
    Status,
    /// Every room. Answer: `rooms_list`.
    ListRooms,
    /// Facts about the daemon. Answer: `daemon_info`.
    GetDaemonInfo,
    /// Drop and rebuild pooled environments. Answer: `flushed`.
    FlushPool,
    /// The record of an execution. Answer: `execution_result`.
    GetExecutionResult {
        /// Id of the execution.
        execution_id: String,
    },
    /// End kernels and exit. Answer: `shutting_down`, or an error that begins with [`STOP_REFUSED`].
    Shutdown,
    /// Exit and let kernels go on, for the next daemon. Answer: as for `shutdown`. Ours; other daemons close.
    Detach,
    /// End a notebook's kernel and close its room. Answer: `notebook_shutdown`.
    ShutdownNotebook {
        /// UUID; for our daemon also the canonical path of its file.
        notebook_id: String,
    },
    /// The content of a notebook. Answer: `notebook_state`.
    InspectNotebook {
        /// As for `shutdown_notebook`.
        notebook_id: String,
    },
    /// A pooled environment for the caller's own use. Answer: `env` or `empty`.
    Take {
        /// Provider kind.
        env_type: String,
    },
    /// Gives one back. Answer: `returned`.
    Return {
        /// As it was given.
        env: TakenEnv,
    },
    /// Prefixes in use. Answer: `active_env_paths`.
    ActiveEnvPaths,
    /// A bounded view of a notebook. Answer: `notebook_projection` or `notebook_projection_unavailable`.
    GetNotebookProjection {
        /// UUID.
        notebook_id: String,
    },
    /// Figures of the daemon's async runtime. Answer: `runtime_metrics`.
    GetRuntimeMetrics,
    /// Every plugin that was found, working or not. Answer: `plugins_list`. Ours; other daemons close.
    ListPlugins,
    /// Look for plugins again and take over what can be taken over without a restart: new plugins, and new
    /// versions of those that run in a child. Answer: `plugins_list`. Ours; other daemons close.
    ReloadPlugins,
    /// Switch a plugin on or off in the settings, forgive what it was skipped for, and reload.
    /// Answer: `plugins_list`. Ours; other daemons close.
    SetPluginEnabled {
        /// Id of the plugin.
        id: String,
        /// On or off.
        enabled: bool,
    },
    /// Whether what is kept of every notebook can be read again; with `repair`, bring in order what is
    /// damaged. Answer: `notebooks_verified`. Ours; other daemons close.
    VerifyNotebooks {
        /// Whether to bring in order what is damaged. Nothing is deleted.
        #[serde(default)]
        repair: bool,
    },
    /// Write what is kept of a notebook to a new file. Answer: `notebook_recovered`. Ours; other daemons close.
    RecoverNotebook {
        /// UUID, or path of a journal as `notebooks_verified` names it.
        notebook: String,
        /// Absolute path of a file that is not there yet.
        output: String,
    },
    /// Every environment on disk, with sizes and owners. Answer: `environments_list`. Ours; other daemons close.
    ListEnvironments,
    /// Delete environments that nobody uses and that are old or too many. Answer: `environments_cleaned`. Ours; other
    /// daemons close.
    CleanEnvironments {
        /// Only say what would be deleted.
        #[serde(default)]
        dry_run: bool,
        /// However new they are.
        #[serde(default)]
        all: bool,
    },
    /// Build anew what pools keep ready, or delete the environment at a path, so that the next notebook that wants it
    /// builds it anew. Answer: `environments_rebuilt`. Ours; other daemons close.
    RebuildEnvironments {
        /// A provider kind, or a path as in `environments_list`; every pool if none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        what: Option<String>,
    },
}

/// A reply on the pool channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PoolReply {
    /// Here.
    Pong {
        /// Clients refuse anything but 4.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol_version: Option<u32>,
        /// Free text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        daemon_version: Option<String>,
    },
    /// The pools.
    Stats {
        /// By provider kind.
        state: PoolStats,
    },
    /// The rooms.
    RoomsList(RoomsList),
    /// The daemon.
    DaemonInfo(DaemonInfo),
    /// Pools are being rebuilt.
    Flushed,
    /// The record of an execution.
    ExecutionResult {
        /// The record.
        record: Value,
    },
    /// The daemon exits.
    ShuttingDown,
    /// A room was closed, or there was none.
    NotebookShutdown {
        /// Whether there was one.
        found: bool,
    },
    /// The content of a notebook.
    NotebookState {
        /// UUID.
        notebook_id: String,
        /// `cells`, `outputs_by_cell`, `source`, `kernel_info`.
        #[serde(flatten)]
        state: Map<String, Value>,
    },
    /// An environment; it is the caller's now.
    Env {
        /// The environment.
        env: TakenEnv,
    },
    /// No environment to be had.
    Empty,
    /// Taken back.
    Returned,
    /// Prefixes in use.
    ActiveEnvPaths {
        /// Absolute paths.
        paths: Vec<String>,
    },
    /// A bounded view of a notebook.
    NotebookProjection {
        /// The view.
        projection: Value,
    },
    /// Why there is no such view.
    NotebookProjectionUnavailable {
        /// As asked for.
        notebook_id: String,
        /// Tagged by `kind`, such as `room_not_found`.
        failure: Value,
    },
    /// Figures of the async runtime.
    RuntimeMetrics {
        /// Worker threads.
        num_workers: u64,
        /// Tasks alive.
        num_alive_tasks: u64,
        /// Tasks waiting.
        global_queue_depth: u64,
        /// Busy microseconds of each worker.
        worker_busy_us: Vec<u64>,
        /// How often each worker slept.
        worker_park_count: Vec<u64>,
        /// Age of the daemon in microseconds.
        uptime_us: u64,
    },
    /// Every plugin found.
    PluginsList {
        /// In search order.
        plugins: Vec<PluginRow>,
    },
    /// What is kept of notebooks.
    NotebooksVerified(NotebooksVerified),
    /// The file was written.
    NotebookRecovered {
        /// Cells in it.
        cells: u64,
        /// Blobs that its outputs name and that are missing; the file says so in their place.
        missing_blobs: u64,
    },
    /// Environments on disk.
    EnvironmentsList(EnvironmentList),
    /// What was deleted.
    EnvironmentsCleaned(EnvironmentsCleaned),
    /// What is built anew.
    EnvironmentsRebuilt {
        /// Kinds of pools, or one path.
        rebuilt: Vec<String>,
    },
    /// The request failed.
    Error {
        /// For the user.
        message: String,
    },
}

impl PoolReply {
    /// An error reply.
    pub fn error(message: impl Into<String>) -> Self {
        Self::Error { message: message.into() }
    }

    /// The JSON of the reply, or of an error that says so when it is longer than a client reads.
    ///
    /// # Errors
    /// Only if a value in it cannot be JSON.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let json = serde_json::to_vec(self)?;
        if json.len() <= POOL_MAX {
            return Ok(json);
        }
        serde_json::to_vec(&Self::error(format!(
            "The answer has {} bytes and a reply may have {POOL_MAX}. Nothing was changed. \
             Open the notebook to read its content.",
            json.len()
        )))
    }
}

/// How full each pool is, by provider kind. The kinds that clients of protocol v4 require are always
/// present, empty if no provider is installed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolStats(BTreeMap<String, PoolStatus>);

impl PoolStats {
    /// Kinds that clients of protocol v4 fail without.
    const REQUIRED: [&str; 3] = ["uv", "conda", "pixi"];

    /// The given pools, and empty ones for required kinds that are missing.
    pub fn new(mut pools: BTreeMap<String, PoolStatus>) -> Self {
        for kind in Self::REQUIRED {
            pools.entry(kind.into()).or_default();
        }
        Self(pools)
    }

    /// The pools by kind.
    pub fn pools(&self) -> &BTreeMap<String, PoolStatus> {
        &self.0
    }
}

/// One pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Environments ready to be taken.
    pub available: u64,
    /// Environments being built.
    pub warming: u64,
    /// Environments wanted.
    pub pool_size: u64,
    /// What the last attempt said, while failing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The package at fault, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_package: Option<String>,
    /// `timeout`, `invalid_package`, `import_error` or `setup_failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
    /// Failures since the last success.
    #[serde(default)]
    pub consecutive_failures: u64,
    /// Seconds until the next attempt, rounded down.
    #[serde(default)]
    pub retry_in_secs: u64,
}

/// The rooms, as many as fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RoomsList {
    /// Rooms with peers first, then those with a kernel, then the others.
    pub rooms: Vec<RoomRow>,
    /// How many rooms did not fit into the reply. Ours; other daemons never say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<u64>,
}

impl RoomsList {
    /// The most interesting rooms, as many as fit into one reply of [`POOL_MAX`] bytes.
    ///
    /// # Errors
    /// Only if a row cannot be JSON.
    pub fn fit(mut rooms: Vec<RoomRow>) -> Result<Self, serde_json::Error> {
        rooms.sort_by_key(|room| room.state);
        let truncated = fit(&mut rooms)?;
        Ok(Self { rooms, truncated })
    }
}

impl EnvironmentList {
    /// Leaves the largest environments, as many as fit into one reply of [`POOL_MAX`] bytes.
    ///
    /// # Errors
    /// Only if a row cannot be JSON.
    pub fn fit(mut self) -> Result<Self, serde_json::Error> {
        self.environments.sort_by(|a, b| (b.bytes, &a.path).cmp(&(a.bytes, &b.path)));
        // The figures beside the rows take less than what `fit` leaves for them.
        self.truncated = fit(&mut self.environments)?;
        Ok(self)
    }
}

/// Leaves the first rows, as many as fit into one reply. Says how many it left out.
fn fit<T: Serialize>(rows: &mut Vec<T>) -> Result<Option<u64>, serde_json::Error> {
    /// Bytes of the reply around its rows, with room for the largest numbers.
    const AROUND: usize = 256;
    let mut bytes = AROUND;
    let mut fitting = 0;
    for row in &*rows {
        bytes += serde_json::to_vec(row)?.len() + 1;
        if bytes > POOL_MAX {
            break;
        }
        fitting += 1;
    }
    let left_out = rows.len() - fitting;
    rows.truncate(fitting);
    Ok((left_out > 0).then_some(left_out as u64))
}

/// What is kept of notebooks, as much as fits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NotebooksVerified {
    /// What is not safe first, then what was written last.
    pub notebooks: Vec<KeptNotebook>,
    /// How many did not fit into the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<u64>,
}

/// What is kept of one notebook beside its file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptNotebook {
    /// UUID; empty if what is kept does not even say that.
    pub notebook_id: String,
    /// Its file, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<String>,
    /// Where it is kept.
    pub journal: String,
    /// When something was written there last, RFC 3339.
    pub written: String,
    /// Whether it is in memory.
    pub open: bool,
    /// `sound`, `torn` (its end is missing), `damaged` (more than that), `unreadable`, `newer` (of a later
    /// daemon), `quarantined` (was damaged), or `aside` (its file is gone, or another notebook's by now).
    pub state: String,
    /// Cells that can be recovered.
    pub cells: u64,
    /// Whether it holds something that the notebook's file lacks.
    pub unsaved: bool,
    /// `same` as when it was last read or written, `changed`, `missing`, or `none`.
    pub file: String,
    /// Blobs that outputs name and that are missing or damaged.
    pub missing_blobs: u64,
    /// What was done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
}

impl KeptNotebook {
    /// Whether all of it can be brought back.
    pub fn is_safe(&self) -> bool {
        let intact = self.state == "sound" || self.repaired.is_some() && self.state != "unreadable";
        intact && self.missing_blobs == 0
    }
}

impl NotebooksVerified {
    /// Rows that are not safe first, as many as fit into one reply of [`POOL_MAX`] bytes.
    ///
    /// # Errors
    /// Only if a row cannot be JSON.
    pub fn fit(mut notebooks: Vec<KeptNotebook>) -> Result<Self, serde_json::Error> {
        notebooks.sort_by(|a, b| (a.is_safe(), &b.written).cmp(&(b.is_safe(), &a.written)));
        let truncated = fit(&mut notebooks)?;
        Ok(Self { notebooks, truncated })
    }
}

/// One room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRow {
    /// UUID.
    pub notebook_id: String,
    /// Connections now.
    pub active_peers: u64,
    /// Whether anybody ever connected.
    pub had_peers: bool,
    /// Whether a kernel is attached.
    pub has_kernel: bool,
    /// `python`, `deno`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_type: Option<String>,
    /// Label of its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_source: Option<String>,
    /// `idle`, `busy`, `starting`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_status: Option<String>,
    /// Whether nothing of it is kept on disk.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ephemeral: bool,
    /// Its file, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<String>,
    /// What goes on in it.
    pub state: RoomState,
    /// Process id of its kernel. Ours; other daemons never say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_pid: Option<u32>,
    /// Why there is no kernel though there should be one, in a sentence. Ours; other daemons never say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_error: Option<String>,
}

/// What goes on in a room, most interesting first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomState {
    /// Somebody is connected.
    Active,
    /// Nobody is, and a kernel lives.
    Idle,
    /// Neither; it can be resumed.
    Inactive,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonInfo {
    /// 4.
    pub protocol_version: u32,
    /// 1, or clients replace the daemon.
    #[serde(default)]
    pub daemon_api_version: u32,
    /// Free text.
    pub daemon_version: String,
    /// Process id.
    pub pid: u32,
    /// RFC 3339, UTC. With `pid` it names one life of the daemon.
    pub started_at: String,
    /// Port of the blob server on 127.0.0.1, once it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob_port: Option<u16>,
    /// Where execution records are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_store_dir: Option<String>,
    /// The work tree a development daemon belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worktree_path: Option<String>,
    /// What that work tree is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_description: Option<String>,
    /// Whether clients may register telemetry; left out by this daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_telemetry: Option<bool>,
    /// Whether telemetry is on; left out by this daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_telemetry_enabled: Option<bool>,
    /// ABI of plugins it can load: `1.0`. Ours; other daemons never say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_abi: Option<String>,
    /// What it was started with, without the program; none if that is not UTF-8. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Vec<String>>,
    /// What paths among those are relative to. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// What is wrong with the settings file at the moment, for the user. Ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_problem: Option<String>,
}

/// An environment handed out on the pool channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenEnv {
    /// Provider kind.
    pub env_type: String,
    /// Prefix.
    pub venv_path: String,
    /// Interpreter.
    pub python_path: String,
    /// What is installed in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prewarmed_packages: Vec<String>,
}

/// One plugin that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRow {
    /// Unique id, the name of its folder.
    pub id: String,
    /// Name shown to users.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// What it provides.
    pub provides: Vec<ProvidedCapability>,
    /// ABI version it was built for: `1.0`.
    pub abi: String,
    /// `in-process`, `child` or `static`.
    pub carrier: String,
    /// Which search folder it came from: `bundled`, `user`, ...
    pub source: String,
    /// Its folder.
    pub path: String,
    /// `ok`, `not_loaded`, `disabled`, `shadowed`, `refused`, `failed`, `poisoned` or `stopped`.
    pub status: String,
    /// Why it does not run, one sentence and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Process id of its child, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// File with everything known about why it does not run, for its author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// Something that takes effect only after a restart of the daemon, such as a new version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
}

/// A capability of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvidedCapability {
    /// Versioned id, such as `env-provider.v1`.
    pub capability: String,
    /// Kind or instance, such as `uv`.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(number: usize, state: RoomState) -> RoomRow {
        RoomRow {
            notebook_id: format!("00000000-0000-4000-8000-{number:012}"),
            active_peers: 0,
            had_peers: true,
            has_kernel: false,
            kernel_type: None,
            env_source: None,
            kernel_status: None,
            ephemeral: false,
            notebook_path: Some(format!("/home/user/notebooks/{number}.ipynb")),
            state,
            kernel_pid: None,
            kernel_error: None,
        }
    }

    #[test]
    fn a_long_list_of_rooms_is_cut_from_its_dull_end() {
        let mut rooms: Vec<_> = (0..1000).map(|number| room(number, RoomState::Inactive)).collect();
        rooms.push(room(1000, RoomState::Idle));
        rooms.push(room(1001, RoomState::Active));
        let list = RoomsList::fit(rooms).unwrap();
        assert_eq!(list.rooms[0].state, RoomState::Active);
        assert_eq!(list.rooms[1].state, RoomState::Idle);
        assert_eq!(list.truncated, Some(1002 - list.rooms.len() as u64));
        let json = PoolReply::RoomsList(list).encode().unwrap();
        assert!(json.len() <= POOL_MAX && json.len() > POOL_MAX - 512, "{}", json.len());
        assert!(String::from_utf8(json).unwrap().starts_with(r#"{"type":"rooms_list","rooms":[{"#));
        assert_eq!(RoomsList::fit(vec![room(1, RoomState::Idle)]).unwrap().truncated, None);
    }

    #[test]
    fn a_reply_nobody_could_read_becomes_an_error() {
        let long = PoolReply::ExecutionResult { record: Value::from("x".repeat(POOL_MAX)) };
        let reply: PoolReply = serde_json::from_slice(&long.encode().unwrap()).unwrap();
        assert!(matches!(reply, PoolReply::Error { .. }));
    }

    #[test]
    fn the_kinds_that_clients_require_are_always_there() {
        let stats = PoolStats::new(BTreeMap::from([("venv".into(), PoolStatus::default())]));
        assert_eq!(stats.pools().keys().collect::<Vec<_>>(), ["conda", "pixi", "uv", "venv"]);
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_requests_are_not() {
        assert_eq!(
            serde_json::from_str::<PoolRequest>(r#"{"type":"ping","zzz":1}"#).unwrap(),
            PoolRequest::Ping
        );
        assert!(serde_json::from_str::<PoolRequest>(r#"{"type":"bogus"}"#).is_err());
        assert!(serde_json::from_str::<PoolRequest>(r#"{"type":"take"}"#).is_err());
    }
}
