//! Plugin folders made to harm. Owners, modes, links and libraries are in `host/tests/plugin_owners.rs`, `plugin_folders.rs`
//! and `plugins_check/`; swapped bytes in `runt/tests/plugins/`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::Daemon;

#[test]
fn a_manifest_that_never_ends_or_leads_elsewhere_is_one_row_and_nothing_waits() {
    let manifest = |id: &str, library: &str| {
        format!(
            "manifest_version = 1\nid = \"{id}\"\nname = \"x\"\nversion = \"1.0.0\"\nabi = {{ major = 1 }}\n\
             [library]\nlinux-x86_64 = {{ path = \"{library}\" }}\nlinux-aarch64 = {{ path = \"{library}\" }}\n\
             [[provides]]\ncapability = \"env-provider.v1\"\nname = \"x\"\n"
        )
    };
    let daemon = Daemon::start_with(|home, _| {
        let folder = |name: &str| {
            let folder = home.join("plugins").join(name);
            fs::create_dir_all(&folder).unwrap();
            folder.join("plugin.toml")
        };
        assert!(Command::new("mkfifo").arg(folder("pipe")).status().unwrap().success());
        symlink("/dev/zero", folder("endless")).unwrap();
        symlink("/dev/stdin", folder("terminal")).unwrap();
        fs::File::create(folder("giant")).unwrap().set_len(8 << 30).unwrap();
        fs::create_dir(folder("folder")).unwrap();
        let nested = folder("nested");
        fs::write(nested, format!("manifest_version = 1\na = {}", "[".repeat(100_000))).unwrap();
        for (name, id, library) in [
            ("above", "above", "../../../../etc/passwd"),
            ("absolute", "absolute", "/etc/passwd"),
            ("other", "../other", "lib.so"),
            ("empty", "", "lib.so"),
            ("long", &"x".repeat(5000), "lib.so"),
            ("device", "device", "/dev/zero"),
        ] {
            fs::write(folder(name), manifest(id, library)).unwrap();
        }
    });
    let reply = daemon.ask(json!({"type": "list_plugins"}));
    let rows: BTreeMap<String, &Value> = reply["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned(), row))
        .collect();
    // A folder whose `plugin.toml` is not a file is no plugin's.
    assert_eq!(rows.len(), 8, "{rows:?}");
    for (name, row) in &rows {
        assert_ne!(row["status"], "ok", "{name}: {row}");
        assert!(!row["reason"].as_str().unwrap().is_empty(), "{name}: {row}");
    }
    assert!(rows["giant"]["reason"].as_str().unwrap().contains("too large"), "{}", rows["giant"]);
    crate::stop(daemon);
}
