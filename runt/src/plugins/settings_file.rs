//! Which plugins the settings switch off, while no daemon is there to be asked.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::anyhow;
use serde_json::{Map, Value};

use crate::settings_file;

/// The ids in `plugins.disabled`.
///
/// # Errors
/// For a file that cannot be read as settings.
pub(crate) fn disabled(file: &Path) -> anyhow::Result<BTreeSet<String>> {
    let settings = settings_file::read(file)?;
    let ids = Value::Object(settings).pointer("/plugins/disabled").and_then(Value::as_array).cloned();
    Ok(ids.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect())
}

/// Switches a plugin on or off. False if it was so already and nothing was written.
///
/// # Errors
/// For a file that cannot be read as settings, or written; it is unchanged then.
pub(crate) fn set_enabled(file: &Path, id: &str, enabled: bool) -> anyhow::Result<bool> {
    settings_file::edit(file, |settings| {
        let ids = settings
            .entry("plugins")
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
            .and_then(|plugins| {
                plugins.entry("disabled").or_insert_with(|| Value::Array(Vec::new())).as_array_mut()
            })
            .ok_or_else(|| {
                anyhow!(
                    "`plugins.disabled` in `{}` is not a list of plugin ids.\nThe file was not changed.\nCorrect it, \
                     for example \"plugins\": {{ \"disabled\": [] }}, and try again.",
                    file.display()
                )
            })?;
        let is_listed = ids.iter().any(|listed| listed == id);
        if is_listed != enabled {
            return Ok(false);
        }
        if enabled {
            ids.retain(|listed| listed != id);
        } else {
            ids.push(Value::from(id));
        }
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_list_changes() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nteract/settings.json");
        assert!(!set_enabled(&file, "a", true).unwrap());
        assert!(!file.exists(), "nothing had to be written");
        assert!(set_enabled(&file, "a", false).unwrap());
        assert!(!set_enabled(&file, "a", false).unwrap());
        assert_eq!(disabled(&file).unwrap(), ["a".to_owned()].into());

        let text = r#"{"zebra": [1.50, null], "plugins": {"later": true, "disabled": ["x", "b"]}, "apple": {"b": 2, "a": 1}}"#;
        std::fs::write(&file, text).unwrap();
        assert!(set_enabled(&file, "x", true).unwrap());
        let now = std::fs::read_to_string(&file).unwrap();
        let squeezed: String = now.split_whitespace().collect();
        assert_eq!(
            squeezed,
            r#"{"zebra":[1.5,null],"plugins":{"later":true,"disabled":["b"]},"apple":{"b":2,"a":1}}"#
        );
    }

    #[test]
    fn what_cannot_be_understood_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.json");
        for text in [r#"{"plugins": 3}"#, r#"{"plugins": {"disabled": "x"}}"#] {
            std::fs::write(&file, text).unwrap();
            let error = format!("{:#}", set_enabled(&file, "a", false).unwrap_err());
            assert!(error.contains("The file was not changed."), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
    }
}
