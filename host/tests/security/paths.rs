//! Paths and names that lead elsewhere, in everything that carries one.
//!
//! Shown elsewhere: names of one file are one notebook (`plugins/rooms/src/paths.rs`), relative paths and folders
//! (`host/tests/real_client/errors.py`), archives of plugins (`runt/tests/plugins/archives.rs`).

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtimed_client::protocol::documents::runtime_state::KernelState;
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::{Client, Documents, NotebookSession};
use serde_json::{Value, json};

use crate::http::{say, status};
use crate::peer::Peer;
use crate::support::Daemon;
use crate::{is_well, log, port, start, stop};

/// Content that nobody may get.
const CANARY: &str = "the canary sings";

/// Folders with what attacks aim at.
struct World {
    daemon: Daemon,
    /// Where the user works.
    work: PathBuf,
    /// What is nobody's business.
    outside: PathBuf,
}

impl World {
    fn new() -> Option<Self> {
        let daemon = start()?;
        let home = daemon.home.path().canonicalize().unwrap();
        let (work, outside) = (home.join("work"), home.join("outside"));
        for folder in [&work, &outside] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("canary.txt"), CANARY).unwrap();
        }
        fs::write(daemon.base().join("canary.txt"), CANARY).unwrap();
        Some(Self { daemon, work, outside })
    }

    /// Names that lead from the folder `from` to the canary outside, or nowhere good.
    fn names(&self, from: &Path) -> Vec<String> {
        let up = "../".repeat(from.components().count());
        let canary = self.outside.join("canary.txt").display().to_string();
        let names = [
            canary.as_str(),
            &format!("{up}{}", &canary[1..]),
            &format!("{up}{}", &canary[1..]).replace('/', "%2f").replace('.', "%2e"),
            &format!("x/{up}../{}", &canary[1..]),
            "..",
            "../",
            ".",
            "/",
            "",
            "~/outside/canary.txt",
            "a\0b",
            "../canary.txt\0.json",
            "/dev/zero",
            "/dev/stdin",
            "/proc/self/environ",
            "..\\..\\outside\\canary.txt",
            "%2e%2e%2fcanary",
            "-rf",
            "$(touch /tmp/x)",
        ];
        names.map(str::to_owned).into_iter().chain(["x".repeat(5000), "/x".repeat(5000)]).collect()
    }

    /// Sees that nothing outside was touched, and that the daemon serves.
    fn is_intact(&self, what: &str) {
        for canary in [&self.outside, &self.work, &self.daemon.base()].map(|it| it.join("canary.txt")) {
            assert_eq!(fs::read_to_string(&canary).unwrap(), CANARY, "{} after {what}", canary.display());
        }
        assert_eq!(fs::read_dir(&self.outside).unwrap().count(), 1, "after {what}");
        is_well(&self.daemon, what);
    }
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn addresses_lead_to_blobs_and_to_nothing_else() {
    let Some(world) = World::new() else { return };
    let port = port(&world.daemon);
    let blobs = world.daemon.base().join("blobs");
    let digest = "a".repeat(64);
    let mut names = world.names(&blobs);
    names.extend([
        format!("{digest}.meta"),
        format!("{digest}/.."),
        format!("{digest}/../../canary.txt"),
        format!("{digest}%00"),
        format!("{}..", &digest[2..]),
        format!("aa/{}", &digest[2..]),
        "..%252f..%252fcanary.txt".to_owned(),
        "%c0%ae%c0%ae/canary.txt".to_owned(),
        "../canary.txt".to_owned(),
        "%2e%2e/canary.txt".to_owned(),
        "..%2fcanary.txt".to_owned(),
        ".%2e%2fcanary.txt".to_owned(),
        "..;/canary.txt".to_owned(),
        "\u{2025}/canary.txt".to_owned(),
    ]);
    for name in names {
        for route in ["/blob/", "/health/", "/", "//", "/blob/../", "/blob/%2e%2e/", "/%2e%2e/"] {
            let request =
                format!("GET {route}{name} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
            let answer = say(port, request.as_bytes());
            assert!(!answer.contains(CANARY), "{request:.200}");
            // HTTP/0.9 has no status, and is not spoken.
            assert!(matches!(status(&answer), Some(400..=499)), "{request:.200} got {answer:.200}");
        }
    }
    world.is_intact("addresses");
    stop(world.daemon);
}

#[test]
fn what_is_opened_is_a_notebook_or_refused() {
    let Some(world) = World::new() else { return };
    let work = &world.work;
    pipe(&work.join("pipe.ipynb"));
    for (target, link) in [
        ("/dev/zero", "zero.ipynb"),
        ("/dev/stdin", "terminal.ipynb"),
        ("loop.ipynb", "loop.ipynb"),
        ("/proc/self/environ", "environment.ipynb"),
        ("../outside/canary.txt", "out.ipynb"),
    ] {
        symlink(target, work.join(link)).unwrap();
    }
    let _listening = UnixListener::bind(work.join("socket.ipynb")).unwrap();
    let below = |name: &str| work.join(name).display().to_string();
    let mut refused: Vec<String> = world.names(work);
    // These are folders to work in.
    refused.retain(|name| name != "/");
    refused.extend(
        ["pipe.ipynb", "zero.ipynb", "terminal.ipynb", "loop.ipynb", "socket.ipynb", "canary.txt/a.ipynb"]
            .map(below),
    );
    refused.extend(["environment.ipynb", "out.ipynb"].map(below));
    for name in refused {
        for handshake in [
            json!({"channel": "open_notebook", "path": name}),
            json!({"channel": "notebook_sync", "notebook_id": name}),
        ] {
            let said = everything(&world.daemon, &handshake);
            assert!(!said.contains(CANARY) && !said.contains("HOME="), "{name:.100}: {said}");
            assert!(is_refused(&said), "{name:.100}: {said}");
        }
    }
    world.is_intact("names to open");
    stop(world.daemon);
}

/// What a client hears that wants in, until it is refused.
fn everything(daemon: &Daemon, handshake: &Value) -> String {
    let mut client = daemon.connect(handshake.clone());
    let mut said = String::new();
    while let Some(frame) = client.next() {
        said += &String::from_utf8_lossy(&frame);
        if is_refused(&said) {
            break;
        }
    }
    said
}

/// At once, or when the file has been read.
pub(crate) fn is_refused(said: &str) -> bool {
    said.contains("\"error\":\"") || said.contains("\"phase\":\"failed\"")
}

#[test]
fn a_new_notebook_has_names_and_no_power() {
    let Some(world) = World::new() else { return };
    for name in world.names(&world.daemon.base().join("rooms")) {
        for field in ["runtime", "working_dir", "notebook_id", "package_manager", "operator"] {
            let mut handshake = json!({"channel": "create_notebook", "runtime": "python", "ephemeral": true});
            handshake[field] = json!(name);
            let mut client = world.daemon.connect(handshake);
            let said = client.next().map(|frame| String::from_utf8_lossy(&frame).into_owned());
            let said = said.unwrap_or_default();
            assert!(!said.contains(CANARY), "{field} {name:.100}: {said}");
        }
    }
    world.is_intact("names in new notebooks");
    let rooms = world.daemon.base().join("rooms");
    let left: Vec<_> = fs::read_dir(rooms).into_iter().flatten().flatten().map(|it| it.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    stop(world.daemon);
}

#[test]
fn a_save_writes_a_notebook_where_it_says_or_nothing() {
    let Some(world) = World::new() else { return };
    let work = &world.work;
    let mut ana = Peer::create(&world.daemon);
    let mut save =
        |path: &str| ana.ask(json!({"action": "save_notebook", "format_cells": false, "path": path}));
    pipe(&work.join("pipe.ipynb"));
    fs::create_dir(work.join("folder.ipynb")).unwrap();
    symlink("loop.ipynb", work.join("loop.ipynb")).unwrap();
    symlink("/dev/zero", work.join("zero.ipynb")).unwrap();
    let listening = UnixListener::bind(work.join("socket.ipynb")).unwrap();
    let below = |name: &str| work.join(name).display().to_string();
    for name in ["a\0b", "../a", "a.ipynb", "", "~/a.ipynb"].map(str::to_owned).into_iter().chain(
        [
            "pipe.ipynb",
            "folder.ipynb",
            "loop.ipynb",
            "zero.ipynb",
            "socket.ipynb",
            "canary.txt/a.ipynb",
            "a\0b",
        ]
        .map(below),
    ) {
        let said = save(&name);
        assert_eq!(said["result"], "notebook_save_blocked", "{name}: {said}");
    }
    for name in [below(&"x".repeat(300)), format!("{}/a.ipynb", "/x".repeat(5000))] {
        let said = save(&name);
        assert_eq!(said["result"], "notebook_save_blocked", "{name:.100}: {said:.300}");
    }
    // Everything is what it was.
    use std::os::unix::fs::FileTypeExt as _;
    let kind = |name: &str| fs::symlink_metadata(work.join(name)).unwrap().file_type();
    assert!(kind("pipe.ipynb").is_fifo() && kind("socket.ipynb").is_socket());
    assert!(kind("loop.ipynb").is_symlink() && kind("zero.ipynb").is_symlink());
    drop(listening);
    world.is_intact("names to save to");

    let said = save(&below("good"));
    assert!(said["result"] == "notebook_saved" && work.join("good.ipynb").exists(), "{said}");
    stop(world.daemon);
}

#[test]
fn questions_about_things_by_name_touch_nothing_else() {
    let Some(world) = World::new() else { return };
    let kept = Peer::create(&world.daemon);
    let id = &kept.info["notebook_id"];
    let base = world.daemon.base();
    let outputs = world.work.join("recovered.ipynb");
    let outside = world.outside.display().to_string();
    let mut names = world.names(&base.join("executions"));
    names.extend([
        outside.clone(),
        format!("{}/envs/../../../outside", base.display()),
        base.display().to_string(),
        base.join("envs").display().to_string(),
        base.join("rooms/../canary.txt").display().to_string(),
        "../daemon.json".to_owned(),
        "../../../outside/canary".to_owned(),
    ]);
    symlink(&world.outside, base.join("envs-link")).unwrap();
    names.push(base.join("envs-link").display().to_string());
    for name in names {
        let env = json!({"env_type": "uv", "venv_path": name, "python_path": "/bin/python"});
        for (question, harmless) in [
            (json!({"type": "get_execution_result", "execution_id": name}), None),
            (json!({"type": "inspect_notebook", "notebook_id": name}), None),
            (json!({"type": "shutdown_notebook", "notebook_id": name}), Some("\"found\":false")),
            (json!({"type": "get_notebook_projection", "notebook_id": name}), Some("_unavailable")),
            (json!({"type": "take", "env_type": name}), Some("empty")),
            (json!({"type": "return", "env": env}), None),
            (json!({"type": "rebuild_environments", "what": name}), None),
            (json!({"type": "set_plugin_enabled", "id": name, "enabled": false}), None),
            (json!({"type": "recover_notebook", "notebook": name, "output": outputs}), None),
        ] {
            let said = world.daemon.ask(question.clone()).to_string();
            let as_expected =
                said.contains("\"type\":\"error\"") || harmless.is_some_and(|it| said.contains(it));
            assert!(as_expected && !said.contains(CANARY), "{question:.200}: {said:.300}");
        }
    }
    assert!(!outputs.exists());
    // A journal that is there, and an output that must not be written.
    symlink("../outside/new.ipynb", world.work.join("dangling.ipynb")).unwrap();
    symlink("canary.txt", world.work.join("link.ipynb")).unwrap();
    pipe(&world.work.join("pipe.ipynb"));
    for output in ["canary.txt", "dangling.ipynb", "link.ipynb", "pipe.ipynb", "", "canary.txt/a", "a\0b"] {
        let output = world.work.join(output).display().to_string();
        let question = json!({"type": "recover_notebook", "notebook": id, "output": output});
        let said = world.daemon.ask(question);
        assert_eq!(said["type"], "error", "{output}: {said}");
    }
    let relative = json!({"type": "recover_notebook", "notebook": id, "output": "a.ipynb"});
    assert_eq!(world.daemon.ask(relative)["type"], "error");
    for request in [
        json!({"action": "clone_as_ephemeral", "source_notebook_id": "../../outside/canary.txt"}),
        json!({"action": "clone_as_ephemeral", "source_notebook_id": outside}),
        json!({"action": "complete_blob_upload", "upload_id": "../../canary.txt", "parts": []}),
        json!({"action": "abort_blob_upload", "upload_id": "../../canary.txt"}),
        json!({"action": "execute_cell", "cell_id": "../x", "execution_id": "../../canary"}),
        json!({"action": "create_blob_upload", "media_type": "a/b\r\nX-Evil: 1", "size": 3, "sha256": "../../x"}),
    ] {
        let mut bob = Peer::connect(&world.daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
        let said = bob.ask(request.clone()).to_string();
        assert!(["error", "failed", "rejected"].iter().any(|word| said.contains(word)), "{request}: {said}");
    }
    world.is_intact("questions by name");
    stop(world.daemon);
}

/// A repository can hold links, and an archive pipes.
#[tokio::test(flavor = "multi_thread")]
async fn a_project_file_that_never_ends_is_named_and_nothing_waits_for_it() {
    let settings = r#"{ "install_default_data_packages": false, "uv_pool_size": 0, "conda_pool_size": 0 }"#;
    let Some(daemon) = crate::start_with(settings, |_| {}) else { return };
    let client = Client::new(&daemon.socket);
    for (case, marker) in [
        ("pipe", "pyproject.toml"),
        ("endless", "pyproject.toml"),
        ("giant", "pyproject.toml"),
        ("pipe", "environment.yml"),
        ("endless", "environment.yml"),
        ("giant", "environment.yml"),
    ] {
        let folder = daemon.home.path().join("work").join(format!("{case} {marker}"));
        fs::create_dir_all(folder.join(".git")).unwrap();
        let project = folder.join(marker);
        match case {
            "pipe" => pipe(&project),
            "endless" => symlink("/dev/zero", &project).unwrap(),
            _ => fs::File::create(&project).unwrap().set_len(8 << 30).unwrap(),
        }
        let notebook = folder.join("a.ipynb");
        fs::write(&notebook, r#"{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}"#).unwrap();
        let open = OpenNotebook { path: notebook.display().to_string(), ..OpenNotebook::default() };
        let session = NotebookSession::open(&client, open).await.unwrap();
        let failed = |it: &Documents| match it.runtime_state.kernel_state() {
            KernelState::Error { details, .. } => Some(details),
            _ => None,
        };
        let told = session.wait_for(failed).await.unwrap();
        assert!(told.contains(marker) && told.contains("annot be read"), "{case} {marker}: {told}");
        is_well(&daemon, case);
    }
    assert!(!log(&daemon).contains("SIGKILL"), "{}", log(&daemon));
    stop(daemon);
}
