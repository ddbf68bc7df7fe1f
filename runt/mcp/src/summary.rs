//! Outputs for a language model: short, as text where there is text, and with a way to the rest.
//!
//! For: every tool that shows outputs. docs/MCP.md has the rule in words.
//! Promises: what is left out is named where it is missing, with the call that brings it; a result is never longer than
//! its [`Limits`] and the few words around the outputs.
//! Never: does I/O. [`wanted`] says which blobs are needed, the caller brings them.

mod bundle;
mod html;
mod text;

use std::collections::HashMap;

use runtimed_client::protocol::documents::{ContentRef, Output};

use bundle::{Part, parts};
pub(crate) use text::{clip, page, plain};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Characters of one output.
    pub(crate) output: usize,
    /// Characters of all outputs together.
    pub(crate) total: usize,
    /// Outputs, however short.
    pub(crate) outputs: usize,
    /// Images. The others are named.
    pub(crate) images: usize,
}

impl Limits {
    /// One cell, which somebody wants to see. About 4,000 tokens at the most, and the images.
    pub(crate) const ONE_CELL: Self = Self { output: 4_000, total: 16_000, outputs: 50, images: 4 };
    /// One of many cells.
    pub(crate) const ONE_OF_MANY: Self = Self { output: 500, total: 1_500, outputs: 10, images: 0 };
    /// One of too many cells.
    pub(crate) const STATUS_ONLY: Self = Self { output: 0, total: 0, outputs: 0, images: 0 };
}

/// Largest image that is shown, in bytes. As text in a message it takes a third more, and models are given images of
/// some megabytes at the most.
const IMAGE_BYTES: u64 = 1024 * 1024;

/// Stands where a blob is gone.
const GONE: &str = "[this content is not there any more; run the cell again]";

/// Stands where a blob cannot be read.
const AWAY: &str = "[this content could not be read just now; get_results shows it in a moment]";

/// Blobs by their hash; none for one that is gone. One that is not in here cannot be read just now.
pub(crate) type Blobs = HashMap<String, Option<Vec<u8>>>;

/// A piece of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    /// Words.
    Text(String),
    /// A picture, as a kernel made it.
    Image {
        /// Such as `image/png`.
        media_type: String,
        /// The file.
        bytes: Vec<u8>,
    },
}

/// The blobs that [`blocks`] may need for the same outputs and limits.
pub(crate) fn wanted(outputs: &[Output], limits: Limits) -> Vec<String> {
    let mut images = limits.images;
    hashes(numbered(outputs).iter().take(limits.outputs).flat_map(|it| it.parts(&mut images)))
}

/// The blobs that [`whole`] needs.
pub(crate) fn wanted_whole(outputs: &[Output], number: usize) -> Vec<String> {
    hashes(nth(outputs, number).iter().flat_map(|it| it.parts(&mut 0)))
}

fn hashes<'a>(parts: impl Iterator<Item = Part<'a>>) -> Vec<String> {
    let content = parts.flat_map(|part| part.content());
    let hash = |content: &ContentRef| match content {
        ContentRef::Blob { hash, .. } => Some(hash.clone()),
        ContentRef::Inline { .. } => None,
    };
    content.filter_map(hash).collect()
}

/// The outputs of `execution_id` as a model reads them. Where a blob is missing it says why.
pub(crate) fn blocks(outputs: &[Output], blobs: &Blobs, limits: Limits, execution_id: &str) -> Vec<Block> {
    let mut writer = Writer { blocks: Vec::new(), text: String::new(), left: limits.total };
    let mut images = limits.images;
    let all = numbered(outputs);
    for (index, output) in all.iter().enumerate() {
        let number = index + 1;
        if writer.left == 0 || index == limits.outputs {
            writer.line(&format!(
                "[outputs {number} to {} left out; get_results(execution_id=\"{execution_id}\", output={number}) reads \
                 one of them]",
                all.len()
            ));
            break;
        }
        for part in output.parts(&mut images) {
            let more = |offset: usize| {
                format!("get_results(execution_id=\"{execution_id}\", output={number}, offset={offset})")
            };
            match part {
                Part::Image { media_type, content, size } => {
                    writer.line(&format!("[output {number}: {media_type}, {}]", bytes(size)));
                    writer.image(media_type, read(content, blobs));
                }
                Part::Note(note) => writer.line(&format!("[output {number}: {note}]")),
                part => {
                    let (label, text) = part.text(blobs);
                    let most = limits.output.min(writer.left);
                    let (shown, used) = clip(&text, most, part.tail_share(), more);
                    writer.left -= used;
                    writer.line(&format!("[output {number}: {label}]"));
                    writer.line(&shown);
                }
            }
        }
    }
    writer.end()
}

