//! `runt ps`: all kernels, whoever started them.
//!
//! Promises: kernels of the daemon and kernels with a connection file in one table; a kernel that does not react makes
//! nobody wait; a kernel of the daemon that died says why.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use runtimed_client::protocol::pool::RoomRow;
use runtimed_client::{Client, ClientError};
use runtimed_kernelspecs::{Specs, Surroundings};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::jupyter::connection::Connection;
use crate::jupyter::find;
use crate::jupyter::probe::{Probe, probe};
use crate::jupyter::processes::{Processes, Usage};
use crate::terminal;

/// How long a kernel may take to react. One that is there needs milliseconds.
const PROBE: Duration = Duration::from_millis(300);

/// A row of the table.
struct Row {
    name: String,
    language: Option<String>,
    version: Option<String>,
    status: String,
    source: Source,
    notebook: Option<String>,
    env_source: Option<String>,
    pid: Option<u32>,
    usage: Option<Usage>,
    /// Why it is gone.
    error: Option<String>,
    file: Option<(PathBuf, Connection)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Runtimed,
    Jupyter,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Runtimed => "runtimed",
            Self::Jupyter => "jupyter",
        }
    }
}

/// Prints all kernels.
pub(crate) async fn ps(json: bool, verbose: bool) -> anyhow::Result<ExitCode> {
    let looking = tokio::task::spawn_blocking(|| {
        let mut processes = Processes::look();
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        processes.look_again();
        processes
    });
    let (processes, ours, files) = tokio::join!(looking, of_the_daemon(), of_files());
    let processes = processes?;
    let mut rows: Vec<Row> = ours.into_iter().chain(files).collect();
    for row in &mut rows {
        row.pid = row.pid.or_else(|| processes.of_file(&row.file.as_ref()?.0));
        row.usage = row.pid.and_then(|pid| processes.usage(pid));
    }
    rows.sort_by(|a, b| (a.source, &a.name, &a.notebook).cmp(&(b.source, &b.name, &b.notebook)));
    if json {
        terminal::print_json(&rows.iter().map(Row::json).collect::<Vec<_>>())?;
    } else if rows.is_empty() {
        anstream::println!("No running kernels found.");
    } else if verbose {
        print_verbose(&rows);
    } else {
        print(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// Kernels of the daemon, and those it had and that died.
async fn of_the_daemon() -> Vec<Row> {
    let list = match Client::discover().list_rooms().await {
        Ok(list) => list,
        Err(ClientError::Connect(_)) => return Vec::new(),
        Err(error) => {
            anstream::eprintln!("Warning: the daemon does not tell its kernels: {error}");
            return Vec::new();
        }
    };
    let rooms = list.rooms.into_iter();
    rooms.filter(|room| room.has_kernel || room.kernel_error.is_some()).map(Row::of_room).collect()
}

/// Kernels with a connection file, each asked whether it is there.
async fn of_files() -> Vec<Row> {
    let mut probes = JoinSet::new();
    for found in find::all() {
        // What is no connection file, or cannot be spoken to, is not ours to tell.
        let Ok(connection) = Connection::read(&found.path) else { continue };
        probes.spawn(async move {
            let probe = probe(&connection, PROBE).await;
            Row::of_file(found.short().to_owned(), found.path, connection, probe)
        });
    }
    let mut rows = probes.join_all().await;
    if rows.iter().any(|row| row.language.is_none()) {
        let specs = Specs::find(&Surroundings::current());
        for row in rows.iter_mut().filter(|row| row.language.is_none()) {
            // What does not say it itself may be busy, or just starting.
            let name = row.file.as_ref().and_then(|(_, connection)| connection.kernel_name.as_deref());
            let language = name.and_then(|name| specs.get(name)).map(|spec| spec.language.clone());
            row.language = language.filter(|language| !language.is_empty());
        }
    }
    rows
}

impl Row {
    fn of_room(room: RoomRow) -> Self {
        Self {
            name: room.kernel_type.clone().unwrap_or_else(|| "unknown".to_owned()),
            language: room.kernel_type,
            version: None,
            status: room.kernel_status.unwrap_or_else(|| "unknown".to_owned()),
            source: Source::Runtimed,
            notebook: Some(room.notebook_path.unwrap_or(room.notebook_id)),
            env_source: room.env_source,
            pid: room.kernel_pid,
            usage: None,
            error: room.kernel_error,
            file: None,
        }
    }

    fn of_file(name: String, path: PathBuf, connection: Connection, probe: Probe) -> Self {
        Self {
            name,
            language: probe.language,
            version: probe.version,
            status: if probe.alive { "alive" } else { "unresponsive" }.to_owned(),
            source: Source::Jupyter,
            notebook: None,
            env_source: None,
            pid: None,
            usage: None,
            error: None,
            file: Some((path, connection)),
        }
    }

    fn json(&self) -> Value {
        let mut row = json!({
            "name": self.name,
            "language": self.language,
            "status": self.status,
            "source": self.source.name(),
            "notebook": self.notebook,
            "pid": self.pid,
            "cpu_percent": self.usage.map(|usage| (f64::from(usage.cpu) * 10.0).round() / 10.0),
            "memory_bytes": self.usage.map(|usage| usage.memory),
            "uptime_secs": self.usage.map(|usage| usage.uptime.as_secs()),
        });
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                row[name] = value.into();
            }
        };
        add("connection_file", self.file.as_ref().map(|(path, _)| path.display().to_string()));
        add("env_source", self.env_source.clone());
        add("error", self.error.clone());
        row
    }

    fn cells(&self) -> Vec<String> {
        let usage = |show: fn(Usage) -> String| terminal::or_dash(self.usage.map(show));
        vec![
            self.name.clone(),
            terminal::or_dash(self.language.clone()),
            self.status.clone(),
            self.source.name().to_owned(),
            terminal::or_dash(self.pid.map(|pid| pid.to_string())),
            usage(|usage| format!("{:.0}%", usage.cpu)),
            usage(|usage| memory(usage.memory)),
            usage(|usage| uptime(usage.uptime)),
            terminal::or_dash(self.env_source.clone()),
            terminal::or_dash(self.notebook.as_ref().map(|notebook| terminal::tilde(Path::new(notebook)))),
        ]
    }
}

fn print<'a>(rows: impl IntoIterator<Item = &'a Row> + Clone) {
    let header =
        ["NAME", "LANGUAGE", "STATUS", "SOURCE", "PID", "CPU", "MEMORY", "UPTIME", "ENVIRONMENT", "NOTEBOOK"];
    let mut table = terminal::table(&header, rows.clone().into_iter().map(Row::cells));
    // Only the last two are ever wrapped.
    for column in table.column_iter_mut().take(8) {
        column.set_constraint(comfy_table::ColumnConstraint::ContentWidth);
    }
    anstream::println!("{table}");
    for row in rows {
        if let (Some(error), Some(notebook)) = (&row.error, &row.notebook) {
            anstream::println!("{}: {error}", terminal::tilde(Path::new(notebook)));
        }
    }
}

