//! The short form of a long text.
//!
//! For: readers with little room, such as models; it stands beside a stream whose text is a blob.
//! Promises: head and tail are whole characters and never overlap; each obeys both limits below.

use serde_json::{Value as Json, json};

use super::boundary;

/// Bytes of each side. Source: the reference daemon.
const SIDE_BYTES: usize = 8 * 1024;
/// Lines of each side. Source: the reference daemon.
const SIDE_LINES: usize = 200;

/// Shape: `{head, tail, total_bytes, total_lines}`; `tail` is left out if the head says it all.
pub(crate) fn stream_preview(text: &str) -> Json {
    let head = head(text);
    let tail = tail(text.get(head.len()..).unwrap_or_default());
    let mut preview = json!({"head": head, "total_bytes": text.len(), "total_lines": text.lines().count()});
    if let (false, Some(fields)) = (tail.is_empty(), preview.as_object_mut()) {
        fields.insert("tail".to_owned(), tail.into());
    }
    preview
}

fn head(text: &str) -> &str {
    let text = text.get(..boundary::floor(text, SIDE_BYTES)).unwrap_or(text);
    match text.match_indices('\n').nth(SIDE_LINES - 1) {
        Some((at, _)) => text.get(..=at).unwrap_or(text),
        None => text,
    }
}

fn tail(text: &str) -> &str {
    let from = boundary::ceil(text, text.len().saturating_sub(SIDE_BYTES));
    let text = text.get(from..).unwrap_or_default();
    let lines = text.strip_suffix('\n').unwrap_or(text);
    match lines.rmatch_indices('\n').nth(SIDE_LINES - 1) {
        Some((at, _)) => text.get(at + 1..).unwrap_or(text),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_all_head() {
        assert_eq!(stream_preview("a\nb\n"), json!({"head": "a\nb\n", "total_bytes": 4, "total_lines": 2}));
    }

    #[test]
    fn both_sides_stop_at_200_lines() {
        let text: String = (0..1000).map(|line| format!("{line}\n")).collect();
        let preview = stream_preview(&text);
        assert_eq!(preview["head"].as_str().map(|head| head.lines().count()), Some(200));
        let tail = preview["tail"].as_str().unwrap_or_default();
        assert!(tail.starts_with("800\n") && tail.ends_with("999\n"), "{tail}");
    }

    #[test]
    fn both_sides_stop_at_8_kib_and_keep_characters_whole() {
        let preview = stream_preview(&"é日".repeat(10_000));
        for side in ["head", "tail"] {
            let length = preview[side].as_str().map_or(0, str::len);
            assert!((8 * 1024 - 3..=8 * 1024).contains(&length), "{side}: {length}");
        }
    }
}
