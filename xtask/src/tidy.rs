//! The project's own rules, which no general tool knows.
//!
//! - the arrows between crates (docs/ARCHITECTURE.md)
//! - `unsafe` and abi_stable types only where they may be
//! - a header on every source file
//! - released ABIs stay as they are, and today's only grows at the ends

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{frozen, workspace};

/// Which of our crates may depend on which of our crates. Anything else is an error.
const ARROWS: &[(&str, &[&str])] = &[
    ("runtimed-protocol", &[]),
    ("runtimed-plugin-abi", &[]),
    ("runtimed-plugin-api", &["runtimed-plugin-abi"]),
    ("runtimed-plugin-testkit", &["runtimed-plugin-api"]),
    ("runtimed-plugin-misbehaving", &["runtimed-plugin-api"]),
    ("runtimed", &["runtimed-plugin-api", "runtimed-plugin-testkit", "runtimed-protocol"]),
    ("runtimed-plugin-rooms", &["runtimed-plugin-api", "runtimed-protocol"]),
    ("runtimed-plugin-blobs", &["runtimed-plugin-api"]),
    ("runtimed-jupyter-wire", &[]),
    ("runtimed-kernel-shim", &["runtimed-jupyter-wire"]),
    ("runtimed-kernelspecs", &[]),
    ("runtimed-plugin-jupyter", &["runtimed-kernel-shim", "runtimed-kernelspecs", "runtimed-plugin-api"]),
    ("runtimed-plugin-uv", &["runtimed-plugin-api"]),
    ("runtimed-conda-builder", &[]),
    ("runtimed-plugin-conda", &["runtimed-conda-builder", "runtimed-plugin-api"]),
    ("runtimed-client", &["runtimed-protocol"]),
    ("runtimed-mcp", &["runtimed-client"]),
    (
        "runt",
        &[
            "runtimed-client",
            "runtimed-jupyter-wire",
            "runtimed-kernelspecs",
            "runtimed-mcp",
            "runtimed-plugin-api",
            "runtimed-protocol",
        ],
    ),
    (
        "runtimed-fuzz",
        &[
            "runtimed-jupyter-wire",
            "runtimed-kernel-shim",
            "runtimed-plugin-api",
            "runtimed-plugin-rooms",
            "runtimed-protocol",
        ],
    ),
    ("xtask", &[]),
];

/// Words that may stand only in the files below the listed folders.
const CONFINED: &[(&str, &[&str])] = &[
    ("unsafe ", &["plugin-api/abi/", "plugin-api/fixtures/", "plugin-api/src/export.rs"]),
    ("unsafe{", &["plugin-api/abi/", "plugin-api/fixtures/"]),
    ("abi_stable", ABI_HOMES),
    ("async_ffi", ABI_HOMES),
];

/// Where the ABI's own types may be seen.
const ABI_HOMES: &[&str] = &[
    "plugin-api/abi/",
    "plugin-api/fixtures/",
    "plugin-api/src/adapter/",
    "plugin-api/src/export.rs",
    "plugin-api/tests/versions.rs",
];

/// Checks every rule and reports all violations at once.
pub(crate) fn run() -> Result<()> {
    let mut complaints = arrows()?;
    complaints.extend(frozen::complaints()?);
    for file in sources(&workspace::root())? {
        complaints.extend(file_rules(&file)?);
    }
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("tidy found {} problem(s):\n  {}", complaints.len(), complaints.join("\n  "))
}

fn arrows() -> Result<Vec<String>> {
    let text = workspace::output(workspace::cargo().args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let packages = list(&metadata["packages"]);
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let mut complaints = Vec::new();
    for package in &packages {
        let from = name(package);
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == from) else {
            complaints.push(format!("crate `{from}` has no arrows; add it to ARROWS in xtask/src/tidy.rs"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = name(&dependency);
            // A test may use its own crate's neighbors; what ships may not.
            let shipped = dependency["kind"].is_null();
            if shipped && ours.contains(&to) && !allowed.contains(&to.as_str()) {
                complaints.push(format!("`{from}` must not depend on `{to}` (docs/ARCHITECTURE.md, Arrows)"));
            }
        }
    }
    Ok(complaints)
}

fn file_rules(file: &Path) -> Result<Vec<String>> {
    let root = workspace::root();
    let shown = file.strip_prefix(&root).unwrap_or(file).to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file)?;
    let mut complaints = Vec::new();
    let documented =
        text.lines().find(|line| !line.starts_with("#!")).is_some_and(|line| line.starts_with("//!"));
    if !documented {
        complaints.push(format!("{shown}: does not open with a `//!` header that says what it is for"));
    }
    if shown == "xtask/src/tidy.rs" {
        return Ok(complaints);
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (word, homes) in CONFINED {
            if code.contains(word) && !homes.iter().any(|home| shown.starts_with(home)) {
                complaints.push(format!(
                    "{shown}:{}: `{}` belongs in {}",
                    number + 1,
                    word.trim(),
                    homes.join(", ")
                ));
            }
        }
    }
    Ok(complaints)
}

/// Every Rust source file of the project, build products left out.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(sources(&path)?);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
