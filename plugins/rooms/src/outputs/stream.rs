//! Text a program prints to stdout or stderr, as outputs.
//!
//! For: showing new lines at once and keeping every byte, at a cost that follows the new text.
//! Promises: each publication holds all text so far; a closed stream is one output (or, beyond
//! [`FULL_BYTES`], a few in a row); what the cursor can still change is never out of reach.
//!
//! While the stream is open its text is cut into consecutive outputs of the same name. The last one,
//! the tail, is short and sits in the manifest; it alone is written again and again. When it has grown
//! it is sealed, and sealed parts are merged two by two, so that `n` bytes are a handful of outputs and
//! each byte is stored again only about `log n` times. Closing merges them all.

mod style;
mod terminal;

use runtimed_protocol::documents::output::Output;

use self::terminal::Terminal;
use super::boundary;
use super::edits::Edits;
use super::mime::{INLINE_STREAM_BYTES, INLINE_TEXT_BYTES, NewBlob, PLAIN, text_ref};
use super::preview::stream_preview;

/// A tail longer than this is sealed. Every publication adds the tail to the history of the runtime
/// state document, and a training loop publishes for hours.
const TAIL_BYTES: usize = 2 * 1024;

/// Sealed parts are always merged up to this size, however unequal: few outputs matter more than
/// bytes here.
const SMALL_BYTES: usize = 64 * 1024;

/// A part of this size is final and its text leaves the memory.
const FULL_BYTES: usize = 16 * 1024 * 1024;

/// No part is longer. The blob store takes 100 MiB.
const PART_BYTES: usize = 64 * 1024 * 1024;

/// A stream that is still the newest output of its execution.
pub(super) struct Stream {
    name: String,
    terminal: Terminal,
    /// Outputs of the settled text, without a hole from its beginning.
    sealed: Vec<Sealed>,
    /// Output of everything after.
    tail: Part,
    /// Whether something was printed since the last publication.
    touched: bool,
}

/// One output.
struct Part {
    output_id: String,
    seq: u64,
    /// Whether peers may know it.
    shown: bool,
}

struct Sealed {
    part: Part,
    /// Where it ends in the settled text.
    end: usize,
    /// Whether peers have yet to see it as it is.
    changed: bool,
}

impl Stream {
    /// An empty one.
    pub(super) fn open(name: &str, edits: &mut Edits, new_id: &mut dyn FnMut() -> String) -> Self {
        let tail = Part::new(edits, new_id);
        Self { name: name.to_owned(), terminal: Terminal::new(), sealed: Vec::new(), tail, touched: false }
    }

    /// Goes on with a published output whose text is at hand. Colors do not carry over.
    pub(super) fn reopen(name: &str, output_id: &str, seq: u64, text: &str) -> Self {
        let mut terminal = Terminal::new();
        terminal.feed(text);
        let tail = Part { output_id: output_id.to_owned(), seq, shown: true };
        Self { name: name.to_owned(), terminal, sealed: Vec::new(), tail, touched: false }
    }

    /// `stdout` or `stderr`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is something to publish.
    pub(super) fn is_dirty(&self) -> bool {
        self.touched
    }

    /// Bytes of settled text that are in no sealed part yet.
    pub(super) fn unsealed_bytes(&self) -> usize {
        self.terminal.settled().len().saturating_sub(self.sealed.last().map_or(0, |sealed| sealed.end))
    }

    /// Prints `text`.
    pub(super) fn feed(&mut self, text: &str) {
        self.terminal.feed(text);
        self.touched = true;
    }

    /// Brings the outputs up to date with the text.
    pub(super) fn publish(&mut self, edits: &mut Edits, new_id: &mut dyn FnMut() -> String) {
        if !std::mem::take(&mut self.touched) {
            return;
        }
        self.terminal.settle();
        self.call_back(edits);
        self.seal(edits, new_id);
        self.put_sealed(edits);
        self.put_tail(edits);
        self.forget_full();
    }

