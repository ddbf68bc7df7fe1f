//! Paths that a notebook declares, as seen from its folder.
//!
//! For: whatever makes a request of what a notebook declares.
//! Promises: pure; a path that begins with a dot becomes absolute before it is a name for trust or a key, since the same
//! words mean another thing in another folder. All else stays as written.

use std::path::{Path, PathBuf};

use runtimed_plugin_api::EnvRequest;
use serde_json::Value;

/// `request` with absolute paths, which began in `folder`; a notebook without one has none.
pub(super) fn absolute(mut request: EnvRequest, folder: Option<&Path>) -> EnvRequest {
    if let Some(folder) = folder {
        request.packages.iter_mut().chain(&mut request.channels).for_each(|text| locate(text, folder));
        request.options.values_mut().for_each(|value| locate_all(value, folder));
    }
    request
}

fn locate_all(value: &mut Value, folder: &Path) {
    match value {
        Value::String(text) => locate(text, folder),
        Value::Array(items) => items.iter_mut().for_each(|item| locate_all(item, folder)),
        Value::Object(map) => map.values_mut().for_each(|item| locate_all(item, folder)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn locate(text: &mut String, folder: &Path) {
    // `PATH`, or `NAME @ PATH`.
    let (name, path) = match text.split_once('@') {
        Some((name, path)) if !name.contains('/') => (Some(name.trim()), path.trim()),
        _ => (None, text.trim()),
    };
    if path.starts_with("./") || path.starts_with("../") {
        let path: PathBuf = folder.join(path).components().collect();
        *text = name.map_or_else(String::new, |name| format!("{name} @ ")) + &path.to_string_lossy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_begins_with_a_dot_is_in_the_notebooks_folder() {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let request = EnvRequest {
            packages: list(&[
                "six",
                "./wheels/a.whl[x] ; python_version > '3'",
                "a @ ../b",
                "a @ git+ssh://me@h/./r",
            ]),
            channels: list(&["./channel", "/far", "https://h/c", "conda-forge"]),
            options: json!({"find-links": "./w", "index": [{"url": "../i"}], "prerelease": "allow"})
                .as_object()
                .unwrap()
                .clone(),
            ..EnvRequest::default()
        };
        assert_eq!(absolute(request.clone(), None), request);
        let there = absolute(request, Some(Path::new("/lab/one")));
        let packages = [
            "six",
            "/lab/one/wheels/a.whl[x] ; python_version > '3'",
            "a @ /lab/one/../b",
            "a @ git+ssh://me@h/./r",
        ];
        assert_eq!(there.packages, packages);
        assert_eq!(there.channels, ["/lab/one/channel", "/far", "https://h/c", "conda-forge"]);
        assert_eq!(
            Value::from(there.options),
            json!({"find-links": "/lab/one/w", "index": [{"url": "/lab/one/../i"}], "prerelease": "allow"})
        );
    }
}
