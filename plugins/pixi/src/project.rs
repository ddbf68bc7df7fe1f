//! Projects: a folder with a `pixi.toml`, or a `pyproject.toml` with a table `[tool.pixi]`.
//!
//! For: showing what a project declares, and knowing what a notebook beside it adds. What is really installed pixi says.
//! Promises: pure. Read are the packages of the default feature for every machine.

use std::path::Path;

use runtimed_plugin_api::{PluginError, Project, Result};
use serde_json::{Map, json};
use toml::{Table, Value};

use crate::packages::FROM_INDEX;

/// pixi's own file.
pub(crate) const MANIFEST: &str = "pixi.toml";
/// The file that may be pixi's as well.
pub(crate) const PYPROJECT: &str = "pyproject.toml";
/// Kind of both on the wire.
const KIND: &str = "pixi_toml";

/// What the text of the project file at `file` declares; none if the file is not pixi's.
///
/// # Errors
/// `Invalid` if the text is not TOML.
pub(crate) fn declared(text: &str, file: &Path) -> Result<Option<Project>> {
    let document: Table = text.parse().map_err(|error| {
        PluginError::invalid(format!("`{}` is not valid TOML: {error}", file.display()))
            .help("Correct the file; the notebook is unchanged.")
    })?;
    let pyproject = file.file_name().is_some_and(|name| name == PYPROJECT);
    let ours = match pyproject {
        true => document.get("tool").and_then(|tool| tool.get("pixi")?.as_table()),
        false => Some(&document),
    };
    let Some(ours) = ours else { return Ok(None) };
    let table = |name: &str| ours.get(name).and_then(Value::as_table).into_iter().flatten();
    let dependencies: Vec<String> =
        table("dependencies").map(|(name, spec)| conda(name, spec)).collect();
    let mut from_index: Vec<String> =
        table("pypi-dependencies").map(|(name, spec)| of_index(name, spec)).collect();
    let standard = document.get("project").filter(|_| pyproject);
    from_index.extend(standard.map(|table| strings(table, "dependencies")).unwrap_or_default());
    // `project` is how pixi called it before.
    let workspace = ours.get("workspace").or_else(|| ours.get("project"));
    let channels = workspace.map(|table| strings(table, "channels")).unwrap_or_default();
    let python = ours.get("dependencies").and_then(|table| version(table.get("python")?));
    let required = || standard?.get("requires-python")?.as_str();
    Ok(Some(Project {
        kind: KIND.to_owned(),
        file: file.to_owned(),
        dependencies,
        dev_dependencies: Vec::new(),
        requires_python: python.or_else(required).map(str::to_owned),
        extra: Map::from_iter([
            ("channels".to_owned(), json!(channels)),
            (FROM_INDEX.to_owned(), json!(from_index)),
        ]),
    }))
}

/// A conda package as it is written elsewhere: `name`, `name>=1`, `name 1.2.*`, `channel::name`.
fn conda(name: &str, spec: &Value) -> String {
    let channel = spec.get("channel").and_then(Value::as_str);
    let channel = channel.map(|channel| format!("{channel}::")).unwrap_or_default();
    format!("{channel}{name}{}", constraint(spec))
}

/// A requirement of the index as it is written elsewhere: `name[extra]>=1`, `name @ URL`.
fn of_index(name: &str, spec: &Value) -> String {
    let extras = strings(spec, "extras");
    let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
    let place = ["url", "git", "path"].iter().find_map(|key| spec.get(*key)?.as_str());
    match place {
        Some(place) => format!("{name}{extras} @ {place}"),
        None => format!("{name}{extras}{}", constraint(spec)),
    }
}

/// What follows a name.
fn constraint(spec: &Value) -> String {
    match version(spec).map(str::trim) {
        None | Some("" | "*") => String::new(),
        Some(version) if version.starts_with(['<', '>', '=', '!', '~']) => version.to_owned(),
        Some(version) => format!(" {version}"),
    }
}

fn version(spec: &Value) -> Option<&str> {
    spec.as_str().or_else(|| spec.get("version")?.as_str())
}

fn strings(table: &Value, name: &str) -> Vec<String> {
    let items = table.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, text: &str) -> Option<Project> {
        declared(text, &Path::new("/p").join(file)).unwrap()
    }

    #[test]
    fn a_manifest_is_read() {
        let text = r#"
            [workspace]
            name = "lab"
            channels = ["conda-forge", "bioconda"]
            platforms = ["linux-64"]
            [dependencies]
            python = ">=3.11,<3.14"
            ipykernel = "*"
            numpy = "2.1.*"
            samtools = { version = ">=1", channel = "bioconda" }
            here = { path = "." }
            [pypi-dependencies]
            requests = { version = ">=2", extras = ["socks"] }
            wheel = { url = "https://h/wheel.whl" }
            cowsay = "*"
        "#;
        let project = read(MANIFEST, text).unwrap();
        assert_eq!(
            (&*project.kind, project.requires_python.as_deref()),
            (KIND, Some(">=3.11,<3.14"))
        );
        let mut dependencies = project.dependencies;
        dependencies.sort();
        let all =
            ["bioconda::samtools>=1", "here", "ipykernel", "numpy 2.1.*", "python>=3.11,<3.14"];
        assert_eq!(dependencies, all);
        assert_eq!(project.extra["channels"], json!(["conda-forge", "bioconda"]));
        let from_index = json!(["cowsay", "requests[socks]>=2", "wheel @ https://h/wheel.whl"]);
        assert_eq!(project.extra[FROM_INDEX], from_index);
    }

    #[test]
    fn a_pyproject_is_pixis_if_it_says_so() {
        let text = "[project]\nname = 'a'\nrequires-python = '>=3.12'\ndependencies = ['six>=1']\n";
        assert_eq!(read(PYPROJECT, text), None);
        let text = format!(
            "{text}[tool.pixi.project]\nchannels = ['conda-forge']\n[tool.pixi.dependencies]\nnumpy = '*'\n\
             [tool.pixi.pypi-dependencies]\na = {{ path = '.' }}\n"
        );
        let project = read(PYPROJECT, &text).unwrap();
        assert_eq!(
            (project.dependencies, project.requires_python.as_deref()),
            (vec!["numpy".to_owned()], Some(">=3.12"))
        );
        assert_eq!(project.extra[FROM_INDEX], json!(["a @ .", "six>=1"]));
        assert_eq!(project.extra["channels"], json!(["conda-forge"]));
        assert_eq!(read(PYPROJECT, "[tool.pixi.workspace]\n").unwrap().kind, KIND);
        assert_eq!(read(PYPROJECT, "[tool.ruff]\n"), None);
    }

    #[test]
    fn what_is_no_toml_is_named() {
        let error = declared("[workspace\n", Path::new("/p/pixi.toml")).unwrap_err();
        assert!(error.message.contains("`/p/pixi.toml` is not valid TOML"), "{error}");
        // Odd values are nobody's packages, and no error here: pixi says what it thinks of them.
        assert!(
            read(MANIFEST, "dependencies = 3\nworkspace = []\n").unwrap().dependencies.is_empty()
        );
    }
}
