//! Files in, files out.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use runtimed_plugin_api::Digest;
use runtimed_protocol::documents::output::{ContentRef, Output};
use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::parse::Parsed;
use super::same::same_cell;
use super::{FileCell, Notebook, Template, WriteError, needed_blobs, parse, upgraded, write};

const BEFORE: &[u8] = include_bytes!("../../tests/data/notebooks/import45_before.ipynb");
const AFTER: &[u8] = include_bytes!("../../tests/data/notebooks/import45_after.ipynb");
const SAVED: &[u8] = include_bytes!("../../tests/data/notebooks/demo_saved.ipynb");

const ROOM: Uuid = Uuid::from_u128(0xe1ce_eff7_4872_4e05_9e8c_57e3_6e5f_a5bf);

fn read(bytes: &[u8]) -> Parsed {
    let mut last = 0;
    let mut new_id = || {
        last += 1;
        format!("o{last}")
    };
    parse(bytes, ROOM, &mut new_id).expect("a notebook").expect("not empty")
}

/// Writes with all blobs at hand that were ever seen.
fn save(notebook: &Notebook, template: Option<&[u8]>, blobs: &Parsed) -> String {
    let blobs: BTreeMap<Digest, Bytes> =
        blobs.blobs.iter().map(|blob| (blob.digest, blob.bytes.clone())).collect();
    let text = template.map(|bytes| upgraded(bytes).expect("a notebook"));
    let template = template
        .zip(text.as_deref())
        .and_then(|(bytes, text)| Template::read(bytes, text, ROOM).expect("a notebook"));
    let bytes = write(notebook, template.as_ref(), &|digest| blobs.get(digest).cloned()).expect("writable");
    String::from_utf8(bytes).expect("text")
}

/// One way to lay out a file.
#[derive(Debug, Clone, Copy)]
struct Hand {
    indent: Option<&'static str>,
    spaced: bool,
    crlf: bool,
    ascii: bool,
    sorted: bool,
    mark: bool,
    tail: &'static str,
}

const JUPYTER: Hand = Hand {
    indent: Some(" "),
    spaced: true,
    crlf: false,
    ascii: false,
    sorted: false,
    mark: false,
    tail: "\n",
};

const HANDS: [Hand; 9] = [
    JUPYTER,
    Hand { indent: Some("  "), sorted: true, tail: "", ..JUPYTER },
    Hand { indent: Some("    "), ascii: true, ..JUPYTER },
    Hand { indent: Some("\t"), tail: "\n\n", ..JUPYTER },
    Hand { crlf: true, tail: "\r\n", ..JUPYTER },
    Hand { mark: true, sorted: true, ..JUPYTER },
    Hand { indent: None, ..JUPYTER },
    Hand { indent: None, spaced: false, tail: "", ..JUPYTER },
    Hand { indent: Some(""), ..JUPYTER },
];

impl Hand {
    fn lay_out(self, value: &Json) -> String {
        let mut value = value.clone();
        if self.sorted {
            value.sort_all_objects();
        }
        let bytes = match self.indent {
            Some(indent) => print(&value, PrettyFormatter::with_indent(indent.as_bytes())),
            None if self.spaced => print(&value, Spaced),
            None => value.to_string().into_bytes(),
        };
        let mut text = String::from_utf8(bytes).expect("text");
        if self.crlf {
            text = text.replace('\n', "\r\n");
        }
        if self.ascii {
            let mut units = [0; 2];
            text = text
                .chars()
                .flat_map(|c| match c.is_ascii() {
                    true => vec![c.to_string()],
                    false => c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
                })
                .collect();
        }
        format!("{}{text}{}", if self.mark { "\u{feff}" } else { "" }, self.tail)
    }
}

/// One line, as Python's `json.dumps` prints it.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

fn print(value: &Json, formatter: impl Formatter) -> Vec<u8> {
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter)).expect("JSON");
    out
}

