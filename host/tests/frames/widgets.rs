//! Real widgets of ipywidgets and anywidget in two windows at once.

use runtimed_protocol::documents::notebook::{NewCell, Place};
use runtimed_protocol::documents::runtime_state::Status;
use runtimed_protocol::documents::{CommsDoc, Document, NotebookDoc, RuntimeStateDoc};
use runtimed_protocol::frame::FrameType;
use serde_json::{Value, json};

use crate::peer::{Peer, Replica};
use crate::support::Daemon;

/// A connection with all its documents.
struct Window {
    peer: Peer,
    notebook: Replica<NotebookDoc>,
    runtime: Replica<RuntimeStateDoc>,
    comms: Replica<CommsDoc>,
    broadcasts: Vec<Value>,
    answers: Vec<Value>,
}

impl Window {
    fn open(daemon: &Daemon, handshake: Value) -> Self {
        let peer = Peer::connect(daemon, handshake);
        let actor = peer.info["actor_label"].as_str().unwrap().to_owned();
        Self {
            peer,
            notebook: Replica::new(NotebookDoc::genesis(&actor).unwrap(), FrameType::NOTEBOOK_SYNC),
            runtime: Replica::new(RuntimeStateDoc::new(&actor).unwrap(), FrameType::RUNTIME_STATE_SYNC),
            comms: Replica::new(CommsDoc::new(&actor).unwrap(), FrameType::COMMS_SYNC),
            broadcasts: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// Takes what comes until it is as wanted.
    fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        while !wanted(self) {
            self.hear();
        }
    }

    fn hear(&mut self) {
        let frame = self.peer.receive();
        let _ = self.notebook.hear(&mut self.peer, &frame)
            || self.runtime.hear(&mut self.peer, &frame)
            || self.comms.hear(&mut self.peer, &frame);
        match frame {
            (FrameType::BROADCAST, payload) => {
                self.broadcasts.push(serde_json::from_slice(&payload).unwrap())
            }
            (FrameType::RESPONSE, payload) => self.answers.push(serde_json::from_slice(&payload).unwrap()),
            _ => {}
        }
    }

    fn ask(&mut self, request: &Value) -> Value {
        let answers = self.answers.len();
        self.peer.send(FrameType::REQUEST, request.to_string().as_bytes());
        self.until(|window| window.answers.len() > answers);
        self.answers[answers].clone()
    }

    /// Runs a new cell to its end; returns what it printed.
    fn run(&mut self, source: &str) -> String {
        let id = format!("cell-{}", self.answers.len());
        let cell = NewCell {
            id: id.clone(),
            cell_type: "code".to_owned(),
            source: source.to_owned(),
            ..NewCell::default()
        };
        self.notebook.document.insert_cell(Place::End, &cell).unwrap();
        let heads: Vec<String> = self.notebook.document.heads().iter().map(ToString::to_string).collect();
        self.notebook.speak(&mut self.peer);
        let queued = self.ask(&json!({"action": "execute_cell", "cell_id": id, "required_heads": heads}));
        let execution = queued["execution_id"].as_str().unwrap_or_else(|| panic!("{queued}")).to_owned();
        let end = |window: &Self| window.runtime.document.execution(&execution).map(|it| it.status);
        self.until(|window| end(window).is_some_and(Status::is_terminal));
        let outputs = self.runtime.document.outputs(&execution);
        assert_eq!(end(self), Some(Status::Done), "{outputs:?}");
        outputs.iter().filter_map(|output| output.manifest["text"]["inline"].as_str()).collect()
    }

    /// Writes into the state of a widget.
    fn edit(&mut self, comm: &str, state: &Value) {
        self.comms.document.update(comm, state.as_object().unwrap()).unwrap();
        self.comms.document.commit();
        self.comms.speak(&mut self.peer);
        // The daemon says what it has as a Bloom filter: one change in a hundred is sent when it asks for it.
        while !self.comms.sync.is_caught_up(&mut self.comms.document) {
            self.hear();
        }
    }

    /// The widget of a model.
    fn widget(&self, model: &str) -> Option<String> {
        let runtime = &self.runtime.document;
        let is = |comm: &String| {
            runtime.comm(comm).is_some_and(|it| it.model_name == model)
                && self.comms.document.state(comm).is_some()
        };
        runtime.comm_ids().into_iter().find(is)
    }

    fn state(&self, comm: &str, key: &str) -> Value {
        self.comms.document.state(comm).and_then(|mut state| state.remove(key)).unwrap_or_default()
    }
}

const WIDGETS: &str = r#"
import anywidget, ipywidgets, traitlets
seen = []
slider = ipywidgets.IntSlider(value=3)
slider.observe(lambda change: seen.append(change["new"]), "value")

class Picture(anywidget.AnyWidget):
    _esm = "export default { render() {} } //" + "x" * 2000
    pixels = traitlets.Bytes(bytes(range(256))).tag(sync=True)
    layers = traitlets.List([b"one", {"two": b"two"}]).tag(sync=True)
    thumbnail = traitlets.Any(b"").tag(sync=True)  # `Bytes` refuses what ipywidgets makes of a buffer.

picture = Picture()
picture.on_msg(lambda it, content, buffers: it.send({"back": content}, [bytes(b)[::-1] for b in buffers]))
"#;

const OUTPUT: &str = r#"
output = ipywidgets.Output()
with output:
    print("inside")
    display(ipywidgets.HTML("x"))

@output.capture(clear_output=True)
def moved(change):
    print("moved to", change["new"])

slider.observe(moved, "value")
print("outside")
"#;

#[test]
fn widgets_are_moved_by_two_windows_and_the_kernel() {
    let Some(daemon) = crate::start() else { return };
    let dependencies = ["ipywidgets", "anywidget"];
    let mut ana = Window::open(
        &daemon,
        json!({"channel": "create_notebook", "runtime": "python", "dependencies": dependencies}),
    );
    let id = ana.peer.info["notebook_id"].clone();
    ana.until(|window| window.notebook.document.cell_count() > 0);
    ana.run(WIDGETS);
    ana.until(|window| window.widget("IntSliderModel").is_some() && window.widget("AnyModel").is_some());
    let (slider, picture) = (ana.widget("IntSliderModel").unwrap(), ana.widget("AnyModel").unwrap());
    assert_eq!(ana.state(&slider, "value"), 3);

    // One that comes later has everything, bytes and code as well.
    let mut bob = Window::open(&daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
    bob.until(|window| window.comms.document.state(&picture) == ana.comms.document.state(&picture));
    let content = |reference: &Value| {
        let hash = reference["blob"].as_str().unwrap_or_else(|| panic!("no blob: {reference}"));
        std::fs::read(daemon.base().join("blobs").join(&hash[..2]).join(&hash[2..])).unwrap()
    };
    let pixels = bob.state(&picture, "pixels");
    assert_eq!(content(&pixels), (0..=255).collect::<Vec<u8>>());
    let layers = bob.state(&picture, "layers");
    assert_eq!((content(&layers[0]), content(&layers[1]["two"])), (b"one".to_vec(), b"two".to_vec()));
    let esm = bob.state(&picture, "_esm");
    assert_eq!(esm["media_type"], "text/javascript");
    assert!(content(&esm).starts_with(b"export default"));

    // A window moves the slider: kernel and the other window see it.
    bob.edit(&slider, &json!({"value": 42}));
    ana.until(|window| window.state(&slider, "value") == 42);
    assert_eq!(ana.run("print(slider.value, seen)"), "42 [42]\n");
    // The kernel moves it, often; and does not take what is out of bounds.
    ana.run("for number in range(1000): slider.value = number % 90\nslider.value = 95");
    bob.until(|window| window.state(&slider, "value") == 95);
    bob.edit(&slider, &json!({"value": 1000}));
    ana.until(|window| window.state(&slider, "value") == 100);
    bob.until(|window| window.state(&slider, "value") == 100);

    // Bytes go back as bytes, in the state and in messages.
    bob.edit(&picture, &json!({"thumbnail": pixels, "layers": [1, {"deep": layers[0]}]}));
    ana.until(|window| window.state(&picture, "layers")[1]["deep"] == layers[0]);
    let read = "print(bytes(picture.thumbnail) == bytes(range(256)), bytes(picture.layers[1]['deep']))";
    let printed = ana.run(read);
    assert_eq!(printed, "True b'one'\n");
    let message = json!({
        "header": {"msg_id": "hello", "msg_type": "comm_msg"},
        "content": {"comm_id": picture, "data": {"method": "custom", "content": "hello"}},
        "buffers": [[1, 2, 3]],
        "buffer_refs": [{"index": 1, "blob": layers[0]["blob"], "size": 3}],
    });
    assert_eq!(bob.ask(&json!({"action": "send_comm", "message": message}))["result"], "ok");
    for window in [&mut ana, &mut bob] {
        window.until(|window| !window.broadcasts.is_empty());
        let broadcast = &window.broadcasts[0];
        assert_eq!(broadcast["content"]["data"]["content"], json!({"back": "hello"}));
        assert_eq!(broadcast["buffers"], json!([[3, 2, 1], b"eno"]));
    }

    // What is printed while an output widget listens is there, and not under the cell.
    let printed = ana.run(OUTPUT);
    assert_eq!(printed, "outside\n");
    ana.until(|window| window.widget("OutputModel").is_some());
    let output = ana.widget("OutputModel").unwrap();
    let captured = |window: &Window| {
        let outputs = window.state(&output, "outputs");
        let outputs = outputs.as_array().cloned().unwrap_or_default();
        outputs
            .iter()
            .map(|it| it["text"]["inline"].as_str().unwrap_or("a display").to_owned())
            .collect::<Vec<_>>()
    };
    bob.until(|window| captured(window) == ["inside\n", "a display"]);
    bob.edit(&slider, &json!({"value": 7}));
    ana.until(|window| captured(window) == ["moved to 7\n"]);
    ana.run("output.append_stdout('more')");
    bob.until(|window| captured(window).concat().ends_with("more"));

    // What is closed is gone, and what a kernel had ends with it.
    ana.run("slider.close()");
    bob.until(|window| window.widget("IntSliderModel").is_none());
    assert_eq!(bob.ask(&json!({"action": "shutdown_kernel"}))["result"], "kernel_shutting_down");
    for window in [&mut ana, &mut bob] {
        window
            .until(|it| it.runtime.document.comm_ids().is_empty() && it.comms.document.comm_ids().is_empty());
    }
    crate::stop(daemon);
}
