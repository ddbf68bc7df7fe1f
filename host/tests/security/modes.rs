//! Who could get at files and sockets: modes whatever the umask is, and runtime folders that are somebody else's.
//!
//! Shown elsewhere: another user at the socket (`runt/tests/daemon/others.rs`), the folder of kernels and its sockets
//! (`plugins/jupyter/tests/outlive.rs`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use runtimed_protocol::put_blob::PutBlobHeader;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::peer::Peer;
use crate::support::Daemon;
use crate::{NO_ENVIRONMENTS, behind, is_well, start_with, stop};

/// Everything at and below `folder`, links not followed.
fn all(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn a_umask_that_allows_everything_opens_nothing() {
    let Some(daemon) = start_with(NO_ENVIRONMENTS, |command| behind(command, "umask 000")) else { return };
    let mut ana = Peer::create(&daemon);
    let content = b"private";
    let header = PutBlobHeader::Put {
        id: "b".into(),
        media_type: "a/b".into(),
        size: content.len() as u64,
        sha256: hex::encode(Sha256::digest(content)),
        durability: None,
        purpose: None,
    };
    assert!(ana.info["error"].is_null(), "{}\n{}", ana.info, crate::log(&daemon));
    assert_eq!(ana.put(header, content)["result"], "blob_stored");
    let upload = ana.ask(json!({"action": "create_blob_upload", "media_type": "a/b", "size": 3}));
    assert!(upload["upload_id"].is_string(), "{upload}");
    let file = daemon.home.path().canonicalize().unwrap().join("a.ipynb");
    let saved = ana.ask(json!({"action": "save_notebook", "format_cells": false, "path": file}));
    assert_eq!(saved["result"], "notebook_saved");
    daemon.ask(json!({"type": "list_plugins"}));

    let base = daemon.base();
    let mode = |path: &Path| path.symlink_metadata().unwrap().mode() & 0o777;
    let runtime = daemon.home.path().join("run/runt");
    for place in [&base, &runtime, &daemon.home.path().join(".cache")] {
        assert_eq!(mode(place), 0o700, "{}", place.display());
    }
    let mut sockets = 0;
    for path in all(&base).into_iter().chain(all(&runtime)) {
        if path.symlink_metadata().unwrap().file_type().is_socket() {
            sockets += 1;
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    assert!(sockets > 0);
    // Whatever else is in these folders, nobody gets so far.
    all(&runtime).into_iter().filter(|path| path.is_dir()).for_each(|path| assert_eq!(mode(&path), 0o700));
    let private =
        |path: PathBuf| assert_eq!(path.metadata().unwrap().mode() & 0o077, 0, "{}", path.display());
    private(base.join("daemon.json"));
    private(base.join("runtimed.log"));
    all(&base.join("rooms")).into_iter().for_each(private);
    all(&base.join("blobs")).into_iter().for_each(private);
    // The user's own files are as the user wants them.
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o666);
    stop(daemon);
}

#[test]
fn a_umask_that_allows_everything_opens_no_folder_of_settings() {
    let mut daemon = Daemon::start_with(|_, command| behind(command, "umask 000"));
    daemon.signal("TERM");
    assert!(daemon.ended().success());
    for folder in [".config", ".config/nteract"] {
        assert_eq!(daemon.home.path().join(folder).metadata().unwrap().mode() & 0o777, 0o700);
    }
    let settings = daemon.home.path().join(".config/nteract/settings.json");
    assert_eq!(settings.metadata().unwrap().mode() & 0o077, 0);
}

/// The folder with sockets that the daemon uses. It must be its own, and private.
fn sockets(daemon: &Daemon, refused: &Path) {
    daemon.ask(json!({"type": "list_plugins"}));
    let instead = daemon.base().join("run");
    let log = crate::log(daemon);
    assert!(log.contains("cannot be used for sockets") && log.contains(&*refused.to_string_lossy()), "{log}");
    if instead.exists() {
        assert_eq!(instead.metadata().unwrap().mode() & 0o777, 0o700);
    }
    is_well(daemon, "a runtime folder that is not ours");
}

#[test]
fn a_runtime_folder_that_is_a_link_is_refused_and_nothing_is_made_behind_it() {
    let Some(daemon) = start_with(NO_ENVIRONMENTS, |command| {
        let home = home(command);
        for folder in ["run", "elsewhere"] {
            fs::create_dir(home.join(folder)).unwrap();
        }
        symlink(home.join("elsewhere"), home.join("run/runt")).unwrap();
    }) else {
        return;
    };
    sockets(&daemon, &daemon.home.path().join("run/runt"));
    let elsewhere = daemon.home.path().join("elsewhere");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    assert_ne!(elsewhere.metadata().unwrap().mode() & 0o777, 0o700, "its mode was changed");
    stop(daemon);
}

#[test]
fn a_runtime_folder_of_somebody_else_is_refused() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: giving a folder away needs root.");
        return;
    }
    let Some(daemon) = start_with(NO_ENVIRONMENTS, |command| {
        let folder = home(command).join("run/runt");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        chown(&folder, Some(65534), Some(65534)).unwrap();
    }) else {
        return;
    };
    let theirs = daemon.home.path().join("run/runt");
    sockets(&daemon, &theirs);
    assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
    assert_eq!((theirs.metadata().unwrap().uid(), theirs.metadata().unwrap().mode() & 0o777), (65534, 0o777));
    stop(daemon);
}

fn home(command: &std::process::Command) -> PathBuf {
    command.get_envs().find(|(name, _)| *name == "HOME").unwrap().1.unwrap().into()
}