/// Every sort of thing a file can hold, in an order nobody would choose.
fn rich() -> Json {
    let mut rich: Json = serde_json::from_slice(BEFORE).expect("JSON");
    rich["cells"][3]["unknown_in_cell"] = json!({"b": [], "a": {}, "é": "naïve 🎉 \u{1} \\u0041"});
    rich["cells"][4]["outputs"][0]["data"]["image/png"] = json!(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk\n+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==\n"
    );
    let cells = rich["cells"].as_array_mut().expect("cells");
    cells.push(json!({"cell_type": "code", "id": "late", "metadata": {"scrolled": true}, "execution_count": 3,
        "source": ["é\n", "x"], "outputs": [
            {"output_type": "execute_result", "execution_count": 3, "metadata": {}, "data": {"text/plain": "1.0", "application/json": {"z": 1.50, "a": 1e-7}}},
            {"output_type": "stream", "name": "stderr", "text": "one string"},
        ]}));
    rich
}

#[test]
fn an_unchanged_notebook_is_written_as_it_was() {
    for hand in HANDS {
        let file = hand.lay_out(&rich());
        let parsed = read(file.as_bytes());
        assert_eq!(save(&parsed.notebook, Some(file.as_bytes()), &Parsed::default()), file, "{hand:?}");
    }
    for file in [BEFORE, AFTER, SAVED] {
        let parsed = read(file);
        let written = save(&parsed.notebook, Some(file), &Parsed::default());
        assert_eq!(written, String::from_utf8_lossy(file));
    }
}

type Edit = (fn(&mut Notebook), fn(&mut Json));

#[test]
fn a_change_touches_what_it_is_about() {
    let edits: [Edit; 9] = [
        (|n| n.cells[4].source = "2\n3".into(), |f| f["cells"][4]["source"] = json!(["2\n", "3"])),
        (|n| n.cells[1].source = "é\nb".into(), |f| f["cells"][1]["source"] = json!("é\nb")),
        (|n| n.cells[3].source = "new".into(), |f| f["cells"][3]["source"] = json!(["new"])),
        (|n| n.cells[2].execution_count = Some(8), |f| f["cells"][2]["execution_count"] = json!(8)),
        (|n| drop(n.cells.remove(1)), |f| drop(f["cells"].as_array_mut().expect("cells").remove(1))),
        (|n| n.cells.swap(0, 5), |f| f["cells"].as_array_mut().expect("cells").swap(0, 5)),
        (
            |n| drop(n.cells[0].metadata.insert("tags".into(), json!(["t", "u"]))),
            |f| f["cells"][0]["metadata"]["tags"] = json!(["t", "u"]),
        ),
        (
            |n| drop(n.metadata.insert("zz".into(), json!({"a": 1}))),
            |f| f["metadata"]["zz"] = json!({"a": 1}),
        ),
        (
            |n| drop(n.cells[2].outputs.remove(0)),
            |f| drop(f["cells"][2]["outputs"].as_array_mut().expect("outputs").remove(0)),
        ),
    ];
    for hand in HANDS {
        let file = hand.lay_out(&rich());
        for (index, (edit, edit_file)) in edits.iter().enumerate() {
            let (mut parsed, mut expected) = (read(file.as_bytes()), rich());
            edit(&mut parsed.notebook);
            edit_file(&mut expected);
            let written = save(&parsed.notebook, Some(file.as_bytes()), &parsed);
            assert_eq!(written, hand.lay_out(&expected), "edit {index} in {hand:?}");
        }
    }
}

#[test]
fn new_files_are_written_as_the_reference_daemon_writes_them() {
    let (before, after) = (read(BEFORE), read(AFTER));
    let notebook = Notebook { metadata: after.notebook.metadata, ..before.notebook.clone() };
    assert_eq!(save(&notebook, None, &before), String::from_utf8_lossy(AFTER));
    let saved = read(SAVED);
    assert_eq!(save(&saved.notebook, None, &saved), String::from_utf8_lossy(SAVED));
}

