//! The documents as the reference daemon and its client wrote them, read through our types.

#![expect(clippy::unwrap_used, reason = "a helper that cannot read its sample has failed its test")]

use std::path::PathBuf;

use runtimed_protocol::documents::notebook::{DependencyKind, Kernelspec, NewCell, Place, Seed};
use runtimed_protocol::documents::runtime_state::{
    Activity, CommEntry, Drift, FileCheckpoint, KernelState, NewExecution, Outcome, Queue, Status, Trust,
};
use runtimed_protocol::documents::{
    CommentsDoc, CommsDoc, ContentRef, Document, MimeBundle, NotebookDoc, Output, PoolDoc, RuntimeStateDoc,
    SettingsDoc, automerge, genesis,
};
use serde_json::{Map as JsonMap, Value as Json, json};

fn sample(name: &str) -> Vec<u8> {
    std::fs::read(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/samples").join(name)).unwrap()
}

fn expected(name: &str) -> Json {
    let sample: Json = serde_json::from_slice(&sample(name)).unwrap();
    let mut value = without_conflict_marks(&sample["value"]);
    value.sort_all_objects();
    value
}

/// The samples mark keys that have concurrent values.
fn without_conflict_marks(value: &Json) -> Json {
    match value {
        Json::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let key = key.split(" (CONFLICTS").next().unwrap_or(key);
                (key.to_owned(), without_conflict_marks(value))
            })
            .collect::<JsonMap<_, _>>()
            .into(),
        Json::Array(items) => items.iter().map(without_conflict_marks).collect(),
        _ => value.clone(),
    }
}

fn check(document: &mut impl Document, name: &str) {
    let mut value = document.to_json();
    value.sort_all_objects();
    let json = format!("{name}.json");
    assert_eq!(value, expected(&json), "{name}");
    let sample: Json = serde_json::from_slice(&sample(&json)).unwrap();
    let heads: Vec<String> = document.heads().iter().map(ToString::to_string).collect();
    assert_eq!(json!(heads), sample["heads"], "{name}");
}

#[test]
fn every_sample_reads_as_its_description() {
    for name in ["notebook", "notebook_imported", "notebook_client_crud"] {
        check(&mut NotebookDoc::load(&sample(&format!("{name}.automerge")), "a").unwrap(), name);
    }
    for name in ["runtime_state", "runtime_state_imported"] {
        check(&mut RuntimeStateDoc::load(&sample(&format!("{name}.automerge")), "a").unwrap(), name);
    }
    check(&mut CommsDoc::load(&sample("comms.automerge"), "a").unwrap(), "comms");
    check(&mut CommentsDoc::load(&sample("comments.automerge"), "a").unwrap(), "comments");
    check(&mut SettingsDoc::load(&sample("settings.automerge"), "a").unwrap(), "settings");
    check(&mut SettingsDoc::load(&sample("pool.automerge"), "a").unwrap(), "pool");
    let untitled = NotebookDoc::load(&sample("untitled.automerge"), "a").unwrap();
    assert!(untitled.cell_count() > 0 && untitled.notebook_id().is_some());
}

#[test]
fn the_genesis_samples_are_ours() {
    for (name, hash) in [
        ("genesis_notebook_v5", genesis::NOTEBOOK),
        ("genesis_runtime_state_v2", genesis::RUNTIME_STATE),
        ("genesis_comms_v1", genesis::COMMS),
        ("genesis_comments_v1", genesis::COMMENTS),
    ] {
        let mut document = automerge::AutoCommit::load(&sample(&format!("{name}.automerge"))).unwrap();
        assert_eq!(document.get_heads()[0].to_string(), hash);
    }
    let mut ours = NotebookDoc::genesis("a").unwrap();
    assert!(NotebookDoc::is_genesis(&ours.heads()));
}

