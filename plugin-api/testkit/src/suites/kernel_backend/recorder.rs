//! Takes what a kernel says, and lets a case wait for parts of it.
//!
//! Promises: notices numbers with a gap, and whatever follows the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtimed_plugin_api::{Bytes, Channel, ExitReport, JupyterMessage, KernelEvents, Sequence};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::case::Stop;
use crate::report::Fault;

/// The receiving end.
pub(super) struct Recorder {
    events: mpsc::UnboundedReceiver<Event>,
    last: Sequence,
}

/// What a kernel said to one request.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Content of the reply.
    pub(super) reply: Value,
    /// All text it printed.
    pub(super) stdout: String,
    /// The plain text of its result.
    pub(super) result: Option<String>,
}

enum Event {
    Message(Sequence, Channel, Bytes),
    Exited(ExitReport),
}

struct Message {
    channel: Channel,
    kind: String,
    parent: String,
    content: Value,
}

struct Sink(mpsc::UnboundedSender<Event>);

impl KernelEvents for Sink {
    fn message(&self, sequence: Sequence, channel: Channel, message: Bytes) {
        // Fails when the case is over.
        let _ = self.0.send(Event::Message(sequence, channel, message));
    }

    fn exited(&self, report: ExitReport) {
        let _ = self.0.send(Event::Exited(report));
    }
}

impl Recorder {
    pub(super) fn new() -> (Self, Arc<dyn KernelEvents>) {
        let (sender, events) = mpsc::unbounded_channel();
        (Self { events, last: 0 }, Arc::new(Sink(sender)))
    }

    /// The next message, or the end.
    async fn next(&mut self) -> Result<Result<Message, ExitReport>, Stop> {
        let wrong = |what: String| {
            Stop::from(Fault::new(what, "number messages from 1 without a gap, and report the end last"))
        };
        let Some(event) = self.events.recv().await else {
            return Err(wrong("the events of a kernel were dropped without a report of its end".to_owned()));
        };
        let (sequence, channel, bytes) = match event {
            Event::Exited(report) => {
                return match self.events.try_recv() {
                    Ok(_) => Err(wrong("something followed the report of a kernel's end".to_owned())),
                    Err(_) => Ok(Err(report)),
                };
            }
            Event::Message(sequence, channel, bytes) => (sequence, channel, bytes),
        };
        self.last += 1;
        if sequence != self.last {
            return Err(wrong(format!("message {} of a kernel came with the number {sequence}", self.last)));
        }
        let message = JupyterMessage::decode(bytes).map_err(|error| wrong(error.message))?;
        let parse = |part: &[u8]| serde_json::from_slice::<Value>(part).unwrap_or_default();
        let (header, parent) = (parse(&message.header), parse(&message.parent_header));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Ok(Message {
            channel,
            kind: text(&header["msg_type"]),
            parent: text(&parent["msg_id"]),
            content: parse(&message.content),
        }))
    }

    /// The next message of a kernel that lives.
    async fn message(&mut self) -> Result<Message, Stop> {
        self.next().await?.map_err(|report| {
            Fault::new("a kernel ended that was not asked to", "keep kernels alive until they are shut down")
                .detail(format!("{report:?}"))
                .into()
        })
    }

    /// Everything until the kernel is idle again after request `id`, and its reply.
    pub(super) async fn answer(&mut self, id: &str) -> Result<Said, Stop> {
        let (mut said, mut replied, mut idle) = (Said::default(), false, false);
        while !replied || !idle {
            let Message { channel, kind, parent, content } = self.message().await?;
            if parent != id {
                continue;
            }
            match (channel, kind.as_str()) {
                (Channel::Shell, _) => (said.reply, replied) = (content, true),
                (Channel::Iopub, "status") => idle = content["execution_state"] == "idle",
                (Channel::Iopub, "stream") if content["name"] == "stdout" => {
                    said.stdout += content["text"].as_str().unwrap_or_default();
                }
                (Channel::Iopub, "execute_result") => {
                    said.result = content["data"]["text/plain"].as_str().map(str::to_owned);
                }
                _ => {}
            }
        }
        Ok(said)
    }

    /// Waits for something that a cell prints.
    pub(super) async fn until_output(&mut self) -> Result<(), Stop> {
        while self.message().await?.kind != "stream" {}
        Ok(())
    }

    /// How the kernel ended, whatever it says before.
    pub(super) async fn exit(&mut self) -> Result<ExitReport, Stop> {
        loop {
            if let Err(report) = self.next().await? {
                return Ok(report);
            }
        }
    }
}

/// A request to run `code`, and its id.
pub(super) fn execute(code: &str) -> (String, Bytes) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = format!("testkit-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let content = json!({
        "code": code, "silent": false, "store_history": true,
        "user_expressions": {}, "allow_stdin": false, "stop_on_error": true,
    });
    let message = request(&id, "execute_request", &content);
    (id, message)
}

/// A message as a room would send it.
pub(super) fn request(id: &str, kind: &str, content: &Value) -> Bytes {
    let header = json!({
        "msg_id": id, "msg_type": kind, "session": "testkit", "username": "testkit",
        "version": "5.3", "date": "2026-01-01T00:00:00Z",
    });
    let empty = Bytes::from_static(b"{}");
    let message = JupyterMessage {
        header: header.to_string().into(),
        parent_header: empty.clone(),
        metadata: empty,
        content: content.to_string().into(),
        buffers: Vec::new(),
    };
    message.encode()
}
