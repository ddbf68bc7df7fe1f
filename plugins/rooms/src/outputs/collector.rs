//! The outputs of one execution while they come in.

use runtimed_protocol::documents::output::{ContentRef, Output};
use serde::Deserialize;
use serde_json::{Map as JsonMap, Value as Json};

use super::display::{self, DisplayUpdate};
use super::edits::{Drained, Edits};
use super::stream::Stream;
use super::{content, error};

/// Turns the messages of one execution into changes of its outputs.
///
/// Use: [`Collector::take`] for every message; [`Collector::drain`] for the first one at once and then
/// while [`Collector::is_dirty`], some 50 ms apart or every 64 KiB, whichever comes first; at idle
/// [`Collector::finish`] and a last drain. What a drain hands out is complete: when it is in the
/// document, every message taken before may be acknowledged.
#[derive(Default)]
pub(crate) struct Collector {
    edits: Edits,
    /// Present while a stream is the newest output.
    stream: Option<Stream>,
    /// Set by `clear_output` with `wait`: the next output clears the others.
    clear_next: bool,
    execution_count: Option<i64>,
    failed: bool,
}

impl Collector {
    /// Without outputs.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Goes on where the document stopped, after a restart. `outputs` with their seq, in order. A stream
    /// that comes last and sits in the manifest is continued; of one in a blob, the rest is a new output.
    pub(crate) fn resume(outputs: &[(u64, Output)]) -> Self {
        let next_seq = outputs.iter().map(|(seq, _)| seq + 1).max().unwrap_or(0);
        let stream = match outputs.last() {
            Some((seq, Output::Stream { output_id, name, text: ContentRef::Inline { inline }, .. })) => {
                Some(Stream::reopen(name, output_id, *seq, inline))
            }
            _ => None,
        };
        Self {
            edits: Edits::resume(outputs.iter().map(|(_, output)| output.output_id().to_owned()), next_seq),
            stream,
            failed: outputs.iter().any(|(_, output)| matches!(output, Output::Error { .. })),
            ..Self::default()
        }
    }

    /// Lets the next output clear the others, as a `clear_output` that waits does.
    pub(crate) fn clear_next(&mut self) {
        self.clear_next = true;
    }

    /// Whether the next output clears the others.
    pub(crate) fn clears_next(&self) -> bool {
        self.clear_next
    }

    /// Takes the `content` (JSON) of a message of type `msg_type`: `stream`, `display_data`,
    /// `execute_result`, `error`, `clear_output`, `execute_input`, `execute_reply`. Other types are
    /// ignored; for `update_display_data` see [`DisplayUpdate`]. `new_id` draws output ids.
    pub(crate) fn take(&mut self, msg_type: &str, content: &[u8], new_id: &mut dyn FnMut() -> String) {
        match msg_type {
            "stream" => self.take_stream(content, new_id),
            "display_data" | "execute_result" => {
                if let Some(content) = content::object(content) {
                    self.take_display(content, msg_type == "execute_result", new_id);
                }
            }
            "error" => {
                if let Some(mut content) = content::object(content) {
                    self.failed = true;
                    self.add(new_id, |id, edits| error::from_error(id, &mut content, &mut edits.blobs));
                }
            }
            "clear_output" => self.take_clear(content),
            "execute_input" => {
                let content = content::object(content).unwrap_or_default();
                self.execution_count = content.get("execution_count").and_then(Json::as_i64);
            }
            "execute_reply" => self.take_reply(content, new_id),
            _ => {}
        }
    }

    /// Applies `update` to outputs that no drain has shown yet.
    pub(crate) fn update_display(&mut self, update: &DisplayUpdate) {
        let mut applied = false;
        for output in self.edits.pending() {
            applied |= update.apply(output);
        }
        if applied {
            self.edits.blobs.extend_from_slice(&update.blobs);
        }
    }

    /// The kernel is done with the execution: a stream that is open gets its final form. More may come.
    pub(crate) fn finish(&mut self, new_id: &mut dyn FnMut() -> String) {
        if let Some(stream) = self.stream.take() {
            stream.close(&mut self.edits, new_id);
        }
    }

    /// Whether a drain would give something.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.edits.is_empty() || self.stream.as_ref().is_some_and(Stream::is_dirty)
    }

    /// How many outputs drains have shown that are still there.
    pub(crate) fn shown(&self) -> usize {
        self.edits.shown()
    }

    /// About how many bytes the next drain hands over.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.edits.blob_bytes() + self.stream.as_ref().map_or(0, Stream::unsealed_bytes)
    }

    /// Everything since the last drain. Costs as much as what is new.
    pub(crate) fn drain(&mut self, new_id: &mut dyn FnMut() -> String) -> Drained {
        if let Some(stream) = &mut self.stream {
            stream.publish(&mut self.edits, new_id);
        }
        self.edits.drain()
    }

    /// The kernel's count, once it has told.
    pub(crate) fn execution_count(&self) -> Option<i64> {
        self.execution_count
    }

    /// Whether an error was seen.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    fn take_stream(&mut self, content: &[u8], new_id: &mut dyn FnMut() -> String) {
        #[derive(Deserialize)]
        struct Content {
            name: String,
            text: String,
        }
        let Some(Content { name, text }) = content::parse(content) else { return };
        self.clear_if_due();
        if self.stream.as_ref().is_some_and(|stream| stream.name() != name) {
            self.finish(new_id);
        }
        let edits = &mut self.edits;
        self.stream.get_or_insert_with(|| Stream::open(&name, edits, new_id)).feed(&text);
    }

    fn take_display(
        &mut self,
        mut content: JsonMap<String, Json>,
        is_result: bool,
        new_id: &mut dyn FnMut() -> String,
    ) {
        let execution_count = content.get("execution_count").and_then(Json::as_i64);
        let mut failed = false;
        self.add(new_id, |output_id, edits| {
            let data = content.get("data").and_then(Json::as_object);
            if let Some(error) = data.and_then(|data| error::from_display(&output_id, data, &mut edits.blobs))
            {
                failed = true;
                return error;
            }
            let bundle = display::bundle(&mut content, &mut edits.blobs);
            if is_result {
                Output::ExecuteResult { output_id, bundle, execution_count }
            } else {
                Output::Display { output_id, bundle }
            }
        });
        self.failed |= failed;
    }

    fn take_clear(&mut self, content: &[u8]) {
        let wait =
            content::object(content).is_some_and(|content| content.get("wait") == Some(&Json::Bool(true)));
        self.clear_next = true;
        if !wait {
            self.clear_if_due();
        }
    }

    /// Only what a reply adds to the other messages: a page of help, and failures without an output.
    fn take_reply(&mut self, content: &[u8], new_id: &mut dyn FnMut() -> String) {
        let Some(mut content) = content::object(content) else { return };
        self.failed |= content.get("status").is_some_and(|status| status != "ok");
        let Some(Json::Array(payload)) = content.remove("payload") else { return };
        for page in payload {
            if let Json::Object(page) = page
                && page.get("source").is_some_and(|source| source == "page")
            {
                self.take_display(page, false, new_id);
            }
        }
    }

    /// Adds an output other than a stream.
    fn add(&mut self, new_id: &mut dyn FnMut() -> String, output: impl FnOnce(String, &mut Edits) -> Output) {
        self.clear_if_due();
        self.finish(new_id);
        let seq = self.edits.next_seq();
        let output = output(new_id(), &mut self.edits);
        self.edits.put(seq, output);
    }

    fn clear_if_due(&mut self) {
        if std::mem::take(&mut self.clear_next) {
            self.stream = None;
            self.edits.clear();
        }
    }
}