fn print_verbose(rows: &[Row]) {
    let header = ["NAME", "LANGUAGE", "STATUS", "SHELL", "IOPUB", "STDIN", "CTRL", "HB", "CONNECTION FILE"];
    let files = rows.iter().filter_map(|row| Some((row, row.file.as_ref()?))).map(|(row, (path, it))| {
        let language = [row.language.as_deref(), row.version.as_deref()].into_iter().flatten();
        let language = language.collect::<Vec<_>>().join(" ");
        let ports = [it.shell_port, it.iopub_port, it.stdin_port, it.control_port, it.hb_port];
        let mut cells = vec![
            row.name.clone(),
            terminal::or_dash(Some(language).filter(|it| !it.is_empty())),
            row.status.clone(),
        ];
        cells.extend(ports.map(|port| port.to_string()));
        cells.push(terminal::tilde(path));
        cells
    });
    anstream::println!("Connection-file kernels:\n{}\n", terminal::table(&header, files));
    anstream::println!("Daemon-managed kernels:");
    let ours: Vec<&Row> = rows.iter().filter(|row| row.source == Source::Runtimed).collect();
    print(ours);
}

/// Bytes for people, binary units as `top` has them.
fn memory(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

/// An age for people: the two largest units.
fn uptime(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m {}s", seconds % 60),
        3600..86400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        assert_eq!([memory(2048), memory(50 << 20), memory(3 << 29)], ["2 KiB", "50 MiB", "1.5 GiB"]);
        let shown = [59, 61, 3661, 90061].map(|seconds| uptime(Duration::from_secs(seconds)));
        assert_eq!(shown, ["59s", "1m 1s", "1h 1m", "1d 1h"]);
    }
}
