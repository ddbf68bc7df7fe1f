//! Turns the outputs of a running cell into text for a terminal, as they grow.
//!
//! For: `runt run`.
//! Promises: settled lines are printed once; an unfinished line (a progress bar) is rewritten in place on
//! a terminal and printed once it is final elsewhere; what went to stderr goes to stderr, and so do errors.
//! Never: fetches a blob twice for the same text, or prints binary data.

use std::future::Future;
use std::io::{IsTerminal, Write};

use html2text::config;
use runtimed_client::protocol::documents::output::{ContentRef, MimeBundle, Output};

/// Width for rendering HTML tables. The usual terminal.
const HTML_WIDTH: usize = 100;

/// Reads what is not in the manifest.
pub(crate) trait Blobs {
    /// The blob's bytes.
    fn fetch(&self, hash: &str) -> impl Future<Output = anyhow::Result<Vec<u8>>>;
    /// An address a person can open.
    fn address(&self, hash: &str) -> String;
}

/// What has been printed of one cell.
#[derive(Default)]
pub(crate) struct CellPrinter {
    /// One for each stretch of consecutive outputs of one stream, or for each other output.
    printed: Vec<Printed>,
}

enum Printed {
    /// Bytes of the stretch that are on the terminal for good, and the unfinished line after them.
    Stream { name: String, settled: usize, live: String },
    /// Something that was printed as a whole, as this text.
    Whole(String),
}

/// Consecutive outputs that are shown as one thing.
enum Stretch<'a> {
    Stream { name: &'a str, parts: Vec<&'a ContentRef> },
    Other(&'a Output),
}

impl CellPrinter {
    /// Prints what is new in `outputs`, which are all outputs of the cell in order.
    ///
    /// # Errors
    /// When a blob cannot be read or the terminal is gone.
    pub(crate) async fn update(&mut self, outputs: &[Output], blobs: &impl Blobs) -> anyhow::Result<()> {
        for (index, stretch) in stretches(outputs).into_iter().enumerate() {
            if index < self.printed.len() {
                self.grow(index, stretch, blobs).await?;
            } else {
                self.finish_last()?;
                self.begin(stretch, blobs).await?;
            }
        }
        Ok(())
    }

