//! What a notebook says about the Deno it wants to run in.
//!
//! For: the launch of its kernel, and for showing that it says something else since.
//! Promises: pure; saying what holds anyway is the same as saying nothing.
//! Never: knows what Deno makes of it; its backend does.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::choice::DENO;

/// The section `runt.deno`, in the shape of the wire's `deno_config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DenoConfig {
    /// What code may do, such as `--allow-net`; everything if empty.
    #[serde(default)]
    permissions: Vec<String>,
    /// Path of an import map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    import_map: Option<String>,
    /// Path of a `deno.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<String>,
    /// Whether npm packages may be imported by their bare names.
    #[serde(default = "yes")]
    flexible_npm_imports: bool,
}

impl Default for DenoConfig {
    fn default() -> Self {
        Self { permissions: Vec::new(), import_map: None, config: None, flexible_npm_imports: yes() }
    }
}

impl DenoConfig {
    /// What `metadata` says. Values of another shape say nothing, but for permissions.
    pub(crate) fn of(metadata: &Map<String, Json>) -> Self {
        let Some(section) = metadata.get("runt").and_then(|runt| runt.get(DENO)) else {
            return Self::default();
        };
        let text = |key: &str| {
            let text = section.get(key).and_then(Json::as_str).map(str::trim);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        // What is no text is passed on as it is written: its backend refuses it, rather than allowing everything.
        let written = |one: &Json| one.as_str().map_or_else(|| one.to_string(), str::to_owned);
        let permissions = match section.get("permissions") {
            None | Some(Json::Null) => Vec::new(),
            Some(Json::Array(list)) => list.iter().map(written).collect(),
            Some(one) => vec![written(one)],
        };
        Self {
            permissions,
            import_map: text("import_map"),
            config: text("config"),
            flexible_npm_imports: section
                .get("flexible_npm_imports")
                .and_then(Json::as_bool)
                .unwrap_or_else(yes),
        }
    }

    /// Whether it says nothing.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// As a kernel's backend gets it; nothing if it says nothing.
    pub(crate) fn options(&self) -> Map<String, Json> {
        match json!(self) {
            Json::Object(options) if !self.is_default() => options,
            _ => Map::new(),
        }
    }

    /// As clients see it of a kernel that was launched.
    pub(crate) fn launched(&self) -> Json {
        json!({ "deno_config": self })
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(section: Json) -> DenoConfig {
        DenoConfig::of(json!({ "runt": { "deno": section } }).as_object().unwrap())
    }

    #[test]
    fn what_holds_anyway_is_no_difference() {
        let nothing =
            json!({"permissions": [], "import_map": " ", "config": null, "flexible_npm_imports": true});
        for section in [json!({}), json!(3), nothing, json!({"permissions": null, "other": 1})] {
            assert_eq!(of(section), DenoConfig::default());
        }
        assert!(DenoConfig::default().options().is_empty());
        let launched = json!({"deno_config": {"permissions": [], "flexible_npm_imports": true}});
        assert_eq!(DenoConfig::default().launched(), launched);
    }

    #[test]
    fn what_is_said_is_passed_on() {
        let said = json!({"permissions": ["--allow-net", 3], "import_map": "map.json", "flexible_npm_imports": false});
        let config = of(said);
        let options = json!({
            "permissions": ["--allow-net", "3"], "import_map": "map.json", "flexible_npm_imports": false,
        });
        assert_eq!(Json::Object(config.options()), options);
        assert_eq!(serde_json::from_value::<DenoConfig>(options).unwrap(), config);
    }

    #[test]
    fn permissions_in_another_shape_do_not_allow_everything() {
        for (said, passed_on) in
            [(json!("--allow-net"), "--allow-net"), (json!({"net": false}), r#"{"net":false}"#)]
        {
            assert_eq!(of(json!({ "permissions": said })).options()["permissions"], json!([passed_on]));
        }
    }
}