#[test]
fn a_file_says_what_the_documents_hold() {
    let parsed = read(BEFORE);
    let [markdown, raw, code, empty, display] = &parsed.notebook.cells[..] else { panic!("five cells") };
    assert_eq!(
        Json::Object(markdown.attachments.clone()),
        json!({
            "n.txt": {"text/plain": {"blob_hash": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "encoding": "text"}},
            "pic.png": {"image/png": {"blob_hash": "6b7fa434f92a8b80aab02d9bf1a12e49ffcae424e4013a1c4f68b67e3d2bbcd0", "encoding": "base64"}},
        })
    );
    assert_eq!((raw.cell_type.as_str(), raw.source.as_str()), ("raw", "raw text"));
    assert_eq!((code.source.as_str(), code.execution_count), ("print('a')\nb", Some(7)));
    assert_eq!((empty.source.as_str(), empty.outputs.len()), ("", 0));
    assert_eq!(
        display.outputs[0].to_json()["data"],
        json!({
            "application/json": {"inline": "{\"k\":[1]}"},
            "image/png": {"blob": "6b7fa434f92a8b80aab02d9bf1a12e49ffcae424e4013a1c4f68b67e3d2bbcd0", "size": 70},
            "image/svg+xml": {"inline": "<svg/>"},
            "text/markdown": {"inline": "**hi**"},
            "text/plain": {"inline": "x"},
        })
    );
    let keys: Vec<&String> = parsed.notebook.metadata.keys().collect();
    assert_eq!(keys, ["kernelspec", "language_info", "custom_top", "jupytext"]);
}

#[test]
fn metadata_of_older_versions_is_brought_up_to_date() {
    let file = json!({"cells": [], "metadata": {
        "uv": {"dependencies": ["a"]}, "conda": {"dependencies": ["b"]}, "runtime": "x",
        "runt": {"conda": {"dependencies": ["c"]}, "trust_signature": "s", "trust_timestamp": 1},
    }});
    let parsed = read(file.to_string().as_bytes());
    assert_eq!(
        Json::Object(parsed.notebook.metadata),
        json!({"runt": {"conda": {"dependencies": ["c"]}, "uv": {"dependencies": ["a"]}}})
    );
}

#[test]
fn cells_without_an_id_of_their_own_get_a_lasting_one() {
    let file = json!({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [
        {"cell_type": "code", "source": "a", "metadata": {}, "outputs": [], "execution_count": null},
        7,
        {"id": "x", "source": ["b", "\n", "c"]},
        {"id": "x", "source": null},
    ]});
    let file = file.to_string();
    let cells = read(file.as_bytes()).notebook.cells;
    let id = |index: usize| {
        Uuid::new_v5(&ROOM, format!("nteract:legacy-nbformat-cell:{index}").as_bytes()).to_string()
    };
    let seen: Vec<(&str, &str)> = cells.iter().map(|cell| (cell.id.as_str(), cell.source.as_str())).collect();
    assert_eq!(seen, [(id(0).as_str(), "a"), ("x", "b\nc"), (id(3).as_str(), "")]);

    // Once something changes, the file is brought to the format that has ids.
    let mut parsed = read(file.as_bytes());
    parsed.notebook.cells[1].source = "d".to_owned();
    let written: Json =
        serde_json::from_str(&save(&parsed.notebook, Some(file.as_bytes()), &parsed)).expect("JSON");
    assert_eq!(written["nbformat_minor"], 5);
    assert_eq!(written["cells"][0]["id"], id(0));
    assert_eq!(read(written.to_string().as_bytes()).notebook, parsed.notebook);
}