#[test]
fn cells_of_the_reference_read_in_order() {
    let notebook = NotebookDoc::load(&sample("notebook.automerge"), "a").unwrap();
    let cells = notebook.cells();
    assert_eq!(cells.iter().map(|cell| cell.id.clone()).collect::<Vec<_>>(), notebook.cell_ids());
    let positions: Vec<&str> = cells.iter().map(|cell| cell.position.as_str()).collect();
    assert_eq!(positions, ["80", "8180", "8280", "8380", "8480", "8580", "8680", "8780"]);
    assert_eq!(
        (cells[1].cell_type.as_str(), cells[1].source.as_str()),
        ("markdown", "# Title\n\nSome *markdown*")
    );
    assert_eq!(cells[2].execution_id.as_deref(), Some("4ba5a698-9a2e-48db-b47c-58daf534254c"));
    assert_eq!(notebook.execution_id(&cells[2].id), cells[2].execution_id);
    assert_eq!(notebook.cell(&cells[3].id).as_ref(), Some(&cells[3]));
    assert_eq!(notebook.metadata_value("kernelspec").unwrap()["name"], "python3");
    assert!(notebook.runt().contains_key("env_id"));
    assert_eq!(notebook.schema_version().unwrap(), 5);
}

#[test]
fn executions_of_the_reference_read_with_their_outputs() {
    let runtime = RuntimeStateDoc::load(&sample("runtime_state.automerge"), "a").unwrap();
    let execution = runtime.execution("4ba5a698-9a2e-48db-b47c-58daf534254c").unwrap();
    assert_eq!((execution.status, execution.success, execution.seq), (Status::Done, Some(true), Some(0)));
    let outputs = runtime.outputs(&execution.execution_id);
    let typed: Vec<Output> = outputs.iter().map(|o| Output::from_json(&o.manifest).unwrap()).collect();
    assert!(
        matches!(&typed[0], Output::Stream { name, text, .. } if name == "stdout" && *text == ContentRef::inline("hello stdout\n"))
    );
    assert!(matches!(&typed[1], Output::Stream { name, .. } if name == "stderr"));
    assert!(matches!(&typed[2], Output::ExecuteResult { execution_count: Some(1), .. }));
    for id in runtime.execution_ids() {
        for output in runtime.outputs(&id) {
            let typed = Output::from_json(&output.manifest).unwrap();
            let mut manifest = output.manifest.clone();
            manifest.sort_all_objects();
            assert_eq!(typed.to_json(), manifest);
            assert_eq!(typed.output_id(), output.output_id);
        }
    }
    let [(execution, output)] = &runtime.displays("img-1")[..] else { panic!("one display") };
    assert!(runtime.output(execution, output).is_some());
    assert!(matches!(runtime.kernel_state(), KernelState::Running(Activity::Idle)));
    assert_eq!(runtime.comm_ids().len(), 3);
    assert_eq!(runtime.comm("b7dc674be60642ce92342101a25ea5a2").unwrap().model_name, "IntSliderModel");
}

#[test]
fn a_seeded_notebook_is_one_change_of_twenty_operations() {
    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    assert!(notebook.is_pristine());
    notebook.set_ephemeral(true).unwrap();
    assert!(notebook.is_pristine() && notebook.is_ephemeral());
    notebook.set_ephemeral(false).unwrap();

    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    let seed = Seed {
        kernel: Kernelspec::PYTHON,
        package_manager: "uv",
        dependencies: &[],
        env_id: "room",
        cell_id: "c",
    };
    notebook.seed(&seed).unwrap();
    let changes = notebook.changes_since(&[]);
    assert_eq!(changes.iter().map(automerge::Change::len).collect::<Vec<_>>(), [3, 3, 20]);
    assert!(!notebook.is_pristine());
    assert_eq!(
        notebook.metadata(),
        *json!({
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "runt": {"env_id": "room", "schema_version": "1", "uv": {"dependencies": []}},
        })
        .as_object()
        .unwrap()
    );
    let cell = notebook.cell("c").unwrap();
    assert_eq!((cell.position.as_str(), cell.source.as_str(), cell.cell_type.as_str()), ("80", "", "code"));
    // Emptied is not pristine.
    notebook.delete_all_cells().unwrap();
    assert_eq!(notebook.cell_count(), 0);
    assert!(!notebook.is_pristine());
}

