//! Replays what a real kernel sent, recorded beside the reference daemon, and compares manifests.

use std::collections::BTreeMap;
use std::path::Path;

use runtimed_protocol::documents::output::{ContentRef, Output};
use serde_json::{Value as Json, json};

use super::edits::Drained;
use super::{Collector, DisplayUpdate, OutputChange};

/// Recordings whose manifests differ from the reference daemon's on purpose: the manifests instead of
/// those recorded (without ids), and why.
fn accepted(case: &str) -> Option<(&'static str, Vec<Json>)> {
    let stream = |text: &str| json!({"name": "stdout", "output_type": "stream", "text": {"inline": text}});
    let html = |text: &str| {
        json!({"output_type": "display_data", "data": {
            "text/html": {"inline": text},
            "text/plain": {"inline": "<IPython.core.display.HTML object>"},
        }})
    };
    Some(match case {
        "07c_markdown" => (
            "the parsed sibling of Markdown is optional and is not made",
            vec![json!({"output_type": "display_data", "data": {
                "text/markdown": {"inline": "# T\n\n*x*"},
                "text/plain": {"inline": "<IPython.core.display.Markdown object>"},
            }})],
        ),
        "08_big_stream_blob" => (
            "a stream stays in the manifest up to 64 KiB, which spares the client half a second",
            vec![stream(&(0..200).map(|line| format!("line {line}\n")).collect::<String>())],
        ),
        "09f_long_line_wrap" => ("long lines are not cut", vec![stream(&format!("{}\n", "x".repeat(300)))]),
        "09g_trailing_spaces" => ("trailing blanks are kept", vec![stream("a   \n\n   b\n\n\n\n")]),
        "09i_only_newlines" => ("blank lines are kept", vec![stream("\n\n\n")]),
        "10_clear_output_nowait" => ("clear_output is honored", vec![stream("after\n")]),
        "10b_clear_output_wait" => ("clear_output is honored", vec![stream("frame 2\n")]),
        "10c_clear_output_display" => ("clear_output is honored", vec![html("<i>2</i>")]),
        "11b_update_display_other_cell" => ("the update belongs to outputs of another execution", vec![]),
        "15_help_page" => ("the recording has no execute_reply; see the test of pages", vec![]),
        "16b_output_widget" => (
            "what an Output widget captures never reaches the collector in a room",
            vec![
                json!({"output_type": "display_data", "data": {
                    "application/vnd.jupyter.widget-view+json": {"inline":
                        "{\"version_major\":2,\"version_minor\":0,\"model_id\":\"ea932089753f46c29a02dd3db2bfed55\"}"},
                    "text/plain": {"inline": "Output()"},
                }}),
                stream("inside\n"),
                json!({"output_type": "display_data", "data": {
                    "text/html": {"inline": "<u>in</u>"},
                    "text/plain": {"inline": "<IPython.core.display.HTML object>"},
                }}),
                stream("outside\n"),
            ],
        ),
        "17b_invalid_base64" => (
            "undecodable base64 is kept as text in the manifest, so every manifest has one shape",
            vec![json!({"output_type": "display_data", "data": {
                "image/png": {"inline": "***notb64***"},
                "text/plain": {"inline": "p"},
            }})],
        ),
        _ => return None,
    })
}

/// Outputs as a peer sees them.
#[derive(Default)]
struct Peer {
    outputs: BTreeMap<(u64, String), Output>,
    blobs: BTreeMap<String, Vec<u8>>,
    changes: usize,
}

