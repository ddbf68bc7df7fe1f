//! Bytes on their way into a socket that may not take them all at once.
//!
//! Promises: never waits; order is kept; what is pushed is shared, not copied.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};

/// Pieces handed to the system at a time.
const PIECES: usize = 32;

/// What is still to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl Outbox {
    /// Puts bytes behind all others.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.queue.push_back(bytes);
        }
    }

    /// Bytes not yet written.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes as much as `target` takes now.
    ///
    /// # Errors
    /// The target's, but for "would block".
    pub fn write_to(&mut self, mut target: impl Write) -> io::Result<()> {
        while !self.queue.is_empty() {
            let pieces: Vec<_> = self.queue.iter().take(PIECES).map(|piece| IoSlice::new(piece)).collect();
            match target.write_vectored(&pieces) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.queue.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes three bytes at a time, and nothing every other time.
    #[derive(Default)]
    struct Slow(Vec<u8>, bool);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = bytes.len().min(3);
            self.0.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_arrives_in_order_through_a_slow_socket() {
        let mut outbox = Outbox::default();
        let mut socket = Slow::default();
        for piece in [&b"abcde"[..], b"", b"f", b"ghijklmnop"] {
            outbox.push(Bytes::from_static(piece));
        }
        assert_eq!(outbox.bytes(), 16);
        while !outbox.is_empty() {
            outbox.write_to(&mut socket).unwrap();
        }
        assert_eq!((socket.0.as_slice(), outbox.bytes()), (&b"abcdefghijklmnop"[..], 0));
    }
}