#[test]
fn code_is_read_in_order_and_numbered_among_all_cells() {
    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    let cell = |id: &str, cell_type: &str| NewCell {
        id: id.to_owned(),
        cell_type: cell_type.to_owned(),
        source: format!("the text of {id}"),
        ..NewCell::default()
    };
    let cells = [cell("b", "code"), cell("c", "markdown"), cell("d", "code"), cell("a", "code")];
    notebook.insert_cells(Place::End, &cells).unwrap();
    notebook.move_cell("a", Place::Start).unwrap();
    notebook.set_source("d", "").unwrap();
    let text = |id: &str| format!("the text of {id}");
    assert_eq!(notebook.code_sources(), [(1, text("a")), (2, text("b")), (4, String::new())]);
}

#[test]
fn what_others_typed_is_kept_as_the_document_and_not_once_more_as_patches() {
    let mut writer = NotebookDoc::new("room", "writer").unwrap();
    let mut reader = NotebookDoc::new("room", "reader").unwrap();
    let cell = NewCell { id: "a".into(), cell_type: "code".into(), ..NewCell::default() };
    writer.insert_cell(Place::End, &cell).unwrap();
    for source in ["x", "x = 1", "x = 12"] {
        writer.set_source("a", source).unwrap();
        let new = writer.changes_since(&reader.heads());
        reader.apply(new).unwrap();
    }
    assert_eq!(reader.source("a").as_deref(), Some("x = 12"));
    // All that tells from outside what Automerge holds.
    assert!(!format!("{:?}", reader.automerge()).contains("Splice {"));
}

#[test]
fn cells_go_where_they_are_put_and_keep_what_they_are() {
    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    let cell = |id: &str| NewCell {
        id: id.to_owned(),
        cell_type: "code".to_owned(),
        source: format!("{id} = 'ä😀'\n"),
        execution_count: Some(3),
        metadata: json!({"tags": ["x", {"deep": [1, -2, 18446744073709551615u64, 0.5, null, true]}], "": {}})
            .as_object()
            .cloned()
            .unwrap(),
        ..NewCell::default()
    };
    notebook.insert_cells(Place::End, &[cell("b"), cell("d")]).unwrap();
    notebook.insert_cell(Place::Start, &cell("a")).unwrap();
    notebook.insert_cell(Place::After("b"), &cell("c")).unwrap();
    notebook.insert_cell(Place::After("nobody"), &cell("e")).unwrap();
    assert_eq!(notebook.cell_ids(), ["a", "b", "c", "d", "e"]);
    notebook.move_cell("a", Place::After("d")).unwrap();
    notebook.move_cell("e", Place::Start).unwrap();
    assert_eq!(notebook.cell_ids(), ["e", "b", "c", "d", "a"]);
    assert_eq!(notebook.cell("c").unwrap().metadata, cell("c").metadata);
    assert_eq!(notebook.cell("c").unwrap().source, cell("c").source);
    assert_eq!(notebook.cell("c").unwrap().execution_count, Some(3));

    notebook.commit();
    let heads = notebook.heads();
    notebook.set_source("c", &cell("c").source).unwrap();
    notebook.set_cell_type("c", "code").unwrap();
    notebook.set_cell_metadata("c", &cell("c").metadata).unwrap();
    notebook.set_metadata(&notebook.metadata()).unwrap();
    assert_eq!(notebook.heads(), heads, "what is there already is not written");

    notebook.set_source("c", "c = 'ä🎉'").unwrap();
    notebook.set_execution_id("c", "run").unwrap();
    assert_eq!(notebook.source("c").as_deref(), Some("c = 'ä🎉'"));
    notebook.clear_outputs("c").unwrap();
    let cleared = notebook.cell("c").unwrap();
    assert_eq!((cleared.execution_id, cleared.execution_count), (None, None));
    assert!(notebook.delete_cell("c").unwrap() && !notebook.delete_cell("c").unwrap());
    assert!(notebook.set_source("c", "").is_err());

    let again = NotebookDoc::load(&notebook.save(), "b").unwrap();
    assert_eq!(again.cells(), notebook.cells());
}

