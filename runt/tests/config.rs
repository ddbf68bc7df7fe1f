//! `runt config` without a daemon; the daemon's own tests have that it follows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

fn runt(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runt"));
    command.arg("config").args(arguments).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin");
    // The plugins of the checkout, whose manifests are as good as those of an installation.
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("plugins");
    command.env("RUNTIMED_PLUGIN_PATH", plugins).env("EDITOR", "cp new.json");
    command.current_dir(home).output().unwrap()
}

fn said(home: &Path, arguments: &[&str]) -> String {
    let output = runt(home, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(home: &Path, arguments: &[&str]) -> String {
    let output = runt(home, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

fn file(home: &Path) -> PathBuf {
    PathBuf::from(said(home, &["path"]).trim_end())
}

#[test]
fn settings_are_shown_set_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let all: Value = serde_json::from_str(&said(home, &[])).unwrap();
    assert_eq!((&all["theme"], &all["uv_pool_size"]), (&json!("system"), &json!(2)));
    assert!(!file(home).exists(), "looking writes nothing");

    assert_eq!(
        said(home, &["set", "theme", "dark"]),
        format!("Updated theme in ~/{}\n", file(home).strip_prefix(home).unwrap().display())
    );
    said(home, &["set", "uv.default_packages", "numpy, pandas>=2"]);
    said(home, &["set", "venv_pool_size", "3"]);
    said(home, &["set", "uv.python", "3.12"]);
    said(home, &["set", "conda.channels", r#"["file:///c", "defaults"]"#]);
    said(home, &["set", "environments.max_gib", "5"]);
    let expected = json!({"$schema": "./settings.schema.json", "theme": "dark",
        "uv": {"default_packages": ["numpy", "pandas>=2"], "python": "3.12"}, "venv_pool_size": 3,
        "conda": {"channels": ["file:///c", "defaults"]}, "environments": {"max_gib": 5}});
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(file(home)).unwrap()).unwrap(), expected);
    assert_eq!(said(home, &["get", "theme"]), "dark\n");
    assert_eq!(said(home, &["get", "uv.default_packages"]), "[\n  \"numpy\",\n  \"pandas>=2\"\n]\n");
    assert_eq!(said(home, &["get", "keep_alive_secs"]), "30\n", "what stands in for it");

    said(home, &["unset", "theme"]);
    said(home, &["unset", "environments.max_gib"]);
    assert_eq!(said(home, &["get", "theme"]), "system\n");
    assert!(said(home, &["unset", "theme"]).contains("was not set"));
    assert!(refused(home, &["get", "environments.max_gib"]).contains("`environments.max_gib` is not set"));
}

#[test]
fn what_makes_no_sense_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    for (key, value, hint) in [
        ("theme", "plaid", "Invalid value 'plaid' for setting 'theme'. Must be one of: system, light, dark"),
        ("uv_pool_size", "-1", "Must be a number between 0 and 20"),
        ("uv.default_packages", "num py", "`num py` names no package"),
        ("thme", "dark", "Unknown setting 'thme'. Valid keys: theme, color_theme,"),
        ("conda.channel", "x", "conda.channels, conda.python"),
    ] {
        assert!(refused(home, &["set", key, value]).contains(hint), "{key}");
    }
    assert!(!file(home).exists());
    fs::create_dir_all(file(home).parent().unwrap()).unwrap();
    fs::write(file(home), "{\"theme\": ").unwrap();
    assert!(refused(home, &["set", "theme", "dark"]).contains("The file was not changed."));
    assert!(refused(home, &[]).contains("cannot be read as JSON"));
    assert_eq!(fs::read_to_string(file(home)).unwrap(), "{\"theme\": ");
}

#[test]
fn what_an_editor_wrote_is_checked() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    fs::write(home.join("new.json"), r#"{"theme": "plaid", "mine": 1}"#).unwrap();
    let done = runt(home, &["edit"]);
    assert!(done.status.success());
    let warned = String::from_utf8(done.stderr).unwrap();
    assert_eq!(warned, "Warning: theme cannot be \"plaid\"; \"system\" is used instead.\n");
    fs::write(home.join("new.json"), "{").unwrap();
    assert!(refused(home, &["edit"]).contains("The daemon keeps the settings that it has"));
    fs::remove_file(home.join("new.json")).unwrap();
    assert!(refused(home, &["edit"]).contains("Name another one in EDITOR."));
}

#[test]
fn the_schema_has_what_plugins_describe() {
    let dir = tempfile::tempdir().unwrap();
    let schema: Value = serde_json::from_str(&said(dir.path(), &["schema"])).unwrap();
    let of = |section: &str, name: &str| schema["properties"][section]["properties"][name]["type"].clone();
    assert_eq!((of("uv", "python"), of("uv", "default_packages")), (json!("string"), json!("array")));
    assert_eq!(of("conda", "channels"), "array");
    assert_eq!(schema["properties"]["theme"]["enum"], json!(["system", "light", "dark"]));
}
