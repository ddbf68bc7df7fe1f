//! A daemon at the other end of a connection.
//!
//! Promises: never waits; what it is sent is shared with the journal, not copied.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::Bytes;

use crate::outbox::Outbox;
use crate::protocol::{Decoder, Frame};

/// A connection.
pub(crate) struct Client {
    /// Tells it apart from all others.
    pub(crate) id: u64,
    stream: UnixStream,
    decoder: Decoder,
    pub(crate) out: Outbox,
    /// Whether it is the connection that the shim was born with.
    pub(crate) launcher: bool,
    /// How far it has been told what the kernel says; none unless it is attached.
    pub(crate) reading: Option<Reading>,
    /// It is closed, or is to be when everything is written.
    pub(crate) end: End,
}

/// How far a daemon is.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// Number of the next record it gets.
    pub(crate) next: u64,
    /// A file, and where in it the next record is.
    pub(crate) place: Option<(u64, u64)>,
    /// The disk is being read for it.
    pub(crate) waiting: bool,
    /// It has been told that the kernel has ended.
    pub(crate) told: bool,
    /// The same before it attached once more.
    pub(crate) told_before: bool,
}

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It goes on.
    No,
    /// It ends when everything is written.
    Soon,
    /// It has ended.
    Now,
}

impl Client {
    /// A connection over `stream`, of which `decoder` has some bytes already.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn new(id: u64, stream: UnixStream, decoder: Decoder) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let out = Outbox::default();
        Ok(Self { id, stream, decoder, out, launcher: false, reading: None, end: End::No })
    }

    /// What to watch, and whether for writing, too.
    pub(crate) fn socket(&self) -> (BorrowedFd<'_>, bool) {
        (self.stream.as_fd(), !self.out.is_empty())
    }

    /// Reads once, by way of `piece`.
    pub(crate) fn read(&mut self, piece: &mut [u8]) {
        match self.stream.read(piece) {
            Ok(length @ 1..) => {
                self.decoder.buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => self.end = End::Now,
        }
    }

    /// The next frame that was read.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        match self.decoder.next_frame() {
            Ok(frame) => frame,
            Err(_) => {
                self.end = End::Now;
                None
            }
        }
    }

    pub(crate) fn push(&mut self, frame: Bytes) {
        self.out.push(frame);
    }

    /// Writes what the daemon takes now.
    pub(crate) fn flush(&mut self) {
        let failed = self.out.write_to(&self.stream).is_err();
        if failed || (self.end == End::Soon && self.out.is_empty()) {
            self.end = End::Now;
        }
    }

    /// Writes everything, waiting for that up to `limit`. For last words.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn finish(mut self, limit: Duration) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_write_timeout(Some(limit))?;
        self.out.write_to(&self.stream)
    }
}