#[test]
fn edits_of_two_merge() {
    let mut ours = NotebookDoc::new("room", "runtimed").unwrap();
    let cell = NewCell { id: "c".to_owned(), source: "one\ntwo\n".to_owned(), ..NewCell::default() };
    ours.insert_cell(Place::End, &cell).unwrap();
    ours.set_metadata(json!({"a": {"x": 1, "y": [1, 2]}}).as_object().unwrap()).unwrap();
    let mut theirs = NotebookDoc::load(&ours.save(), "local:ana/t").unwrap();
    let heads = ours.heads();
    ours.set_source("c", "one\ntwo\nthree\n").unwrap();
    ours.set_metadata(json!({"a": {"x": 2, "y": [1, 2]}}).as_object().unwrap()).unwrap();
    theirs.set_source("c", "zero\none\ntwo\n").unwrap();
    theirs.set_metadata(json!({"a": {"x": 1, "y": [1, 2, 3], "z": "new"}}).as_object().unwrap()).unwrap();
    let changes = theirs.changes_since(&heads);
    ours.apply(changes).unwrap();
    assert_eq!(ours.source("c").as_deref(), Some("zero\none\ntwo\nthree\n"));
    assert_eq!(ours.metadata_value("a"), Some(json!({"x": 2, "y": [1, 2, 3], "z": "new"})));
}

#[test]
fn reserved_metadata_is_the_documents_own() {
    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    notebook.set_ephemeral(true).unwrap();
    notebook
        .set_metadata(
            json!({"runtime": "x", "foo": 1, "runt": {"trust_signature": "s", "env_id": "e"}})
                .as_object()
                .unwrap(),
        )
        .unwrap();
    assert_eq!(Json::Object(notebook.metadata()), json!({"foo": 1, "runt": {"env_id": "e"}}));
    notebook.set_metadata(&JsonMap::new()).unwrap();
    assert!(notebook.metadata().is_empty() && notebook.is_ephemeral());

    let deps = ["pandas".to_owned(), "numpy>=2".to_owned()];
    notebook.set_dependencies("uv", DependencyKind::Packages, &deps).unwrap();
    assert_eq!(notebook.dependencies("uv", DependencyKind::Packages), deps);
    notebook.set_dependencies("uv", DependencyKind::Packages, &deps[1..]).unwrap();
    assert_eq!(notebook.dependencies("uv", DependencyKind::Packages), deps[1..]);
    assert!(notebook.dependencies("conda", DependencyKind::Channels).is_empty());
}

#[test]
fn what_a_peer_ruins_is_an_error_and_never_a_panic() {
    use automerge::transaction::Transactable;

    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    let cell = NewCell { id: "c".to_owned(), ..NewCell::default() };
    notebook.insert_cell(Place::End, &cell).unwrap();
    let cells = automerge::ReadDoc::get(notebook.automerge(), automerge::ROOT, "cells").unwrap().unwrap().1;
    notebook.automerge_mut().put(&cells, "scalar", 1).unwrap();
    notebook.automerge_mut().put_object(&cells, "no id", automerge::ObjType::Map).unwrap();
    assert_eq!(notebook.cell_ids(), ["c"]);
    assert_eq!(notebook.cells().len(), 1);
    notebook.automerge_mut().put(automerge::ROOT, "cells", "gone").unwrap();
    assert!(notebook.cells().is_empty());
    assert!(notebook.insert_cell(Place::End, &cell).is_err());
    notebook.automerge_mut().put(automerge::ROOT, "schema_version", 2).unwrap();
    assert!(NotebookDoc::load(&notebook.save(), "a").is_err());
}

#[test]
fn an_older_schema_is_brought_up_to_date() {
    use automerge::transaction::Transactable;

    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    notebook.automerge_mut().put(automerge::ROOT, "schema_version", 3u64).unwrap();
    notebook.automerge_mut().delete(automerge::ROOT, "comms_doc_id").unwrap();
    let updated = NotebookDoc::load(&notebook.save(), "runtimed:2").unwrap();
    assert_eq!(updated.schema_version().unwrap(), 5);
    assert_eq!(updated.to_json()["comms_doc_id"], "comms:room");
}

