//! The real daemon as an ordinary user: whose files it loads, and whose it does not.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

#[allow(dead_code, reason = "shared with the daemon's other tests, which use the rest of it")]
#[path = "daemon/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use serde_json::{Value, json};
use support::Daemon;

/// Whom the daemon runs as.
const US: u32 = 65534;
/// Somebody else.
const THEM: u32 = 12345;
/// A group with other members.
const GROUP: u32 = 100;

/// Starts a daemon as [`US`] once `prepare` has put plugins into a folder; none if we may not become somebody.
fn start(prepare: impl FnOnce(&Path)) -> Option<Daemon> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away and become somebody else.");
        return None;
    }
    Some(Daemon::start_with(|home, command| {
        own(home, US, US);
        prepare(home);
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args([format!("--reuid={US}"), format!("--regid={US}"), "--clear-groups".to_owned()])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        *command = setpriv;
    }))
}

/// Gives away a file, or a folder with everything in it.
fn own(path: &Path, user: u32, group: u32) {
    lchown(path, Some(user), Some(group)).unwrap();
    for entry in fs::read_dir(path).into_iter().flatten() {
        own(&entry.unwrap().path(), user, group);
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Puts the fixture into a folder that is ours alone.
fn install(home: &Path, id: &str) -> PathBuf {
    let folder = home.join("plugins").join(id);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(fixture(), folder.join("lib.so")).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"Fixture\"\nversion = \"1.2.3\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture\"\n\
         [[provides]]\ncapability = \"rooms.v1\"\nname = \"echo\"\n",
        env::consts::OS,
        env::consts::ARCH,
    );
    fs::write(folder.join("plugin.toml"), manifest).unwrap();
    mode(&folder, 0o755);
    mode(&folder.join("lib.so"), 0o644);
    mode(&folder.join("plugin.toml"), 0o644);
    own(&folder, US, US);
    folder
}

/// The library that cargo builds with the tests, seen from the test binary in `target/<profile>/deps`.
fn fixture() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

fn rows(daemon: &Daemon) -> BTreeMap<String, Value> {
    // The daemon talks to its own user alone, so this thread becomes that for a moment.
    let become_user = |id: u32| set_thread_res_uid(None, Uid::from_raw(id), None).unwrap();
    become_user(US);
    let reply = daemon.ask(json!({"type": "list_plugins"}));
    become_user(0);
    let rows = reply["plugins"].as_array().unwrap().iter();
    rows.map(|row| (row["id"].as_str().unwrap().to_owned(), row.clone())).collect()
}

#[test]
fn what_somebody_else_could_have_written_is_refused_and_the_rest_is_loaded() {
    let Some(daemon) = start(|home| {
        install(home, "fixture");
        own(&install(home, "of-root"), 0, 0);
        own(&install(home, "of-somebody").join("lib.so"), THEM, THEM);
        own(&install(home, "folder-of-somebody"), THEM, THEM);
        let private = install(home, "private-group");
        mode(&private.join("lib.so"), 0o664);
        let shared = install(home, "shared-group").join("lib.so");
        chown(&shared, None, Some(GROUP)).unwrap();
        mode(&shared, 0o664);
        mode(&install(home, "everybody").join("lib.so"), 0o646);
        mode(&install(home, "folder-of-everybody"), 0o777);
        mode(&install(home, "manifest-of-everybody").join("plugin.toml"), 0o646);
        let linked = install(home, "linked").join("lib.so");
        fs::rename(&linked, home.join("elsewhere.so")).unwrap();
        symlink(home.join("elsewhere.so"), &linked).unwrap();
        let pipe = install(home, "pipe").join("lib.so");
        fs::remove_file(&pipe).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        own(&pipe, US, US);
        let secret = install(home, "secret").join("lib.so");
        own(&secret, 0, 0);
        mode(&secret, 0o600);
    }) else {
        return;
    };
    let rows = rows(&daemon);
    let plugins = daemon.home.path().join("plugins").canonicalize().unwrap();
    let refused = |id: &str| {
        let row = &rows[id];
        assert_eq!(row["status"], "refused", "{row}");
        row["reason"].as_str().unwrap().replace(&*plugins.to_string_lossy(), "")
    };
    let expect = |id: &str, reason: &str, remedy: &str| {
        assert_eq!(refused(id), format!("{reason}; {remedy}"), "{id}");
    };
    assert_eq!(rows["fixture"]["status"], "ok", "{}", rows["fixture"]);
    // Files and owners are fine; that it is the fixture under another id is found out by loading it.
    for id in ["of-root", "private-group"] {
        assert!(refused(id).contains("is the plugin `fixture`"), "{}", refused(id));
    }
    expect(
        "of-somebody",
        "`/of-somebody/lib.so` belongs to another user (uid 12345)",
        "if you trust it: chown 65534 '/of-somebody/lib.so'",
    );
    assert!(refused("folder-of-somebody").contains("belongs to another user (uid 12345)"));
    expect(
        "shared-group",
        "the group 100 can write to `/shared-group/lib.so`",
        "chmod g-w '/shared-group/lib.so'",
    );
    expect("everybody", "everybody can write to `/everybody/lib.so`", "chmod o-w '/everybody/lib.so'");
    expect(
        "folder-of-everybody",
        "everybody can write to `/folder-of-everybody`",
        "chmod o-w '/folder-of-everybody'",
    );
    expect(
        "manifest-of-everybody",
        "everybody can write to `/manifest-of-everybody/plugin.toml`",
        "chmod o-w '/manifest-of-everybody/plugin.toml'",
    );
    let reason = refused("linked");
    assert!(reason.starts_with("`/linked/lib.so` leads out of the plugin's folder, to `"), "{reason}");
    assert!(reason.ends_with("; replace the link by the file itself"), "{reason}");
    expect("pipe", "`/pipe/lib.so` is not a file", "reinstall the plugin");
    expect(
        "secret",
        "`/secret/lib.so` could not be read: Permission denied (os error 13)",
        "reinstall the plugin",
    );
}

#[test]
fn without_a_place_for_copies_the_user_is_told_where() {
    let Some(daemon) = start(|home| {
        install(home, "fixture");
        let copies = home.join(".cache/runt/plugin-copies");
        fs::create_dir_all(&copies).unwrap();
        own(&home.join(".cache"), US, US);
        own(&copies, 0, 0);
        mode(&copies, 0o755);
    }) else {
        return;
    };
    let row = rows(&daemon).remove("fixture").unwrap();
    let copies = daemon.base().join("plugin-copies");
    assert_eq!(
        row["reason"],
        format!(
            "plugin `fixture` is loaded from a private copy, and no copy could be made in `{0}`: permission denied; \
             nothing of it was run; make `{0}` writable for your user, then restart the daemon",
            copies.display()
        )
    );
}
