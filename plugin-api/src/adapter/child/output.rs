//! What a child writes to stdout and stderr.
//!
//! Promises: the last lines are kept for reports, within bounds; a few of them go to the log at debug. A plugin
//! that prints for ever costs neither memory nor log.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::bucket::Bucket;
use super::locked;

/// Lines that are kept, as [`super::ChildEnd`] documents.
const LINES: usize = 100;
/// Bytes that are kept, as [`super::ChildEnd`] documents.
const BYTES: usize = 64 << 10;
/// A longer line is cut into pieces of this many bytes.
const LONGEST_LINE: usize = 4 << 10;
/// Read at once.
const CHUNK: usize = 16 << 10;
/// Pause after a chunk that was full, so that reading costs little: 3 MiB each second, beyond which whoever prints
/// has to wait.
const BREATH: Duration = Duration::from_millis(5);
/// Lines that go to the log at once, and in each second.
const LOG: Bucket = Bucket::new(200, 20);

/// The last lines, and how much there was.
#[derive(Default)]
pub(super) struct Output {
    kept: Mutex<Kept>,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    /// A line whose end has not been read yet.
    open: Vec<u8>,
}

impl Output {
    /// Reads `pipe` to its end.
    pub(super) async fn follow(&self, plugin: &str, mut pipe: Receiver) {
        let mut chunk = vec![0; CHUNK];
        let mut logged = LOG;
        // A pipe that cannot be read any more is at its end.
        while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
            let bytes = chunk.get(..count).unwrap_or_default();
            self.bytes.fetch_add(count as u64, Ordering::Relaxed);
            if count == CHUNK {
                tokio::time::sleep(BREATH).await;
            }
            locked(&self.kept).push(bytes, |line| {
                if let Some(left_out) = logged.pass(Instant::now()) {
                    tracing::debug!(plugin, left_out, "{line}");
                }
            });
        }
    }

    /// Bytes that were read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Everything that is kept, line by line.
    pub(super) fn text(&self) -> String {
        let kept = locked(&self.kept);
        let mut text: String = kept.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        text.push_str(&String::from_utf8_lossy(&kept.open));
        text
    }
}

impl Kept {
    fn push(&mut self, bytes: &[u8], mut seen: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for piece in piece.chunks(LONGEST_LINE) {
                self.open.extend_from_slice(piece);
                if self.open.ends_with(b"\n") || self.open.len() >= LONGEST_LINE {
                    let line = String::from_utf8_lossy(&self.open).trim_end().to_owned();
                    self.open.clear();
                    seen(&line);
                    self.keep(line);
                }
            }
        }
    }

    fn keep(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len() + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let output = Output::default();
        let mut count = 0;
        for number in 0..1000 {
            locked(&output.kept).push(format!("line {number}\r\n").as_bytes(), |_| count += 1);
        }
        locked(&output.kept).push(b"and a half", |_| count += 1);
        let text = output.text();
        assert_eq!((count, text.lines().count()), (1000, LINES + 1));
        assert!(text.starts_with("line 900\n") && text.ends_with("line 999\nand a half"));
        locked(&output.kept).push(&vec![b'x'; 1 << 20], |_| {});
        assert!(output.text().len() <= BYTES + LONGEST_LINE);
    }
}