    /// Publishes the text as the one output it is in the end.
    pub(super) fn close(mut self, edits: &mut Edits, new_id: &mut dyn FnMut() -> String) {
        if !self.touched && self.sealed.is_empty() {
            return;
        }
        self.terminal.settle();
        let live = self.terminal.live();
        let mut text = [self.terminal.settled(), &live].concat();
        let mut parts: Vec<Part> = self.sealed.drain(..).map(|sealed| sealed.part).collect();
        parts.push(self.tail);
        let mut parts = parts.into_iter();
        while text.len() > PART_BYTES {
            let rest = text.split_off(boundary::floor(&text, PART_BYTES));
            let part = parts.next().unwrap_or_else(|| Part::new(edits, new_id));
            part.put(&self.name, std::mem::replace(&mut text, rest), INLINE_STREAM_BYTES, edits);
        }
        let last = parts.next().unwrap_or_else(|| Part::new(edits, new_id));
        if last.shown || !text.is_empty() {
            last.put(&self.name, text, INLINE_STREAM_BYTES, edits);
        }
        parts.for_each(|part| part.remove(edits));
    }

    /// Opens the parts again that the cursor went back to.
    fn call_back(&mut self, edits: &mut Edits) {
        let unchanged = self.terminal.take_unchanged();
        while let Some(sealed) = self.sealed.pop_if(|sealed| sealed.end > unchanged) {
            std::mem::replace(&mut self.tail, sealed.part).remove(edits);
        }
    }

    fn seal(&mut self, edits: &mut Edits, new_id: &mut dyn FnMut() -> String) {
        let settled = self.terminal.settled();
        let mut start = self.sealed.last().map_or(0, |sealed| sealed.end);
        while settled.len() - start > TAIL_BYTES {
            let end = boundary::floor(settled, start + PART_BYTES);
            let part = std::mem::replace(&mut self.tail, Part::new(edits, new_id));
            self.sealed.push(Sealed { part, end, changed: true });
            start = end;
        }
        while let [.., before, left, right] = self.bounds()[..]
            && left - before < FULL_BYTES
            && (right - before <= SMALL_BYTES || left - before <= right - left)
            && let Some(later) = self.sealed.pop()
        {
            later.part.remove(edits);
            if let Some(merged) = self.sealed.last_mut() {
                merged.end = later.end;
                merged.changed = true;
            }
        }
    }

    /// Where the sealed parts end, with a leading 0.
    fn bounds(&self) -> Vec<usize> {
        std::iter::once(0).chain(self.sealed.iter().map(|sealed| sealed.end)).collect()
    }

    fn put_sealed(&mut self, edits: &mut Edits) {
        let mut start = 0;
        for sealed in &mut self.sealed {
            if std::mem::take(&mut sealed.changed) {
                let text = self.terminal.settled().get(start..sealed.end).unwrap_or_default();
                sealed.part.put(&self.name, text.to_owned(), INLINE_TEXT_BYTES, edits);
                sealed.part.shown = true;
            }
            start = sealed.end;
        }
    }

    fn put_tail(&mut self, edits: &mut Edits) {
        let start = self.sealed.last().map_or(0, |sealed| sealed.end);
        let settled = self.terminal.settled().get(start..).unwrap_or_default();
        let text = [settled, &self.terminal.live()].concat();
        if self.tail.shown || !text.is_empty() {
            self.tail.put(&self.name, text, INLINE_STREAM_BYTES, edits);
            self.tail.shown = true;
        }
    }

    fn forget_full(&mut self) {
        while let Some(full) = self.sealed.first().map(|sealed| sealed.end).filter(|end| *end >= FULL_BYTES) {
            self.sealed.remove(0);
            self.sealed.iter_mut().for_each(|sealed| sealed.end -= full);
            self.terminal.forget(full);
        }
    }
}

impl Part {
    fn new(edits: &mut Edits, new_id: &mut dyn FnMut() -> String) -> Self {
        Self { output_id: new_id(), seq: edits.next_seq(), shown: false }
    }

    fn put(&self, name: &str, text: String, inline_below: usize, edits: &mut Edits) {
        let output = output(self.output_id.clone(), name.to_owned(), text, inline_below, &mut edits.blobs);
        edits.put(self.seq, output);
    }

    fn remove(self, edits: &mut Edits) {
        edits.remove(&self.output_id);
    }
}

/// The output for the complete text of a stream.
pub(crate) fn stream_output(
    output_id: String,
    name: String,
    text: String,
    blobs: &mut Vec<NewBlob>,
) -> Output {
    output(output_id, name, text, INLINE_STREAM_BYTES, blobs)
}

fn output(
    output_id: String,
    name: String,
    text: String,
    inline_below: usize,
    blobs: &mut Vec<NewBlob>,
) -> Output {
    let llm_preview = (text.len() >= inline_below).then(|| stream_preview(&text));
    Output::Stream { output_id, name, text: text_ref(text, PLAIN, inline_below, blobs), llm_preview }
}
