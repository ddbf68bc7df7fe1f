//! Requests that need no kernel, through frames.

use runtimed_protocol::documents::{Document as _, NotebookDoc};
use serde_json::{Value, json};

use crate::peer::Peer;

fn cells(daemon: &crate::support::Daemon, id: &Value) -> Vec<(Value, Value)> {
    let state = daemon.ask(json!({"type": "inspect_notebook", "notebook_id": id}));
    assert_eq!((&state["type"], &state["source"]), (&json!("notebook_state"), &json!("live_room")));
    let cells = state["cells"].as_array().unwrap();
    cells.iter().map(|cell| (cell["id"].clone(), cell["source"].clone())).collect()
}

fn notebook(peer: &mut Peer) -> NotebookDoc {
    let answer = peer.ask(json!({"action": "get_doc_bytes"}));
    let bytes: Vec<u8> = serde_json::from_value(answer["bytes"].clone()).unwrap();
    NotebookDoc::load(&bytes, "reader").unwrap()
}

#[test]
fn a_notebook_is_copied_into_a_room_that_keeps_nothing() {
    let Some(daemon) = crate::start() else { return };
    let folder = daemon.home.path().canonicalize().unwrap().join("work");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("original.ipynb");
    let content = json!({
        "nbformat": 4, "nbformat_minor": 5, "metadata": {"title": "kept"},
        "cells": [{
            "id": "a", "cell_type": "code", "metadata": {"tags": ["x"]}, "source": "1 + 1",
            "execution_count": 3,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "old"}],
        }],
    });
    std::fs::write(&file, content.to_string()).unwrap();
    let mut ana = Peer::connect(&daemon, json!({"channel": "open_notebook", "path": file}));
    let clone = |id: &Value| json!({"action": "clone_as_ephemeral", "source_notebook_id": id});
    let original = ana.info["notebook_id"].clone();
    let cloned = ana.ask(clone(&original));
    assert_eq!((&cloned["result"], &cloned["working_dir"]), (&json!("notebook_cloned"), &json!(folder)));
    let id = &cloned["notebook_id"];
    assert_ne!(id, &original);

    let mut bob =
        Peer::connect(&daemon, json!({"channel": "notebook_sync", "notebook_id": id, "protocol": "v4"}));
    assert_eq!(bob.info["comments_notebook_ref"]["room_id"], *id);
    let copy = notebook(&mut bob);
    assert!(copy.is_ephemeral());
    assert_eq!(copy.metadata()["title"], "kept");
    let cell = copy.cell("a").unwrap();
    assert_eq!((cell.source.as_str(), cell.execution_id, cell.execution_count), ("1 + 1", None, None));
    assert_eq!(cell.metadata["tags"], json!(["x"]));
    assert_eq!(cells(&daemon, id), [(json!("a"), json!("1 + 1"))]);
    let rooms = daemon.ask(json!({"type": "list_rooms"}))["rooms"].clone();
    let row = rooms.as_array().unwrap().iter().find(|room| room["notebook_id"] == *id).unwrap();
    assert_eq!((&row["ephemeral"], &row["active_peers"]), (&json!(true), &json!(1)));
    assert!(row.get("notebook_path").is_none());

    let unknown = "00000000-0000-4000-8000-000000000000";
    let refused =
        |answer: Value, error: String| assert_eq!(answer, json!({"result": "error", "error": error}));
    refused(ana.ask(clone(&json!("zz"))), "Invalid source_notebook_id: zz".into());
    refused(ana.ask(clone(&json!(unknown))), format!("Source notebook not found: {unknown}"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), content.to_string());
    crate::stop(daemon);
}

#[test]
fn guards_receipts_and_constant_answers_are_the_protocols() {
    let Some(daemon) = crate::start() else { return };
    let mut ana = Peer::create(&daemon);
    let heads: Vec<String> = notebook(&mut ana).heads().iter().map(ToString::to_string).collect();
    assert_eq!(
        ana.ask(json!({"action": "acknowledge_notebook_sync", "required_heads": heads})),
        json!({"result": "notebook_sync_acknowledged", "heads": heads})
    );
    let stranger = "ab".repeat(32);
    for (observed, reason) in [
        (json!([]), "Notebook state was not ready. Review before running again."),
        (json!(["zz"]), "Notebook state was not ready. Review before running again."),
        (json!([stranger]), "Notebook state was not recognized. Review before running again."),
    ] {
        for action in ["execute_cell_guarded", "run_all_cells_guarded"] {
            let request = json!({"action": action, "cell_id": "any", "observed_heads": observed});
            assert_eq!(ana.ask(request), json!({"result": "guard_rejected", "reason": reason}));
        }
    }
    let changed = "Dependencies changed while the trust dialog was open. Review before";
    assert_eq!(
        ana.ask(json!({"action": "approve_trust", "observed_heads": [stranger]})),
        json!({"result": "guard_rejected", "reason": format!("{changed} approving.")})
    );
    assert_eq!(
        ana.ask(json!({"action": "sync_environment", "guard": {"observed_heads": [stranger]}})),
        json!({"result": "guard_rejected", "reason": format!("{changed} syncing.")})
    );
    assert_eq!(
        ana.ask(json!({"action": "approve_project_environment"})),
        json!({
            "result": "error",
            "error": "No notebook path or working directory for project environment approval",
        })
    );
    let operation = json!({"type": "archive_recovery_and_reload_source"});
    assert_eq!(
        ana.ask(json!({"action": "reconcile_notebook_source", "operation": operation})),
        json!({
            "result": "notebook_source_reconciliation_blocked",
            "operation": "archive_recovery_and_reload_source",
            "reason": {"type": "not_required", "message": "room source is not degraded"},
        })
    );
    let patch = json!({"session_id": "s", "transaction_id": "t", "base_revision": 0, "patch": {}});
    assert_eq!(
        ana.ask(json!({"action": "apply_bokeh_session_patch", "request": patch})),
        json!({"result": "bokeh_session_patch", "reply": {
            "status": "error", "session_id": "s", "transaction_id": "t",
            "error": "unknown Bokeh session",
        }})
    );
    crate::stop(daemon);
}

