//! `runt plugins doctor`: everything that keeps plugins from working, with what to do about it.
//!
//! Promises: exit code 1 exactly when something is wrong.
//! Never: repairs anything.

use std::path::Path;
use std::process::ExitCode;

use runtimed_client::protocol::pool::{DaemonInfo, PluginRow};
use runtimed_client::{Client, ClientError, Places};
use runtimed_plugin_api::lock_file::LockFile;
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::permissions;
use runtimed_plugin_api::search::{SearchPath, Source};
use serde::Serialize;

use crate::plugins::rows::{self, Plugins};
use crate::plugins::{check, crash_memory, files, settings_file, user_folder};
use crate::terminal;

/// Width of the words in front of what was found, with the blank after them.
const WORD: usize = 9;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What: the id of a plugin, or a part of the system.
    about: String,
    /// One sentence.
    what: String,
    /// What to do, if something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// All that was found.
#[derive(Default, Serialize)]
struct Findings(Vec<Finding>);

/// Looks at everything, prints what was found.
pub(crate) async fn doctor(json: bool) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    let running = findings.daemon(Client::discover().daemon_info().await);
    // That a daemon does not answer has been told.
    let plugins = Plugins::find().await.unwrap_or_else(|_| Plugins::in_folders());
    findings.search_path(&plugins.rows);
    findings.settings();
    let lock = findings.user_folder();
    for row in &plugins.rows {
        findings.plugin(row, &lock);
    }
    for sentence in rows::missing(&plugins.rows) {
        findings.bad("capabilities", sentence, "install runtimed again with its plugins, or switch them on");
    }
    if !running {
        findings.memory(&Places::of_this_process());
    }
    let problems = findings.0.iter().filter(|finding| finding.remedy.is_some()).count();
    if json {
        terminal::print_json(&serde_json::json!({ "problems": problems, "findings": findings }))?;
    } else {
        findings.print(problems);
    }
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Findings {
    fn good(&mut self, about: &str, what: impl Into<String>) {
        self.0.push(Finding { about: about.to_owned(), what: what.into(), remedy: None });
    }

    fn bad(&mut self, about: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { about: about.to_owned(), what: what.into(), remedy: Some(remedy.into()) });
    }

    /// The daemon and its binary. Whether it runs.
    fn daemon(&mut self, answer: Result<DaemonInfo, ClientError>) -> bool {
        if let Err(error) = check::daemon_binary() {
            self.bad(
                "daemon",
                error.to_string(),
                "install runtimed beside runt; plugins cannot be checked or added",
            );
        }
        match answer {
            Ok(info) => {
                let abi = info.plugin_abi.unwrap_or_else(|| "unknown".to_owned());
                self.good("daemon", format!("running, version {}, plugin ABI {abi}", info.daemon_version));
                true
            }
            Err(ClientError::Connect(_)) => {
                self.good("daemon", "not running; what follows is what its plugin folders hold");
                false
            }
            Err(error) => {
                self.bad("daemon", format!("it does not answer: {error}"), "see its log, and restart it");
                true
            }
        }
    }

    /// Every folder plugins are looked for in.
    fn search_path(&mut self, rows: &[PluginRow]) {
        for (source, folder) in SearchPath::of_this_process(&[]).0 {
            let about = format!("{source} folder");
            let shown = terminal::tilde(&folder);
            match folder.read_dir() {
                Ok(_) => {
                    // Rows have their links resolved.
                    let folder = folder.canonicalize().unwrap_or(folder);
                    let shown = terminal::tilde(&folder);
                    let inside = rows.iter().filter(|row| Path::new(&row.path).parent() == Some(&folder));
                    self.good(&about, format!("{shown}, plugins: {}", inside.count()));
                }
                Err(error) if source == Source::Environment => self.bad(
                    &about,
                    format!("`{shown}`, which RUNTIMED_PLUGIN_PATH names, cannot be read: {error}"),
                    "create it, or correct the variable",
                ),
                Err(error) if folder.exists() => self.bad(
                    &about,
                    format!("`{shown}` cannot be read: {error}"),
                    "check its owner and permissions",
                ),
                Err(_) => self.good(&about, format!("{shown}, not there")),
            }
        }
    }

    /// What switches plugins off.
    fn settings(&mut self) {
        if let Err(error) = settings_file::disabled(&Places::of_this_process().settings) {
            let what = format!("{error:#}").replace('\n', " ");
            self.bad("settings", what, "correct the file; the daemon reads it again by itself");
        }
    }

    /// What `runt plugins add` and `remove` keep. Returns what was added.
    fn user_folder(&mut self) -> LockFile {
        let Some(folder) = user_folder::path().filter(|folder| folder.is_dir()) else {
            return LockFile::default();
        };
        for left in user_folder::leftovers(&folder) {
            self.bad(
                "user folder",
                format!("`{}` is left of a 'runt plugins' command that was ended", terminal::tilde(&left)),
                "nothing if such a command is running; the next 'runt plugins add' or 'remove' takes it away",
            );
        }
        let lock = LockFile::read(&folder).unwrap_or_else(|error| {
            self.bad(
                "user folder",
                format!("{error}; nothing from that folder is loaded"),
                "restore the file from a backup, or move it away and add your plugins again",
            );
            LockFile::default()
        });
        for id in lock.plugins.keys().filter(|id| !folder.join(id).exists()) {
            let remedy = format!("add it again, or forget it: runt plugins remove {id}");
            self.bad(id, "it was added, and its folder is gone", remedy);
        }
        lock
    }

    /// One plugin: its files, and what became of it.
    fn plugin(&mut self, row: &PluginRow, lock: &LockFile) {
        let before = self.0.len();
        let folder = Path::new(&row.path);
        let manifest = Manifest::read(folder).ok();
        let is_users = row.source == Source::User.to_string();
        let pin = lock.plugins.get(&row.id).filter(|_| is_users);
        let remedy = match pin {
            Some(pin) => format!(
                "if you know why, add it again: runt plugins add '{}'; if not: runt plugins remove {}",
                pin.from, row.id
            ),
            None => "install it again".to_owned(),
        };
        let us = rustix::process::geteuid().as_raw();
        for file in files::states(folder, manifest.as_ref(), pin) {
            let path = folder.join(&file.path);
            if let Some(problem) = file.problem {
                self.bad(&row.id, format!("`{}` {problem}", terminal::tilde(&path)), remedy.clone());
            } else if let Err(exposed) = permissions::check(&path, us) {
                let told =
                    self.0.iter().any(|finding| finding.about == row.id && finding.what == exposed.problem);
                if !told {
                    self.bad(&row.id, exposed.problem, exposed.remedy);
                }
            }
        }
        let status = rows::status(row);
        if rows::is_problem(row) && self.0.len() == before {
            let reason = row.reason.as_deref().unwrap_or("it does not say why");
            self.bad(&row.id, format!("{status}: {reason}"), format!("see 'runt plugins show {}'", row.id));
        } else if self.0.len() == before {
            let notes = [&row.reason, &row.pending].into_iter().flatten();
            let notes: String = notes.map(|note| format!("; {note}")).collect();
            self.good(&row.id, format!("{} {status}{notes}", row.version));
        }
    }

    /// Whom the daemon will leave out when it starts.
    fn memory(&mut self, places: &Places) {
        for (id, sentence) in crash_memory::remembered(&places.base) {
            self.bad(
                &id,
                format!("{sentence}; it may not be loaded again"),
                format!("update it, or give it another try: runt plugins enable {id}"),
            );
        }
    }

    fn print(&self, problems: usize) {
        anstream::println!("{}", terminal::title("Plugin Health Check"));
        for Finding { about, what, remedy } in &self.0 {
            let word = if remedy.is_some() { "problem" } else { "ok" };
            anstream::println!("{word:<WORD$}{about}: {what}");
            if let Some(remedy) = remedy {
                anstream::println!("{:WORD$}To do: {remedy}", "");
            }
        }
        match problems {
            0 => anstream::println!("\nNothing is wrong."),
            1 => anstream::println!("\n1 problem found. Nothing was changed."),
            count => anstream::println!("\n{count} problems found. Nothing was changed."),
        }
    }
}