impl Peer {
    fn see(&mut self, drained: Drained) {
        for blob in drained.blobs {
            self.blobs.insert(blob.digest.to_string(), blob.bytes.to_vec());
        }
        for change in drained.changes {
            self.changes += 1;
            match change {
                OutputChange::Put { output_id, seq, output } => {
                    assert_eq!(output.output_id(), output_id);
                    for hash in output.blobs() {
                        assert!(self.blobs.contains_key(hash), "a manifest names a blob nobody stored");
                    }
                    self.outputs.insert((seq, output_id), output);
                }
                OutputChange::Remove { output_id } => {
                    let before = self.outputs.len();
                    self.outputs.retain(|(_, id), _| *id != output_id);
                    assert_eq!(self.outputs.len(), before - 1, "removed what was not there");
                }
            }
        }
    }

    fn stdout(&self) -> String {
        let texts = self.outputs.values().filter_map(|output| match output {
            Output::Stream { text: ContentRef::Inline { inline }, .. } => Some(inline.clone()),
            Output::Stream { text: ContentRef::Blob { hash, .. }, .. } => {
                Some(String::from_utf8_lossy(self.blobs.get(hash)?).into_owned())
            }
            _ => None,
        });
        texts.collect()
    }
}

fn ids() -> impl FnMut() -> String {
    let mut last = 0;
    move || {
        last += 1;
        format!("o{last}")
    }
}

fn print(collector: &mut Collector, text: &str, ids: &mut dyn FnMut() -> String) {
    collector.take("stream", json!({"name": "stdout", "text": text}).to_string().as_bytes(), ids);
}

/// A manifest without what is chosen anew every time (ids), and with `rich` read: the reference daemon
/// sorts its keys otherwise and leaves `library` out where it is false.
fn comparable(manifest: &Json) -> Json {
    let mut manifest = manifest.clone();
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("output_id");
        let rich = fields.get("rich").and_then(|rich| rich.get("inline")?.as_str()).map(str::to_owned);
        if let Some(rich) = rich {
            let mut rich: Json = serde_json::from_str(&rich).expect("rich is JSON");
            for frame in rich["frames"].as_array_mut().into_iter().flatten().filter_map(Json::as_object_mut) {
                frame.retain(|key, value| key != "library" || value == true);
            }
            fields.insert("rich".to_owned(), rich);
        }
    }
    manifest
}

#[test]
fn recorded_sessions_give_the_recorded_manifests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/outputs");
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).expect("the recordings are there") {
        let path = entry.expect("a recording").path();
        let recording: Json = serde_json::from_slice(&std::fs::read(&path).expect("readable")).expect("JSON");
        let case = recording["case"].as_str().expect("a name");
        let expected = accepted(case).map_or_else(
            || recording["manifests_stored"].as_array().expect("manifests").clone(),
            |(_reason, manifests)| manifests,
        );
        let expected: Vec<Json> = expected.iter().map(comparable).collect();
        for every_message in [true, false] {
            let (collector, peer) = replay(&recording, every_message);
            let seen: Vec<Json> = peer.outputs.values().map(|output| comparable(&output.to_json())).collect();
            assert_eq!(seen, expected, "{case}, drained after every message: {every_message}");
            let entry = &recording["execution_entry_at_end"];
            assert_eq!(collector.execution_count(), entry["execution_count"].as_i64(), "{case}");
            assert_eq!(!collector.failed(), entry["success"] == true, "{case}");
        }
        replayed += 1;
    }
    assert_eq!(replayed, 41);
}

fn replay(recording: &Json, every_message: bool) -> (Collector, Peer) {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    for message in recording["iopub_in"].as_array().expect("messages") {
        let content = message["content"].to_string().into_bytes();
        let msg_type = message["msg_type"].as_str().expect("a type");
        if let Some(update) = (msg_type == "update_display_data").then(|| DisplayUpdate::parse(&content)) {
            let update = update.expect("an update");
            collector.update_display(&update);
            for output in peer.outputs.values_mut() {
                update.apply(output);
            }
        }
        collector.take(msg_type, &content, &mut ids);
        if every_message {
            peer.see(collector.drain(&mut ids));
        }
    }
    collector.finish(&mut ids);
    peer.see(collector.drain(&mut ids));
    assert!(!collector.is_dirty());
    (collector, peer)
}