    /// Ends the last line. Call when the cell has ended.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        self.finish_last()
    }

    async fn begin(&mut self, stretch: Stretch<'_>, blobs: &impl Blobs) -> anyhow::Result<()> {
        match stretch {
            Stretch::Stream { name, .. } => {
                self.printed.push(Printed::Stream { name: name.to_owned(), settled: 0, live: String::new() });
                self.grow(self.printed.len() - 1, stretch, blobs).await
            }
            Stretch::Other(output) => {
                let text = describe(output, blobs).await?;
                print(is_error(output), &text)?;
                self.printed.push(Printed::Whole(text));
                Ok(())
            }
        }
    }

    async fn grow(&mut self, index: usize, stretch: Stretch<'_>, blobs: &impl Blobs) -> anyhow::Result<()> {
        match (self.printed.get_mut(index), stretch) {
            (Some(Printed::Stream { name, settled, live }), Stretch::Stream { parts, .. }) => {
                let fresh = text_from(*settled, &parts, blobs).await?;
                let lines = fresh.rfind('\n').map_or(0, |end| end + 1);
                let (lines, rest) = fresh.split_at(lines);
                let stderr = name == "stderr";
                let mut text = String::new();
                if !live.is_empty() && fresh != *live {
                    text += "\r\x1b[K";
                    live.clear();
                }
                text += lines;
                *settled += lines.len();
                if in_place(stderr) && *live != rest {
                    text += rest;
                    rest.clone_into(live);
                }
                print(stderr, &text)
            }
            // A display that was updated: what is printed cannot be taken back, so the new one follows.
            (Some(Printed::Whole(old)), Stretch::Other(output)) => {
                let text = describe(output, blobs).await?;
                if text != *old {
                    print(is_error(output), &text)?;
                    *old = text;
                }
                Ok(())
            }
            // `clear_output` and what came after it.
            (Some(printed), stretch) => {
                let (stderr, text) = match &stretch {
                    Stretch::Stream { name, parts } => (*name == "stderr", text_from(0, parts, blobs).await?),
                    Stretch::Other(output) => (is_error(output), describe(output, blobs).await?),
                };
                print(stderr, &text)?;
                *printed = match stretch {
                    Stretch::Stream { name, .. } => {
                        Printed::Stream { name: name.to_owned(), settled: text.len(), live: String::new() }
                    }
                    Stretch::Other(_) => Printed::Whole(text),
                };
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn finish_last(&mut self) -> anyhow::Result<()> {
        if let Some(Printed::Stream { name, live, .. }) = self.printed.last_mut()
            && !live.is_empty()
        {
            live.clear();
            print(name == "stderr", "\n")?;
        }
        Ok(())
    }

    /// Prints unfinished last lines that were held back because there is no terminal to rewrite them on.
    ///
    /// # Errors
    /// When a blob cannot be read or the output is gone.
    pub(crate) async fn settle(&mut self, outputs: &[Output], blobs: &impl Blobs) -> anyhow::Result<()> {
        for (printed, stretch) in self.printed.iter_mut().zip(stretches(outputs)) {
            if let (Printed::Stream { name, settled, live }, Stretch::Stream { parts, .. }) =
                (printed, stretch)
                && live.is_empty()
            {
                let rest = text_from(*settled, &parts, blobs).await?;
                *settled += rest.len();
                if !rest.is_empty() {
                    print(name == "stderr", &format!("{rest}\n"))?;
                }
            }
        }
        Ok(())
    }
}

fn stretches(outputs: &[Output]) -> Vec<Stretch<'_>> {
    let mut stretches: Vec<Stretch<'_>> = Vec::new();
    for output in outputs {
        match (output, stretches.last_mut()) {
            (Output::Stream { name, text, .. }, Some(Stretch::Stream { name: open, parts }))
                if open == name =>
            {
                parts.push(text);
            }
            (Output::Stream { name, text, .. }, _) => {
                stretches.push(Stretch::Stream { name, parts: vec![text] })
            }
            _ => stretches.push(Stretch::Other(output)),
        }
    }
    stretches
}

/// The text of consecutive parts from a byte offset on. Parts that end before it are not fetched.
async fn text_from(from: usize, parts: &[&ContentRef], blobs: &impl Blobs) -> anyhow::Result<String> {
    let (mut at, mut text) = (0, String::new());
    for part in parts {
        let size = match part {
            ContentRef::Inline { inline } => inline.len(),
            ContentRef::Blob { size, .. } => usize::try_from(*size)?,
        };
        if at + size > from {
            let whole = content(part, blobs).await?;
            text += whole.get(from.saturating_sub(at)..).unwrap_or(&whole);
        }
        at += size;
    }
    Ok(text)
}

async fn content(content: &ContentRef, blobs: &impl Blobs) -> anyhow::Result<String> {
    match content {
        ContentRef::Inline { inline } => Ok(inline.clone()),
        ContentRef::Blob { hash, .. } => Ok(String::from_utf8_lossy(&blobs.fetch(hash).await?).into_owned()),
    }
}

/// Whether it goes to stderr: an error does, as from a script.
fn is_error(output: &Output) -> bool {
    matches!(output, Output::Error { .. })
}

/// A display, a result or an error as text that ends with a newline.
async fn describe(output: &Output, blobs: &impl Blobs) -> anyhow::Result<String> {
    let mut text = match output {
        Output::Display { bundle, .. } | Output::ExecuteResult { bundle, .. } => {
            show_bundle(bundle, blobs).await?
        }
        Output::Error { ename, evalue, traceback, .. } => {
            let lines: Vec<String> =
                serde_json::from_str(&content(traceback, blobs).await?).unwrap_or_default();
            if lines.is_empty() { format!("{ename}: {evalue}") } else { lines.join("\n") }
        }
        Output::Stream { text, .. } => content(text, blobs).await?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// The best of a bundle that a terminal can show: tables from HTML, a line about each binary, plain text.
async fn show_bundle(bundle: &MimeBundle, blobs: &impl Blobs) -> anyhow::Result<String> {
    let binary = |media_type: &str| {
        ["image/", "audio/", "video/"].iter().any(|kind| media_type.starts_with(kind))
            && media_type != "image/svg+xml"
    };
    let mut lines = Vec::new();
    for (media_type, data) in &bundle.data {
        if let ContentRef::Blob { hash, size } = data
            && binary(media_type)
        {
            lines.push(format!("[{media_type}, {}, blob {hash}]\n{}", bytes(*size), blobs.address(hash)));
        }
    }
    if !lines.is_empty() {
        return Ok(lines.join("\n"));
    }
    if let Some(html) = bundle.data.get("text/html") {
        let html = content(html, blobs).await?;
        if let Ok(text) = config::plain().string_from_read(html.as_bytes(), HTML_WIDTH) {
            return Ok(text);
        }
    }
    for media_type in ["text/plain", "text/markdown", "application/json"] {
        if let Some(data) = bundle.data.get(media_type) {
            return content(data, blobs).await;
        }
    }
    Ok(format!("[{}]", bundle.data.keys().cloned().collect::<Vec<_>>().join(", ")))
}

/// A size for people, decimal units.
fn bytes(size: u64) -> String {
    match size {
        0..1000 => format!("{size} B"),
        1000..1_000_000 => format!("{:.1} kB", size as f64 / 1e3),
        _ => format!("{:.1} MB", size as f64 / 1e6),
    }
}

/// Whether an unfinished line can be rewritten.
fn in_place(stderr: bool) -> bool {
    if stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() }
}

/// Prints at once. Colors are taken out where the user or the lack of a terminal asks for it.
fn print(stderr: bool, text: &str) -> anyhow::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    if stderr {
        anstream::stderr().write_all(text.as_bytes())?;
    } else {
        let mut out = anstream::stdout();
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Ok(())
}
