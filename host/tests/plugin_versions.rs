//! The real daemon with plugins of every ABI there is: those that fit work, the others are rows that say in
//! one sentence why they do not. plugin-api/fixtures/README.md lists the fixtures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::Daemon;

/// Installs a fixture with a manifest that is right about everything but perhaps the ABI.
fn install(plugins: &Path, name: &str, library: &Path) {
    let library = fs::read(library).unwrap();
    let folder = plugins.join(format!("fixture-{name}"));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("lib.so"), &library).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"fixture-{name}\"\nname = \"Fixture\"\nversion = \"0.3.0\"\n\
         abi = {{ major = 1 }}\nrun = {{ carrier = \"in-process\" }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\", sha256 = \"{}\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture-{name}\"\n",
        env::consts::OS,
        env::consts::ARCH,
        hex::encode(Sha256::digest(&library)),
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
}

#[test]
fn plugins_of_every_version_work_or_say_why_not() {
    let Some(fixtures) = env::var_os("RUNTIMED_TEST_ABI_FIXTURES").map(PathBuf::from) else {
        eprintln!("skipped: no fixtures of other ABI versions. `cargo xtask test` compiles them.");
        return;
    };
    let names = ["1.0", "next", "unreleased", "inserted", "changed", "major", "symbol", "abort"];
    let daemon = Daemon::start_with(|home, _| {
        for name in names {
            install(&home.join("plugins"), name, &fixtures.join(format!("plugin-{name}.so")));
        }
    });
    let reply = daemon.ask(json!({"type": "list_plugins"}));
    let rows: BTreeMap<&str, &Value> = reply["plugins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["id"].as_str().unwrap().trim_start_matches("fixture-"), row))
        .collect();
    assert_eq!(rows.len(), names.len());

    for name in ["1.0", "next"] {
        assert_eq!(rows[name]["status"], "ok", "{}", rows[name]);
        // Its pool asks it for a plan, an environment and whether that is usable.
        let taken = daemon.ask(json!({"type": "take", "env_type": format!("fixture-{name}")}));
        let python = taken["env"]["python_path"].as_str().unwrap_or_else(|| panic!("{taken}"));
        assert!(Path::new(python).is_file(), "{taken}");
    }

    let modified =
        "but its types are not those of ABI 1.0: it was built against a modified or unreleased ABI";
    for (name, words) in [
        ("unreleased", modified),
        ("inserted", modified),
        ("changed", modified),
        ("major", "plugin `fixture-major` was built for ABI 2.0, this daemon speaks 1.0"),
        ("symbol", "lib.so` is a plugin for ABI 2, this daemon speaks 1.0"),
        ("abort", "plugin `fixture-abort` was built with panic = \"abort\""),
    ] {
        let row = rows[name];
        assert_eq!(row["status"], "refused", "{row}");
        let reason = row["reason"].as_str().unwrap();
        let (what, remedy) = reason.rsplit_once("; ").unwrap();
        assert!(what.contains(words) && !remedy.is_empty(), "{reason}");
        assert!(!reason.contains('\n') && reason.len() < 300, "{reason}");
        // What only the plugin's author can use is in a file.
        let report = row["report"].as_str().map(|file| fs::read_to_string(file).unwrap());
        assert_eq!(report.is_some_and(|text| text.lines().count() > 100), words == modified, "{row}");
    }
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
}
