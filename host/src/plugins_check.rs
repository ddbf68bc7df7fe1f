//! `runtimed plugins-check`: is this plugin good?
//!
//! For: `runt plugins check` and `runt plugins add`, which run it in a process of its own.
//! Promises: a library that fails the daemon's own checks of files is never loaded; whatever a plugin does to the
//! process it is in is a line of the report.
//! Never: talks to a daemon, or writes outside of a temporary folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_testkit::isolated::{self, Work};
use runtimed_plugin_testkit::{Carrier, CaseReport, Choice, Companion, Fault, Outcome, Report, Suite};

use crate::plugins::{SearchPath, check_files};

/// Exit code of a plugin that is not good.
const NOT_GOOD: u8 = 1;
/// Exit code when nothing could be found out.
const NOT_CHECKED: u8 = 2;

/// Options of `runtimed plugins-check`.
#[derive(Debug, Clone, Args)]
pub struct PluginsCheck {
    /// The plugin's folder, or its library in such a folder.
    #[arg(required_unless_present = "worker")]
    pub path: Option<PathBuf>,

    /// How to write the report.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// In which process the plugin runs.
    #[arg(long, value_enum, default_value_t = Carriers::Both)]
    pub carrier: Carriers,

    /// Run this suite and no other; may be given more than once.
    #[arg(long, value_name = "SUITE")]
    pub only: Vec<Suite>,

    /// Run this case of those suites and no other; may be given more than once.
    #[arg(long, value_name = "CASE")]
    pub case: Vec<String>,

    /// Run only what takes a moment.
    #[arg(long)]
    pub quick: bool,

    /// Give up a call after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// Package to install where any will do.
    #[arg(long, value_name = "NAME")]
    pub package: Option<String>,

    /// Take what the plugin needs from this plugin's folder; may be given more than once. What is not given so
    /// comes from where the daemon looks for plugins.
    #[arg(long, value_name = "FOLDER")]
    pub with: Vec<PathBuf>,

    /// Run the suites that stand on stdin; this is how the command runs itself.
    #[arg(long, hide = true)]
    pub worker: bool,
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people: a line for each case, as it ends.
    Text,
    /// For programs.
    Json,
    /// For CI systems.
    Junit,
}

/// In which processes a plugin runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Carriers {
    /// In the process that checks it.
    InProcess,
    /// In a process of its own.
    Child,
    /// First one way, then the other.
    Both,
}

/// Checks a plugin; exits with 0 if it is good, 1 if it is not, 2 if that could not be found out. Blocks.
pub fn run(options: &PluginsCheck, plugin_dirs: &[PathBuf]) -> ExitCode {
    let done = if options.worker { isolated::serve().map(|()| true) } else { check(options, plugin_dirs) };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_GOOD),
        Err(error) => {
            // Nobody is there to read it if even this fails.
            let _ = writeln!(io::stderr(), "The plugin could not be checked: {error}");
            ExitCode::from(NOT_CHECKED)
        }
    }
}

/// Whether the plugin is good.
fn check(options: &PluginsCheck, plugin_dirs: &[PathBuf]) -> io::Result<bool> {
    let folder = folder(options.path.as_deref().unwrap_or_else(|| Path::new(".")))?;
    let mut report = Report { plugin: name_of(&folder), cases: Vec::new() };
    let mut show = |case: &CaseReport| {
        if options.format == Format::Text {
            // Whoever stopped reading still gets the exit code.
            let _ = write!(io::stdout(), "{}", case.text());
        }
    };
    // Sockets go below it, and their paths must be short: the temporary folder of macOS is not.
    let scratch = tempfile::Builder::new().prefix("runt-check-").tempdir_in("/tmp")?;
    let (case, library) = files_case(&folder, scratch.path());
    show(&case);
    report.cases.push(case);
    if let Some(library) = library {
        let this = std::env::current_exe()?.display().to_string();
        let command = [this.clone(), "plugins-check".to_owned(), "--worker".to_owned()];
        let companions = companions(options, &folder, plugin_dirs, scratch.path())?;
        for (carrier, choice) in runs(options) {
            let work = Work {
                folder: folder.clone(),
                library: library.clone(),
                carrier,
                child: vec![this.clone(), "plugin-child".to_owned()],
                choice,
                companions: companions.clone(),
                scratch: scratch.path().to_owned(),
                done: Vec::new(),
            };
            report.cases.extend(isolated::run(&command, work, &mut show).cases);
        }
        let unknown = |name: &&String| !report.cases.iter().any(|case| case.case == **name);
        if let Some(name) = options.case.iter().find(unknown) {
            return Err(io::Error::other(format!("no suite that was to be run has a case `{name}`")));
        }
    }
    let text = match options.format {
        Format::Text => report.summary(),
        Format::Json => report.json()? + "\n",
        Format::Junit => report.junit(),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(report.passed())
}

/// The plugin's folder.
fn folder(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let path = path
        .canonicalize()
        .map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display())))?;
    match path.parent() {
        Some(parent) if path.is_file() => Ok(parent.to_owned()),
        _ => Ok(path),
    }
}