#[test]
fn a_page_of_help_is_displayed() {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    let reply = json!({"status": "ok", "payload": [
        {"source": "page", "start": 0, "data": {"text/plain": "Signature: len(obj, /)"}},
        {"source": "set_next_input", "text": "x"},
    ]});
    collector.take("execute_reply", reply.to_string().as_bytes(), &mut ids);
    peer.see(collector.drain(&mut ids));
    let outputs: Vec<Json> = peer.outputs.values().map(Output::to_json).collect();
    assert_eq!(
        outputs,
        [
            json!({"output_type": "display_data", "output_id": "o1", "data": {"text/plain": {"inline": "Signature: len(obj, /)"}}})
        ]
    );
    assert!(!collector.failed());
}

#[test]
fn a_failed_reply_without_an_output_fails_the_execution() {
    let mut collector = Collector::new();
    collector.take("execute_reply", b"{\"status\": \"error\"}", &mut ids());
    assert!(collector.failed() && !collector.is_dirty());
}

#[test]
fn a_plain_kernels_error_keeps_its_traceback() {
    let (mut collector, mut ids) = (Collector::new(), ids());
    collector.take("error", br#"{"ename": "E", "evalue": "v", "traceback": ["a", "b"]}"#, &mut ids);
    let drained = collector.drain(&mut ids);
    let [OutputChange::Put { output, .. }] = &drained.changes[..] else { panic!("{drained:?}") };
    assert_eq!(output.to_json()["traceback"], json!({"inline": "[\"a\",\"b\"]"}));
    assert!(collector.failed());
}

#[test]
fn a_burst_is_one_change() {
    let (mut collector, mut ids) = (Collector::new(), ids());
    for _ in 0..1_000 {
        print(&mut collector, "x\n", &mut ids);
    }
    collector.finish(&mut ids);
    let drained = collector.drain(&mut ids);
    assert_eq!((drained.changes.len(), drained.blobs.len()), (1, 0));
}

#[test]
fn what_is_cleared_before_anybody_saw_it_leaves_no_trace() {
    let (mut collector, mut ids) = (Collector::new(), ids());
    print(&mut collector, "a", &mut ids);
    collector.take("display_data", br#"{"data": {"image/png": "AAEC"}}"#, &mut ids);
    collector.take("clear_output", br#"{"wait": false}"#, &mut ids);
    assert!(!collector.is_dirty());
    assert_eq!(collector.drain(&mut ids), Drained::default());
}

#[test]
fn a_display_is_updated_before_anybody_saw_it() {
    let (mut collector, mut ids) = (Collector::new(), ids());
    let display = br#"{"data": {"text/plain": "1"}, "transient": {"display_id": "d"}}"#;
    collector.take("display_data", display, &mut ids);
    let update = br#"{"data": {"image/png": "AAEC"}, "transient": {"display_id": "d"}}"#;
    collector.update_display(&DisplayUpdate::parse(update).expect("an update"));
    let mut peer = Peer::default();
    peer.see(collector.drain(&mut ids));
    assert_eq!(peer.blobs.len(), 1);
    assert_eq!(DisplayUpdate::parse(br#"{"data": {}}"#), None);
}

#[test]
fn a_long_run_stays_whole_at_every_moment_and_cheap_in_all() {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    let (mut printed, mut in_manifests, mut in_blobs, mut most) = (String::new(), 0, 0, 0);
    for line in 0..20_000 {
        let text = format!("epoch {line}: loss 0.1234\n");
        printed.push_str(&text);
        print(&mut collector, &text, &mut ids);
        let drained = collector.drain(&mut ids);
        in_blobs += drained.blobs.iter().map(|blob| blob.bytes.len()).sum::<usize>();
        for change in &drained.changes {
            if let OutputChange::Put {
                output: Output::Stream { text: ContentRef::Inline { inline }, .. },
                ..
            } = change
            {
                in_manifests += inline.len();
            }
        }
        peer.see(drained);
        most = most.max(peer.outputs.len());
        if line % 1_000 == 0 {
            assert_eq!(peer.stdout(), printed);
        }
    }
    let total = printed.len();
    assert!(in_manifests < 60 * total, "{in_manifests} bytes of history for {total}");
    assert!(in_blobs < 40 * total, "{in_blobs} bytes of blobs for {total}");
    assert!(most < 12, "{most} outputs for one stream");
    collector.finish(&mut ids);
    peer.see(collector.drain(&mut ids));
    assert_eq!((peer.stdout(), peer.outputs.len()), (printed, 1));
}

#[test]
fn more_than_fits_into_one_part_stays_whole() {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    let megabyte = "0123456789abcdef".repeat(65_536) + "\n";
    for step in 0..40 {
        print(&mut collector, &megabyte, &mut ids);
        if step % 3 == 0 {
            peer.see(collector.drain(&mut ids));
        }
    }
    collector.finish(&mut ids);
    peer.see(collector.drain(&mut ids));
    assert!(peer.stdout() == megabyte.repeat(40), "text was lost");
    assert!(peer.outputs.len() <= 3, "{} outputs", peer.outputs.len());
}

#[test]
fn bars_above_the_last_line_are_redrawn_where_they_were() {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    let log: String = (0..5_000).map(|line| format!("log {line}\n")).collect();
    print(&mut collector, &log, &mut ids);
    print(&mut collector, "outer 0%\ninner 0%", &mut ids);
    peer.see(collector.drain(&mut ids));
    for percent in 1..=100 {
        let bars = format!("\u{1b}[1A\router {percent}%\n\rinner {percent}%");
        print(&mut collector, &bars, &mut ids);
        let drained = collector.drain(&mut ids);
        if percent > 1 {
            assert_eq!(drained.changes.len(), 1, "only the tail is written again");
        }
        peer.see(drained);
        assert!(peer.stdout().ends_with(&format!("log 4999\nouter {percent}%\ninner {percent}%")));
    }
    collector.finish(&mut ids);
    peer.see(collector.drain(&mut ids));
    assert_eq!(peer.stdout(), log + "outer 100%\ninner 100%");
}

#[test]
fn a_stream_goes_on_after_a_restart() {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    collector.take("display_data", br#"{"data": {"text/plain": "1"}}"#, &mut ids);
    print(&mut collector, "a\n 10%", &mut ids);
    peer.see(collector.drain(&mut ids));
    let outputs: Vec<(u64, Output)> =
        peer.outputs.iter().map(|((seq, _), output)| (*seq, output.clone())).collect();
    let mut collector = Collector::resume(&outputs);
    assert!(!collector.is_dirty());
    print(&mut collector, "\r 20%\n", &mut ids);
    peer.see(collector.drain(&mut ids));
    assert_eq!((peer.stdout().as_str(), peer.outputs.len()), ("a\n 20%\n", 2));
    collector.take("clear_output", b"{}", &mut ids);
    peer.see(collector.drain(&mut ids));
    assert!(peer.outputs.is_empty());
}

#[test]
fn unreadable_content_is_skipped_and_odd_text_is_kept() {
    let (mut collector, mut peer, mut ids) = (Collector::new(), Peer::default(), ids());
    for msg_type in ["stream", "display_data", "error", "clear_output", "execute_input", "execute_reply"] {
        collector.take(msg_type, b"[1", &mut ids);
        collector.take(msg_type, b"null", &mut ids);
    }
    collector.take("stream", b"{\"name\": \"stdout\", \"text\": \"a\xED\xA0\x80b\"}", &mut ids);
    collector.take("nonsense", b"{}", &mut ids);
    peer.see(collector.drain(&mut ids));
    assert_eq!(peer.stdout(), "a\u{FFFD}\u{FFFD}\u{FFFD}b");
}
