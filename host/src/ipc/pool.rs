//! The `pool` channel: one JSON reply for each JSON request, in order.
//!
//! For: the command line, and the side connections of every client.
//! Promises: a reply is never longer than clients read; a request that is JSON gets an answer, an error
//! if need be; what is not JSON, or too long, closes the connection.

use std::sync::Arc;

use anyhow::Result;
use runtimed_plugin_api::adapter::{ABI_MAJOR, ABI_MINOR};
use runtimed_plugin_api::{JournalRow, PluginError, RoomReply, RoomRequest, RoomSummary};
use runtimed_protocol::frame::{FrameDecoder, POOL_MAX, length_header};
use runtimed_protocol::pool::{
    DaemonInfo, KeptNotebook, NotebooksVerified, PluginRow, PoolReply, PoolRequest, PoolStats,
    ProvidedCapability, RoomRow, RoomState, RoomsList, TakenEnv,
};
use runtimed_protocol::preamble::PROTOCOL_VERSION;
use serde_json::error::Category;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

use super::connection::Connection;
use crate::cli::VERSION;
use crate::daemon::Daemon;
use crate::plugins::Row;

/// Clients admit daemons that say 1 here (wire contract, section 9.6).
const DAEMON_API_VERSION: u32 = 1;

/// Serves the channel until the client leaves.
pub(super) async fn serve(daemon: &Daemon, mut connection: Connection) -> Result<()> {
    let mut decoder = FrameDecoder::new(POOL_MAX);
    loop {
        let Some(frame) = connection.reader.next(&mut decoder).await? else { return Ok(()) };
        let request = serde_json::from_slice::<PoolRequest>(&frame);
        let detaches = matches!(request, Ok(PoolRequest::Detach));
        let reply = match request {
            Ok(PoolRequest::Take { env_type }) => match take(daemon, &mut connection, &env_type).await? {
                Some(reply) => reply,
                None => return Ok(()),
            },
            Ok(request) => answer(daemon, request).await,
            Err(error) if error.classify() == Category::Data => PoolReply::error(format!(
                "This daemon does not understand the request: {error}. Nothing was changed."
            )),
            Err(error) => return Err(error.into()),
        };
        let body = reply.encode()?;
        let mut message = length_header(body.len(), POOL_MAX)?.to_vec();
        message.extend(body);
        let written = connection.writer.write_all(&message).await;
        match (&reply, &written) {
            // The client never learned about it, so it is still ours.
            (PoolReply::Env { env }, Err(_)) => drop(daemon.pools.give_back(env).await),
            (PoolReply::ShuttingDown, _) if detaches => daemon.shutdown.begin(),
            (PoolReply::ShuttingDown, _) => daemon.shutdown.begin_with_kernels(),
            _ => {}
        }
        written?;
    }
}

/// Takes an environment; none if the client leaves while it waits.
async fn take(daemon: &Daemon, connection: &mut Connection, kind: &str) -> Result<Option<PoolReply>> {
    let mut taking = std::pin::pin!(daemon.pools.take(kind));
    loop {
        // What the client sends meanwhile stays in the buffer, up to one frame more.
        let room = connection.reader.buffer.len() <= POOL_MAX;
        tokio::select! {
            biased;
            env = &mut taking => {
                return Ok(Some(env.map_or(PoolReply::Empty, |env: TakenEnv| PoolReply::Env { env })));
            }
            more = connection.reader.fill(), if room => if !more? { return Ok(None) },
        }
    }
}

