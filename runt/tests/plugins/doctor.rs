//! What the doctor finds.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::world::{World, library_name};

/// What is wrong, with whom it is about, and that the exit code says so.
fn problems(world: &World) -> Vec<(String, String)> {
    let said = world.plugins_command(&["doctor", "--json"]);
    let found: Value = serde_json::from_str(&said.out).unwrap();
    let findings = found["findings"].as_array().unwrap();
    let bad: Vec<_> = findings.iter().filter(|finding| finding["remedy"].is_string()).collect();
    assert_eq!(found["problems"], bad.len());
    assert_eq!(said.code, i32::from(!bad.is_empty()), "{}", said.out);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    // Nothing is installed here but what a test adds.
    let others = bad.into_iter().filter(|finding| finding["about"] != "capabilities");
    others.map(|finding| (text(finding, "about"), text(finding, "what"))).collect()
}

#[test]
fn each_trouble_is_named() {
    let world = World::new();
    let _ = world.plugins_command(&["doctor"]);
    assert_eq!(problems(&world), []);
    let plugin = world.plugin("child", "0.1.0");
    world.plugins_command(&["add", plugin.to_str().unwrap()]).good();
    assert_eq!(problems(&world), []);

    let installed = world.plugins().join("misbehaving");
    let library = installed.join(library_name());
    let mode =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let one = |wanted: &str| {
        let found = problems(&world);
        assert!(matches!(found.as_slice(), [(_, what)] if what.contains(wanted)), "{wanted}: {found:?}");
    };
    mode(&installed, 0o777);
    one("everybody can write to");
    mode(&installed, 0o700);

    let bytes = fs::read(&library).unwrap();
    fs::write(&library, "other").unwrap();
    one("plugins.lock has");
    fs::remove_file(&library).unwrap();
    one("cannot be read");
    fs::write(&library, bytes).unwrap();

    fs::create_dir(world.plugins().join(".runt-abc")).unwrap();
    one("is left of a 'runt plugins' command");
    fs::remove_dir(world.plugins().join(".runt-abc")).unwrap();

    fs::create_dir_all(world.settings().parent().unwrap()).unwrap();
    fs::write(world.settings(), "{").unwrap();
    one("cannot be read as JSON");
    fs::remove_file(world.settings()).unwrap();

    fs::create_dir_all(world.base()).unwrap();
    fs::write(world.base().join("plugin-crash"), "SIGSEGV 1700000000 misbehaving 00").unwrap();
    one("the daemon's last life ended with SIGSEGV in `misbehaving`");
    world.plugins_command(&["enable", "misbehaving"]).good();
    assert_eq!(problems(&world), []);

    let lock = world.plugins().join("plugins.lock");
    let text = fs::read_to_string(&lock).unwrap();
    fs::write(&lock, "version = 9\n").unwrap();
    let found = problems(&world);
    assert!(
        found.iter().any(|(about, what)| about == "user folder" && what.contains("is damaged")),
        "{found:?}"
    );
    fs::write(&lock, &text).unwrap();
    fs::remove_dir_all(&installed).unwrap();
    one("its folder is gone");
}

#[test]
fn a_healthy_installation_is_told_so() {
    let Some(dist) = std::env::var_os("RUNTIMED_TEST_DIST") else {
        eprintln!("skipped: no staged plugins. `cargo xtask test` stages them.");
        return;
    };
    let world = World::new();
    let plugins = std::path::PathBuf::from(dist).join("lib/runt/plugins");
    fs::create_dir_all(world.home().join("dist/lib/runt")).unwrap();
    std::os::unix::fs::symlink(plugins, world.home().join("dist/lib/runt/plugins")).unwrap();
    let said = world.plugins_command(&["doctor"]).good().out;
    assert!(said.contains("Nothing is wrong.") && said.contains("not running"), "{said}");
    let _daemon = world.start();
    let said = world.plugins_command(&["doctor"]).good().out;
    assert!(said.contains("plugin ABI 1.0") && said.contains("bundled folder"), "{said}");
}
