//! Which of the forms of an output a model is shown.

use runtimed_client::protocol::documents::{ContentRef, MimeBundle, Output};

use super::{Blobs, IMAGE_BYTES, bytes, html, plain, read};

/// Pictures that models can see.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/webp", "image/gif"];

/// Forms in words, the best first. Plain text that only names an object comes after all of them.
const WORDS: [&str; 5] = ["text/markdown", "text/plain", "text/html", "text/latex", "application/json"];

/// One thing that is shown of an output.
pub(super) enum Part<'a> {
    /// What was printed.
    Stream { name: &'a str, pieces: Vec<&'a ContentRef> },
    /// A value in words.
    Words { label: &'static str, media_type: &'a str, content: &'a ContentRef },
    /// An exception.
    Error { name: &'a str, message: &'a str, traceback: &'a ContentRef },
    /// A picture to look at.
    Image { media_type: &'a str, content: &'a ContentRef, size: u64 },
    /// A word about something that is not shown.
    Note(String),
}

impl<'a> Part<'a> {
    /// What must be read to show it.
    pub(super) fn content(self) -> Vec<&'a ContentRef> {
        match self {
            Self::Stream { pieces, .. } => pieces,
            Self::Words { content, .. } | Self::Image { content, .. } => vec![content],
            Self::Error { traceback, .. } => vec![traceback],
            Self::Note(_) => Vec::new(),
        }
    }

    /// How many fourths of the room are the tail's: errors say at their end what they are about.
    pub(super) fn tail_share(&self) -> usize {
        if matches!(self, Self::Error { .. }) { 3 } else { 2 }
    }

    /// What it is called, and what it says.
    pub(super) fn text(&self, blobs: &Blobs) -> (String, String) {
        let words = |content: &ContentRef| match read(content, blobs) {
            Ok(bytes) => plain(&String::from_utf8_lossy(bytes)),
            Err(why) => format!("{why}\n"),
        };
        match self {
            Self::Stream { name, pieces } => {
                ((*name).to_owned(), pieces.iter().map(|piece| words(piece)).collect())
            }
            Self::Words { label, media_type: "text/html", content } => {
                (format!("{label}, from text/html"), html::to_text(words(content)))
            }
            Self::Words { label, media_type: "text/plain", content } => ((*label).to_owned(), words(content)),
            Self::Words { label, media_type, content } => (format!("{label}, {media_type}"), words(content)),
            Self::Error { name, message, traceback } => {
                let traceback: Vec<String> = match read(traceback, blobs) {
                    Ok(bytes) => serde_json::from_slice(bytes).unwrap_or_default(),
                    Err(why) => vec![why.to_owned()],
                };
                let text =
                    format!("{}\n{}", plain(&format!("{name}: {message}")), plain(&traceback.join("\n")));
                ("error".to_owned(), text)
            }
            Self::Image { .. } | Self::Note(_) => (String::new(), String::new()),
        }
    }
}

/// What is shown of one output; each image that is takes one off `images`.
pub(super) fn parts<'a>(output: &'a Output, images: &mut usize) -> Vec<Part<'a>> {
    match output {
        Output::Stream { name, text, .. } => vec![Part::Stream { name, pieces: vec![text] }],
        Output::Error { ename, evalue, traceback, .. } => {
            vec![Part::Error { name: ename, message: evalue, traceback }]
        }
        Output::Display { bundle, .. } => of_bundle(bundle, "display", images),
        Output::ExecuteResult { bundle, .. } => of_bundle(bundle, "result", images),
    }
}

/// A picture, or words and a note about the picture.
fn of_bundle<'a>(bundle: &'a MimeBundle, label: &'static str, images: &mut usize) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let picture = IMAGES.iter().find_map(|media_type| match bundle.data.get_key_value(*media_type)? {
        (media_type, content @ ContentRef::Blob { size, .. }) => Some((media_type, content, *size)),
        (_, ContentRef::Inline { .. }) => None,
    });
    match picture {
        Some((media_type, content, size)) if *images > 0 && size <= IMAGE_BYTES => {
            *images -= 1;
            return vec![Part::Image { media_type, content, size }];
        }
        Some((media_type, _, size)) if size > IMAGE_BYTES => {
            let most = bytes(IMAGE_BYTES);
            let note =
                format!("{media_type}, {}, not shown: larger than {most}; make it smaller", bytes(size));
            parts.push(Part::Note(note));
        }
        Some((media_type, _, size)) => {
            parts.push(Part::Note(format!(
                "{media_type}, {}, not shown here; get_cell shows it",
                bytes(size)
            )));
        }
        None => {}
    }
    let is_name = |(media_type, content): &(&String, &ContentRef)| {
        media_type.as_str() == "text/plain" && names_an_object(content)
    };
    let mut words: Vec<_> =
        WORDS.iter().filter_map(|media_type| bundle.data.get_key_value(*media_type)).collect();
    words.sort_by_key(is_name);
    match words.first() {
        // What names the object of a picture says nothing beside the picture.
        Some(words) if picture.is_some() && is_name(words) => {}
        Some((media_type, content)) => parts.push(Part::Words { label, media_type, content }),
        None if picture.is_some() => {}
        None => {
            let forms = bundle.data.keys().cloned().collect::<Vec<_>>().join(", ");
            parts.push(Part::Note(format!("{label} without words: {forms}")));
        }
    }
    parts
}

/// Whether this is Python's word for an object that has a better form: `<Figure size 640x480 with 1 Axes>`,
/// `<IPython.core.display.HTML object>`.
fn names_an_object(content: &ContentRef) -> bool {
    match content {
        ContentRef::Inline { inline } => {
            let text = inline.trim();
            text.starts_with('<') && text.ends_with('>') && !text.contains('\n')
        }
        ContentRef::Blob { .. } => false,
    }
}
