//! What a kernel says, on a terminal.
//!
//! Promises: streams go where the kernel sent them, errors to stderr; what is no text becomes a file and a line with its
//! link.
//! Never: prints binary data.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::client::Said;

/// MIME types that become files, and what their names end in, best first.
const FILES: [(&str, &str); 7] = [
    ("image/png", ".png"),
    ("image/jpeg", ".jpg"),
    ("image/svg+xml", ".svg"),
    ("image/gif", ".gif"),
    ("image/webp", ".webp"),
    ("application/pdf", ".pdf"),
    ("audio/wav", ".wav"),
];
/// MIME types that are shown as they are, best first.
const TEXTS: [&str; 4] = ["text/plain", "text/markdown", "text/latex", "application/json"];

/// What has been printed.
#[derive(Debug)]
pub(crate) struct Screen {
    /// Whether results are numbered.
    numbered: bool,
    /// Whether the last line on stdout has an end.
    at_start: bool,
}

impl Screen {
    /// A screen; `numbered` puts `Out[n]: ` before results.
    pub(crate) fn new(numbered: bool) -> Self {
        Self { numbered, at_start: true }
    }

    /// Prints a message if it is one to be seen.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn show(&mut self, said: &Said) -> io::Result<()> {
        let data = || said.content.get("data").and_then(Value::as_object);
        match said.kind.as_str() {
            "stream" if said.text("name") == "stderr" => self.err(said.text("text")),
            "stream" => self.out(said.text("text")),
            "execute_result" => {
                let number = said.content.get("execution_count").and_then(Value::as_u64).unwrap_or_default();
                let text = data().map(describe).transpose()?.unwrap_or_default();
                self.end_line()?;
                match self.numbered {
                    true => self.out(&format!("Out[{number}]: {}\n", text.trim_end_matches('\n'))),
                    false => self.out(&format!("{}\n", text.trim_end_matches('\n'))),
                }
            }
            "display_data" | "update_display_data" => {
                let text = data().map(describe).transpose()?.unwrap_or_default();
                self.end_line()?;
                self.out(&format!("{}\n", text.trim_end_matches('\n')))
            }
            "error" => {
                self.end_line()?;
                self.err(&traceback(said))
            }
            _ => Ok(()),
        }
    }

    /// Ends a line of stdout that has no end.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        if self.at_start { Ok(()) } else { self.out("\n") }
    }

    /// Prints text.
    ///
    /// # Errors
    /// When the output is gone.
    pub(crate) fn out(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.at_start = text.ends_with('\n');
        let mut out = anstream::stdout();
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    fn err(&mut self, text: &str) -> io::Result<()> {
        anstream::stderr().write_all(text.as_bytes())
    }
}

fn traceback(said: &Said) -> String {
    let what = format!("{}: {}", said.text("ename"), said.text("evalue"));
    let lines = said.content.get("traceback").and_then(Value::as_array).into_iter().flatten();
    let mut text: String = lines.filter_map(Value::as_str).flat_map(|line| [line, "\n"]).collect();
    let plain = anstream::adapter::strip_str(&text).to_string();
    // Of an exception, the last line of most tracebacks.
    if !plain.contains(said.text("ename")) {
        text = format!("{what}\n{text}");
    }
    text
}

/// A bundle as text.
fn describe(data: &Map<String, Value>) -> io::Result<String> {
    let text = |name: &str| match data.get(name)? {
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    for (name, suffix) in FILES {
        let Some(content) = text(name) else { continue };
        let bytes = match name {
            "image/svg+xml" => content.into_bytes(),
            _ => {
                let letters: String = content.split_whitespace().collect();
                STANDARD.decode(letters).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            }
        };
        let mut file = tempfile::Builder::new().prefix("runt-").suffix(suffix).tempfile()?;
        file.write_all(&bytes)?;
        // For the user to look at; the system clears its folder of temporary files.
        let (_, path) = file.keep().map_err(|error| error.error)?;
        return Ok(format!("[{name}, {} bytes] file://{}", bytes.len(), path.display()));
    }
    Ok(TEXTS.into_iter().find_map(text).unwrap_or_else(|| {
        let names: Vec<&str> = data.keys().map(String::as_str).collect();
        format!("[{}]", names.join(", "))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jupyter::client::Channel;
    use serde_json::json;

    #[test]
    fn an_image_becomes_a_file_and_other_things_text() {
        let described = |data: Value| describe(data.as_object().unwrap()).unwrap();
        let image = described(json!({"text/plain": "<Figure>", "image/png": "aGVs\nbG8=\n"}));
        let (about, path) = image.split_once(" file://").unwrap();
        assert_eq!((about, std::fs::read(path).unwrap().as_slice()), ("[image/png, 5 bytes]", &b"hello"[..]));
        std::fs::remove_file(path).unwrap();
        assert_eq!(described(json!({"text/html": "<b>", "text/plain": "b"})), "b");
        assert_eq!(described(json!({"text/html": "<b>"})), "[text/html]");
    }

    #[test]
    fn an_error_is_named_once() {
        let error =
            |traceback: Value| traceback_of(json!({"ename": "E", "evalue": "why", "traceback": traceback}));
        assert_eq!(
            error(json!(["\x1b[31mTraceback", "E\x1b[0m: why"])),
            "\x1b[31mTraceback\nE\x1b[0m: why\n"
        );
        assert_eq!(error(json!([])), "E: why\n");
    }

    fn traceback_of(content: Value) -> String {
        traceback(&Said { channel: Channel::Iopub, kind: "error".into(), parent: String::new(), content })
    }
}
