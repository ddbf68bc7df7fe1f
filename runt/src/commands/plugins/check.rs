//! `runt plugins check`: the conformance suites, run on one plugin.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use runtimed_plugin_api::manifest::Manifest;

use super::add::find;
use crate::cli::CheckOptions;
use crate::interrupt::Interrupt;
use crate::plugins::check;
use crate::plugins::staging::stage;
use crate::terminal;

/// Checks the plugin at a path, the same places that can be added from.
pub(crate) async fn check(options: CheckOptions) -> anyhow::Result<ExitCode> {
    let nothing = "Nothing was checked and nothing was changed";
    let path = &options.path;
    let given = path.canonicalize().with_context(|| format!("{nothing}.\n`{}`", path.display()))?;
    let mut interrupt = Interrupt::listen()?;
    // A copy with the hashes filled in, as it would be installed.
    let work = tempfile::Builder::new().prefix("runt-check-").tempdir()?;
    let origin = find(&given, &work.path().join("unpacked")).context(nothing)?;
    if let Some(build) = &origin.build {
        anstream::eprintln!("Taking the library from {}.", terminal::tilde(build));
    }
    let staged = stage(&origin, &work.path().join("new")).context(nothing)?;
    let Manifest { id, version, .. } = &staged.manifest;
    anstream::eprintln!(
        "Checking {id} {version} in processes of its own; a full check can take some minutes..."
    );
    check::run(&staged.folder, &arguments(&options), &mut interrupt).await
}

/// The options as `runtimed plugins-check` has them.
fn arguments(options: &CheckOptions) -> Vec<OsString> {
    let format = if options.json { "json" } else { &options.format };
    let mut arguments: Vec<OsString> =
        ["--format", format, "--carrier", &options.carrier].map(OsString::from).into();
    if options.quick {
        arguments.push("--quick".into());
    }
    let timeout = options.timeout.map(|seconds| seconds.to_string());
    let named = options.only.iter().map(|suite| ("--only", suite.into()));
    let named = named.chain(options.case.iter().map(|case| ("--case", case.into())));
    let named = named.chain(timeout.iter().map(|seconds| ("--timeout", seconds.into())));
    let named = named.chain(options.package.iter().map(|package| ("--package", package.into())));
    let named = named.chain(options.with.iter().map(|folder| ("--with", folder.into())));
    arguments.extend(named.flat_map(|(option, value): (&str, OsString)| [option.into(), value]));
    arguments
}
