//! Other places that packages come from, as a notebook names them.
//!
//! For: script blocks and metadata with an index of their own.
//! Promises: pure; each place is an identity that trust must allow, and part of the key; what is no URL or path is refused.

use runtimed_plugin_api::{PackageIdentity, PluginError, Result};
use serde_json::{Map, Value};

/// Ecosystem of places that any package may come from.
const ECOSYSTEM: &str = "pypi-index";
/// Options of uv that name such places, as `[tool.uv]` has them, which are those of its command line too.
const OPTIONS: [&str; 3] = ["index-url", "extra-index-url", "find-links"];
/// uv's other way to name indexes: tables with a `url`, and `default` for the one in place of the usual index.
const INDEX: &str = "index";

/// Places, each with the option that tells uv of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins(Vec<(&'static str, String)>);

impl Origins {
    /// Those that `options` name.
    ///
    /// # Errors
    /// `Invalid` for an option that is not as uv has it: the packages would come from elsewhere.
    pub(crate) fn of(options: &Map<String, Value>) -> Result<Self> {
        let mut origins = Vec::new();
        for option in OPTIONS {
            for place in texts(option, options.get(option))? {
                origins.push((option, place));
            }
        }
        let indexes = options.get(INDEX).map(|indexes| indexes.as_array().ok_or_else(|| invalid(INDEX)));
        for index in indexes.transpose()?.into_iter().flatten() {
            let url = index.get("url").and_then(Value::as_str).ok_or_else(|| invalid(INDEX))?;
            let is_default = index.get("default").and_then(Value::as_bool).unwrap_or_default();
            origins.push((if is_default { "default-index" } else { INDEX }, checked(INDEX, url)?));
        }
        Ok(Self(origins))
    }

    /// Options of uv's command line.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(option, place)| format!("--{option}={place}"))
    }

    /// What trust must allow.
    pub(crate) fn identities(&self) -> impl Iterator<Item = PackageIdentity> {
        let identity =
            |place: &String| PackageIdentity { ecosystem: ECOSYSTEM.to_owned(), name: place.clone() };
        self.0.iter().map(move |(_, place)| identity(place))
    }

    /// For a key; empty without places.
    pub(crate) fn key(&self) -> String {
        self.arguments().map(|argument| format!("\n{argument}")).collect()
    }
}

/// One text or a list of them.
fn texts(option: &'static str, value: Option<&Value>) -> Result<Vec<String>> {
    let text = |value: &Value| checked(option, value.as_str().ok_or_else(|| invalid(option))?);
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

fn checked(option: &str, place: &str) -> Result<String> {
    let place = place.trim();
    if place.is_empty() || place.contains(char::is_control) {
        Err(invalid(option))
    } else {
        Ok(place.to_owned())
    }
}

fn invalid(option: &str) -> PluginError {
    PluginError::invalid(format!(
        "the option `{option}` of uv in this notebook does not name where packages come from"
    ))
    .help("Correct it as uv documents it, or leave it out. Nothing was installed.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn origins(options: Value) -> Result<Origins> {
        Origins::of(options.as_object().unwrap())
    }

    #[test]
    fn every_place_is_an_option_and_an_identity() {
        let options = json!({
            "prerelease": "allow",
            "extra-index-url": ["https://a/simple"],
            "find-links": "./wheels",
            "index": [{"name": "corp", "url": "https://b/simple"}, {"url": "https://c", "default": true}],
        });
        let origins = origins(options).unwrap();
        let expected = [
            "--extra-index-url=https://a/simple",
            "--find-links=./wheels",
            "--index=https://b/simple",
            "--default-index=https://c",
        ];
        assert_eq!(origins.arguments().collect::<Vec<_>>(), expected);
        let identities: Vec<_> = origins.identities().map(|it| (it.ecosystem, it.name)).collect();
        assert_eq!(identities[2], ("pypi-index".to_owned(), "https://b/simple".to_owned()));
        assert_eq!(identities.len(), 4);
        assert!(!origins.key().is_empty() && Origins::default().key().is_empty());
    }

    #[test]
    fn what_names_no_place_is_refused() {
        for broken in [
            json!({"index-url": 1}),
            json!({"index": ["x"]}),
            json!({"index": {}}),
            json!({"find-links": " "}),
        ] {
            assert!(origins(broken.clone()).is_err(), "{broken}");
        }
        assert_eq!(origins(json!({"index-url": null, "index": []})).unwrap(), Origins::default());
    }
}