/// Answers everything that needs nothing of the connection.
async fn answer(daemon: &Daemon, request: PoolRequest) -> PoolReply {
    match request {
        PoolRequest::Ping => PoolReply::Pong {
            protocol_version: Some(u32::from(PROTOCOL_VERSION)),
            daemon_version: Some(VERSION.to_owned()),
        },
        PoolRequest::Status => PoolReply::Stats { state: PoolStats::new(daemon.pools.status()) },
        PoolRequest::GetDaemonInfo => PoolReply::DaemonInfo(daemon_info(daemon)),
        PoolRequest::FlushPool => {
            daemon.pools.flush();
            daemon.tell_rooms_of_a_flush().await;
            PoolReply::Flushed
        }
        PoolRequest::Shutdown | PoolRequest::Detach => match daemon.refuses_to_stop().await {
            None => PoolReply::ShuttingDown,
            Some(refusal) => PoolReply::error(refusal),
        },
        PoolRequest::Return { env } => match daemon.pools.give_back(&env).await {
            true => PoolReply::Returned,
            false => PoolReply::error(format!(
                "`{}` was not taken from a pool of this daemon. It was left as it is.",
                env.venv_path
            )),
        },
        PoolRequest::GetRuntimeMetrics => runtime_metrics(daemon),
        PoolRequest::ListPlugins => list_plugins(daemon).await.unwrap_or_else(refusal),
        PoolRequest::ReloadPlugins => reload_plugins(daemon).await.unwrap_or_else(refusal),
        PoolRequest::SetPluginEnabled { id, enabled } => {
            set_plugin_enabled(daemon, id, enabled).await.unwrap_or_else(refusal)
        }
        PoolRequest::ListRooms => list_rooms(daemon).await.unwrap_or_else(refusal),
        PoolRequest::ActiveEnvPaths => active_env_paths(daemon).await.unwrap_or_else(refusal),
        PoolRequest::GetExecutionResult { execution_id } => {
            match daemon.ask_rooms(RoomRequest::ExecutionResult { execution_id }).await {
                Ok(RoomReply::ExecutionResult { record }) => PoolReply::ExecutionResult { record },
                other => unexpected(other),
            }
        }
        PoolRequest::ShutdownNotebook { notebook_id } => {
            match daemon.ask_rooms(RoomRequest::Shutdown { notebook_id }).await {
                Ok(RoomReply::Shutdown { found }) => PoolReply::NotebookShutdown { found },
                other => unexpected(other),
            }
        }
        PoolRequest::InspectNotebook { notebook_id } => {
            let asked = RoomRequest::Inspect { notebook_id: notebook_id.clone() };
            match daemon.ask_rooms(asked).await {
                Ok(RoomReply::Inspect { state: serde_json::Value::Object(state) }) => {
                    PoolReply::NotebookState { notebook_id, state }
                }
                other => unexpected(other),
            }
        }
        PoolRequest::GetNotebookProjection { notebook_id } => {
            match daemon.ask_rooms(RoomRequest::Project { notebook_id: notebook_id.clone() }).await {
                Ok(RoomReply::Projection { projection }) => PoolReply::NotebookProjection { projection },
                Ok(RoomReply::NoProjection { failure }) => {
                    PoolReply::NotebookProjectionUnavailable { notebook_id, failure }
                }
                other => unexpected(other),
            }
        }
        PoolRequest::VerifyNotebooks { repair } => verify(daemon, repair).await.unwrap_or_else(refusal),
        PoolRequest::RecoverNotebook { notebook, output } => {
            match daemon.ask_rooms(RoomRequest::Recover { notebook, output: output.into() }).await {
                Ok(RoomReply::Recovered { cells, missing_blobs }) => {
                    PoolReply::NotebookRecovered { cells, missing_blobs }
                }
                other => unexpected(other),
            }
        }
        PoolRequest::ListEnvironments => match daemon.list_environments().await {
            Ok(list) => PoolReply::EnvironmentsList(list),
            Err(error) => refusal(error),
        },
        PoolRequest::CleanEnvironments { dry_run, all } => {
            match daemon.clean_environments(dry_run, all).await {
                Ok(cleaned) => PoolReply::EnvironmentsCleaned(cleaned),
                Err(error) => refusal(error),
            }
        }
        PoolRequest::RebuildEnvironments { what } => match daemon.rebuild_environments(what.as_deref()).await
        {
            Ok(rebuilt) => PoolReply::EnvironmentsRebuilt { rebuilt },
            Err(error) => refusal(error),
        },
        other => PoolReply::error(format!("This daemon has no answer to {other:?}.")),
    }
}

async fn verify(daemon: &Daemon, repair: bool) -> Result<PoolReply, PluginError> {
    match daemon.ask_rooms(RoomRequest::Verify { repair }).await? {
        RoomReply::Verified { journals } => {
            let rows = journals.into_iter().map(kept).collect();
            Ok(PoolReply::NotebooksVerified(NotebooksVerified::fit(rows)?))
        }
        other => Ok(unexpected(Ok(other))),
    }
}

fn kept(row: JournalRow) -> KeptNotebook {
    KeptNotebook {
        notebook_id: row.notebook_id,
        notebook_path: row.notebook_path.map(|path| path.to_string_lossy().into_owned()),
        journal: row.journal.to_string_lossy().into_owned(),
        written: row.written,
        open: row.open,
        state: row.state,
        cells: row.cells,
        unsaved: row.unsaved,
        file: row.file,
        missing_blobs: row.missing_blobs,
        repaired: row.repaired,
    }
}

async fn list_plugins(daemon: &Daemon) -> Result<PoolReply, PluginError> {
    let rows = daemon.registry().await?.rows();
    Ok(PoolReply::PluginsList { plugins: rows.into_iter().map(plugin_row).collect() })
}

async fn reload_plugins(daemon: &Daemon) -> Result<PoolReply, PluginError> {
    daemon.registry().await?.reload().await?;
    list_plugins(daemon).await
}

async fn set_plugin_enabled(daemon: &Daemon, id: String, enabled: bool) -> Result<PoolReply, PluginError> {
    let registry = daemon.registry().await?;
    if !registry.rows().iter().any(|row| row.id == id) {
        // It may have come since somebody looked.
        registry.reload().await?;
        if !registry.rows().iter().any(|row| row.id == id) {
            return Err(PluginError::not_found(format!("There is no plugin `{id}`. Nothing was changed."))
                .help("See what there is with `runt plugins list`, or add it with `runt plugins add`."));
        }
    }
    daemon.settings.edit(|settings| {
        let disabled = settings.get("plugins").and_then(|plugins| plugins.get("disabled"));
        let mut disabled = disabled.and_then(Value::as_array).cloned().unwrap_or_default();
        disabled.retain(|other| other.as_str() != Some(&id));
        if !enabled {
            disabled.push(Value::from(id.clone()));
        }
        Map::from_iter([("plugins".to_owned(), json!({ "disabled": disabled }))])
    });
    if enabled {
        let registry = Arc::clone(&registry);
        // If that panicked, the plugin stays where it is, and its row says so.
        let _ = tokio::task::spawn_blocking(move || registry.forgive(&id)).await;
    }
    reload_plugins(daemon).await
}

