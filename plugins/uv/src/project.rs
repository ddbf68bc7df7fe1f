//! Projects: a folder whose `pyproject.toml` says what to run in.
//!
//! Promises: pure. A file with `[tool.pixi]` is pixi's; one without `[project]` declares nothing.

use std::path::Path;

use runtimed_plugin_api::{PluginError, Project, Result};
use serde_json::{Map, json};
use toml::{Table, Value};

/// The file that marks a project.
pub(crate) const MARKER: &str = "pyproject.toml";

/// What the text of the project file at `file` declares.
///
/// # Errors
/// `Invalid` if the text is not TOML.
pub(crate) fn declared(text: &str, file: &Path) -> Result<Option<Project>> {
    let document: Table = text.parse().map_err(|error| {
        PluginError::invalid(format!("`{}` is not valid TOML: {error}", file.display()))
            .help("Correct the file; the notebook is unchanged.")
    })?;
    let at = |path: &[&str]| {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(document.get(*first)?, |value, key| value.get(key))
    };
    let list = |path: &[&str]| -> Vec<String> {
        let items = at(path).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    if at(&["project"]).is_none() || at(&["tool", "pixi"]).is_some() {
        return Ok(None);
    }
    let mut dev_dependencies = list(&["dependency-groups", "dev"]);
    dev_dependencies.extend(list(&["tool", "uv", "dev-dependencies"]));
    let prerelease = at(&["tool", "uv", "prerelease"]).and_then(Value::as_str);
    Ok(Some(Project {
        kind: "pyproject_toml".to_owned(),
        file: file.to_owned(),
        dependencies: list(&["project", "dependencies"]),
        dev_dependencies,
        requires_python: at(&["project", "requires-python"]).and_then(Value::as_str).map(str::to_owned),
        extra: Map::from_iter(prerelease.map(|mode| ("prerelease".to_owned(), json!(mode)))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Project>> {
        declared(text, Path::new("/p/pyproject.toml"))
    }

    #[test]
    fn a_project_is_read() {
        let text = r#"
            [project]
            name = "lab"
            requires-python = ">=3.11"
            dependencies = ["numpy>=2", "six"]
            [dependency-groups]
            dev = ["pytest", { include-group = "lint" }]
            [tool.uv]
            dev-dependencies = ["ruff"]
            prerelease = "allow"
        "#;
        let project = read(text).unwrap().unwrap();
        assert_eq!(project.kind, "pyproject_toml");
        assert_eq!(project.dependencies, ["numpy>=2", "six"]);
        assert_eq!(project.dev_dependencies, ["pytest", "ruff"]);
        assert_eq!(project.requires_python.as_deref(), Some(">=3.11"));
        assert_eq!(project.extra["prerelease"], "allow");
    }

    #[test]
    fn other_files_are_not_ours() {
        assert_eq!(read("[tool.ruff]\n").unwrap(), None);
        assert_eq!(read("[project]\nname='a'\n[tool.pixi.workspace]\n").unwrap(), None);
        assert!(read("[project\n").unwrap_err().message.contains("/p/pyproject.toml"));
    }
}
