//! `runt plugins add`: takes a plugin over into the user's folder.
//!
//! Promises: a plugin is tried out before it is put in place, and is put in place whole, with the hashes of its
//! files pinned; whatever fails or interrupts, what was installed before is installed still.
//! Never: runs code of a plugin that asks to live in the daemon's own process, unless the user said yes.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use runtimed_client::Places;
use runtimed_plugin_api::lock_file::Pin;
use runtimed_plugin_api::manifest::{Carrier, Manifest};
use semver::Version;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Told, reload};
use crate::cli::AddOptions;
use crate::interrupt::Interrupt;
use crate::plugins::origin::Origin;
use crate::plugins::staging::{Staged, stage};
use crate::plugins::user_folder::{UserFolder, Work};
use crate::plugins::{archive, check, rows};
use crate::terminal;

/// Adds a plugin, or another version of it.
pub(crate) async fn add(options: AddOptions) -> anyhow::Result<ExitCode> {
    let given = options.path.canonicalize().map_err(|error| {
        anyhow!(
            "`{}` is not there: {error}.\nNothing was changed.\nName a folder or a .tar.gz.",
            options.path.display()
        )
    })?;
    let mut folder = UserFolder::open()?;
    folder.closed_to_others()?;
    let work = folder.work()?;
    let prepared = prepare(&given, &options, &work).await;
    let (origin, staged) = prepared.map_err(|error| {
        anyhow!("{error:#}\nNothing was installed; what was installed before is unchanged.")
    })?;
    let id = staged.manifest.id.clone();
    let before = folder.pin(&id).map(|pin| pin.version.clone());
    let pin = Pin {
        version: staged.manifest.version.clone(),
        from: given.display().to_string(),
        added: jiff::Timestamp::now().round(jiff::Unit::Second)?.to_string(),
        files: staged.files.clone(),
    };
    folder.install(&staged, pin, &work).with_context(|| {
        format!("`{id}` could not be put in place.\nWhat was installed before is unchanged.\nThe reason")
    })?;
    let place = folder.path().join(&id);
    // Others may change the folder now; looking at it is all that is left to do.
    drop((work, folder));
    let told = reload().await;
    let added = Added { manifest: staged.manifest, build: origin.build, before, place, told };
    if options.json {
        added.print_json()?
    } else {
        added.print()
    }
    Ok(added.exit_code())
}

/// What was done.
struct Added {
    manifest: Manifest,
    build: Option<PathBuf>,
    /// Version that was installed before.
    before: Option<Version>,
    place: PathBuf,
    told: Told,
}

/// Finds the plugin's files, asks for what must be asked, copies them and tries the copy out.
async fn prepare(given: &Path, options: &AddOptions, work: &Work) -> anyhow::Result<(Origin, Staged)> {
    let mut interrupt = Interrupt::listen()?;
    let origin = find(given, &work.path().join("unpacked"))?;
    interrupt.or(ask_for_trust(&origin.manifest, options)).await?;
    let staged = stage(&origin, &work.staging())?;
    anstream::eprintln!(
        "Checking {} {}: it is loaded, started and stopped in a process of its own...",
        staged.manifest.id,
        staged.manifest.version
    );
    let checked = check::quick(&staged.folder, staged.manifest.carrier(), &mut interrupt).await;
    checked.with_context(|| format!("plugin `{}` did not pass the check", staged.manifest.id))?;
    Ok((origin, staged))
}

/// The plugin in a folder, or in an archive that is unpacked into `unpacked`.
pub(super) fn find(given: &Path, unpacked: &Path) -> anyhow::Result<Origin> {
    if given.is_dir() {
        return Origin::of_folder(given);
    }
    if !archive::is_archive(given) {
        bail!("`{}` is neither a folder nor a .tar.gz", given.display());
    }
    std::fs::create_dir(unpacked)?;
    Origin::complete(&archive::unpack(given, unpacked)?)
}

