//! What plugins say about their own settings.
//!
//! For: the JSON Schema that the daemon writes for editors, and the command line, which checks what it is told to set.
//! Promises: a plugin describes its own section and no other; a description that cannot be read costs itself only.
//! Never: looks at a library.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::ENV_PROVIDER;
use crate::manifest::Manifest;
use crate::search::SearchPath;

/// Longest description that is read (our choice: a hundred settings with a paragraph each).
const MOST_BYTES: u64 = 64 << 10;

/// The sections of the settings that the plugins in `path` describe: the JSON Schema of each by its name. Blocks on the
/// file system.
pub fn sections(path: &SearchPath) -> Map<String, Value> {
    let (mut ids, mut sections) = (BTreeSet::new(), Map::new());
    for (_, folder) in path.plugin_folders() {
        let Ok(manifest) = Manifest::read(&folder) else { continue };
        // The first with an id is the one that is loaded.
        if ids.insert(manifest.id.clone())
            && let Some(schema) = schema(&manifest, &folder)
        {
            sections.entry(section(&manifest)).or_insert(schema);
        }
    }
    sections
}

/// Name of a plugin's section: the kind of environment that it provides, else its id.
fn section(manifest: &Manifest) -> &str {
    let provider = manifest.provides.iter().find(|provided| provided.capability == ENV_PROVIDER);
    provider.map_or(&manifest.id, |provider| &provider.name)
}

fn schema(manifest: &Manifest, folder: &Path) -> Option<Value> {
    let mut bytes = Vec::new();
    let file = File::open(folder.join(&manifest.settings.as_ref()?.schema)).ok()?;
    file.take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok().filter(Value::is_object)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::search::Source;

    #[test]
    fn each_plugin_describes_its_own_section() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = |folder: &str, id: &str, provides: &str, schema: &str| {
            let folder = dir.path().join(folder).join(id);
            fs::create_dir_all(&folder).unwrap();
            let manifest = format!(
                "manifest_version = 1\nid = \"{id}\"\nname = \"x\"\nversion = \"1.0.0\"\nabi = {{ major = 1 }}\n\
                 library = {{ linux-x86_64 = {{ path = \"x.so\" }} }}\n{provides}\nsettings = {{ schema = \"s.json\" }}\n"
            );
            fs::write(folder.join("plugin.toml"), manifest).unwrap();
            fs::write(folder.join("s.json"), schema).unwrap();
        };
        let provides = r#"provides = [{ capability = "env-provider.v1", name = "mine" }]"#;
        plugin("user", "org.mine", provides, r#"{"title": "first"}"#);
        plugin("bundled", "org.mine", provides, r#"{"title": "shadowed"}"#);
        plugin("bundled", "other", "provides = []", r#"{"title": "other"}"#);
        plugin("bundled", "broken", "provides = []", "{");
        let path = ["user", "bundled"].map(|folder| (Source::User, dir.path().join(folder)));
        let found = Value::Object(sections(&SearchPath(path.to_vec())));
        assert_eq!(found, serde_json::json!({"mine": {"title": "first"}, "other": {"title": "other"}}));
    }
}