#[test]
fn old_formats_mean_what_nbformat_says_they_mean() {
    let file = json!({
        "metadata": {"name": "n", "signature": "s", "kept": 1}, "nbformat": 3, "nbformat_minor": 0, "orig_nbformat": 2,
        "worksheets": [{"metadata": {}, "cells": [
            {"cell_type": "heading", "level": 2, "metadata": {}, "source": ["a\n", "b"]},
            {"cell_type": "html", "metadata": {}, "source": ["<b>"]},
            {"cell_type": "code", "collapsed": true, "input": ["x\n", "y"], "language": "python", "prompt_number": 3,
             "metadata": {"own": 1}, "outputs": [
                {"output_type": "stream", "stream": "stderr", "text": ["t\n"]},
                {"output_type": "stream", "text": "u"},
                {"output_type": "pyout", "prompt_number": 3, "text": ["1"], "json": ["{\"k\":", " [1]}"], "metadata": {"png": {"width": 2}}},
                {"output_type": "display_data", "png": "iVBORw0KGgo=", "application/x+json": {"z": 1}},
                {"output_type": "pyerr", "ename": "E", "evalue": "v", "traceback": ["a"]},
            ]},
        ]}],
    });
    let file = Hand { indent: Some("  "), ..JUPYTER }.lay_out(&file);
    let mut parsed = read(file.as_bytes());
    assert_eq!(
        save(&parsed.notebook, Some(file.as_bytes()), &Parsed::default()),
        file,
        "untouched until it changes"
    );
    parsed.notebook.cells[1].source.push('!');
    let saved = save(&parsed.notebook, Some(file.as_bytes()), &parsed);
    let id = |index: usize| Json::from(parsed.notebook.cells[index].id.clone());
    let expected = json!({
        "metadata": {"kept": 1}, "nbformat": 4, "nbformat_minor": 5,
        "cells": [
            {"cell_type": "markdown", "id": id(0), "metadata": {}, "source": ["## a b"]},
            {"cell_type": "markdown", "id": id(1), "metadata": {}, "source": ["<b>!"]},
            {"cell_type": "code", "execution_count": 3, "id": id(2), "metadata": {"own": 1, "collapsed": true}, "source": ["x\n", "y"], "outputs": [
                {"output_type": "stream", "name": "stderr", "text": ["t\n"]},
                {"output_type": "stream", "name": "stdout", "text": "u"},
                {"output_type": "execute_result", "execution_count": 3, "data": {"text/plain": ["1"], "application/json": {"k": [1]}}, "metadata": {"image/png": {"width": 2}}},
                {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "application/x+json": {"z": 1}}, "metadata": {}},
                {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a"]},
            ]},
        ],
    });
    let saved_json: Json = serde_json::from_str(&saved).expect("JSON");
    let mut heading = saved_json.clone();
    // A heading's text is one string now.
    heading["cells"][0]["source"] = json!(["## a b"]);
    assert_eq!(heading, expected);
    assert!(saved.starts_with("{\n  \"metadata\": {\n    \"kept\": 1\n"), "in its own hand: {saved}");
    assert_eq!(read(saved.as_bytes()).notebook, parsed.notebook);
}

#[test]
fn lines_of_format_2_get_their_ends() {
    let file = json!({"nbformat": 2, "metadata": {}, "worksheets": [{"cells": [
        {"cell_type": "markdown", "source": ["a", "", "b"]},
        {"cell_type": "code", "input": ["x", "y"], "outputs": [{"output_type": "pyerr", "ename": "E", "evalue": "", "traceback": ["t", "u"]}]},
    ]}]});
    let cells = read(file.to_string().as_bytes()).notebook.cells;
    assert_eq!([&*cells[0].source, &*cells[1].source], ["a\n\nb", "x\ny"]);
    assert_eq!(cells[1].outputs[0].to_json()["traceback"], json!({"inline": "[\"t\",\"u\"]"}));
}

/// The kinds of notebooks the repository has: what other tools ship is seen by the real client.
#[test]
fn every_notebook_stays_as_it_is_but_for_the_edited_cell() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/notebooks");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a file").path();
        let file = std::fs::read(&path).expect("bytes");
        let mut parsed = read(&file);
        let text = String::from_utf8(file.clone()).expect("text");
        assert_eq!(save(&parsed.notebook, Some(&file), &Parsed::default()), text, "{}", path.display());
        for index in 0..parsed.notebook.cells.len() {
            let before = parsed.notebook.clone();
            parsed.notebook.cells[index].source.push_str("\nedited");
            // Without a blob at hand: nothing but the text is written anew.
            let saved = save(&parsed.notebook, Some(&file), &Parsed::default());
            let again = read(saved.as_bytes());
            assert!(again.unnamed.is_empty());
            let same =
                again.notebook.cells.iter().zip(&parsed.notebook.cells).all(|(new, old)| same_cell(new, old));
            assert!(same && again.notebook.metadata == before.metadata, "cell {index} of {}", path.display());
            parsed.notebook = before;
        }
        seen += 1;
    }
    assert!(seen >= 9, "{seen}");
}

