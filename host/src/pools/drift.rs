//! How what a kernel runs in differs from what its notebook declares.
//!
//! For: the runtime document's `env`, and for saying what a sync would do.
//! Promises: pure; lists are compared as they are written, channels in their order.

use std::collections::{BTreeMap, BTreeSet};

use runtimed_plugin_api::{Drift, EnvRequest, Project, Running};
use serde_json::{Value, json};

use super::labels::{says, section, strings};
use super::projects::unnamed;
use super::script::Script;
use super::trust;

/// What the notebook declares now.
pub(super) struct Wanted<'a> {
    /// Its metadata.
    pub(super) metadata: &'a Value,
    /// Its script block, if it is one.
    pub(super) script: Option<&'a Script>,
    /// The project round it, with its kind.
    pub(super) project: Option<&'a (String, Project)>,
    /// The package sources of a declaration that names none.
    pub(super) default_channels: &'a [String],
}

/// The key in `launched_config` of the packages that were installed for the notebook.
pub(super) fn deps_key(kind: &str) -> String {
    format!("{kind}_deps")
}

/// The key in `launched_config` of the package sources.
pub(super) fn channels_key(kind: &str) -> String {
    format!("{kind}_channels")
}

/// The key in `launched_config` of what else was declared, which only a restart changes.
pub(super) fn fixed_key(kind: &str) -> String {
    format!("{kind}_fixed")
}

/// What `request` says beside packages and their sources: a Python, options. What says nothing is left out.
pub(super) fn fixed(request: &EnvRequest) -> Value {
    let options: BTreeMap<_, _> = request.options.iter().filter(|(_, value)| says(value)).collect();
    json!({ "python": request.python, "options": options })
}

/// The same of a project's file.
fn fixed_of(project: &Project) -> Value {
    let options = ["channels", "prerelease"].map(|name| project.extra.get(name));
    json!({ "python": project.requires_python, "options": options })
}

/// Whether what only a restart changes is something else now. A kernel of an older daemon did not note it.
fn is_fixed_otherwise(running: &Running, kind: &str, now: &Value) -> bool {
    running.launched_config.get(fixed_key(kind)).is_some_and(|launched| launched != now)
}

/// What `launched_config` says of a project, and of the notebook's packages that its provider keeps beside the file.
pub(super) fn project_config(project: &Project, beside: Vec<String>) -> Value {
    let mut packages = dependencies(project);
    packages.extend(beside);
    json!({
        path_key(project): project.file,
        deps_key(&project.kind): packages,
        fixed_key(&project.kind): fixed_of(project),
    })
}

/// What was installed for the notebook, of the packages of `kind`.
pub(super) fn installed(running: &Running, kind: &str) -> Vec<String> {
    config_list(&running.launched_config, &deps_key(kind))
}

/// The difference.
pub(super) fn drift(running: &Running, wanted: &Wanted<'_>) -> Drift {
    let (kind, how) = running.source.split_once(':').unwrap_or((&running.source, ""));
    let launched = |key: String| config_list(&running.launched_config, &key);
    let declared = section(wanted.metadata, kind);
    let packages = || declared.map(|section| strings(section, "dependencies")).unwrap_or_default();
    match how {
        "inline" | "prewarmed" => {
            let mut channels = declared.map(|section| strings(section, "channels")).unwrap_or_default();
            if channels.is_empty() {
                channels = wanted.default_channels.to_vec();
            }
            let request = declared.map(trust::request).unwrap_or_default();
            let channels_changed = how == "inline" && channels != launched(channels_key(kind))
                || is_fixed_otherwise(running, kind, &fixed(&request));
            Drift { channels_changed, ..between(&launched(deps_key(kind)), &packages()) }
        }
        "pep723" => {
            let is_otherwise =
                |script: &Script| is_fixed_otherwise(running, kind, &fixed(&script.beside(kind)));
            let channels_changed = wanted.script.is_some_and(is_otherwise);
            let packages = wanted.script.map(|script| script.dependencies.clone()).unwrap_or_default();
            Drift { channels_changed, ..between(&launched(deps_key(kind)), &packages) }
        }
        _ => match wanted.project.filter(|(of, _)| of == kind) {
            Some((_, project)) => {
                let mut packages = dependencies(project);
                packages.extend(unnamed(project, wanted.metadata, kind));
                let channels_changed = is_fixed_otherwise(running, &project.kind, &fixed_of(project));
                let changed = between(&launched(deps_key(&project.kind)), &packages);
                Drift { channels_changed, of_project: true, ..changed }
            }
            // Without its file nothing can be said about what it declares.
            None => Drift { of_project: true, ..Drift::default() },
        },
    }
}

fn between(launched: &[String], wanted: &[String]) -> Drift {
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (launched.iter().collect(), wanted.iter().collect());
    let only = |list: &[String], other: &BTreeSet<&String>| {
        list.iter().filter(|item| !other.contains(item)).cloned().collect()
    };
    Drift { added: only(wanted, &old), removed: only(launched, &new), ..Drift::default() }
}

fn dependencies(project: &Project) -> Vec<String> {
    let of_pip = ["pip", "pypi_dependencies"].iter().flat_map(|list| strings(&project.extra, list));
    project.dependencies.iter().chain(&project.dev_dependencies).cloned().chain(of_pip).collect()
}

/// nteract's name for the path of a project's file.
fn path_key(project: &Project) -> String {
    format!(
        "{}_path",
        project.kind.strip_suffix("_toml").filter(|kind| *kind == "pyproject").unwrap_or(&project.kind)
    )
}

