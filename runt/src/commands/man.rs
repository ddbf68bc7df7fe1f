//! `runt man`: manual pages and the reference, from the same words as `--help`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::Cli;
use crate::reference;

/// Writes a page for each command into `folder`, prints the page of `runt`, or the reference.
pub(crate) fn man(folder: Option<&Path>, markdown: bool) -> anyhow::Result<ExitCode> {
    // The same on every machine and in every build.
    let command = Cli::command().version(None).disable_version_flag(true);
    let mut out = std::io::stdout().lock();
    match folder {
        _ if markdown => out.write_all(reference::markdown(command).as_bytes())?,
        None => clap_mangen::Man::new(command).render(&mut out)?,
        Some(folder) => {
            let named = || format!("could not write to {}", folder.display());
            std::fs::create_dir_all(folder).with_context(named)?;
            clap_mangen::generate_to(command, folder).with_context(named)?;
            say!("Wrote the manual pages to {}", crate::terminal::tilde(folder));
        }
    }
    Ok(ExitCode::SUCCESS)
}
