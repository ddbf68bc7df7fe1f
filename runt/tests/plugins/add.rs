//! Plugins come and go, with the daemon down and up.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::json;

use crate::world::{World, library, library_name, manifest};

#[test]
fn a_plugin_is_added_shown_upgraded_and_removed_while_the_daemon_is_down() {
    let world = World::new();
    let one = world.plugin("child", "0.1.0");
    let said = world.plugins_command(&["add", one.to_str().unwrap()]).good();
    assert!(said.out.contains("Added misbehaving 0.1.0."), "{}", said.out);
    assert!(said.out.contains("\"default_python_env\": \"misbehaving\""), "{}", said.out);
    assert!(said.err.contains("Checking misbehaving 0.1.0"), "{}", said.err);

    let installed = world.plugins().join("misbehaving");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&installed), mode(&installed.join(library_name()))), (0o700, 0o644));
    assert_eq!(mode(&world.plugins().join("plugins.lock")), 0o600);
    let rows = world.list();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["status"], "not_loaded");
    assert_eq!(rows[0]["carrier"], "child");
    let table = world.plugins_command(&["list"]).good();
    assert!(table.out.contains("not loaded") && table.out.contains("user"), "{}", table.out);
    assert!(table.err.contains("The daemon is not running"));

    let shown = world.plugins_command(&["show", "misbehaving", "--json"]).json();
    assert_eq!(shown["pin"]["version"], "0.1.0");
    assert_eq!(shown["pin"]["from"], one.canonicalize().unwrap().to_str().unwrap());
    assert_eq!(shown["files"].as_array().unwrap().len(), 2);
    assert!(shown["files"].as_array().unwrap().iter().all(|file| file["problem"].is_null()), "{shown}");
    let text = world.plugins_command(&["show", "misbehaving"]).good().out;
    assert!(text.contains("bad.toml") && text.contains("when first needed"), "{text}");

    let again = world.plugins_command(&["add", one.to_str().unwrap()]).good().out;
    assert!(again.contains("Replaced misbehaving 0.1.0"), "{again}");
    let two = world.plugin("child", "0.2.0");
    let up = world.plugins_command(&["add", two.to_str().unwrap()]).good().out;
    assert!(up.contains("Upgraded misbehaving from 0.1.0 to 0.2.0"), "{up}");
    let down = world.plugins_command(&["add", one.to_str().unwrap(), "--json"]).json();
    assert_eq!(down["change"], "downgraded");
    assert_eq!(down["daemon_running"], false);
    assert_eq!(fs::read_dir(world.plugins()).unwrap().count(), 2, "the plugin and the lock file");

    let removed = world.plugins_command(&["remove", "misbehaving"]).good().out;
    assert!(removed.contains("Removed misbehaving"), "{removed}");
    assert!(world.list().is_empty());
    assert!(!fs::read_to_string(world.plugins().join("plugins.lock")).unwrap().contains("misbehaving"));
    let error = world.plugins_command(&["remove", "misbehaving"]).bad();
    assert!(error.contains("There is no plugin `misbehaving`"), "{error}");
}