#[test]
fn a_view_of_a_notebook_needs_no_connection_to_it() {
    let Some(daemon) = crate::start() else { return };
    let look = |id: &Value| daemon.ask(json!({"type": "get_notebook_projection", "notebook_id": id}));
    let file = daemon.home.path().canonicalize().unwrap().join("a.ipynb");
    let content = json!({
        "nbformat": 4, "nbformat_minor": 5, "metadata": {"runt": {"uv": {"dependencies": ["six"]}}},
        "cells": [
            {"id": "a", "cell_type": "code", "metadata": {}, "source": "é".repeat(121), "execution_count": 3,
             "outputs": [{"output_type": "stream", "name": "stdout", "text": "old"}]},
            {"id": "b", "cell_type": "markdown", "metadata": {}, "source": "# b\nc"},
        ],
    });
    std::fs::write(&file, content.to_string()).unwrap();
    let open = |file| Peer::connect(&daemon, json!({"channel": "open_notebook", "path": file}));
    let ana = open(&file);
    let id = &ana.info["notebook_id"];
    // It waits until the file is read.
    let view = look(id)["projection"].clone();
    let state = daemon.ask(json!({"type": "inspect_notebook", "notebook_id": id}));
    assert_eq!(state["cells"].as_array().unwrap().len(), 2);
    let execution = &view["cells"][0]["execution_id"];
    assert!(execution.is_string());
    assert_eq!(
        view["cells"],
        json!([
            {"id": "a", "cell_type": "code", "source_preview": format!("{}…", "é".repeat(120)),
             "execution_id": execution, "execution_status": "done", "execution_count": 3},
            {"id": "b", "cell_type": "markdown", "source_preview": "# b\nc"},
        ])
    );
    assert_eq!((&view["notebook_id"], &view["notebook_path"]), (id, &json!(file)));
    assert_eq!((&view["dependencies"], &view["projection_complete"]), (&json!(["six"]), &json!(true)));
    assert_eq!(view["source_state"]["progress"], json!({"completed": 2, "total": 2}));
    let capabilities = json!({"read": true, "mutate": true, "execute": true});
    assert_eq!(view["availability"]["capabilities"], capabilities);
    let keys =
        |section: &str| view["runtime"][section].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let env =
        ["added", "channels_changed", "deno_changed", "in_sync", "prewarmed_packages", "progress", "removed"];
    assert_eq!(keys("env"), env);
    assert_eq!(keys("trust").len(), 8);
    assert!(view["runtime"]["kernel"]["lifecycle"]["lifecycle"].is_string());

    let large: Vec<Value> = (0..2000)
        .map(|n| {
            json!({"id": format!("c{n}"), "cell_type": "code", "metadata": {}, "source": "x".repeat(200),
                        "execution_count": null, "outputs": []})
        })
        .collect();
    let file = file.with_file_name("large.ipynb");
    let content = json!({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": large});
    std::fs::write(&file, content.to_string()).unwrap();
    let bob = open(&file);
    let view = look(&bob.info["notebook_id"])["projection"].clone();
    assert_eq!(view["projection_complete"], json!(false));
    assert!(view["cells"].as_array().unwrap().len() > 100);

    let file = file.with_file_name("broken.ipynb");
    std::fs::write(&file, r#"{"cells": 3"#).unwrap();
    let carl = open(&file);
    // The room is forgotten as soon as it could not be loaded.
    let failure = look(&carl.info["notebook_id"]);
    assert_eq!(failure["type"], "notebook_projection_unavailable");
    let kinds = [json!("initial_load_failed"), json!("room_not_found")];
    assert!(kinds.contains(&failure["failure"]["kind"]), "{failure}");
    for unknown in [json!("zz"), json!("00000000-0000-4000-8000-000000000000")] {
        assert_eq!(
            look(&unknown),
            json!({"type": "notebook_projection_unavailable", "notebook_id": unknown,
                   "failure": {"kind": "room_not_found"}})
        );
    }
    crate::stop(daemon);
}
