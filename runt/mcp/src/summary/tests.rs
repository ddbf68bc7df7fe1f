//! The rule of docs/MCP.md, sentence by sentence.

use runtimed_client::protocol::documents::Output;
use serde_json::json;

use super::*;

fn outputs(manifests: serde_json::Value) -> Vec<Output> {
    let manifests = manifests.as_array().unwrap();
    manifests.iter().map(|manifest| Output::from_json(manifest).unwrap()).collect()
}

fn stream(name: &str, text: &str) -> serde_json::Value {
    json!({"output_type": "stream", "output_id": "o", "name": name, "text": {"inline": text}})
}

fn display(data: serde_json::Value) -> serde_json::Value {
    json!({"output_type": "display_data", "output_id": "o", "data": data})
}

fn shown(manifests: serde_json::Value, blobs: &Blobs, limits: Limits) -> Vec<Block> {
    blocks(&outputs(manifests), blobs, limits, "e1")
}

fn text(manifests: serde_json::Value) -> String {
    match shown(manifests, &Blobs::new(), Limits::ONE_CELL).as_slice() {
        [] => String::new(),
        [Block::Text(text)] => text.clone(),
        other => panic!("not one text: {other:?}"),
    }
}

#[test]
fn a_stretch_of_one_stream_is_one_output() {
    let manifests = json!([
        stream("stdout", "a"),
        stream("stdout", "b\n"),
        stream("stderr", "\u{1b}[31mc"),
        stream("stdout", "d")
    ]);
    assert_eq!(
        text(manifests.clone()),
        "[output 1: stdout]\nab\n[output 2: stderr]\nc\n[output 3: stdout]\nd\n"
    );
    assert_eq!(count(&outputs(manifests.clone())), 3);
    assert_eq!(whole(&outputs(manifests.clone()), 1, &Blobs::new()).unwrap(), "ab\n");
    assert_eq!(whole(&outputs(manifests.clone()), 0, &Blobs::new()), None);
    assert_eq!(whole(&outputs(manifests), 4, &Blobs::new()), None);
}

#[test]
fn a_long_output_names_the_call_that_reads_on() {
    let long = "x".repeat(5_000);
    let said = text(json!([stream("stdout", "first\n"), stream("stderr", &long)]));
    assert!(said.contains("[1000 characters (1 lines) left out; get_results(execution_id=\"e1\", output=2, offset=2000) reads on]"), "{said}");
}

#[test]
fn all_outputs_together_have_a_limit_too() {
    let printed = |length: usize| -> Vec<_> {
        (0..1_000).map(|number| stream(["stdout", "stderr"][number % 2], &"y".repeat(length))).collect()
    };
    let said = text(json!(printed(3_999)));
    assert!(
        said.ends_with(
            "[outputs 6 to 1000 left out; get_results(execution_id=\"e1\", output=6) reads one of them]\n"
        ),
        "{said}"
    );
    assert_eq!(said.matches('y').count(), Limits::ONE_CELL.total);
    let said = text(json!(printed(1)));
    assert!(said.contains("[output 50: stderr]\ny\n[outputs 51 to 1000 left out;"), "{said}");
    assert!(said.chars().count() < 2_000, "{said}");
}

#[test]
fn what_is_not_shown_is_not_read() {
    let blob = |number: usize| display(json!({"text/plain": {"blob": format!("{number}"), "size": 9}}));
    let manifests = json!((0..1_000).map(blob).collect::<Vec<_>>());
    assert_eq!(wanted(&outputs(manifests.clone()), Limits::ONE_CELL).len(), 50);
    assert!(wanted(&outputs(manifests.clone()), Limits::STATUS_ONLY).is_empty());
    assert_eq!(
        shown(manifests, &Blobs::new(), Limits::STATUS_ONLY),
        [Block::Text(
            "[outputs 1 to 1000 left out; get_results(execution_id=\"e1\", output=1) reads one of them]\n"
                .into()
        )]
    );
    assert!(shown(json!([]), &Blobs::new(), Limits::STATUS_ONLY).is_empty());
}

#[test]
fn what_is_gone_is_told_from_what_cannot_be_read_just_now() {
    let manifests = json!([display(json!({"text/plain": {"blob": "aa", "size": 3}}))]);
    let gone = Blobs::from([("aa".to_owned(), None)]);
    assert_eq!(
        shown(manifests.clone(), &gone, Limits::ONE_CELL),
        [Block::Text(format!("[output 1: display]\n{GONE}\n"))]
    );
    assert_eq!(text(manifests), format!("[output 1: display]\n{AWAY}\n"));
}