#[test]
fn an_execution_goes_its_way() {
    let mut runtime = RuntimeStateDoc::new("runtimed:state").unwrap();
    let new = NewExecution {
        execution_id: "e",
        source: "1",
        cell_id: "c",
        seq: 0,
        submitted_by_actor_label: "local:ana/x",
    };
    assert!(runtime.create_execution(&new).unwrap());
    assert!(!runtime.create_execution(&new).unwrap());
    runtime.set_queue(&Queue { executing: None, queued: vec!["e".into(), "f".into(), "g".into()] }).unwrap();
    runtime.commit();
    // Taking the first of the queue: status, executing and one deletion.
    let heads = runtime.heads();
    assert!(runtime.start_execution("e").unwrap());
    let queue = Queue { executing: Some("e".into()), queued: vec!["f".into(), "g".into()] };
    runtime.set_queue(&queue).unwrap();
    runtime.commit();
    let changes = runtime.changes_since(&heads);
    assert_eq!(changes.iter().map(automerge::Change::len).collect::<Vec<_>>(), [3]);
    assert_eq!(runtime.queue(), queue);

    runtime.set_execution_count("e", 7).unwrap();
    let stream = |text: &str| Output::Stream {
        output_id: "o1".into(),
        name: "stdout".into(),
        text: ContentRef::inline(text),
        llm_preview: None,
    };
    let display = |output_id: &str, text: &str| Output::Display {
        output_id: output_id.into(),
        bundle: MimeBundle {
            data: [("text/plain".to_owned(), ContentRef::inline(text))].into(),
            metadata: JsonMap::new(),
            transient: json!({"display_id": "d"}).as_object().cloned().unwrap(),
        },
    };
    runtime.put_output("e", 0, &stream("a")).unwrap();
    runtime.put_output("e", 1, &display("o2", "x")).unwrap();
    runtime.put_output("e", 2, &display("o3", "y")).unwrap();
    runtime.put_output("e", 0, &stream("ab")).unwrap();
    let outputs = runtime.outputs("e");
    assert_eq!(
        outputs.iter().map(|o| (o.seq, o.output_id.as_str())).collect::<Vec<_>>(),
        [(0, "o1"), (1, "o2"), (2, "o3")]
    );
    assert_eq!(outputs[0].manifest, stream("ab").to_json());
    assert_eq!(runtime.displays("d").len(), 2);
    assert_eq!(runtime.to_json()["display_index"]["d"]["e\0o2"], true);
    runtime.remove_output("e", "o2").unwrap();
    assert_eq!(runtime.displays("d"), [("e".to_owned(), "o3".to_owned())]);

    assert!(runtime.finish_execution("e", Outcome::Error).unwrap());
    assert!(!runtime.finish_execution("e", Outcome::Done).unwrap(), "what has ended stays as it is");
    assert!(!runtime.start_execution("e").unwrap());
    let execution = runtime.execution("e").unwrap();
    assert_eq!(
        (execution.status, execution.success, execution.execution_count),
        (Status::Error, Some(false), Some(7))
    );
    runtime.remove_execution("e").unwrap();
    assert!(runtime.execution("e").is_none() && runtime.displays("d").is_empty());
    assert_eq!(runtime.to_json()["display_index"], json!({}));
    assert!(runtime.set_execution_count("e", 1).is_err());

    assert!(runtime.restore_execution("old", Outcome::Done, Some(2)).unwrap());
    assert_eq!(
        runtime.to_json()["executions"]["old"],
        json!({"execution_count": 2, "outputs": {}, "status": "done", "success": true})
    );
}

