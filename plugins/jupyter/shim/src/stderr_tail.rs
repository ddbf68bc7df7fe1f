//! The last lines a process wrote to stderr.
//!
//! For: telling users why a kernel did not start or died.
//! Promises: bounded memory, whatever is written; never fails on bytes that are not UTF-8.

use std::collections::VecDeque;

/// Lines kept (spec of the exit report).
const LINES: usize = 50;
/// Bytes kept of one line; longer ones are cut. Traceback lines are far shorter.
const LINE_BYTES: usize = 2048;

/// Keeps the last lines of what is pushed.
#[derive(Debug, Default)]
pub(crate) struct StderrTail {
    lines: VecDeque<Vec<u8>>,
    /// The line that has no end yet.
    open: Vec<u8>,
}

impl StderrTail {
    /// Takes the next bytes, cut anywhere.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES.saturating_sub(self.open.len());
            self.open.extend(text.iter().take(room));
            if text.len() < piece.len() {
                if self.lines.len() == LINES {
                    self.lines.pop_front();
                }
                self.lines.push_back(std::mem::take(&mut self.open));
            }
        }
    }

    /// What is kept, joined by line ends, the unfinished line included.
    pub(crate) fn text(&self) -> String {
        let open = Some(&self.open).filter(|line| !line.is_empty());
        let skip = usize::from(open.is_some() && self.lines.len() == LINES);
        let lines = self.lines.iter().skip(skip).chain(open);
        let lines: Vec<_> = lines.map(|line| String::from_utf8_lossy(line)).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fifty_lines_stay_however_they_are_cut() {
        let all: String = (0..120).map(|line| format!("line {line}\n")).collect();
        let mut tail = StderrTail::default();
        all.as_bytes().chunks(7).for_each(|chunk| tail.push(chunk));
        let text = tail.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 50);
        assert_eq!((lines[0], lines[49]), ("line 70", "line 119"));
        tail.push(b"no end");
        let text = tail.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[49]), (50, "line 71", "no end"));
    }

    #[test]
    fn an_endless_line_takes_no_endless_memory() {
        let mut tail = StderrTail::default();
        (0..1000).for_each(|_| tail.push(&[b'x'; 1000]));
        assert_eq!(tail.text().len(), LINE_BYTES);
    }
}