#[test]
fn what_is_no_notebook_is_refused_with_the_texts_clients_know() {
    for (file, text) in [
        ("nonsense", "Invalid notebook JSON: expected ident at line 1 column 2"),
        ("{\"cells\": [", "Invalid notebook JSON: EOF while parsing a list at line 1 column 11"),
        ("[]", "Notebook is not a JSON object"),
        ("{}", "notebook has no 'cells' key"),
        ("{\"nbformat\": 4}", "notebook has no 'cells' key"),
        ("{\"nbformat\": 3}", "notebook has no 'cells' key"),
        ("{\"nbformat\": 1, \"cells\": []}", "notebook format 1 is too old to be read"),
        ("{\"nbformat\": 5, \"cells\": []}", "notebook format 5 is newer than what can be read, which is 4"),
        ("{\"cells\": {}}", "'cells' is not an array"),
    ] {
        let refused = parse(file.as_bytes(), ROOM, &mut String::new).map_err(|error| error.to_string());
        assert_eq!(refused, Err(text.to_owned()));
    }
    let refused = parse(b"{\"cells\": \"\xe9\"}", ROOM, &mut String::new).map_err(|error| error.to_string());
    assert_eq!(refused, Err("Invalid notebook JSON: byte 11 is not UTF-8".to_owned()));
    for empty in ["", " \n", "\u{feff}"] {
        assert_eq!(parse(empty.as_bytes(), ROOM, &mut String::new).expect("fine"), None);
    }
}

#[test]
fn odd_values_are_read_as_far_as_they_go() {
    let file = json!({"cells": [{"cell_type": 3, "id": 4, "metadata": [], "source": {"a": 1}, "outputs": [
        {"output_type": "pyout"}, 5, {"output_type": "stream"}, {"output_type": "error"}, {"output_type": "display_data", "data": []},
    ]}], "metadata": null});
    let cells = read(file.to_string().as_bytes()).notebook.cells;
    assert_eq!((cells[0].cell_type.as_str(), cells[0].outputs.len()), ("code", 3));
}

#[test]
fn only_blobs_of_what_changed_are_read() {
    let mut parsed = read(BEFORE);
    let template = Template::read(BEFORE, BEFORE, ROOM).expect("a notebook");
    parsed.notebook.cells[0].source.push('!');
    assert!(needed_blobs(&parsed.notebook, template.as_ref()).expect("writable").is_empty());
    parsed.notebook.cells[0].attachments.shift_remove("n.txt");
    let needed = needed_blobs(&parsed.notebook, template.as_ref()).expect("writable");
    let png = "6b7fa434f92a8b80aab02d9bf1a12e49ffcae424e4013a1c4f68b67e3d2bbcd0".parse().expect("a digest");
    assert_eq!(needed.into_iter().collect::<Vec<Digest>>(), [png]);
    assert_eq!(needed_blobs(&parsed.notebook, None).expect("writable").len(), 1);
}

#[test]
fn an_output_whose_content_is_gone_says_so() {
    let parsed = read(BEFORE);
    let written = save(&parsed.notebook, None, &Parsed::default());
    let again = read(written.as_bytes());
    let Output::Stream { name, text: ContentRef::Inline { inline }, .. } =
        &again.notebook.cells[4].outputs[0]
    else {
        panic!("{written}")
    };
    assert_eq!(name, "stderr");
    assert!(inline.contains("image/png") && inline.contains("6b7fa434"), "{inline}");
}