#[test]
fn writing_the_same_state_again_writes_nothing() {
    let mut runtime = RuntimeStateDoc::new("runtimed:state").unwrap();
    let write = |runtime: &mut RuntimeStateDoc| {
        runtime.set_identity("runtime:room").unwrap();
        runtime.set_path(Some("/n.ipynb")).unwrap();
        runtime.set_last_saved(Some("2026-01-01T00:00:00Z")).unwrap();
        runtime.set_workstation(4, Some("/home/ana")).unwrap();
        runtime.set_kernel_state(&KernelState::Running(Activity::Busy)).unwrap();
        runtime
            .set_env_progress(Some(&json!({"env_type": "uv", "phase": "installing", "total": 3})))
            .unwrap();
        let drift = Drift { added: vec!["pandas".into()], ..Drift::default() };
        runtime.set_env_drift(&drift).unwrap();
        runtime.set_prewarmed_packages(&["ipykernel".into()]).unwrap();
        let trust = Trust {
            status: "untrusted".into(),
            needs_approval: true,
            approved: vec![("uv_dependencies".into(), vec!["numpy".into()])],
        };
        runtime.set_trust(&trust).unwrap();
        let context =
            json!({"state": "detected", "kind": "pyproject_toml", "parsed": {"dependencies": ["a"]}});
        runtime.set_project_context(context.as_object().unwrap()).unwrap();
        let checkpoint = FileCheckpoint { save_sequence: Some(1), ..FileCheckpoint::default() };
        runtime.set_file_checkpoint(&checkpoint).unwrap();
        assert_eq!(runtime.file_checkpoint(), checkpoint);
        let comm = CommEntry { target_name: "jupyter.widget".into(), ..CommEntry::default() };
        runtime.put_comm("w", &comm).unwrap();
        assert_eq!(runtime.comm("w"), Some(comm));
    };
    write(&mut runtime);
    let heads = runtime.heads();
    write(&mut runtime);
    assert_eq!(runtime.heads(), heads);
    let state = runtime.to_json();
    assert_eq!(state["trust"]["approved_uv_dependencies"], json!(["numpy"]));
    assert_eq!(state["trust"]["approved_pixi_channels"], json!([]));
    assert_eq!(state["project_context"]["parsed"]["extras"], "");
    assert_eq!(state["env"]["in_sync"], false);
    assert_eq!(state["workstation"]["cpu_count"], 4);

    let error = KernelState::Error { reason: "missing_ipykernel".into(), details: "why".into() };
    runtime.set_kernel_state(&error).unwrap();
    assert_eq!(runtime.kernel_state(), error);
    runtime.set_kernel_state(&KernelState::Resolving).unwrap();
    assert_eq!(runtime.to_json()["kernel"]["error_details"], "");
    runtime.remove_comm("w").unwrap();
    runtime.remove_comm("w").unwrap();
    assert!(runtime.comm_ids().is_empty());
}

#[test]
fn what_changes_wrote_is_what_still_stands() {
    let mut ours = CommsDoc::new("runtimed:comms").unwrap();
    let state = json!({"value": 3, "max": 10, "style": {"color": "red"}, "marks": [1, 2]});
    ours.open("w", state.as_object().unwrap()).unwrap();
    let edited = |ours: &mut CommsDoc, actor: &str, edit: &dyn Fn(&mut CommsDoc)| {
        let heads = ours.heads();
        let mut theirs = CommsDoc::load(&ours.save(), actor).unwrap();
        edit(&mut theirs);
        theirs.changes_since(&heads)
    };
    let update = |theirs: &mut CommsDoc, state: Json| theirs.update("w", state.as_object().unwrap()).unwrap();
    let by_ana = edited(&mut ours, "local:ana/1", &|theirs| {
        update(theirs, json!({"value": 4, "max": 10, "style": {"color": "blue"}, "marks": [1]}));
        theirs.update("nobody", json!({"value": 4}).as_object().unwrap()).unwrap();
    });
    let by_bob = edited(&mut ours, "local:bob/1", &|theirs| update(theirs, json!({"value": 5})));
    let closing = edited(&mut ours, "local:bob/2", &|theirs| theirs.close("w").unwrap());
    ours.apply(by_ana.clone()).unwrap();
    let all = json!({"w": {"value": 4, "style": {"color": "blue"}, "marks": [1]}});
    assert_eq!(json!(ours.written(&by_ana)), all);
    ours.apply(by_bob.clone()).unwrap();
    // One of the two has won.
    let (ana, bob) = (ours.written(&by_ana), ours.written(&by_bob));
    let winner = ours.state("w").unwrap()["value"].clone();
    assert_eq!(json!(bob), if winner == 5 { json!({"w": {"value": 5}}) } else { json!({}) });
    assert_eq!(ana["w"].contains_key("value"), winner == 4);
    ours.update("w", json!({"value": 6}).as_object().unwrap()).unwrap();
    assert!(ours.written(&by_bob).is_empty());
    assert_eq!(ours.comm_ids(), ["w"]);
    ours.apply(closing.clone()).unwrap();
    assert!(ours.written(&closing).is_empty() && ours.written(&by_ana).is_empty());
    assert!(ours.state("w").is_none());
    // A window may put back a whole widget.
    let whole = edited(&mut ours, "local:ana/2", &|theirs| {
        theirs.open("w", json!({"value": 7}).as_object().unwrap()).unwrap();
    });
    ours.apply(whole.clone()).unwrap();
    assert_eq!(json!(ours.written(&whole)), json!({"w": {"value": 7}}));
}

