//! A notebook from elsewhere that would install or run something before it is trusted: a package whose build leaves a
//! trace, and cells that do.
//!
//! Shown elsewhere: what counts as one package (`host/src/pools/trust.rs`), an approval of what was shown
//! (`plugins/rooms/src/room/tests`), channels, projects and script blocks (`host/src/pools/tests.rs`).

use std::fs;
use std::path::{Path, PathBuf};

use runtimed_client::protocol::documents::runtime_state::KernelState;
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::{Client, Documents, NotebookSession};
use serde_json::{Value, json};

use crate::{start_with, stop};

/// A package that its own code builds; that code says that it ran.
fn package(folder: &Path, name: &str, trace: &Path) -> PathBuf {
    let package = folder.join(name);
    fs::create_dir_all(&package).unwrap();
    let project = format!(
        "[project]\nname = \"{name}\"\nversion = \"1\"\n\
         [build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"
    );
    fs::write(package.join("pyproject.toml"), project).unwrap();
    let backend = format!(
        "open({:?}, 'w').close()\n\
         import zipfile\n\
         def build_wheel(folder, config_settings=None, metadata_directory=None):\n\
         \x20   wheel = '{name}-1-py3-none-any.whl'\n\
         \x20   info = '{name}-1.dist-info/'\n\
         \x20   with zipfile.ZipFile(folder + '/' + wheel, 'w') as archive:\n\
         \x20       archive.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: {name}\\nVersion: 1\\n')\n\
         \x20       archive.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
         \x20       archive.writestr(info + 'RECORD', '')\n\
         \x20   return wheel\n",
        trace.display().to_string()
    );
    fs::write(package.join("backend.py"), backend).unwrap();
    package
}

fn kernel(it: &Documents) -> KernelState {
    it.runtime_state.kernel_state()
}

async fn awaits_trust(session: &NotebookSession) {
    session.wait_for(|it| (kernel(it) == KernelState::AwaitingTrust).then_some(())).await.unwrap();
}

async fn approve(session: &NotebookSession) {
    session.request(NotebookRequest::ApproveTrust { observed_heads: None }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_installed_and_nothing_runs_before_the_user_says_so_and_what_changes_is_asked_again() {
    let settings = json!({"install_default_data_packages": false, "uv_pool_size": 0, "conda_pool_size": 0});
    let Some(daemon) = start_with(&settings.to_string(), |_| {}) else { return };
    let home = daemon.home.path().canonicalize().unwrap();
    let traces = ["built1", "built2", "ran"].map(|name| home.join(name));
    let [built1, built2, ran] = &traces;
    let url =
        |package: &Path| format!("{} @ file://{}", package.file_name().unwrap().display(), package.display());
    let (one, two) = (package(&home, "canaryone", built1), package(&home, "canarytwo", built2));
    let cell = json!({"id": "a", "cell_type": "code", "metadata": {"tags": ["autorun"], "trusted": true},
        "source": format!("open({:?}, 'w').close()", ran.display().to_string()),
        "execution_count": null, "outputs": []});
    // What it says about its own trust is nobody's word.
    let content = json!({"nbformat": 4, "nbformat_minor": 5, "cells": [cell], "metadata": {
        "runt": {"uv": {"dependencies": [url(&one)]}, "trusted": true, "trust": {"status": "trusted"},
            "trust_signature": "hmac-sha256:00"},
        "trusted": true, "signature": "sha256:00",
    }});
    let file = home.join("from-elsewhere.ipynb");
    fs::write(&file, content.to_string()).unwrap();

    let client = Client::new(&daemon.socket);
    let open = || OpenNotebook { path: file.display().to_string(), ..OpenNotebook::default() };
    let session = NotebookSession::open(&client, open()).await.unwrap();
    session.ready().await.unwrap();
    awaits_trust(&session).await;
    let refused = async |what: &str, request: NotebookRequest| {
        let said = session.request(request).await;
        // Whatever is said, the traces below count.
        eprintln!("{what}: {said:?}");
    };
    assert!(!ran.exists(), "nothing runs by being opened");
    for source in ["auto", "uv:inline", "auto:uv"] {
        let launch: NotebookRequest = serde_json::from_value(
            json!({"action": "launch_kernel", "kernel_type": "python", "env_source": source}),
        )
        .unwrap();
        refused(source, launch).await;
    }
    let sync: NotebookRequest = serde_json::from_value(json!({"action": "sync_environment"})).unwrap();
    refused("sync", sync).await;
    refused("run", NotebookRequest::RunAllCells { cell_execution_ids: None }).await;
    assert!(!built1.exists(), "nothing of the package may run");

    approve(&session).await;
    session.wait_for(|it| matches!(kernel(it), KernelState::Running(_)).then_some(())).await.unwrap();
    assert!(built1.exists(), "or else nothing was shown");

    // Another package is another question, for whoever asks: a sync, or the next start.
    drop(session);
    let id = daemon.ask(json!({"type": "list_rooms"}))["rooms"][0]["notebook_id"].clone();
    daemon.ask(json!({"type": "shutdown_notebook", "notebook_id": id}));
    let mut changed: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    changed["metadata"]["runt"]["uv"]["dependencies"] = json!([url(&one), url(&two)]);
    fs::write(&file, changed.to_string()).unwrap();
    let session = NotebookSession::open(&client, open()).await.unwrap();
    session.ready().await.unwrap();
    awaits_trust(&session).await;
    assert!(!built2.exists());
    approve(&session).await;
    session.wait_for(|it| matches!(kernel(it), KernelState::Running(_)).then_some(())).await.unwrap();
    assert!(built2.exists());
    stop(daemon);
}
