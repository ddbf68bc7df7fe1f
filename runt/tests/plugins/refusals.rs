//! What lies in the user's folder and is not what was added is refused by the daemon, in words that help.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::world::{World, library_name};

/// A plugin that is loaded with the daemon, so that a listed status is the last word on it.
fn eager(world: &World) -> PathBuf {
    let folder = world.plugin("in-process", "0.1.0");
    let manifest = folder.join("plugin.toml");
    let text = fs::read_to_string(&manifest).unwrap().replace("on-demand", "startup");
    fs::write(&manifest, text).unwrap();
    folder
}

#[test]
fn swapped_bytes_are_refused_with_both_hashes() {
    let world = World::new();
    let plugin = eager(&world);
    world.plugins_command(&["add", "--trust-in-process", plugin.to_str().unwrap()]).good();
    let shown = world.plugins_command(&["show", "misbehaving", "--json"]).json();
    let added = shown["files"][0]["sha256"].as_str().unwrap().to_owned();
    let library = world.plugins().join("misbehaving").join(library_name());
    let mut bytes = fs::read(&library).unwrap();
    let last = bytes.last_mut().unwrap();
    *last = last.wrapping_add(1);
    fs::write(&library, bytes).unwrap();
    let shown = world.plugins_command(&["show", "misbehaving", "--json"]).json();
    let now = shown["files"][0]["sha256"].as_str().unwrap().to_owned();
    assert!(shown["files"][0]["problem"].as_str().unwrap().contains(&added), "{shown}");

    let daemon = world.start();
    let (status, reason) = world.status("misbehaving");
    assert_eq!(status, "refused");
    assert!(
        reason.contains(&added) && reason.contains(&now) && reason.contains("runt plugins add"),
        "{reason}"
    );
    let daemon_status = world.runt(&["daemon", "status"]).good().out;
    assert!(daemon_status.contains("1 with problems (misbehaving refused)"), "{daemon_status}");
    let doctor = world.plugins_command(&["doctor"]);
    assert_eq!(doctor.code, 1);
    assert!(
        doctor.out.contains(&added) && doctor.out.contains("runt plugins remove misbehaving"),
        "{}",
        doctor.out
    );
    drop(daemon);
    // What was said to do helps.
    world.plugins_command(&["add", "--trust-in-process", plugin.to_str().unwrap()]).good();
    let _daemon = world.start();
    assert_eq!(world.status("misbehaving").0, "ok");
}

#[test]
fn a_folder_everybody_can_write_to_is_refused() {
    let world = World::new();
    let plugin = eager(&world);
    world.plugins_command(&["add", "--trust-in-process", plugin.to_str().unwrap()]).good();
    let folder = world.plugins().join("misbehaving");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let _daemon = world.start();
    let (status, reason) = world.status("misbehaving");
    assert_eq!(status, "refused");
    assert!(reason.contains("everybody can write to") && reason.contains("chmod o-w"), "{reason}");

    // Nothing is put into a folder that others could change.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(world.plugins(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = world.plugins_command(&["add", "--trust-in-process", plugin.to_str().unwrap()]).bad();
    assert!(error.contains("everybody can write to"), "{error}");
}

#[test]
fn what_was_never_added_is_refused() {
    let world = World::new();
    fs::create_dir_all(world.plugins()).unwrap();
    fs::rename(eager(&world), world.plugins().join("misbehaving")).unwrap();
    assert_eq!(world.status("misbehaving").0, "refused");
    let _daemon = world.start();
    let (status, reason) = world.status("misbehaving");
    assert_eq!(status, "refused");
    assert!(reason.contains("was not added") && reason.contains("runt plugins add"), "{reason}");
    // In the words of the remedy.
    world
        .plugins_command(&[
            "add",
            "--trust-in-process",
            world.plugins().join("misbehaving").to_str().unwrap(),
        ])
        .good();
    assert_eq!(world.status("misbehaving").0, "ok");
}