#[test]
fn an_error_is_its_words_and_a_traceback_without_colors() {
    let traceback = json!([
        "\u{1b}[31mTraceback\u{1b}[0m (most recent call last)",
        "ZeroDivisionError: division by zero"
    ]);
    let error = json!({"output_type": "error", "output_id": "o", "ename": "ZeroDivisionError", "evalue": "division by zero",
        "traceback": {"inline": traceback.to_string()}});
    assert_eq!(
        text(json!([error])),
        "[output 1: error]\nZeroDivisionError: division by zero\nTraceback (most recent call last)\nZeroDivisionError: division by zero\n"
    );
}

#[test]
fn an_image_is_shown_when_it_is_small_enough_and_not_one_of_many() {
    let data = json!({"image/png": {"blob": "aa", "size": 3}, "text/plain": {"inline": "<Figure size 640x480 with 1 Axes>"}});
    let blobs = Blobs::from([("aa".to_owned(), Some(vec![1, 2, 3]))]);
    let image = Block::Image { media_type: "image/png".into(), bytes: vec![1, 2, 3] };
    let manifests = json!([stream("stdout", "a\n"), display(data.clone()), stream("stdout", "b\n")]);
    assert_eq!(wanted(&outputs(manifests.clone()), Limits::ONE_CELL), ["aa"]);
    assert_eq!(
        shown(manifests.clone(), &blobs, Limits::ONE_CELL),
        [
            Block::Text("[output 1: stdout]\na\n[output 2: image/png, 3 B]\n".into()),
            image,
            Block::Text("[output 3: stdout]\nb\n".into())
        ]
    );
    assert!(wanted(&outputs(manifests.clone()), Limits::ONE_OF_MANY).is_empty());
    let said = shown(json!([display(data.clone())]), &blobs, Limits::ONE_OF_MANY);
    assert_eq!(said, [Block::Text("[output 1: image/png, 3 B, not shown here; get_cell shows it]\n".into())]);
    assert_eq!(text(json!([display(data)])), format!("[output 1: image/png, 3 B]\n{}\n", AWAY));
    let large =
        display(json!({"image/png": {"blob": "aa", "size": 3_000_000}, "text/plain": {"inline": "a plot"}}));
    assert_eq!(
        text(json!([large])),
        "[output 1: image/png, 3.0 MB, not shown: larger than 1.0 MB; make it smaller]\n[output 1: display]\na plot\n"
    );
}

#[test]
fn words_come_in_the_form_that_says_most() {
    let both = display(
        json!({"text/html": {"inline": "<table><tr><td>1</td></tr></table>"}, "text/plain": {"inline": "   a\n0  1"}}),
    );
    assert_eq!(text(json!([both])), "[output 1: display]\n   a\n0  1\n");
    let named = display(
        json!({"text/html": {"inline": "<b>bold</b> move"}, "text/plain": {"inline": "<IPython.core.display.HTML object>"}}),
    );
    assert_eq!(text(json!([named])), "[output 1: display, from text/html]\n**bold** move\n");
    let markdown = display(
        json!({"text/markdown": {"inline": "**a**"}, "text/plain": {"inline": "<IPython.core.display.Markdown object>"}}),
    );
    assert_eq!(text(json!([markdown])), "[output 1: display, text/markdown]\n**a**\n");
    let only_named = display(json!({"text/plain": {"inline": "<object object at 0x1>"}}));
    assert_eq!(text(json!([only_named])), "[output 1: display]\n<object object at 0x1>\n");
    let widget = display(json!({"application/x-plot": {"blob": "bb", "size": 9}}));
    assert_eq!(text(json!([widget])), "[output 1: display without words: application/x-plot]\n");
}

#[test]
fn what_is_in_a_blob_is_read_like_what_is_not() {
    let manifests = json!([{"output_type": "stream", "output_id": "o", "name": "stdout", "text": {"blob": "cc", "size": 5}}]);
    let blobs = Blobs::from([("cc".to_owned(), Some(b"hello".to_vec()))]);
    assert_eq!(wanted(&outputs(manifests.clone()), Limits::ONE_CELL), ["cc"]);
    assert_eq!(wanted_whole(&outputs(manifests.clone()), 1), ["cc"]);
    assert_eq!(
        shown(manifests, &blobs, Limits::ONE_CELL),
        [Block::Text("[output 1: stdout]\nhello\n".into())]
    );
}
