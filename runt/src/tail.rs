//! The last lines of a text.
//!
//! For: logs.
//! Promises: bytes stay as they are; a last line without its end is a line.

use std::io;
use std::path::Path;

/// The last `count` lines.
pub(crate) fn last(text: &[u8], count: usize) -> &[u8] {
    if count == 0 {
        return &[];
    }
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let before = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').nth(count - 1);
    before.and_then(|(end, _)| text.get(end + 1..)).unwrap_or(text)
}

/// How many lines there are.
pub(crate) fn count(text: &[u8]) -> usize {
    text.split_inclusive(|byte| *byte == b'\n').count()
}

/// The last `count` lines of a file, which is read as a whole.
///
/// # Errors
/// The system's.
pub(crate) fn of_file(path: &Path, count: usize) -> io::Result<Vec<u8>> {
    Ok(last(&std::fs::read(path)?, count).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(last(text, 1), b"three\n");
        assert_eq!(last(text, 2), b"two\nthree\n");
        assert_eq!(last(text, 9), text);
        assert_eq!(last(text, 0), b"");
        assert_eq!(last(b"one\nhalf", 1), b"half");
        assert_eq!((last(b"", 3), last(b"\n\n", 1)), (&b""[..], &b"\n"[..]));
        assert_eq!((count(text), count(b"one\nhalf"), count(b"")), (3, 2, 0));
    }
}