#[test]
fn what_live_outputs_have_and_files_have_not_is_left_out() {
    let output = json!({"output_type": "error", "output_id": "o", "ename": "E", "evalue": "v",
        "traceback": {"inline": "[\"a\"]"}, "rich": {"inline": "{}"}, "llm_preview": {}});
    let markdown = json!({"output_type": "display_data", "output_id": "o", "transient": {"display_id": "d"}, "data": {
        "application/vnd.nteract.markdown+json": {"blob": "00", "size": 1}, "text/markdown": {"inline": "*x*"}}});
    let cell = FileCell {
        id: "c".to_owned(),
        cell_type: "code".to_owned(),
        outputs: [output, markdown].iter().map(|json| Output::from_json(json).expect("an output")).collect(),
        ..FileCell::default()
    };
    let notebook = Notebook { cells: vec![cell], ..Notebook::default() };
    let written: Json = serde_json::from_str(&save(&notebook, None, &Parsed::default())).expect("JSON");
    assert_eq!(
        written["cells"][0]["outputs"],
        json!([
            {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["a"]},
            {"output_type": "display_data", "metadata": {}, "data": {"text/markdown": ["*x*"]}},
        ])
    );
}

#[test]
fn a_cell_no_file_can_hold_is_refused_unless_the_file_has_it() {
    let file =
        json!({"cells": [{"id": "a", "cell_type": "odd", "source": []}, {"id": "b", "cell_type": "raw"}]});
    let file = file.to_string();
    let mut parsed = read(file.as_bytes());
    parsed.notebook.cells[1].source = "x".to_owned();
    assert!(save(&parsed.notebook, Some(file.as_bytes()), &parsed).contains("\"odd\""));
    let unnamed = json!({"cells": [{"cell_type": "heading", "level": 1, "outputs": 1}]}).to_string();
    let mut old = read(unnamed.as_bytes());
    old.notebook.cells[0].source = "x".to_owned();
    let written: Json =
        serde_json::from_str(&save(&old.notebook, Some(unnamed.as_bytes()), &old)).expect("JSON");
    assert_eq!((&written["cells"][0]["level"], &written["cells"][0]["outputs"]), (&json!(1), &json!(1)));
    let refused = write(&parsed.notebook, None, &|_| None).map_err(|error: WriteError| error.to_string());
    assert_eq!(
        refused,
        Err("Failed to build v4 notebook: cell 'a' has unsupported cell_type 'odd'".to_owned())
    );
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        sources in proptest::collection::vec("[a-zé🎉\\\\\"\n\r\u{1} ]{0,30}", 0..6),
        old in proptest::collection::vec("[a-z\n]{0,10}", 0..6),
        hand in 0..HANDS.len(),
    ) {
        let cells = |sources: &[String]| -> Vec<FileCell> {
            let cell = |(index, source): (usize, &String)| FileCell {
                id: format!("c{index}"), cell_type: "code".to_owned(), source: source.clone(), ..FileCell::default()
            };
            sources.iter().enumerate().map(cell).collect()
        };
        // Without a character beyond ASCII a file does not tell whether it would escape one.
        let hand = Hand { ascii: false, ..HANDS[hand] };
        let old = Notebook { cells: cells(&old), ..Notebook::default() };
        let new = Notebook { cells: cells(&sources), ..Notebook::default() };
        let file = save(&old, None, &Parsed::default());
        let file = hand.lay_out(&serde_json::from_str(&file).expect("JSON"));
        let written = save(&new, Some(file.as_bytes()), &Parsed::default());
        prop_assert_eq!(&read(written.as_bytes()).notebook, &new);
        let expected = save(&new, None, &Parsed::default());
        prop_assert_eq!(written, hand.lay_out(&serde_json::from_str(&expected).expect("JSON")));
    }

    #[test]
    fn nothing_in_a_file_can_panic(text in "\\PC{0,40}", cut in 0..4000usize) {
        let _ = parse(text.as_bytes(), ROOM, &mut String::new);
        let _ = parse(BEFORE.get(..cut).unwrap_or(BEFORE), ROOM, &mut String::new);
    }
}
