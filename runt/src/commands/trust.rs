//! `runt trust`: what notebooks may install without asking.
//!
//! For: looking at what was approved, approving ahead of time, and taking approvals back.
//! Promises: works with and without a daemon, which obeys at once; what every machine allows cannot be forgotten.

use std::io;
use std::process::ExitCode;

use anyhow::{Context, bail};
use runtimed_client::Places;
use runtimed_plugin_api::trusted_packages::{FILE_NAME, TrustedPackages, defaults, is_default};
use runtimed_plugin_api::{PackageIdentity, pypi};
use serde::Serialize;

use crate::cli::TrustCommand;
use crate::terminal;

/// Ecosystem of packages that come from the package index.
const PYPI: &str = "pypi";
/// What is written as the source of an approval.
const SOURCE: &str = "command_line";
/// What is shown as the source of what every machine allows.
const DEFAULT: &str = "daemon-default";

/// One line of the list.
#[derive(Serialize)]
struct Row {
    ecosystem: String,
    name: String,
    /// RFC 3339; none for what every machine allows.
    approved_at: Option<String>,
    source: String,
}

/// Runs the command.
pub(crate) fn run(command: TrustCommand) -> anyhow::Result<ExitCode> {
    match command {
        TrustCommand::List { all, json } => list(all, json),
        TrustCommand::Allow { names, ecosystem, json } => {
            let identities = identities(&names, &ecosystem);
            let now = jiff::Timestamp::now().to_string();
            change(identities, json, "allowed", "allowed already", |trusted, identity| {
                trusted.allow(identity, &now, SOURCE)
            })
        }
        TrustCommand::Forget { names, ecosystem, json } => {
            let identities = identities(&names, &ecosystem);
            if let Some(always) = identities.iter().find(|identity| is_default(identity)) {
                bail!("`{}` is allowed on every machine.\nNothing was changed.", always.name);
            }
            change(identities, json, "forgotten", "not allowed anyway", |trusted, identity| {
                trusted.forget(&identity)
            })
        }
    }
}

fn list(all: bool, json: bool) -> anyhow::Result<ExitCode> {
    let base = Places::of_this_process().base;
    let trusted = explained(&base, TrustedPackages::read(&base))?;
    let always = defaults().filter(|_| all || json).map(|PackageIdentity { ecosystem, name }| Row {
        ecosystem,
        name,
        approved_at: None,
        source: DEFAULT.to_owned(),
    });
    let approved = trusted.packages.into_iter().map(|approval| Row {
        ecosystem: approval.identity.ecosystem,
        name: approval.identity.name,
        approved_at: Some(approval.approved_at),
        source: approval.source,
    });
    let mut rows: Vec<Row> = always.chain(approved).collect();
    rows.sort_by(|a, b| (&a.ecosystem, &a.name).cmp(&(&b.ecosystem, &b.name)));
    if json {
        terminal::print_json(&rows)?;
    } else if rows.is_empty() {
        anstream::println!("Nothing was approved. 'runt trust list --all' shows what every machine allows.");
    } else {
        let cells = |row: Row| vec![row.ecosystem, row.name, terminal::or_dash(row.approved_at), row.source];
        anstream::println!(
            "{}",
            terminal::table(&["ECOSYSTEM", "NAME", "APPROVED", "SOURCE"], rows.into_iter().map(cells))
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// What trust knows `names` as.
fn identities(names: &[String], ecosystem: &str) -> Vec<PackageIdentity> {
    let identity = |name: &String| match ecosystem {
        PYPI => pypi::identity(name),
        "conda" => PackageIdentity { ecosystem: ecosystem.to_owned(), name: name.trim().to_lowercase() },
        _ => PackageIdentity { ecosystem: ecosystem.to_owned(), name: name.trim().to_owned() },
    };
    names.iter().map(identity).collect()
}

/// Changes the file and says what became of each of `identities`: `done`, or `before` if it was so before.
fn change(
    identities: Vec<PackageIdentity>,
    json: bool,
    done: &str,
    before: &str,
    one: impl Fn(&mut TrustedPackages, PackageIdentity) -> bool,
) -> anyhow::Result<ExitCode> {
    let base = Places::of_this_process().base;
    let changed = TrustedPackages::edit(&base, |trusted| {
        identities.iter().map(|identity| one(trusted, identity.clone())).collect::<Vec<bool>>()
    });
    let changed = explained(&base, changed)?;
    let results = identities.iter().zip(changed);
    if json {
        let rows = results.map(|(identity, changed)| {
            serde_json::json!({"ecosystem": identity.ecosystem, "name": identity.name, "changed": changed})
        });
        terminal::print_json(&rows.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    for (identity, changed) in results {
        let what = if changed { done } else { before };
        say!("{} ({}): {what}.", identity.name, identity.ecosystem);
    }
    Ok(ExitCode::SUCCESS)
}

fn explained<T>(base: &std::path::Path, result: io::Result<T>) -> anyhow::Result<T> {
    result.with_context(|| {
        format!(
            "`{}` could not be used.\nNothing was changed, and nothing of it counts as approved meanwhile.\nCorrect \
             it, or move it away to begin with none",
            base.join(FILE_NAME).display()
        )
    })
}
