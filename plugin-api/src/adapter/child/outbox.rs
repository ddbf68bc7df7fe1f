//! What one end still has to write.
//!
//! For: [`super::link`]; any thread may send, none is ever held up.
//! Promises: frames leave in the order they were sent, straight from the sending thread while the socket takes
//! them; what may be lost is left out and counted once [`LOSSY_BYTES`] wait.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::Notify;

use super::locked;

/// Log lines, process lines and progress are left out while this many bytes wait (our choice: five times what
/// the socket holds by itself).
const LOSSY_BYTES: usize = 1 << 20;
/// The daemon keeps at most this much for a plugin that does not read: two of the longest frames.
pub(super) const DAEMON_KEEPS: usize = 2 * super::wire::MAX_FRAME;

pub(super) struct Outbox {
    socket: OwnedWriteHalf,
    waiting: Mutex<Waiting>,
    /// Wakes [`Outbox::flush`].
    more: Notify,
    /// Most bytes that may wait.
    limit: usize,
    /// Lossy frames left out since they were last asked for.
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Nobody writes any more.
    closed: bool,
}

/// The other end does not take what it is sent.
#[derive(Debug)]
pub(super) struct Full;

impl Outbox {
    pub(super) fn new(socket: OwnedWriteHalf, limit: usize) -> Self {
        Self { socket, waiting: Mutex::default(), more: Notify::new(), limit, lost: AtomicU64::new(0) }
    }

    /// Sends a frame. One that cannot be written because the socket is closed is dropped: whoever reads the
    /// socket sees its end.
    pub(super) fn send(&self, mut frame: Bytes) -> Result<(), Full> {
        let mut waiting = locked(&self.waiting);
        if waiting.closed {
            return Ok(());
        }
        if waiting.frames.is_empty() {
            match self.socket.try_write(&frame) {
                Ok(written) => frame.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Ok(()),
            }
        }
        if frame.is_empty() {
            return Ok(());
        }
        if waiting.bytes.saturating_add(frame.len()) > self.limit {
            return Err(Full);
        }
        waiting.bytes += frame.len();
        waiting.frames.push_back(frame);
        drop(waiting);
        self.more.notify_one();
        Ok(())
    }

    /// Sends a frame unless too much waits already.
    pub(super) fn send_lossy(&self, frame: Bytes) -> Result<(), Full> {
        if locked(&self.waiting).bytes > LOSSY_BYTES {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        self.send(frame)
    }

    /// Drops what waits and what is still to come.
    pub(super) fn close(&self) {
        *locked(&self.waiting) = Waiting { closed: true, ..Waiting::default() };
    }

    /// How many lossy frames were left out since this was last asked.
    pub(super) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// Writes what waits, for ever. Returns when the socket is closed.
    pub(super) async fn flush(&self) {
        loop {
            self.more.notified().await;
            while self.write().is_ok_and(|left| left) {
                if self.socket.writable().await.is_err() {
                    return;
                }
            }
        }
    }

    /// Writes as much as the socket takes and says whether more is left. An error is a closed socket, and
    /// nothing is left then.
    fn write(&self) -> io::Result<bool> {
        let mut waiting = locked(&self.waiting);
        while let Some(frame) = waiting.frames.front_mut() {
            match self.socket.try_write(frame) {
                Ok(written) => {
                    frame.advance(written);
                    let done = frame.is_empty();
                    waiting.bytes = waiting.bytes.saturating_sub(written);
                    if done {
                        waiting.frames.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => {
                    *waiting = Waiting::default();
                    return Err(error);
                }
            }
        }
        // The room of a long queue goes back.
        waiting.frames.shrink_to(64);
        Ok(false)
    }
}