fn name_of(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Manifest::read(folder).map_or(name, |manifest| manifest.id)
}

/// The daemon's own checks as a case, and the library if it passed them.
fn files_case(folder: &Path, scratch: &Path) -> (CaseReport, Option<PathBuf>) {
    let begin = Instant::now();
    let checked = check_files(folder, scratch);
    let outcome = match &checked {
        Ok(_) => Outcome::Passed,
        Err(problem) => Outcome::Failed(
            Fault::new(&problem.reason, &problem.remedy).detail(problem.report.clone().unwrap_or_default()),
        ),
    };
    let case = CaseReport {
        suite: Suite::Static.name().to_owned(),
        case: "files".to_owned(),
        shows: "the daemon would load these files".to_owned(),
        carrier: "files".to_owned(),
        outcome,
        seconds: begin.elapsed().as_secs_f64(),
    };
    (case, checked.ok())
}

/// What is run on which carrier. What can be seen in the files is looked at once.
fn runs(options: &PluginsCheck) -> Vec<(Carrier, Choice)> {
    let carriers = match options.carrier {
        Carriers::InProcess => vec![Carrier::InProcess],
        Carriers::Child => vec![Carrier::Child],
        Carriers::Both => vec![Carrier::InProcess, Carrier::Child],
    };
    let wanted = if options.only.is_empty() { Suite::ALL.to_vec() } else { options.only.clone() };
    let choice = |only| Choice {
        only,
        cases: options.case.clone(),
        quick: options.quick,
        patience: options.timeout.map(Duration::from_secs),
        package: options.package.clone(),
    };
    let behavior: Vec<Suite> = wanted.iter().copied().filter(|suite| *suite != Suite::Static).collect();
    let mut runs: Vec<_> = carriers.into_iter().map(|carrier| (carrier, choice(behavior.clone()))).collect();
    if let Some((_, choice)) = runs.first_mut() {
        choice.only = wanted;
    }
    // An empty choice would mean everything.
    runs.retain(|(_, choice)| !choice.only.is_empty());
    runs
}

/// Plugins that provide what this one needs.
fn companions(
    options: &PluginsCheck,
    folder: &Path,
    plugin_dirs: &[PathBuf],
    scratch: &Path,
) -> io::Result<Vec<Companion>> {
    let Ok(manifest) = Manifest::read(folder) else { return Ok(Vec::new()) };
    let mut companions = Vec::new();
    let mut missing = manifest.needs.capabilities.clone();
    for given in &options.with {
        let given = self::folder(given)?;
        let library = check_files(&given, scratch).map_err(|problem| io::Error::other(problem.reason))?;
        if let Ok(other) = Manifest::read(&given) {
            missing.retain(|capability| !other.provides(capability));
        }
        companions.push(Companion { folder: given, library });
    }
    for (_, found) in SearchPath::of_this_process(plugin_dirs).plugin_folders() {
        let found = found.canonicalize().unwrap_or(found);
        let Ok(other) = Manifest::read(&found) else { continue };
        if other.id == manifest.id || !missing.iter().any(|capability| other.provides(capability)) {
            continue;
        }
        let Ok(library) = check_files(&found, scratch) else { continue };
        missing.retain(|capability| !other.provides(capability));
        companions.push(Companion { folder: found, library });
    }
    Ok(companions)
}