#[test]
fn comments_know_what_they_belong_to() {
    let reference = json!({"kind": "local_room", "room_id": "r"});
    let comments = CommentsDoc::new("comments:local-room:r", &reference, "runtimed:comments").unwrap();
    assert_eq!(comments.identity().as_deref(), Some("comments:local-room:r"));
    assert_eq!(comments.notebook_ref(), Some(reference));
    assert!(!comments.has_threads());
    assert!(CommentsDoc::load(&sample("comments.automerge"), "a").unwrap().has_threads());
}

#[test]
fn pools_and_settings_change_in_place() {
    let mut pool = PoolDoc::new("runtimed:pool").unwrap();
    let failed = runtimed_protocol::documents::pool::PoolState {
        error: Some("no network".into()),
        ..Default::default()
    };
    pool.set("uv", &failed).unwrap();
    assert_eq!(pool.to_json()["uv"]["error"], "no network");
    pool.set("uv", &Default::default()).unwrap();
    assert!(pool.to_json()["uv"].get("error").is_none());
    assert_eq!(pool.to_json()["conda"]["pool_size"], 0);
    for kind in ["uv", "venv"] {
        pool.set(kind, &failed).unwrap();
        pool.remove(kind).unwrap();
    }
    assert!(pool.to_json().get("venv").is_none() && pool.to_json()["uv"].get("error").is_none());
    assert_eq!(pool.to_json()["uv"]["pool_size"], 0);

    let defaults = json!({"theme": "system", "uv": {"default_packages": []}});
    let mut settings = SettingsDoc::new(defaults.as_object().unwrap(), "runtimed:settings").unwrap();
    settings.set("uv", Some(&json!({"default_packages": ["numpy"]}))).unwrap();
    settings.set("theme", None).unwrap();
    settings.set("theme", None).unwrap();
    assert_eq!(Json::Object(settings.settings()), json!({"uv": {"default_packages": ["numpy"]}}));
    assert_eq!(settings.get("theme"), None);
    assert!(SettingsDoc::empty("a").settings().is_empty());
}

#[test]
fn five_thousand_cells_load_in_one_change_and_stay_in_order() {
    let cells: Vec<NewCell> = (0..5_000)
        .map(|index| NewCell {
            id: format!("cell-{index}"),
            cell_type: "code".to_owned(),
            source: format!("x = {index}\n"),
            ..NewCell::default()
        })
        .collect();
    let mut notebook = NotebookDoc::new("room", "runtimed").unwrap();
    notebook.insert_cells(Place::End, &cells).unwrap();
    notebook.commit();
    assert_eq!(notebook.cell_count(), cells.len());
    assert!(notebook.cell_ids().iter().eq(cells.iter().map(|cell| &cell.id)));
    let again = NotebookDoc::load(&notebook.save(), "b").unwrap();
    assert!(again.cells().iter().map(|cell| &cell.source).eq(cells.iter().map(|cell| &cell.source)));
}