fn config_list(config: &Value, key: &str) -> Vec<String> {
    let items = config.get(key).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtimed_plugin_api::ScriptBlock;

    fn running(source: &str, launched_config: Value) -> Running {
        Running { source: source.to_owned(), launched_config, ..Running::default() }
    }

    fn wanted(metadata: &Value) -> Wanted<'_> {
        Wanted { metadata, script: None, project: None, default_channels: &[] }
    }

    fn drift_of(source: &str, config: Value, wanted: &Wanted<'_>) -> (Vec<String>, Vec<String>) {
        let drift = drift(&running(source, config), wanted);
        assert!(!drift.channels_changed);
        (drift.added, drift.removed)
    }

    fn list(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn declared_packages_are_compared_with_the_installed_ones() {
        let metadata = json!({"runt": {"uv": {"dependencies": ["six", "attrs>=2"]}}});
        let config = json!({"uv_deps": ["attrs", "six"]});
        assert_eq!(
            drift_of("uv:inline", config, &wanted(&metadata)),
            (list(&["attrs>=2"]), list(&["attrs"]))
        );
        assert_eq!(drift_of("uv:prewarmed", json!({}), &wanted(&metadata)).0, ["six", "attrs>=2"]);
        assert_eq!(drift_of("conda:prewarmed", json!({}), &wanted(&metadata)), (list(&[]), list(&[])));
    }

    #[test]
    fn channels_count_in_their_order() {
        let metadata = json!({"runt": {"conda": {"dependencies": ["six"], "channels": ["a", "b"]}}});
        let changed = |channels: Value, default_channels: &[String], metadata: &Value| {
            let config = json!({"conda_deps": ["six"], "conda_channels": channels});
            let wanted = Wanted { default_channels, ..wanted(metadata) };
            drift(&running("conda:inline", config), &wanted).channels_changed
        };
        assert!(!changed(json!(["a", "b"]), &[], &metadata) && changed(json!(["b", "a"]), &[], &metadata));
        let bare = json!({"runt": {"conda": {"dependencies": ["six"]}}});
        assert!(!changed(json!(["forge"]), &list(&["forge"]), &bare));
    }

    #[test]
    fn another_python_or_another_index_is_seen_and_what_says_nothing_is_not() {
        let metadata = |more: Value| json!({"runt": {"uv": {"dependencies": ["six"], "more": more}}});
        let launched = |section: &Value| {
            let fixed = fixed(&trust::request(section.as_object().unwrap()));
            json!({"uv_deps": ["six"], "uv_fixed": fixed})
        };
        let config = launched(&metadata(Value::Null)["runt"]["uv"]);
        for source in ["uv:inline", "uv:prewarmed"] {
            let changed = |metadata: &Value| {
                drift(&running(source, config.clone()), &wanted(metadata)).channels_changed
            };
            assert!(!changed(&metadata(json!([]))) && changed(&metadata(json!("https://host/simple"))));
            let mut python = metadata(Value::Null);
            python["runt"]["uv"]["requires-python"] = "3.12".into();
            assert!(changed(&python));
        }
        let of_before = running("uv:inline", json!({"uv_deps": ["six"]}));
        assert!(!drift(&of_before, &wanted(&metadata(json!("x")))).channels_changed);

        let script = |text: &str| {
            let text = format!("dependencies = ['six']\n{text}");
            Script::read(&[ScriptBlock { cell: 1, text }]).unwrap().unwrap()
        };
        let (before, after, none) = (script(""), script("requires-python = '>=3.12'"), json!({}));
        let config = json!({"uv_deps": ["six"], "uv_fixed": fixed(&before.beside("uv"))});
        let changed = |script: &Script| {
            let wanted = Wanted { script: Some(script), ..wanted(&none) };
            drift(&running("uv:pep723", config.clone()), &wanted).channels_changed
        };
        assert!(changed(&after) && !changed(&before));
    }

    #[test]
    fn a_script_block_is_what_counts_where_it_was_chosen() {
        let script = Script::read(&[ScriptBlock { cell: 1, text: "dependencies = ['six']".to_owned() }]);
        let (script, metadata) = (script.unwrap().unwrap(), json!({}));
        let with = Wanted { script: Some(&script), ..wanted(&metadata) };
        assert_eq!(drift_of("uv:pep723", json!({"uv_deps": []}), &with), (list(&["six"]), list(&[])));
        let without = drift_of("uv:pep723", json!({"uv_deps": ["six"]}), &wanted(&metadata));
        assert_eq!(without, (list(&[]), list(&["six"])));
    }

    #[test]
    fn a_projects_file_is_compared_with_what_it_was_and_with_what_the_notebook_adds() {
        let project = |packages: &[&str]| {
            let kind = "pyproject_toml";
            let project = json!({"kind": kind, "file": "/p/pyproject.toml", "dependencies": packages});
            ("uv".to_owned(), serde_json::from_value::<Project>(project).unwrap())
        };
        let config = project_config(&project(&["six"]).1, Vec::new());
        assert_eq!(config["pyproject_path"], "/p/pyproject.toml");
        let metadata = json!({"runt": {"uv": {"dependencies": ["Six>=1", "attrs"]}}});
        let (before, after) = (project(&["six"]), project(&["numpy"]));
        let with = |project| Wanted { project: Some(project), ..wanted(&metadata) };
        assert_eq!(drift_of("uv:pyproject", config.clone(), &with(&before)), (list(&["attrs"]), list(&[])));
        let changed = drift_of("uv:pyproject", config.clone(), &with(&after));
        assert_eq!(changed, (list(&["numpy", "Six>=1", "attrs"]), list(&["six"])));
        assert_eq!(drift_of("uv:pyproject", config.clone(), &wanted(&metadata)), (list(&[]), list(&[])));
        let mut python = before.clone();
        python.1.requires_python = Some(">=3.12".to_owned());
        assert!(drift(&running("uv:pyproject", config), &with(&python)).channels_changed);
    }
}
