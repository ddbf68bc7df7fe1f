//! Files that people and plugins write.

use std::path::Path;

use runtimed_plugin_api::manifest::Manifest;
use runtimed_plugin_api::trusted_packages::TrustedPackages;
use runtimed_protocol::settings::{complete, edits, names, parse};
use serde_json::{Map, Value};

/// A plugin's description of itself.
pub(crate) fn manifest(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = Manifest::parse(text, Path::new("plugin.toml"));
    }
}

pub(crate) fn manifest_seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../plugins/uv/plugin.toml").to_vec(),
        include_bytes!("../../plugin-template/plugin.toml").to_vec(),
        include_bytes!("../../plugins/jupyter/plugin.toml").to_vec(),
    ]
}

/// The settings file, one value from the command line, and the approved packages.
pub(crate) fn settings(bytes: &[u8]) {
    if let Ok(raw) = serde_json::from_slice::<Map<String, Value>>(bytes) {
        let whole = complete(&raw);
        assert_eq!(complete(&whole), whole, "what is complete is completed");
        let _ = edits(&raw, &whole);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        for name in names() {
            let _ = parse(name, text);
        }
    }
    let _ = serde_json::from_slice::<TrustedPackages>(bytes);
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let whole = complete(&Map::new());
    vec![
        serde_json::to_vec(&whole).unwrap_or_default(),
        br#"{"uv":{"default_packages":["numpy>=1","x @ file:///y"]},"uv_pool_size":3,"theme":"dark","mine":[1]}"#.to_vec(),
        br#"["numpy", "pandas[all]~=2.0; python_version>'3'"]"#.to_vec(),
        br#"{"packages":[{"ecosystem":"pypi","name":"numpy","approved_at":"2026-01-01T00:00:00Z","source":"x"}]}"#.to_vec(),
    ]
}
