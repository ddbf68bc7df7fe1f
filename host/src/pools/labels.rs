//! Which environment a notebook gets.
//!
//! For: `environments.rs`, which finds out what is there to choose from.
//! Promises: pure; an exact label is followed or refused, never replaced by something else.
//! Never: a fixed list of kinds, beyond the order in which nteract looks at its own three.

use runtimed_plugin_api::{PluginError, Project, Result};
use serde_json::{Map, Value};

use super::script::Script;
use super::trust;

/// nteract's order for declared dependencies; other kinds follow in alphabetical order.
const INLINE_ORDER: &[&str] = &["uv", "pixi", "conda"];
/// nteract's order for sections that declare nothing.
const SECTION_ORDER: &[&str] = &["pixi", "conda", "uv"];
/// nteract's names of its project files, where they are not simply the file's: wire name -> second half of the label.
const PROJECT_LABELS: &[(&str, &str)] =
    &[("pyproject_toml", "pyproject"), ("pixi_toml", "toml"), ("environment_yml", "env_yml")];
/// What installs the packages of a script block where nothing else is asked for, and the one kind of nteract's whose
/// users get theirs.
const SCRIPT_KINDS: (&str, &str) = ("uv", "pixi");
/// Its packages are not those that script blocks name.
const NO_SCRIPTS: &str = "conda";

/// What a launch asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// Whatever is right.
    Automatic,
    /// Whatever is right of this kind.
    Family(String),
    /// This and nothing else: a kind, and how.
    Exact(String, String),
}

/// A decision.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Choice {
    /// One from the pool of this kind, or the one that the notebook had before.
    Pooled(String),
    /// One built for what the notebook declares for this kind.
    Inline(String),
    /// One of this kind, built for the notebook's script block.
    Script(String, Box<Script>),
    /// The environment of a project, kept by this kind.
    Project(String, Box<Project>),
}

/// What there is to choose from.
pub(super) struct Facts<'a> {
    /// The notebook's metadata.
    pub(super) metadata: &'a Value,
    /// The kinds that have a provider.
    pub(super) kinds: &'a [String],
    /// The user's setting.
    pub(super) default_kind: &'a str,
    /// The project round the notebook that may be chosen, with its kind.
    pub(super) project: Option<(String, Project)>,
    /// The kind of the environment that the notebook had before, if it is there and may be chosen.
    pub(super) captured: Option<String>,
    /// The notebook's script block, or what is wrong with it.
    pub(super) script: Result<Option<Script>>,
}

impl Wish {
    /// What `source`, the label of a launch, asks for.
    ///
    /// # Errors
    /// `Unsupported` if it is no label.
    pub(super) fn of(source: &str) -> Result<Self> {
        match source.split_once(':') {
            None if matches!(source, "" | "auto" | "prewarmed") => Ok(Self::Automatic),
            Some(("auto", family)) => Ok(Self::Family(family.to_owned())),
            Some((kind, how)) => Ok(Self::Exact(kind.to_owned(), how.to_owned())),
            None => Err(unknown(source)),
        }
    }

    /// Whether a project of `kind` may be what is asked for.
    pub(super) fn takes_project_of(&self, kind: &str) -> bool {
        match self {
            Self::Automatic => true,
            Self::Family(family) => family == kind,
            Self::Exact(exact, how) => {
                exact == kind && !matches!(how.as_str(), "prewarmed" | "inline" | "pep723")
            }
        }
    }

    /// Whether the environment that the notebook had before may be what is asked for, if it is of `kind`.
    pub(super) fn takes_captured_of(&self, kind: &str) -> bool {
        match self {
            Self::Automatic => true,
            Self::Family(family) => family == kind,
            Self::Exact(exact, how) => exact == kind && how == "prewarmed",
        }
    }
}

impl Choice {
    /// The label as clients see it.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Pooled(kind) => format!("{kind}:prewarmed"),
            Self::Inline(kind) => format!("{kind}:inline"),
            Self::Script(kind, _) => format!("{kind}:pep723"),
            Self::Project(kind, project) => format!("{kind}:{}", project_label(project)),
        }
    }

    /// The provider kind.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Pooled(kind) | Self::Inline(kind) | Self::Script(kind, _) | Self::Project(kind, _) => kind,
        }
    }
}

