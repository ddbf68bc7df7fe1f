//! What goes into a bundle, and where it is written.
//!
//! Promises: every text passes [`Cleaner`]. Works with and without a daemon.
//! Never: reads a notebook, an output, a journal or a blob.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use runtimed_client::Places;
use serde_json::{Value, json};
use sysinfo::System;

use super::archive;
use super::secrets::Cleaner;
use crate::cli::VERSION;
use crate::commands::daemon;
use crate::plugins::rows::Plugins;

/// Bytes of a log that are put in, from its end: days at the usual level.
const LOG_BYTES: u64 = 2 * 1024 * 1024;

/// Beginnings of the names of variables that decide what the daemon and its tools do.
const TELLING: [&str; 12] = [
    "RUNTIMED_",
    "RUST_LOG",
    "JUPYTER",
    "XDG_",
    "UV_",
    "CONDA_",
    "PIXI_",
    "PIP_",
    "VIRTUAL_ENV",
    "PYTHON",
    "SSL_CERT",
    "NO_COLOR",
];

const README: &str = "What `runt diagnostics` saw.

What looks like a secret was replaced by [removed]: tokens, passwords, keys, values of environment
variables, credentials and parameters in URLs. The home folder is ~. No notebook, output or journal is in here;
a log may quote a part of an error. Please look through it before you send it to anybody.
";

/// Gathers everything. Names and texts.
pub(crate) async fn gather() -> anyhow::Result<Vec<(String, String)>> {
    let places = Places::of_this_process();
    let variables = || {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
    };
    let mut cleaner = Cleaner::new(std::env::var("HOME").ok(), variables());
    let settings = fs::read_to_string(&places.settings);
    let settings = settings.ok().map(|text| serde_json::from_str::<Value>(&text));
    if let Some(Ok(Value::Object(settings))) = &settings {
        cleaner.learn_from(settings);
    }
    let mut files = vec![("README.txt".to_owned(), README.to_owned())];
    let mut add = |name: &str, text: String| files.push((name.to_owned(), text));
    let document = |value: &Value| serde_json::to_string_pretty(&cleaner.json(value)).map(|text| text + "\n");

    add("daemon-status.json", document(&daemon::status_document().await)?);
    add("doctor.json", document(&daemon::doctor_document().await)?);
    add("system-info.json", document(&system(variables().map(|(name, _)| name)))?);
    let plugins = match Plugins::find().await {
        Ok(plugins) => json!(plugins.rows),
        Err(error) => json!({ "error": format!("{error:#}") }),
    };
    add("plugins.json", document(&plugins)?);
    match settings {
        Some(Ok(settings)) => add("settings.json", document(&settings)?),
        // Which of it is secret could not be told. The reason says where, and quotes nothing.
        Some(Err(reason)) => add(
            "settings.json.invalid",
            format!("The settings cannot be read, and were left out: {reason}\n"),
        ),
        None => {}
    }
    let log = places.log();
    for (name, path) in [("runtimed.log", log.clone()), ("runtimed.log.1", log.with_extension("log.1"))] {
        if let Ok(text) = end_of(&path) {
            add(name, cleaner.text(&text));
        }
    }
    Ok(files)
}

/// Writes the bundle into `folder`, or else the current one, or else that for temporary files. Returns where it is.
///
/// # Errors
/// When none of them can be written.
pub(crate) fn write(folder: Option<&Path>, files: &[(String, String)]) -> anyhow::Result<PathBuf> {
    let name = format!("runt-diagnostics-{}", jiff::Zoned::now().strftime("%Y-%m-%d-%H%M%S"));
    let places = match folder {
        Some(folder) => vec![folder.to_owned()],
        None => [std::env::current_dir().ok(), Some(std::env::temp_dir())].into_iter().flatten().collect(),
    };
    let mut failure = None;
    for place in places {
        let path = place.join(format!("{name}.tar.gz"));
        match archive::write(&path, &name, files) {
            Ok(()) => return Ok(path),
            Err(error) => failure = Some((path, error)),
        }
    }
    match failure {
        Some((path, error)) => Err(error).with_context(|| {
            format!(
                "{} could not be written, and nothing was.\nName another folder with --output",
                path.display()
            )
        }),
        None => bail!("there is no folder to write to; name one with --output"),
    }
}

fn system(variables: impl Iterator<Item = String>) -> Value {
    let mut set: Vec<String> =
        variables.filter(|name| TELLING.iter().any(|it| name.starts_with(it))).collect();
    set.sort();
    let mut system = System::new();
    system.refresh_memory();
    json!({
        "runt_version": VERSION,
        "time": jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        "system": System::long_os_version(),
        "kernel": System::kernel_version(),
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
        "memory_bytes": system.total_memory(),
        "memory_available_bytes": system.available_memory(),
        // Their names only.
        "set_variables": set,
    })
}

/// The end of a log, from the beginning of a line on.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let left_out = file.metadata()?.len().saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(left_out))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(match left_out {
        0 => text.into_owned(),
        _ => {
            let (_, whole_lines) = text.split_once('\n').unwrap_or_default();
            format!("({left_out} bytes before this were left out)\n{whole_lines}")
        }
    })
}