#[test]
fn a_cargo_project_is_added_from_its_newest_build() {
    let world = World::new();
    let project = world.home().join("my-env");
    fs::create_dir_all(project.join("target/debug")).unwrap();
    fs::create_dir_all(project.join("src")).unwrap();
    fs::write(project.join("src/lib.rs"), "").unwrap();
    let cargo = "[package]\nname = \"my-env\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(project.join("Cargo.toml"), cargo).unwrap();
    fs::write(project.join("plugin.toml"), manifest("child", "0.1.0")).unwrap();
    let error = world.plugins_command(&["add", "my-env"]).bad();
    assert!(error.contains("has not been built") && error.contains("cargo build"), "{error}");
    assert!(error.contains("Nothing was installed"), "{error}");

    fs::copy(library(), project.join("target/debug").join(library_name())).unwrap();
    let said = world.plugins_command(&["add", "my-env"]).good().out;
    assert!(said.contains("target/debug"), "{said}");
    let elsewhere = world.home().join("elsewhere/release");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::copy(library(), elsewhere.join(library_name())).unwrap();
    let output = world
        .command(world.bin("runt"))
        .args(["plugins", "add", "my-env", "--json"])
        .env("CARGO_TARGET_DIR", "../elsewhere")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn code_inside_the_daemon_needs_a_yes() {
    let world = World::new();
    let plugin = world.plugin("in-process", "0.1.0");
    let error = world.plugins_command(&["add", plugin.to_str().unwrap()]).bad();
    assert!(
        error.contains("asks to run inside the daemon") && error.contains("--trust-in-process"),
        "{error}"
    );
    assert!(!error.contains("Checking"), "not even the check runs its code: {error}");
    assert!(world.list().is_empty());
    let said = world.plugins_command(&["add", "--trust-in-process", plugin.to_str().unwrap()]).good();
    assert!(said.out.contains("trusted like the daemon itself"), "{}", said.out);
}

#[test]
fn a_running_daemon_takes_over_and_lets_go() {
    let world = World::new();
    let _daemon = world.start();
    let plugin = world.plugin("child", "0.1.0");
    let added = world.plugins_command(&["add", plugin.to_str().unwrap(), "--json"]).json();
    assert_eq!(added["daemon_running"], true);
    // It is started when it is first asked for, which may have been done already.
    let usable = |status: &str| assert!(["not_loaded", "ok"].contains(&status), "{status}");
    usable(added["plugin"]["status"].as_str().unwrap());
    usable(&world.status("misbehaving").0);
    world.plugins_command(&["disable", "misbehaving"]).good();
    assert_eq!(world.status("misbehaving").0, "disabled");
    let on = world.plugins_command(&["enable", "misbehaving", "--json"]).json();
    assert_eq!((&on["enabled"], &on["changed"]), (&json!(true), &json!(true)));
    usable(&world.status("misbehaving").0);
    let two = world.plugin("child", "0.2.0");
    let upgraded = world.plugins_command(&["add", two.to_str().unwrap(), "--json"]).json();
    assert_eq!((&upgraded["change"], &upgraded["plugin"]["version"]), (&json!("upgraded"), &json!("0.2.0")));
    world.plugins_command(&["remove", "misbehaving"]).good();
    assert!(world.list().is_empty());
}

#[test]
fn a_plugin_that_fails_the_check_changes_nothing() {
    let world = World::new();
    let one = world.plugin("child", "0.1.0");
    world.plugins_command(&["add", one.to_str().unwrap()]).good();
    let two = world.plugin("child", "0.2.0");
    fs::write(two.join(library_name()), "this is no library").unwrap();
    let error = world.plugins_command(&["add", two.to_str().unwrap()]).bad();
    assert!(error.contains("did not pass the check"), "{error}");
    assert!(error.contains("Nothing was installed; what was installed before is unchanged."), "{error}");
    assert_eq!(world.list()[0]["version"], "0.1.0");
    let mut wrong = manifest("child", "0.3.0");
    wrong = wrong.replace("\" }\n", &format!("\", sha256 = \"{}\" }}\n", "0".repeat(64)));
    fs::write(one.join("plugin.toml"), wrong).unwrap();
    let error = world.plugins_command(&["add", one.to_str().unwrap()]).bad();
    assert!(error.contains(&"0".repeat(64)) && error.contains("found"), "{error}");
    assert_eq!(fs::read_dir(world.plugins()).unwrap().count(), 2);
}

#[test]
fn an_interrupted_add_leaves_nothing_that_counts() {
    for signal in ["INT", "TERM", "KILL"] {
        let world = World::new();
        let plugin = world.plugin("child", "0.1.0");
        // A check that says when it runs, and then takes for ever.
        let started = world.home().join("started");
        let pipe = std::process::Command::new("mkfifo").arg(&started).status().unwrap();
        assert!(pipe.success());
        world.replace_runtimed(&format!("exec 3> '{}'; echo $$ >&3; exec sleep 600", started.display()));
        let mut adding = world
            .command(world.bin("runt"))
            .args(["plugins", "add", plugin.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(File::open(&started).unwrap());
        let mut check = String::new();
        said.read_line(&mut check).unwrap();
        let kill = |signal: &str, pid: &str| {
            std::process::Command::new("kill").args([&format!("-{signal}"), pid]).status().unwrap()
        };
        assert!(kill(signal, &adding.id().to_string()).success());
        let status = adding.wait().unwrap();
        assert!(!status.success());
        if signal == "KILL" {
            // Nobody was left to end it.
            assert!(kill("KILL", check.trim()).success());
            assert_eq!(fs::read_dir(world.plugins()).unwrap().count(), 1, "what was begun");
        } else {
            assert_eq!(status.code(), Some(1));
            // Ends when the check does, which took the pipe along.
            said.read_to_end(&mut Vec::new()).unwrap();
            assert_eq!(fs::read_dir(world.plugins()).unwrap().count(), 0);
        }
        assert!(world.list().is_empty());
        world.restore_runtimed();
        world.plugins_command(&["add", plugin.to_str().unwrap()]).good();
        assert_eq!(fs::read_dir(world.plugins()).unwrap().count(), 2, "the plugin and the lock file");
    }
}

#[test]
fn bytes_that_were_swapped_are_seen() {
    let world = World::new();
    let plugin = world.plugin("child", "0.1.0");
    world.plugins_command(&["add", plugin.to_str().unwrap()]).good();
    let library = world.plugins().join("misbehaving").join(library_name());
    fs::write(&library, "other bytes").unwrap();
    let shown = world.plugins_command(&["show", "misbehaving"]).good().out;
    assert!(shown.contains("is not the file that was added"), "{shown}");
}