/// Decides.
///
/// # Errors
/// `Unavailable` when the kind has no provider, `NotFound` when what was asked for is not there, `Unsupported` for a
/// label nobody here can make, `Invalid` when the script block would be it and is none.
pub(super) fn choose(wish: &Wish, facts: Facts<'_>) -> Result<Choice> {
    let kinds = facts.kinds;
    let choice = match wish {
        Wish::Automatic => automatic(None, facts)?,
        Wish::Family(family) => automatic(Some(family.clone()), facts)?,
        Wish::Exact(kind, how) => exact(kind, how, facts)?,
    };
    let kind = choice.kind();
    if kinds.iter().any(|known| known == kind) {
        return Ok(choice);
    }
    Err(no_provider(kind))
}

/// What the notebook declares for `kind`: the section `runt.<kind>`, or the legacy one beside it.
pub(super) fn section<'a>(metadata: &'a Value, kind: &str) -> Option<&'a Map<String, Value>> {
    let current = metadata.get("runt").and_then(|runt| runt.get(kind)).and_then(Value::as_object);
    current.or_else(|| metadata.get(kind).and_then(Value::as_object))
}

/// The strings in the list `name` of a section.
pub(super) fn strings(section: &Map<String, Value>, name: &str) -> Vec<String> {
    let items = section.get(name).and_then(Value::as_array).into_iter().flatten();
    items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Whether a value says anything: editors write keys without one.
pub(super) fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// The kind that installs what a script block names, if nobody asks for another. `default_kind` is the user's setting.
pub(super) fn script_kind(default_kind: &str) -> &'static str {
    let (usual, of_its_users) = SCRIPT_KINDS;
    if default_kind.eq_ignore_ascii_case(of_its_users) { of_its_users } else { usual }
}

/// The kinds in the order in which their projects count where a folder has several.
pub(super) fn in_project_order(kinds: &[String]) -> Vec<&str> {
    let others = kinds.iter().map(String::as_str).filter(|kind| !INLINE_ORDER.contains(kind));
    let first = INLINE_ORDER.iter().copied().filter(|kind| kinds.iter().any(|known| known == kind));
    first.chain(others).collect()
}

fn exact(kind: &str, how: &str, facts: Facts<'_>) -> Result<Choice> {
    let label = format!("{kind}:{how}");
    match how {
        "prewarmed" => Ok(Choice::Pooled(kind.to_owned())),
        "inline" => Ok(Choice::Inline(kind.to_owned())),
        "pep723" if kind == NO_SCRIPTS => Err(unknown(&label)),
        "pep723" => match facts.script?.filter(|script| !script.dependencies.is_empty()) {
            Some(script) => Ok(Choice::Script(kind.to_owned(), Box::new(script))),
            None => Err(PluginError::not_found(format!(
                "No PEP 723 dependencies found in notebook cells for requested env_source \"{label}\""
            ))
            .help("Add a `# /// script` block with `dependencies` to a code cell, or choose `auto`.")),
        },
        _ if !facts.kinds.iter().any(|known| known == kind) => Err(no_provider(kind)),
        _ => match facts.project {
            Some((kind, project)) if project_label(&project) == how => {
                Ok(Choice::Project(kind, Box::new(project)))
            }
            _ if PROJECT_LABELS.iter().any(|(_, known)| *known == how) => Err(PluginError::not_found(
                format!("{label} requested but no such project was found"),
            )
            .help(
                "Put the project's file into the folder of the notebook or one above it, or choose `auto`.",
            )),
            _ => Err(unknown(&label)),
        },
    }
}

fn automatic(family: Option<String>, facts: Facts<'_>) -> Result<Choice> {
    let Facts { metadata, kinds, default_kind, project, captured, script } = facts;
    if let Some((kind, project)) = project {
        return Ok(Choice::Project(kind, Box::new(project)));
    }
    if let Some(kind) = captured {
        return Ok(Choice::Pooled(kind));
    }
    let of_family = |kind: &&str| family.as_deref().is_none_or(|family| family == *kind);
    let others = kinds.iter().map(String::as_str).filter(|kind| !INLINE_ORDER.contains(kind));
    let mut inline = INLINE_ORDER.iter().copied().chain(others).chain(family.as_deref()).filter(of_family);
    if let Some(kind) = inline.find(|kind| declares(metadata, kind)) {
        return Ok(Choice::Inline(kind.to_owned()));
    }
    let default_kind = default_kind.to_lowercase();
    if family.as_deref() != Some(NO_SCRIPTS)
        && let Some(script) = script?.filter(|script| !script.dependencies.is_empty())
    {
        let kind = family.as_deref().unwrap_or(script_kind(&default_kind));
        return Ok(Choice::Script(kind.to_owned(), Box::new(script)));
    }
    if let Some(family) = family {
        return Ok(Choice::Pooled(family));
    }
    let others = kinds.iter().map(String::as_str).filter(|kind| !SECTION_ORDER.contains(kind));
    let named = SECTION_ORDER
        .iter()
        .copied()
        .chain(others)
        .find(|kind| section(metadata, kind).is_some() && kinds.iter().any(|known| known == kind));
    let known_default = ["conda", "pixi"].contains(&default_kind.as_str()) || kinds.contains(&default_kind);
    let fallback = if known_default { default_kind.as_str() } else { "uv" };
    Ok(Choice::Pooled(named.unwrap_or(fallback).to_owned()))
}

