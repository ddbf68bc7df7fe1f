//! What a pooled environment is made of: packages, and what the settings say to its provider.
//!
//! For: building pools, and telling whether an environment that is there is still wanted.
//! Promises: pure; the hash is the one other daemons of this protocol write into their markers.

use std::collections::{BTreeMap, BTreeSet};

use runtimed_plugin_api::{EnvProviderInfo, cache_key};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::labels::says;
use crate::settings;

/// The key in a provider's section of the settings that says which packages the user wants everywhere.
const DEFAULT_PACKAGES: &str = "default_packages";

/// What every environment of a pool is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recipe {
    /// The list that goes into it.
    pub(super) packages: Vec<String>,
    /// Names what the settings say to the provider beside packages, such as a Python; empty if nothing.
    pub(super) settings: String,
}

impl Recipe {
    /// That of the kind that says `info` of itself, with the settings `values`.
    pub(super) fn of(info: &EnvProviderInfo, values: &Map<String, Value>) -> Self {
        Self { packages: pool_packages(info, values), settings: provider_settings(&info.kind, values) }
    }

    /// Whether an environment of `packages` and `settings` is one of these, whatever the order.
    pub(super) fn makes(&self, packages: &[String], settings: &str) -> bool {
        let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
        settings == self.settings
            && packages.len() == self.packages.len()
            && set(packages) == set(&self.packages)
    }
}

/// A name for the section of the settings that is the provider's own, but for its packages. Which settings there are only
/// the provider knows: each may be one that makes another environment.
fn provider_settings(kind: &str, values: &Map<String, Value>) -> String {
    let section = values.get(kind).and_then(Value::as_object).into_iter().flatten();
    let said: BTreeMap<_, _> =
        section.filter(|(name, value)| *name != DEFAULT_PACKAGES && says(value)).collect();
    if said.is_empty() { String::new() } else { cache_key(&json!(said).to_string()) }
}

/// The list of a pool: what the provider needs, what the user wants everywhere, then the provider's data
/// and tail packages that are not named yet.
fn pool_packages(info: &EnvProviderInfo, values: &Map<String, Value>) -> Vec<String> {
    let mut packages = info.base_packages.clone();
    packages.extend(settings::default_packages(values, &info.kind));
    if settings::flag(values, "install_default_data_packages") {
        add_unnamed(&mut packages, &info.data_packages);
    }
    add_unnamed(&mut packages, &info.tail_packages);
    packages
}

/// Appends those of `more` that no package in `packages` names yet.
pub(super) fn add_unnamed(packages: &mut Vec<String>, more: &[String]) {
    for package in more {
        if !packages.iter().any(|named| bare_name(named) == bare_name(package)) {
            packages.push(package.clone());
        }
    }
}

/// The name in a requirement: no channel, no version, lower case, `-` for `_`.
pub(super) fn bare_name(requirement: &str) -> String {
    let name = requirement.rsplit("::").next().unwrap_or(requirement);
    let end = name.find(|c: char| "><=!~[;@".contains(c) || c.is_whitespace()).unwrap_or(name.len());
    name.get(..end).unwrap_or(name).to_lowercase().replace('_', "-")
}

/// Names a package list, whatever its order, on this platform.
pub(super) fn packages_hash(kind: &str, packages: &[String]) -> String {
    let mut sorted: Vec<&str> = packages.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for line in ["v1", kind, std::env::consts::OS, std::env::consts::ARCH].iter().chain(&sorted) {
        hash.update(line);
        hash.update("\n");
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> EnvProviderInfo {
        let list = |names: &str| names.split(' ').map(str::to_owned).collect();
        EnvProviderInfo {
            kind: "uv".into(),
            label: "UV".into(),
            markers: Vec::new(),
            base_packages: list("ipykernel ipywidgets anywidget uv"),
            data_packages: list("pandas polars matplotlib plotly altair"),
            tail_packages: list("nbformat pyarrow>=14"),
            default_channels: Vec::new(),
            script_packages: None,
        }
    }

    #[test]
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    fn the_hash_of_the_default_list_is_the_known_one() {
        let values = json!({"install_default_data_packages": true});
        let packages = pool_packages(&info(), values.as_object().unwrap());
        let known = "a80fce9f399f6e25023ce7cebc69c71b705e8ca79fcb6d71ad66166609e57036";
        assert_eq!(packages_hash("uv", &packages), known);
    }

    #[test]
    fn what_the_user_names_is_not_added_again() {
        let values = json!({"install_default_data_packages": true,
            "uv": {"default_packages": ["Pandas==2.1", "PyArrow", "conda-forge::my_pkg"]}});
        let packages = pool_packages(&info(), values.as_object().unwrap());
        let tail = [
            "uv",
            "Pandas==2.1",
            "PyArrow",
            "conda-forge::my_pkg",
            "polars",
            "matplotlib",
            "plotly",
            "altair",
            "nbformat",
        ];
        assert_eq!(packages[3..], tail);
        assert_eq!(bare_name("conda-forge::my_pkg [x]"), "my-pkg");
    }

    #[test]
    fn a_recipe_is_another_when_the_settings_say_something_else_to_the_provider() {
        let recipe = |section: Value| Recipe::of(&info(), json!({ "uv": section }).as_object().unwrap());
        let plain = recipe(json!({}));
        assert_eq!(
            plain,
            recipe(json!({"python": " ", "channels": [], "more": null, "default_packages": []}))
        );
        assert!(plain.settings.is_empty(), "as environments of before say");
        let python = recipe(json!({"python": "3.12", "more": true}));
        assert_eq!(python, recipe(json!({"more": true, "python": "3.12"})));
        let mut list = plain.packages.clone();
        list.reverse();
        assert!(plain.makes(&list, "") && !python.makes(&list, "") && !plain.makes(&list[1..], ""));
    }

    #[test]
    fn data_packages_can_be_switched_off() {
        let values = json!({"install_default_data_packages": false});
        let packages = pool_packages(&info(), values.as_object().unwrap());
        assert_eq!(packages, ["ipykernel", "ipywidgets", "anywidget", "uv", "nbformat", "pyarrow>=14"]);
    }
}
