//! `runt diagnostics`: a bundle for whoever is to find out what is wrong.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::diagnostics::bundle;
use crate::terminal;

/// Writes the bundle, into `folder` if one is named.
pub(crate) async fn diagnostics(folder: Option<&Path>, json: bool) -> anyhow::Result<ExitCode> {
    let files = bundle::gather().await?;
    let path = bundle::write(folder, &files)?;
    let path = std::path::absolute(&path).unwrap_or(path);
    if json {
        let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
        terminal::print_json(&json!({ "path": path, "files": names }))?;
    } else {
        anstream::println!("Wrote {}", terminal::tilde(&path));
        say!(
            "Secrets were replaced by [removed], and no notebook is in it. Look through it before you send it:\n  \
             tar -xzf {}",
            terminal::tilde(&path)
        );
    }
    Ok(ExitCode::SUCCESS)
}
