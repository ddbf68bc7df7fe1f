//! Lines of the standard input, read in a way that can be given up.
//!
//! For: answers to a program that asks, and code that is piped in.
//! Promises: waiting for a line takes nothing from the input until there is something to take, so whoever reads next
//! misses nothing but the rest of what was typed.

use std::io::{self, PipeReader};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

/// Bytes read at a time.
const PIECE: usize = 4096;

/// Reads lines.
#[derive(Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    ended: bool,
}

impl Lines {
    /// The next line, without its end; none when there are no more. Cancel-safe.
    ///
    /// # Errors
    /// The system's.
    pub(crate) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()));
            }
            if self.ended {
                let rest = String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned();
                return Ok(Some(rest).filter(|rest| !rest.is_empty()));
            }
            readable().await?;
            let mut piece = [0; PIECE];
            match rustix::io::read(io::stdin().as_fd(), &mut piece)? {
                0 => self.ended = true,
                length => self.buffer.extend_from_slice(piece.get(..length).unwrap_or_default()),
            }
        }
    }
}

/// Waits until the standard input has something, or has ended. When this is dropped, the thread that waits ends.
async fn readable() -> io::Result<()> {
    let (wake, held) = io::pipe()?;
    let waited = tokio::task::spawn_blocking(move || wait(&wake)).await;
    drop(held);
    waited.map_err(io::Error::other)?
}

fn wait(wake: &PipeReader) -> io::Result<()> {
    let stdin = io::stdin();
    let mut watched = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
    loop {
        match poll(&mut watched, None) {
            Err(rustix::io::Errno::INTR) => {}
            done => return done.map(drop).map_err(io::Error::from),
        }
    }
}