/// A plugin in the daemon's own process can do what the daemon can, and take it down.
async fn ask_for_trust(manifest: &Manifest, options: &AddOptions) -> anyhow::Result<()> {
    if manifest.carrier() == Carrier::Child || options.trust_in_process {
        return Ok(());
    }
    let wish = format!(
        "`{}` asks to run inside the daemon: it can read and change everything the daemon can, and crash it",
        manifest.id
    );
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        bail!("{wish}. If you trust its author, add it with --trust-in-process");
    }
    anstream::eprint!("{wish}.\nType yes if you trust its author: ");
    let mut answer = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut answer).await?;
    if !answer.trim().eq_ignore_ascii_case("yes") {
        bail!("you did not say yes to `{}` running inside the daemon", manifest.id);
    }
    Ok(())
}

impl Added {
    /// In one word what was done to what was there before.
    fn change(&self) -> &'static str {
        match &self.before {
            None => "added",
            Some(before) if *before == self.manifest.version => "replaced",
            Some(before) if *before > self.manifest.version => "downgraded",
            Some(_) => "upgraded",
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self.told.row(&self.manifest.id) {
            Some(row) if rows::is_problem(row) => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        }
    }

    fn print_json(&self) -> anyhow::Result<()> {
        let row = self.told.row(&self.manifest.id);
        let error = if let Told::Failed(error) = &self.told { Some(error.to_string()) } else { None };
        terminal::print_json(&json!({
            "id": self.manifest.id,
            "version": self.manifest.version,
            "change": self.change(),
            "version_before": self.before,
            "path": self.place,
            "taken_from_build": self.build,
            "daemon_running": !matches!(self.told, Told::Down),
            "daemon_error": error,
            "plugin": row,
        }))
    }

    fn print(&self) {
        let Manifest { id, version, .. } = &self.manifest;
        if let Some(build) = &self.build {
            anstream::println!("Took the library from {}.", terminal::tilde(build));
        }
        anstream::println!(
            "{}",
            match (self.change(), &self.before) {
                ("upgraded", Some(before)) => format!("Upgraded {id} from {before} to {version}."),
                ("downgraded", Some(before)) => format!("Downgraded {id} from {before} to {version}."),
                ("replaced", _) =>
                    format!("Replaced {id} {version}, which was installed in this version already."),
                _ => format!("Added {id} {version}."),
            }
        );
        let provides = self.manifest.provides.iter().map(|it| format!("{} ({})", it.capability, it.name));
        anstream::println!("{:<10} {}", "Provides:", provides.collect::<Vec<_>>().join(", "));
        anstream::println!(
            "{:<10} {}",
            "Carrier:",
            match self.manifest.carrier() {
                Carrier::Child => "child, a process of its own; it runs as you, with your rights".to_owned(),
                Carrier::InProcess => "in-process, trusted like the daemon itself".to_owned(),
            }
        );
        anstream::println!("{:<10} {}", "Folder:", terminal::tilde(&self.place));
        self.print_status();
    }

    /// What the daemon says, and what to do next.
    fn print_status(&self) {
        let id = &self.manifest.id;
        match &self.told {
            Told::Down => anstream::println!("The daemon is not running; it finds {id} when it starts."),
            Told::Failed(error) => anstream::eprintln!(
                "The running daemon could not take it over: {error}\nRestart the daemon to use {id}."
            ),
            Told::Rows(_) => match self.told.row(id) {
                None => anstream::eprintln!(
                    "The running daemon does not look into {}. Is it yours, and started with the same HOME?",
                    terminal::tilde(&self.place)
                ),
                Some(row) => {
                    anstream::println!("{:<10} {}", "Status:", rows::status(row));
                    if Path::new(&row.path)
                        != self.place.canonicalize().unwrap_or_else(|_| self.place.clone())
                    {
                        anstream::println!("The one in {} comes first and is used.", row.path);
                    }
                    for sentence in [&row.reason, &row.pending].into_iter().flatten() {
                        anstream::println!("{sentence}");
                    }
                    if rows::is_problem(row) {
                        return;
                    }
                }
            },
        }
        self.print_next_step();
    }

    fn print_next_step(&self) {
        let Some(kind) = self.manifest.provides.iter().find(|it| it.capability == "env-provider.v1") else {
            return;
        };
        let (kind, settings) = (&kind.name, Places::of_this_process().settings);
        anstream::println!(
            "\nTo use it for new notebooks, set \"default_python_env\": \"{kind}\" in {}.\n\
             To use it for one notebook, put {{\"runt\": {{\"{kind}\": {{\"dependencies\": []}}}}}} into its metadata.",
            terminal::tilde(&settings)
        );
    }
}