/// Whether the notebook declares packages for `kind`.
pub(super) fn declares(metadata: &Value, kind: &str) -> bool {
    section(metadata, kind).is_some_and(trust::has_packages)
}

/// The second half of a project's label.
fn project_label(project: &Project) -> &str {
    let known = PROJECT_LABELS.iter().find(|(kind, _)| *kind == project.kind);
    known.map_or(&project.kind, |(_, label)| label)
}

fn no_provider(kind: &str) -> PluginError {
    PluginError::unavailable(format!("No plugin provides `{kind}` environments, which this notebook needs."))
        .help(format!("Install or repair the `{kind}` plugin: `runt plugins list` shows what is there."))
}

fn unknown(source: &str) -> PluginError {
    PluginError::unsupported(format!("This daemon cannot make an environment of the kind `{source}`."))
        .help("Choose `auto`, or declare the packages in the notebook.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtimed_plugin_api::{ErrorCode, ScriptBlock};
    use serde_json::json;

    fn kinds() -> Vec<String> {
        ["uv", "conda", "venv"].map(str::to_owned).to_vec()
    }

    /// Everything there is to choose from, unless taken away.
    fn facts<'a>(metadata: &'a Value, kinds: &'a [String]) -> Facts<'a> {
        Facts { metadata, kinds, default_kind: "uv", project: None, captured: None, script: Ok(None) }
    }

    fn decide(source: &str, facts: Facts<'_>) -> Result<String> {
        choose(&Wish::of(source)?, facts).map(|choice| choice.label())
    }

    fn label(source: &str, metadata: Value) -> String {
        decide(source, facts(&metadata, &kinds())).unwrap()
    }

    fn project(kind: &str) -> Project {
        serde_json::from_value(json!({"kind": kind, "file": "/p/file"})).unwrap()
    }

    fn script() -> Result<Option<Script>> {
        Script::read(&[ScriptBlock { cell: 1, text: "dependencies = ['six']".to_owned() }])
    }

    #[test]
    fn the_first_of_what_is_there_wins() {
        let metadata = json!({"runt": {"uv": {"dependencies": ["six"]}}});
        let kinds = kinds();
        let all = |metadata| Facts {
            project: Some(("uv".to_owned(), project("pyproject_toml"))),
            captured: Some("uv".to_owned()),
            script: script(),
            ..facts(metadata, &kinds)
        };
        assert_eq!(decide("", all(&metadata)).unwrap(), "uv:pyproject");
        let no_project = |metadata| Facts { project: None, ..all(metadata) };
        assert_eq!(decide("auto", no_project(&metadata)).unwrap(), "uv:prewarmed");
        let nothing_kept = |metadata| Facts { captured: None, ..no_project(metadata) };
        assert_eq!(decide("auto", nothing_kept(&metadata)).unwrap(), "uv:inline");
        let bare = json!({});
        assert_eq!(decide("auto", nothing_kept(&bare)).unwrap(), "uv:pep723");
        assert_eq!(decide("auto:uv", nothing_kept(&bare)).unwrap(), "uv:pep723");
        assert_eq!(decide("auto:venv", nothing_kept(&bare)).unwrap(), "venv:pep723");
        assert_eq!(decide("auto:conda", nothing_kept(&bare)).unwrap(), "conda:prewarmed");
        assert_eq!(decide("uv:pep723", all(&metadata)).unwrap(), "uv:pep723");
        assert_eq!(decide("uv:prewarmed", all(&metadata)).unwrap(), "uv:prewarmed");
        let kinds = ["pixi".to_owned()];
        let pixi = Facts { default_kind: "pixi", kinds: &kinds, ..nothing_kept(&bare) };
        assert_eq!(decide("auto", pixi).unwrap(), "pixi:pep723");
    }

    #[test]
    fn a_block_that_is_none_only_counts_where_it_would_be_chosen() {
        let (kinds, bare) = (kinds(), json!({}));
        let broken = || Script::read(&[ScriptBlock { cell: 1, text: "dependencies = [".to_owned() }]);
        let with = |metadata| Facts { script: broken(), ..facts(metadata, &kinds) };
        assert_eq!(decide("", with(&bare)).unwrap_err().code, ErrorCode::Invalid);
        let declared = json!({"runt": {"uv": {"dependencies": ["six"]}}});
        assert_eq!(decide("", with(&declared)).unwrap(), "uv:inline");
        let nothing = Script::read(&[ScriptBlock { cell: 1, text: String::new() }]);
        assert_eq!(decide("", Facts { script: nothing, ..facts(&bare, &kinds) }).unwrap(), "uv:prewarmed");
        let missing = decide("uv:pep723", facts(&bare, &kinds)).unwrap_err();
        assert!(missing.message.contains("requested env_source \"uv:pep723\""), "{missing}");
    }

    #[test]
    fn projects_have_nteracts_labels_and_others_their_own() {
        let (kinds, bare) = (kinds(), json!({}));
        let with = |kind: &str, file: &str| Facts {
            project: Some((kind.to_owned(), project(file))),
            ..facts(&bare, &kinds)
        };
        assert_eq!(decide("", with("conda", "environment_yml")).unwrap(), "conda:env_yml");
        assert_eq!(decide("conda:env_yml", with("conda", "environment_yml")).unwrap(), "conda:env_yml");
        assert_eq!(decide("venv:setup_py", with("venv", "setup_py")).unwrap(), "venv:setup_py");
        let missing = decide("uv:pyproject", facts(&bare, &kinds)).unwrap_err();
        assert_eq!(missing.code, ErrorCode::NotFound);
        let unknown = decide("uv:nonsense", with("uv", "pyproject_toml")).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::Unsupported);
        assert!(decide("conda:pep723", Facts { script: script(), ..facts(&bare, &kinds) }).is_err());
    }

    #[test]
    fn declared_dependencies_beat_the_pool() {
        assert_eq!(label("", json!({})), "uv:prewarmed");
        assert_eq!(label("auto", json!({"runt": {"uv": {"dependencies": ["six"]}}})), "uv:inline");
        assert_eq!(label("auto", json!({"runt": {"uv": {"dependencies": []}}})), "uv:prewarmed");
        assert_eq!(label("auto", json!({"runt": {"conda": {"dependencies": []}}})), "conda:prewarmed");
        assert_eq!(label("prewarmed", json!({"conda": {"dependencies": ["six"]}})), "conda:inline");
        assert_eq!(label("auto", json!({"runt": {"venv": {"dependencies": ["six"]}}})), "venv:inline");
    }

    #[test]
    fn a_family_and_an_exact_label_are_followed() {
        let declared = json!({"runt": {"uv": {"dependencies": ["six"]}}});
        assert_eq!(label("auto:conda", declared.clone()), "conda:prewarmed");
        assert_eq!(label("auto:uv", declared.clone()), "uv:inline");
        assert_eq!(label("uv:prewarmed", declared), "uv:prewarmed");
        assert_eq!(label("venv:prewarmed", json!({})), "venv:prewarmed");
    }

    #[test]
    fn the_users_default_counts_when_the_notebook_says_nothing() {
        let (kinds, bare) = (kinds(), json!({}));
        let kind = |default_kind| decide("", Facts { default_kind, ..facts(&bare, &kinds) }).unwrap();
        assert_eq!(kind("Conda"), "conda:prewarmed");
        assert_eq!(kind("venv"), "venv:prewarmed");
        assert_eq!(kind("poetry"), "uv:prewarmed");
    }

    #[test]
    fn what_is_missing_is_named() {
        let (kinds, bare) = (kinds(), json!({}));
        let missing = decide("pixi:prewarmed", facts(&bare, &kinds)).unwrap_err();
        assert_eq!(missing.code, ErrorCode::Unavailable);
        assert!(missing.message.contains("`pixi`"));
        let declared = json!({"runt": {"pixi": {"dependencies": ["six"]}}});
        assert!(decide("auto", facts(&declared, &kinds)).is_err());
        assert_eq!(decide("nonsense", facts(&bare, &kinds)).unwrap_err().code, ErrorCode::Unsupported);
    }
}