async fn list_rooms(daemon: &Daemon) -> Result<PoolReply, PluginError> {
    if daemon.registry().await?.rooms().is_none() {
        return Ok(PoolReply::RoomsList(RoomsList::default()));
    }
    match daemon.ask_rooms(RoomRequest::List).await? {
        RoomReply::List { rooms } => {
            let rooms = RoomsList::fit(rooms.into_iter().map(row).collect())?;
            Ok(PoolReply::RoomsList(rooms))
        }
        other => Ok(unexpected(Ok(other))),
    }
}

async fn active_env_paths(daemon: &Daemon) -> Result<PoolReply, PluginError> {
    let paths = daemon.environments_in_use().await?;
    let paths = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    Ok(PoolReply::ActiveEnvPaths { paths })
}

fn row(room: RoomSummary) -> RoomRow {
    RoomRow {
        notebook_id: room.notebook_id,
        active_peers: room.active_peers,
        had_peers: room.had_peers,
        has_kernel: room.has_kernel,
        kernel_type: room.kernel_type,
        env_source: room.env_source,
        kernel_status: room.kernel_status,
        ephemeral: room.ephemeral,
        notebook_path: room.notebook_path.map(|path| path.to_string_lossy().into_owned()),
        state: match room.state.as_str() {
            "active" => RoomState::Active,
            "idle" => RoomState::Idle,
            _ => RoomState::Inactive,
        },
        kernel_pid: room.kernel_pid,
        kernel_error: room.kernel_error,
    }
}

fn plugin_row(row: Row) -> PluginRow {
    let provided = |text: &String| {
        let (capability, name) = text.split_once(':').unwrap_or((text, ""));
        ProvidedCapability { capability: capability.to_owned(), name: name.to_owned() }
    };
    // Both enums are plain words.
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    };
    let reason = [row.reason, row.remedy].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
    PluginRow {
        provides: row.capabilities.iter().map(provided).collect(),
        id: row.id,
        name: row.name,
        version: row.version,
        abi: row.abi,
        carrier: row.carrier,
        source: word(serde_json::to_value(row.source)),
        path: row.folder.to_string_lossy().into_owned(),
        status: word(serde_json::to_value(row.status)),
        reason: (!reason.is_empty()).then(|| reason.join("; ")),
        report: row.report.map(|file| file.to_string_lossy().into_owned()),
        process: row.process,
        pending: row.pending,
    }
}

fn daemon_info(daemon: &Daemon) -> DaemonInfo {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let worktree = daemon.paths.worktree.as_deref();
    let description = worktree.map(|root| root.join(".context/workspace-description"));
    DaemonInfo {
        protocol_version: u32::from(PROTOCOL_VERSION),
        daemon_api_version: DAEMON_API_VERSION,
        daemon_version: VERSION.to_owned(),
        pid: std::process::id(),
        started_at: daemon.started_at.clone(),
        blob_port: daemon.http_port.get().copied(),
        execution_store_dir: Some(text(&daemon.paths.executions())),
        worktree_path: worktree.map(text),
        workspace_description: description
            .and_then(|path| std::fs::read_to_string(path).ok())
            .map(|description| description.trim().to_owned()),
        host_telemetry: None,
        host_telemetry_enabled: None,
        plugin_abi: Some(format!("{ABI_MAJOR}.{ABI_MINOR}")),
        arguments: std::env::args_os().skip(1).map(|argument| argument.into_string().ok()).collect(),
        working_dir: std::env::current_dir().ok().as_deref().map(text),
        settings_problem: daemon.settings.problem(),
    }
}

fn runtime_metrics(daemon: &Daemon) -> PoolReply {
    let metrics = Handle::current().metrics();
    let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let workers = 0..metrics.num_workers();
    PoolReply::RuntimeMetrics {
        num_workers: metrics.num_workers() as u64,
        num_alive_tasks: metrics.num_alive_tasks() as u64,
        global_queue_depth: metrics.global_queue_depth() as u64,
        worker_busy_us: workers
            .clone()
            .map(|worker| micros(metrics.worker_total_busy_duration(worker)))
            .collect(),
        worker_park_count: workers.map(|worker| metrics.worker_park_count(worker)).collect(),
        uptime_us: micros(daemon.started.elapsed()),
    }
}

fn unexpected(reply: Result<RoomReply, PluginError>) -> PoolReply {
    match reply {
        Err(error) => refusal(error),
        Ok(_) => {
            PoolReply::error("The rooms plugin gave an answer to another question. Nothing was changed.")
        }
    }
}

/// An error in words: what happened, then what to do.
fn refusal(error: PluginError) -> PoolReply {
    PoolReply::error(super::in_words(&error))
}