/// The whole text of output `number`, counted from 1 as in [`blocks`]; none if there is no such output.
pub(crate) fn whole(outputs: &[Output], number: usize, blobs: &Blobs) -> Option<String> {
    let parts = nth(outputs, number)?.parts(&mut 0);
    let text = |part: Part<'_>| match part {
        Part::Note(note) => format!("[{note}]"),
        Part::Image { media_type, size, .. } => format!("[{media_type}, {}]", bytes(size)),
        part => part.text(blobs).1,
    };
    Some(parts.into_iter().map(text).collect::<Vec<_>>().join("\n"))
}

/// How many outputs there are, as they are counted here.
pub(crate) fn count(outputs: &[Output]) -> usize {
    numbered(outputs).len()
}

/// What counts as one output: a stretch of one stream is one, however many pieces it came in.
enum Numbered<'a> {
    Stream { name: &'a str, pieces: Vec<&'a ContentRef> },
    Other(&'a Output),
}

impl<'a> Numbered<'a> {
    /// What is shown of it; each image that is takes one off `images`.
    fn parts(&self, images: &mut usize) -> Vec<Part<'a>> {
        match self {
            Self::Stream { name, pieces } => vec![Part::Stream { name, pieces: pieces.clone() }],
            Self::Other(output) => parts(output, images),
        }
    }
}

fn nth(outputs: &[Output], number: usize) -> Option<Numbered<'_>> {
    numbered(outputs).into_iter().nth(number.checked_sub(1)?)
}

fn numbered(outputs: &[Output]) -> Vec<Numbered<'_>> {
    let mut numbered: Vec<Numbered<'_>> = Vec::new();
    for output in outputs {
        match (output, numbered.last_mut()) {
            (Output::Stream { name, text, .. }, Some(Numbered::Stream { name: open, pieces }))
                if name == open =>
            {
                pieces.push(text);
            }
            (Output::Stream { name, text, .. }, _) => {
                numbered.push(Numbered::Stream { name, pieces: vec![text] });
            }
            _ => numbered.push(Numbered::Other(output)),
        }
    }
    numbered
}

/// The bytes of some content, or what to say in their place.
fn read<'a>(content: &'a ContentRef, blobs: &'a Blobs) -> Result<&'a [u8], &'static str> {
    match content {
        ContentRef::Inline { inline } => Ok(inline.as_bytes()),
        ContentRef::Blob { hash, .. } => match blobs.get(hash) {
            Some(Some(bytes)) => Ok(bytes),
            Some(None) => Err(GONE),
            None => Err(AWAY),
        },
    }
}

/// A size for people and models, decimal units.
fn bytes(size: u64) -> String {
    match size {
        0..1000 => format!("{size} B"),
        1000..1_000_000 => format!("{:.1} kB", size as f64 / 1e3),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

/// Collects text until an image comes between.
struct Writer {
    blocks: Vec<Block>,
    text: String,
    /// Characters of outputs that still fit.
    left: usize,
}

impl Writer {
    fn line(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        self.text += line;
        if !line.ends_with('\n') {
            self.text.push('\n');
        }
    }

    fn image(&mut self, media_type: &str, bytes: Result<&[u8], &str>) {
        match bytes {
            Ok(bytes) => {
                self.flush();
                self.blocks.push(Block::Image { media_type: media_type.to_owned(), bytes: bytes.to_vec() });
            }
            Err(why) => self.line(why),
        }
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.blocks.push(Block::Text(std::mem::take(&mut self.text)));
        }
    }

    fn end(mut self) -> Vec<Block> {
        self.flush();
        self.blocks
    }
}

#[cfg(test)]
mod tests;
