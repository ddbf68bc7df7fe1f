//! Frames on their way to a peer.
//!
//! For: rooms, which send from any thread and must never wait for a slow client.
//! Promises: order is kept; one wake-up and one system call per burst; payloads are not copied; a room
//! that watches its credit keeps at most a window of bytes here.
//! Never: an unbounded queue: a room that ignores its credit loses the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use runtimed_plugin_api::{Credit, PeerLink};
use runtimed_protocol::frame::{FRAME_MAX, length_header, typed_header};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes that may wait for a client before its room pauses (our choice: what a local client reads in
/// about a millisecond; a longer queue would only make small frames wait behind it).
const WINDOW_BYTES: i64 = 1024 * 1024;
/// Bytes that end the connection: two frames of the largest size.
const LIMIT_BYTES: i64 = 2 * FRAME_MAX as i64;
/// Frames written by one system call; two slices each, and the system takes 1024.
const BATCH_FRAMES: usize = 64;
/// Bytes after which a batch is not extended, so that credit flows while a client reads slowly.
const BATCH_BYTES: usize = 256 * 1024;

/// The sending half of a notebook connection, shared by its room and its two tasks.
#[derive(Debug, Default)]
pub(super) struct Egress {
    queue: Mutex<Queue>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes the connection: there is room again for a room that had run out of credit.
    pub(super) writable: Notify,
    /// Bytes the room granted since the last frame was delivered to it.
    granted: AtomicI64,
    /// Wakes the connection: the room granted something.
    pub(super) grant: Notify,
    /// Ends the connection without writing the rest.
    pub(super) broken: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Frame>,
    /// Bytes queued or being written.
    bytes: i64,
    /// The room has seen its credit run out.
    exhausted: bool,
    /// Nothing more is taken; what is queued is still written.
    closed: bool,
}

#[derive(Debug)]
struct Frame {
    header: Header,
    payload: Bytes,
}

#[derive(Debug)]
enum Header {
    Typed([u8; 5]),
    Untyped([u8; 4]),
}

impl Frame {
    fn slices(&self) -> [IoSlice<'_>; 2] {
        let header: &[u8] = match &self.header {
            Header::Typed(bytes) => bytes,
            Header::Untyped(bytes) => bytes,
        };
        [IoSlice::new(header), IoSlice::new(&self.payload)]
    }

    fn bytes(&self) -> usize {
        self.slices().iter().map(|slice| slice.len()).sum()
    }
}

impl Egress {
    /// Queues the bootstrap reply before everything else. Comes before the writer is started.
    pub(super) fn send_first(&self, body: Vec<u8>) -> Result<(), runtimed_protocol::frame::FrameError> {
        let header = Header::Untyped(length_header(body.len(), FRAME_MAX)?);
        let frame = Frame { header, payload: body.into() };
        let mut queue = self.queue();
        queue.bytes += frame.bytes() as i64;
        queue.frames.push_front(frame);
        Ok(())
    }

    /// Writes what is queued until the connection is closed.
    ///
    /// # Errors
    /// When the client is gone.
    pub(super) async fn write_to(&self, mut stream: impl AsyncWrite + Unpin) -> io::Result<()> {
        let mut batch = Vec::with_capacity(BATCH_FRAMES);
        loop {
            let closed = self.next_batch(&mut batch);
            if batch.is_empty() {
                if closed {
                    return stream.shutdown().await;
                }
                self.filled.notified().await;
                continue;
            }
            write_all(&mut stream, &batch).await?;
            let written: usize = batch.drain(..).map(|frame| frame.bytes()).sum();
            self.written(written);
        }
    }

    /// Forgets grants; the next credit the room tells counts from here.
    pub(super) fn reset_grants(&self) {
        self.granted.store(0, Ordering::Release);
    }

    /// Bytes granted since the last frame was delivered.
    pub(super) fn granted(&self) -> i64 {
        self.granted.load(Ordering::Acquire)
    }

    /// Fills `batch`; true if nothing more will come.
    fn next_batch(&self, batch: &mut Vec<Frame>) -> bool {
        let mut queue = self.queue();
        let mut bytes = 0;
        while batch.len() < BATCH_FRAMES && bytes < BATCH_BYTES {
            let Some(frame) = queue.frames.pop_front() else { break };
            bytes += frame.bytes();
            batch.push(frame);
        }
        queue.closed
    }

    fn written(&self, bytes: usize) {
        let mut queue = self.queue();
        queue.bytes -= bytes as i64;
        if queue.exhausted && queue.bytes <= WINDOW_BYTES / 2 {
            queue.exhausted = false;
            drop(queue);
            self.writable.notify_one();
        }
    }

    /// Drops what is queued and ends the connection.
    fn give_up(&self, why: &str) {
        tracing::error!("a connection is closed: {why}");
        let mut queue = self.queue();
        queue.closed = true;
        queue.frames.clear();
        drop(queue);
        self.broken.cancel();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl PeerLink for Egress {
    fn send(&self, frame_type: u8, payload: Bytes) -> Credit {
        let header = match typed_header(frame_type, payload.len()) {
            Ok(header) => Header::Typed(header),
            Err(error) => {
                self.give_up(&format!("its room sent a frame that no client could read: {error}"));
                return 0;
            }
        };
        let frame = Frame { header, payload };
        let mut queue = self.queue();
        if queue.closed {
            return 0;
        }
        queue.bytes += frame.bytes() as i64;
        let was_empty = queue.frames.is_empty();
        queue.frames.push_back(frame);
        let credit = WINDOW_BYTES - queue.bytes;
        queue.exhausted |= credit <= 0;
        let too_much = queue.bytes > LIMIT_BYTES;
        drop(queue);
        if too_much {
            self.give_up("its room sent more than the client could take");
        } else if was_empty {
            self.filled.notify_one();
        }
        credit
    }

    fn grant(&self, bytes: u64) {
        self.granted.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX / 2), Ordering::AcqRel);
        self.grant.notify_one();
    }

    fn close(&self) {
        self.queue().closed = true;
        self.filled.notify_one();
    }
}

/// Writes whole frames with as few system calls as the system allows.
async fn write_all(stream: &mut (impl AsyncWrite + Unpin), frames: &[Frame]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = frames.iter().flat_map(Frame::slices).collect();
    let mut rest = slices.as_mut_slice();
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        match stream.write_vectored(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use runtimed_protocol::frame::TypedDecoder;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_behind_the_bootstrap_reply() {
        let egress = Egress::default();
        let (ours, mut theirs) = tokio::io::duplex(100);
        for n in 0..200_usize {
            egress.send(5, Bytes::from(vec![n as u8; n * 40]));
        }
        egress.send_first(vec![7, b'{', b'}']).unwrap();
        egress.close();
        let writing = egress.write_to(ours);
        let reading = async {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.unwrap();
            BytesMut::from(received.as_slice())
        };
        let (written, mut received) = tokio::join!(writing, reading);
        written.unwrap();
        let mut decoder = TypedDecoder::new();
        let first = decoder.decode(&mut received).unwrap().unwrap();
        assert_eq!((first.frame_type, &first.payload[..]), (7, &b"{}"[..]));
        for n in 0..200_usize {
            let frame = decoder.decode(&mut received).unwrap().unwrap();
            assert_eq!((frame.frame_type, frame.payload), (5, Bytes::from(vec![n as u8; n * 40])));
        }
        assert!(received.is_empty());
    }

    #[tokio::test]
    async fn credit_runs_out_and_comes_back() {
        let egress = Egress::default();
        let half = Bytes::from(vec![0; WINDOW_BYTES as usize / 2]);
        assert!(egress.send(0, half.clone()) > 0);
        assert!(egress.send(0, half) <= 0);
        egress.close();
        egress.write_to(tokio::io::sink()).await.unwrap();
        egress.writable.notified().await;
    }

    #[test]
    fn a_room_that_ignores_its_credit_loses_the_connection() {
        let egress = Egress::default();
        let large = Bytes::from(vec![0; 60 * 1024 * 1024]);
        for _ in 0..4 {
            egress.send(0, large.clone());
        }
        assert!(egress.broken.is_cancelled());
        let egress = Egress::default();
        assert_eq!(egress.send(4, Bytes::from(vec![0; 5000])), 0);
        assert!(egress.broken.is_cancelled());
    }
}
