//! Takes what a kernel says and lets a test wait for parts of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtimed_plugin_api::{Bytes, Channel, ExitReport, JupyterMessage, Kernel, KernelEvents, Sequence};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A message from a kernel, parsed.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) channel: Channel,
    pub(crate) kind: String,
    pub(crate) parent: String,
    pub(crate) content: Value,
}

#[derive(Debug)]
enum Event {
    Message(Sequence, Channel, Bytes),
    Exited(ExitReport),
}

/// The receiving end. Checks on the way that numbers have no gap and that nothing follows the exit.
pub(crate) struct Recorder {
    events: mpsc::UnboundedReceiver<Event>,
    last: Sequence,
    /// The first number may be any.
    anywhere: bool,
}

struct Sink(mpsc::UnboundedSender<Event>);

impl KernelEvents for Sink {
    fn message(&self, sequence: Sequence, channel: Channel, message: Bytes) {
        let _ = self.0.send(Event::Message(sequence, channel, message));
    }

    fn exited(&self, report: ExitReport) {
        let _ = self.0.send(Event::Exited(report));
    }
}

impl Recorder {
    pub(crate) fn new() -> (Self, Arc<dyn KernelEvents>) {
        Self::after(0)
    }

    /// One that has heard everything up to message `last`.
    pub(crate) fn after(last: Sequence) -> (Self, Arc<dyn KernelEvents>) {
        let (sender, events) = mpsc::unbounded_channel();
        (Self { events, last, anywhere: false }, Arc::new(Sink(sender)))
    }

    /// One that comes in somewhere in a kernel's life.
    pub(crate) fn anywhere() -> (Self, Arc<dyn KernelEvents>) {
        let (recorder, events) = Self::new();
        (Self { anywhere: true, ..recorder }, events)
    }

    /// Number of the last message heard.
    pub(crate) fn last(&self) -> Sequence {
        self.last
    }

    /// The next message; none once the kernel has ended.
    pub(crate) async fn next(&mut self) -> Result<Message, ExitReport> {
        match self.events.recv().await.expect("the kernel's task ended without a report") {
            Event::Exited(report) => {
                assert!(self.events.recv().await.is_none(), "something followed the exit");
                Err(report)
            }
            Event::Message(sequence, channel, bytes) => {
                self.last = if std::mem::take(&mut self.anywhere) { sequence } else { self.last + 1 };
                assert_eq!(sequence, self.last, "a gap in the numbers");
                let message = JupyterMessage::decode(bytes).unwrap();
                let json = |part: &[u8]| serde_json::from_slice::<Value>(part).unwrap();
                let (header, parent) = (json(&message.header), json(&message.parent_header));
                Ok(Message {
                    channel,
                    kind: header["msg_type"].as_str().unwrap_or_default().into(),
                    parent: parent["msg_id"].as_str().unwrap_or_default().into(),
                    content: json(&message.content),
                })
            }
        }
    }

    /// Whether nothing more will come, after what is still unread.
    pub(crate) async fn is_closed(&mut self) -> bool {
        while let Some(event) = self.events.recv().await {
            if matches!(event, Event::Exited(_)) {
                return false;
            }
        }
        true
    }

    /// Everything until the kernel is idle again after request `id`, and its reply.
    pub(crate) async fn answer(&mut self, id: &str) -> (Vec<Message>, Value) {
        let (mut messages, mut reply, mut idle) = (Vec::new(), None, false);
        while reply.is_none() || !idle {
            let message = self.next().await.expect("the kernel ended");
            if message.parent != id {
                continue;
            }
            match message.channel {
                Channel::Shell => reply = Some(message.content),
                Channel::Iopub => {
                    idle = message.kind == "status" && message.content["execution_state"] == "idle";
                    messages.push(message);
                }
                Channel::Stdin | Channel::Control => messages.push(message),
            }
        }
        (messages, reply.unwrap_or_default())
    }

    /// The first message that fits.
    pub(crate) async fn until(&mut self, fits: impl Fn(&Message) -> bool) -> Message {
        loop {
            let message = self.next().await.expect("the kernel ended");
            if fits(&message) {
                return message;
            }
        }
    }

    /// How the kernel ended, whatever it says before.
    pub(crate) async fn exit(&mut self) -> ExitReport {
        loop {
            if let Err(report) = self.next().await {
                return report;
            }
        }
    }

    /// Runs `code` to its end.
    pub(crate) async fn run(&mut self, kernel: &dyn Kernel, code: &str) -> (Vec<Message>, Value) {
        let id = execute(kernel, code);
        self.answer(&id).await
    }
}

/// Sends an execute request and returns its id.
pub(crate) fn execute(kernel: &dyn Kernel, code: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // A kernel may outlive the process that asked it first, and knows its ids.
    let id = format!("test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let content = json!({
        "code": code, "silent": false, "store_history": true,
        "user_expressions": {}, "allow_stdin": true, "stop_on_error": true,
    });
    kernel.send(Channel::Shell, request(&id, "execute_request", &content)).unwrap();
    id
}

/// A message as a room would send it.
pub(crate) fn request(id: &str, kind: &str, content: &Value) -> Bytes {
    let header = json!({
        "msg_id": id, "msg_type": kind, "session": "test-session", "username": "test",
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
