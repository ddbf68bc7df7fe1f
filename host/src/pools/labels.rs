//! Which environment a notebook gets.
//!
//! For: `environments.rs`.
//! Promises: pure; an exact label is followed or refused, never replaced by something else.
//! Never: a fixed list of kinds, beyond the order in which nteract looks at its own three.

use runtimed_plugin_api::{PluginError, Result};
use serde_json::{Map, Value};

/// nteract's order for declared dependencies; other kinds follow in alphabetical order.
const INLINE_ORDER: &[&str] = &["uv", "pixi", "conda"];
/// nteract's order for sections that declare nothing.
const SECTION_ORDER: &[&str] = &["pixi", "conda", "uv"];

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// One from the pool of this kind.
    Pooled(String),
    /// One built for what the notebook declares for this kind.
    Inline(String),
}

impl Choice {
    /// The label as clients see it.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Pooled(kind) => format!("{kind}:prewarmed"),
            Self::Inline(kind) => format!("{kind}:inline"),
        }
    }

    /// The provider kind.
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Pooled(kind) | Self::Inline(kind) => kind,
        }
    }
}

/// Decides for `source`, the label a launch asked for. `kinds` have a provider; `default_kind` is the
/// user's setting.
///
/// # Errors
/// `Unavailable` when the kind has no provider, `Unsupported` for a label nobody here can make.
pub(super) fn choose(source: &str, metadata: &Value, kinds: &[String], default_kind: &str) -> Result<Choice> {
    let has = |kind: &str| kinds.iter().any(|known| known == kind);
    let choice = match source.split_once(':') {
        None if matches!(source, "" | "auto" | "prewarmed") => automatic(metadata, kinds, default_kind),
        Some(("auto", family)) if declares(metadata, family) => Choice::Inline(family.to_owned()),
        Some(("auto", family)) => Choice::Pooled(family.to_owned()),
        Some((kind, "prewarmed")) => Choice::Pooled(kind.to_owned()),
        Some((kind, "inline")) => Choice::Inline(kind.to_owned()),
        _ => {
            return Err(PluginError::unsupported(format!(
                "This daemon cannot make an environment of the kind `{source}` yet."
            ))
            .help("Choose `auto`, or declare the packages in the notebook."));
        }
    };
    if has(choice.kind()) {
        return Ok(choice);
    }
    let kind = choice.kind();
    Err(PluginError::unavailable(format!(
        "No plugin provides `{kind}` environments, which this notebook needs."
    ))
    .help(format!("Install or repair the `{kind}` plugin: `runt plugins list` shows what is there.")))
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

fn automatic(metadata: &Value, kinds: &[String], default_kind: &str) -> Choice {
    let others = kinds.iter().map(String::as_str).filter(|kind| !INLINE_ORDER.contains(kind));
    let declared = INLINE_ORDER.iter().copied().chain(others).find(|kind| declares(metadata, kind));
    if let Some(kind) = declared {
        return Choice::Inline(kind.to_owned());
    }
    let others = kinds.iter().map(String::as_str).filter(|kind| !SECTION_ORDER.contains(kind));
    let named = SECTION_ORDER
        .iter()
        .copied()
        .chain(others)
        .find(|kind| section(metadata, kind).is_some() && kinds.iter().any(|known| known == kind));
    let default_kind = default_kind.to_lowercase();
    let known_default = ["conda", "pixi"].contains(&default_kind.as_str()) || kinds.contains(&default_kind);
    let fallback = if known_default { default_kind.as_str() } else { "uv" };
    Choice::Pooled(named.unwrap_or(fallback).to_owned())
}

fn declares(metadata: &Value, kind: &str) -> bool {
    section(metadata, kind).is_some_and(|section| !strings(section, "dependencies").is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtimed_plugin_api::ErrorCode;
    use serde_json::json;

    fn kinds() -> Vec<String> {
        ["uv", "conda", "venv"].map(str::to_owned).to_vec()
    }

    fn label(source: &str, metadata: Value) -> String {
        choose(source, &metadata, &kinds(), "uv").unwrap().label()
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
        let kind = |default: &str| choose("", &json!({}), &kinds(), default).unwrap().label();
        assert_eq!(kind("Conda"), "conda:prewarmed");
        assert_eq!(kind("venv"), "venv:prewarmed");
        assert_eq!(kind("poetry"), "uv:prewarmed");
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = choose("pixi:prewarmed", &json!({}), &kinds(), "uv").unwrap_err();
        assert_eq!(missing.code, ErrorCode::Unavailable);
        assert!(missing.message.contains("`pixi`"));
        let unknown = choose("uv:pyproject", &json!({}), &kinds(), "uv").unwrap_err();
        assert_eq!(unknown.code, ErrorCode::Unsupported);
        assert!(unknown.message.contains("`uv:pyproject`"));
        let declared = json!({"runt": {"pixi": {"dependencies": ["six"]}}});
        assert!(choose("auto", &declared, &kinds(), "uv").is_err());
    }
}
