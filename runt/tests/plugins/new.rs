//! A plugin to start from.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::World;

#[test]
fn a_new_plugin_is_a_project_that_cargo_reads() {
    let world = World::new();
    let said = world.plugins_command(&["new", "my-env"]).good().out;
    assert!(said.contains("cargo build\n  runt plugins add ."), "{said}");
    let folder = world.home().join("my-env");
    assert!(fs::read_to_string(folder.join("plugin.toml")).unwrap().contains("id = \"local.my-env\""));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = &metadata["packages"][0];
    assert_eq!(package["name"], "my-environments");
    assert_eq!(package["targets"][0]["crate_types"], json!(["cdylib", "rlib"]));
    let api =
        package["dependencies"].as_array().unwrap().iter().find(|it| it["name"] == "runtimed-plugin-api");
    assert!(fs::exists(api.unwrap()["path"].as_str().unwrap()).unwrap(), "{package}");

    let error = world.plugins_command(&["new", "my-env"]).bad();
    assert!(error.contains("is not empty") && error.contains("Nothing was written."), "{error}");
}

#[test]
fn names_can_be_chosen_and_must_be_allowed() {
    let world = World::new();
    fs::create_dir(world.home().join("empty")).unwrap();
    let arguments =
        ["new", "empty", "--capability", "env-provider", "--id", "com.me.x", "--kind", "x", "--json"];
    let told = world.plugins_command(&arguments).json();
    assert_eq!(
        (&told["id"], &told["kind"], &told["package"]),
        (&json!("com.me.x"), &json!("x"), &json!("empty-environments"))
    );
    for bad in [["--id", "../x"], ["--kind", "X y"]] {
        let error = world.plugins_command(&["new", "other", bad[0], bad[1]]).bad();
        assert!(error.contains("is not allowed") && error.contains("Nothing was written."), "{error}");
        assert!(!world.home().join("other").exists());
    }
}
