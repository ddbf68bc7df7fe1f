//! `runt plugins show`: everything there is to know about one plugin.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use runtimed_client::protocol::pool::PluginRow;
use runtimed_plugin_api::lock_file::{LockFile, Pin};
use runtimed_plugin_api::manifest::{Activate, Manifest};
use serde::Serialize;
use serde_json::Value;

use crate::plugins::files::{self, FileState};
use crate::plugins::rows::{self, Plugins};
use crate::plugins::user_folder;
use crate::terminal;

/// Lines of a report that are shown; the rest is in its file.
const REPORT_LINES: usize = 12;
/// Width of the labels, with the blank after them.
const LABEL: usize = 13;

/// What is shown. The JSON has these keys.
#[derive(Serialize)]
struct Details<'a> {
    plugin: &'a PluginRow,
    /// Whether the daemon said so.
    live: bool,
    manifest: Option<Manifest>,
    /// What was accepted when it was added; only plugins of the user's folder have one.
    pin: Option<Pin>,
    files: Vec<FileState>,
    /// Keys of its section in the settings, with what they mean.
    settings: BTreeMap<String, String>,
    /// The first lines of the report.
    report: Vec<String>,
    /// Folders of plugins with the same id that come later.
    shadows: Vec<&'a str>,
}

/// Prints everything about the plugin with that id.
pub(crate) async fn show(id: &str, json: bool) -> anyhow::Result<ExitCode> {
    let plugins = Plugins::find().await?;
    let Some(row) = plugins.get(id) else {
        bail!(
            "there is no plugin `{id}`.\nNothing was changed.\n'runt plugins list' shows the plugins there are."
        )
    };
    let details = Details::new(row, &plugins);
    if json {
        terminal::print_json(&details)?;
    } else {
        details.print();
    }
    Ok(ExitCode::SUCCESS)
}

impl<'a> Details<'a> {
    fn new(row: &'a PluginRow, plugins: &'a Plugins) -> Self {
        let folder = Path::new(&row.path);
        let manifest = Manifest::read(folder).ok();
        let lock = user_folder::path().filter(|_| row.source == "user").map(|folder| LockFile::read(&folder));
        let pin = lock.and_then(|lock| lock.ok()?.plugins.remove(&row.id));
        let others = plugins.rows.iter().filter(|other| other.id == row.id && other.path != row.path);
        Self {
            plugin: row,
            live: plugins.live,
            files: files::states(folder, manifest.as_ref(), pin.as_ref()),
            settings: manifest.as_ref().map(|manifest| settings(folder, manifest)).unwrap_or_default(),
            report: row.report.as_deref().map(first_lines).unwrap_or_default(),
            shadows: others.map(|row| row.path.as_str()).collect(),
            manifest,
            pin,
        }
    }

    fn print(&self) {
        let row = self.plugin;
        anstream::println!("{}", terminal::title(&format!("{} {}", row.id, row.version)));
        let line = |label: &str, value: &str| {
            if !value.is_empty() {
                let mut lines = value.lines();
                anstream::println!("{label:<LABEL$}{}", lines.next().unwrap_or_default());
                lines.for_each(|more| anstream::println!("{:LABEL$}{more}", ""));
            }
        };
        let unloaded = if self.live { "" } else { " (the daemon is not running)" };
        line("Status:", &format!("{}{unloaded}", rows::status(row)));
        line("Reason:", row.reason.as_deref().unwrap_or_default());
        line("Pending:", row.pending.as_deref().unwrap_or_default());
        line("Name:", &row.name);
        line("Folder:", &terminal::tilde(Path::new(&row.path)));
        line("Source:", &row.source);
        let provides = row.provides.iter().map(|it| format!("{} ({})", it.capability, it.name));
        line("Provides:", &provides.collect::<Vec<_>>().join("\n"));
        line("ABI:", &row.abi);
        let process = row.process.map(|pid| format!(", process {pid}")).unwrap_or_default();
        line("Carrier:", &format!("{}{process}", row.carrier));
        if let Some(manifest) = &self.manifest {
            print_manifest(manifest, line);
        }
        if let Some(pin) = &self.pin {
            line("Added:", &format!("{}, version {}, from {}", pin.added, pin.version, pin.from));
        }
        line(
            "Settings:",
            &self.settings.iter().map(|(key, what)| format!("{key}  {what}\n")).collect::<String>(),
        );
        let width = self.files.iter().map(|file| file.path.as_os_str().len()).max().unwrap_or_default();
        let files = self.files.iter().map(|file| {
            let hash = file.sha256.as_deref().unwrap_or("unreadable");
            let state = file.problem.as_deref().unwrap_or("ok");
            format!("{:<width$}  {hash}  {state}\n", file.path.display().to_string())
        });
        line("Files:", &files.collect::<String>());
        line("Shadows:", &self.shadows.join("\n"));
        if let Some(report) = &row.report {
            line("Report:", report);
            self.report.iter().for_each(|text| anstream::println!("  | {text}"));
        }
    }
}

fn print_manifest(manifest: &Manifest, line: impl Fn(&str, &str)) {
    let marked = manifest.provides.iter().filter(|it| !it.markers.is_empty());
    let markers = marked.map(|it| format!("{} ({})", it.markers.join(", "), it.name));
    line("Markers:", &markers.collect::<Vec<_>>().join("\n"));
    line("Needs:", &manifest.needs.capabilities.join(", "));
    line("Uses:", &manifest.needs.services.join(", "));
    line(
        "Loaded:",
        match manifest.run.activate {
            Activate::Startup => "with the daemon",
            Activate::OnDemand => "when first needed",
        },
    );
    line("License:", manifest.license.as_deref().unwrap_or_default());
    line("Homepage:", manifest.homepage.as_deref().unwrap_or_default());
}

/// The keys a plugin's schema describes.
fn settings(folder: &Path, manifest: &Manifest) -> BTreeMap<String, String> {
    let schema = manifest.settings.as_ref().and_then(|settings| fs::read(folder.join(&settings.schema)).ok());
    let schema: Value = schema.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let keys = schema["properties"].as_object().cloned().unwrap_or_default();
    let described = |(key, about): (String, Value)| {
        let words = ["description", "title", "type"].iter().find_map(|word| about[word].as_str());
        (key, words.unwrap_or_default().to_owned())
    };
    keys.into_iter().map(described).collect()
}

fn first_lines(report: &str) -> Vec<String> {
    let Ok(file) = fs::File::open(report) else { return Vec::new() };
    BufReader::new(file).lines().take(REPORT_LINES).map_while(Result::ok).collect()
}
