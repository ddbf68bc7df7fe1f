//! `runt plugins new`: a plugin to start from.
//!
//! Never: writes into a folder that has something in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use serde_json::json;

use crate::cli::NewOptions;
use crate::plugins::template::{self, Names};
use crate::terminal;

/// Longest kind: it becomes part of settings' names and labels.
const MAX_KIND: usize = 32;

/// Writes a plugin that works, with names of its own.
pub(crate) fn new(options: &NewOptions) -> anyhow::Result<ExitCode> {
    let folder = std::path::absolute(&options.folder)?;
    let names = names(&folder, options)?;
    let checkout = checkout();
    let files = template::files(&names, checkout.as_deref()).map_err(|error| {
        anyhow!("{error}.\nNothing was written.\nChoose an id with --id: {}", error.remedy)
    })?;
    let begun = fs::create_dir_all(&folder).and_then(|()| fs::read_dir(&folder));
    let mut there =
        begun.with_context(|| format!("nothing was written, `{}` cannot be used", folder.display()))?;
    if there.next().is_some() {
        bail!(
            "`{}` is not empty.\nNothing was written.\nName a folder that is empty or does not exist.",
            folder.display()
        );
    }
    for (path, text) in &files {
        write(&folder.join(path), text).with_context(|| {
            format!(
                "`{}` could not be written.\nWhat was written before it stays.\nMake room, empty `{}` and try again",
                path.display(),
                folder.display()
            )
        })?;
    }
    if options.json {
        terminal::print_json(&json!({
            "path": folder,
            "capability": options.capability,
            "id": names.id,
            "kind": names.kind,
            "package": names.package,
            "files": files.iter().map(|(path, _)| path).collect::<Vec<_>>(),
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let shown = options.folder.display();
    say!(
        "Wrote the plugin {} to {shown}: it provides `{}` of the kind `{}`.\n\n\
         Next:\n  cd {shown}\n  cargo test\n  cargo build\n  runt plugins add .\n\nThen make it yours; README.md says how.",
        names.id,
        options.capability,
        names.kind
    );
    Ok(ExitCode::SUCCESS)
}

fn names(folder: &Path, options: &NewOptions) -> anyhow::Result<Names> {
    // Of `..` and `.`, the folder they mean.
    let named = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mut names = Names::of_folder(&named.file_name().unwrap_or_default().to_string_lossy());
    if let Some(id) = &options.id {
        names.id.clone_from(id);
    }
    if let Some(kind) = &options.kind {
        names.kind.clone_from(kind);
    }
    let kind = &names.kind;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !kind.starts_with(|c: char| c.is_ascii_lowercase())
        || !kind.chars().all(plain)
        || kind.len() > MAX_KIND
    {
        bail!(
            "kind `{kind}` is not allowed.\nNothing was written.\nChoose one with --kind: 1 to {MAX_KIND} lower-case \
             letters, digits, `-` and `_`, beginning with a letter."
        );
    }
    Ok(names)
}

/// The sources that this program was built from, while they are there: our crates are not published yet.
fn checkout() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("plugin-api/Cargo.toml").is_file().then(|| root.to_path_buf())
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text)?;
    Ok(())
}
