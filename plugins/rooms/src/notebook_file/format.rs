//! How a notebook file is laid out.
//!
//! For: writing changed parts in the hand of whoever wrote the file.
//! Promises: any JSON text has a format; files of Jupyter, nbformat, VS Code and `json.dumps` are
//! recognized exactly.

use serde_json::Value as Json;

use super::node::Node;

/// Spaces, line ends and escapes of a JSON file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// Text before the value: a byte order mark.
    head: String,
    /// One level of indent; none for a file in one line.
    indent: Option<String>,
    newline: &'static str,
    /// What follows a comma in one line, and a colon anywhere.
    after_comma: &'static str,
    after_colon: &'static str,
    /// Whether characters beyond ASCII are escaped.
    ascii: bool,
    /// Text after the value: usually a line end, or nothing.
    tail: String,
}

impl Default for Format {
    /// That of new files. Source: nbformat's own.
    fn default() -> Self {
        Self {
            head: String::new(),
            indent: Some(" ".to_owned()),
            newline: "\n",
            after_comma: "",
            after_colon: " ",
            ascii: false,
            tail: "\n".to_owned(),
        }
    }
}

impl Format {
    /// The format of `text`, the JSON text of an object.
    pub(super) fn of(text: &str) -> Self {
        let (Some(open), Some(close)) = (text.find('{'), text.rfind('}')) else { return Self::default() };
        let (head, body, tail) = (text.get(..open), text.get(open + 1..close), text.get(close + 1..));
        let body = body.unwrap_or_default();
        let space = |text: &str| text.len() - text.trim_start().len();
        let first = body.get(..space(body)).unwrap_or_default();
        let newline = if first.contains('\r') { "\r\n" } else { "\n" };
        let indent = first.rsplit_once('\n').map(|(_, indent)| indent.to_owned());
        let spaced_colon = body.split_once("\":").is_some_and(|(_, value)| value.starts_with(' '));
        Self {
            head: head.unwrap_or_default().to_owned(),
            newline,
            after_comma: if indent.is_none() && spaced_colon { " " } else { "" },
            after_colon: if spaced_colon || body.trim().is_empty() { " " } else { "" },
            indent,
            ascii: escapes_beyond_ascii(body),
            tail: tail.unwrap_or_default().to_owned(),
        }
    }

    /// The file that holds `root`.
    pub(super) fn print(&self, root: &Node<'_>) -> Vec<u8> {
        let mut out = self.head.clone();
        self.print_node(root, 0, &mut out);
        out.push_str(&self.tail);
        out.into_bytes()
    }

    fn print_node(&self, node: &Node<'_>, depth: usize, out: &mut String) {
        match node {
            Node::Raw(raw) => out.push_str(raw.get()),
            Node::Value(value) => self.print_value(value, depth, out),
            Node::Array(items) => {
                self.print_items(['[', ']'], items, depth, out, |item, out| {
                    self.print_node(item, depth + 1, out)
                });
            }
            Node::Object(members) => {
                self.print_items(['{', '}'], members, depth, out, |(key, value), out| {
                    self.print_key(key, out);
                    self.print_node(value, depth + 1, out);
                })
            }
        }
    }

    fn print_value(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Array(items) => {
                self.print_items(['[', ']'], items, depth, out, |item, out| {
                    self.print_value(item, depth + 1, out)
                });
            }
            Json::Object(members) => {
                self.print_items(['{', '}'], members, depth, out, |(key, value), out| {
                    self.print_key(key, out);
                    self.print_value(value, depth + 1, out);
                })
            }
            Json::String(text) => self.print_string(text, out),
            scalar => out.push_str(&scalar.to_string()),
        }
    }

    fn print_items<T>(
        &self,
        [open, close]: [char; 2],
        items: impl IntoIterator<Item = T>,
        depth: usize,
        out: &mut String,
        mut print: impl FnMut(T, &mut String),
    ) {
        let mut empty = true;
        out.push(open);
        for item in items {
            if !std::mem::take(&mut empty) {
                out.push(',');
                out.push_str(self.after_comma);
            }
            self.break_line(depth + 1, out);
            print(item, out);
        }
        if !empty {
            self.break_line(depth, out);
        }
        out.push(close);
    }

    fn break_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push_str(self.newline);
            (0..depth).for_each(|_| out.push_str(indent));
        }
    }

    fn print_key(&self, key: &str, out: &mut String) {
        self.print_string(key, out);
        out.push(':');
        out.push_str(self.after_colon);
    }

    fn print_string(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        if !self.ascii || quoted.is_ascii() {
            out.push_str(&quoted);
            return;
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                out.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

/// Whether JSON text escapes what it could say as it is.
fn escapes_beyond_ascii(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, escape)) = rest.split_once('\\') {
        let code = escape.strip_prefix('u').and_then(|code| u16::from_str_radix(code.get(..4)?, 16).ok());
        if code.is_some_and(|code| code >= 0x80) {
            return text.is_ascii();
        }
        let mut characters = escape.chars();
        characters.next();
        rest = characters.as_str();
    }
    false
}
