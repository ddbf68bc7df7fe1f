//! Frames on their way to a peer.
//!
//! For: rooms, which send from any thread and must never wait for a slow client.
//! Promises: what is urgent overtakes what waits of the rest, and nothing else does; one wake-up and one
//! system call per burst; payloads are not copied; a room that watches its credit keeps at most a window of
//! bytes here.
//! Never: an unbounded queue: a room that ignores its credit loses the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use runtimed_plugin_api::{Credit, PeerLink};
use runtimed_protocol::frame::{FRAME_MAX, FrameError, FrameType, length_header, typed_header};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Bytes that may wait for a client before its room pauses what is not urgent (our choice: what a local
/// client reads in about a millisecond; more would only be out of date when it is read).
const WINDOW_BYTES: i64 = 1024 * 1024;
/// Urgent bytes that may wait before its room pauses these too (our choice: days of typing, or the first
/// message on a notebook larger than any we have seen).
const URGENT_BYTES: i64 = 16 * 1024 * 1024;
/// Urgent frames overtake once more than this waits before them (our choice: with less, a client sees the
/// very order in which its room spoke, and waits no longer for it than for one system call).
const OVERTAKE_BYTES: i64 = 64 * 1024;
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
    /// What overtakes: [`FrameType::is_urgent`].
    urgent: Lane,
    /// Everything else.
    rest: Lane,
    /// Frames sent so far.
    sent: u64,
    /// The room has seen its credit run out.
    exhausted: bool,
    /// Nothing more is taken; what is queued is still written.
    closed: bool,
}

/// Frames that keep their order.
#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<Frame>,
    /// Bytes queued or being written.
    bytes: i64,
}

#[derive(Debug)]
struct Frame {
    urgent: bool,
    /// Its place in the order in which frames were sent.
    number: u64,
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

impl Queue {
    /// Adds a frame and returns the credit that is left for more of its kind.
    fn push(&mut self, urgent: bool, header: Header, payload: Bytes) -> Credit {
        self.sent += 1;
        let frame = Frame { urgent, number: self.sent, header, payload };
        let bytes = frame.bytes() as i64;
        let lane = self.lane(urgent);
        lane.bytes += bytes;
        lane.frames.push_back(frame);
        let credit = if urgent { URGENT_BYTES - self.urgent.bytes } else { WINDOW_BYTES - self.bytes() };
        self.exhausted |= credit <= 0;
        credit
    }

    /// The frame that is written next.
    fn pop(&mut self) -> Option<Frame> {
        let urgent = match (self.urgent.frames.front(), self.rest.frames.front()) {
            (Some(urgent), Some(rest)) => urgent.number < rest.number || self.rest.bytes > OVERTAKE_BYTES,
            (urgent, _) => urgent.is_some(),
        };
        self.lane(urgent).frames.pop_front()
    }

    fn lane(&mut self, urgent: bool) -> &mut Lane {
        if urgent { &mut self.urgent } else { &mut self.rest }
    }

    fn is_empty(&self) -> bool {
        self.urgent.frames.is_empty() && self.rest.frames.is_empty()
    }

    fn bytes(&self) -> i64 {
        self.urgent.bytes + self.rest.bytes
    }
}

impl Egress {
    /// Queues the bootstrap reply before everything else. Comes before the writer is started.
    pub(super) fn send_first(&self, body: Vec<u8>) -> Result<(), FrameError> {
        let header = Header::Untyped(length_header(body.len(), FRAME_MAX)?);
        let frame = Frame { urgent: true, number: 0, header, payload: body.into() };
        let mut queue = self.queue();
        queue.urgent.bytes += frame.bytes() as i64;
        queue.urgent.frames.push_front(frame);
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
            self.written(batch.drain(..));
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
            let Some(frame) = queue.pop() else { break };
            bytes += frame.bytes();
            batch.push(frame);
        }
        queue.closed
    }

    fn written(&self, frames: impl Iterator<Item = Frame>) {
        let mut queue = self.queue();
        frames.for_each(|frame| queue.lane(frame.urgent).bytes -= frame.bytes() as i64);
        if queue.exhausted && queue.bytes() <= WINDOW_BYTES / 2 {
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
        queue.urgent.frames.clear();
        queue.rest.frames.clear();
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
        let mut queue = self.queue();
        if queue.closed {
            return 0;
        }
        let was_empty = queue.is_empty();
        let credit = queue.push(FrameType::is_urgent(frame_type), header, payload);
        let too_much = queue.bytes() > LIMIT_BYTES;
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

    /// What a client reads after the bootstrap reply, if it begins to read now.
    async fn read(egress: &Egress) -> Vec<(u8, Bytes)> {
        egress.send_first(vec![FrameType::SESSION_CONTROL, b'{', b'}']).unwrap();
        egress.close();
        let (ours, mut theirs) = tokio::io::duplex(100);
        let reading = async {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.unwrap();
            BytesMut::from(received.as_slice())
        };
        let (written, mut received) = tokio::join!(egress.write_to(ours), reading);
        written.unwrap();
        let mut decoder = TypedDecoder::new();
        let mut frames = Vec::new();
        while let Some(frame) = decoder.decode(&mut received).unwrap() {
            frames.push((frame.frame_type, frame.payload));
        }
        assert!(received.is_empty());
        assert_eq!(frames.remove(0), (FrameType::SESSION_CONTROL, Bytes::from_static(b"{}")));
        frames
    }

    /// Types of frames as they are sent, each with so many bytes, and as they are read.
    async fn order(sent: &[(u8, usize)]) -> Vec<u8> {
        let egress = Egress::default();
        for (n, &(frame_type, bytes)) in sent.iter().enumerate() {
            egress.send(frame_type, Bytes::from(vec![n as u8; bytes]));
        }
        let frames = read(&egress).await;
        for lane in [true, false] {
            let in_lane = |frame_type| FrameType::is_urgent(frame_type) == lane;
            let numbers = frames.iter().filter(|(frame_type, _)| in_lane(*frame_type));
            assert!(numbers.map(|(_, payload)| payload[0]).is_sorted(), "order is kept among those");
        }
        assert_eq!(frames.len(), sent.len());
        frames.into_iter().map(|(frame_type, _)| frame_type).collect()
    }

    #[tokio::test]
    async fn frames_arrive_whole_and_in_order_behind_the_bootstrap_reply() {
        let egress = Egress::default();
        let sent: Vec<_> = (0..200).map(|n| (5, Bytes::from(vec![n as u8; n * 40]))).collect();
        for (frame_type, payload) in sent.clone() {
            egress.send(frame_type, payload);
        }
        assert_eq!(read(&egress).await, sent);
    }

    #[tokio::test]
    async fn what_is_urgent_overtakes_a_backlog_and_nothing_else_does() {
        const BIG: usize = OVERTAKE_BYTES as usize / 2;
        // As a client is greeted: nothing is gained by another order.
        let greeting = [7, 7, 0, 7, 5, 7, 9, 10, 4].map(|frame_type| (frame_type, 100));
        assert_eq!(order(&greeting).await, greeting.map(|(frame_type, _)| frame_type));
        // An edit, presence and an answer overtake; progress and a widget's message stay behind the state.
        let sent = [(5, BIG), (9, BIG), (5, BIG), (7, 9), (0, 9), (3, 9), (4, 9), (2, 9), (6, 9), (10, 9)];
        assert_eq!(order(&sent).await, [0, 4, 2, 5, 9, 5, 7, 3, 6, 10]);
        // Large edits do not hold back edits: they are one lane.
        let sent = [(0, 4 * BIG), (5, 4 * BIG), (0, 9), (2, 9)];
        assert_eq!(order(&sent).await, [0, 0, 2, 5]);
    }

    #[tokio::test]
    async fn credit_runs_out_and_comes_back() {
        let egress = Egress::default();
        let half = Bytes::from(vec![0; WINDOW_BYTES as usize / 2]);
        assert!(egress.send(5, half.clone()) > 0);
        assert!(egress.send(5, half.clone()) <= 0);
        assert!(egress.send(0, half.clone()) > 0, "an edit has credit of its own");
        assert!(egress.send(9, half) <= 0, "one more of the rest would not be read for long");
        egress.close();
        egress.write_to(tokio::io::sink()).await.unwrap();
        egress.writable.notified().await;

        let egress = Egress::default();
        assert!(egress.send(0, vec![0; URGENT_BYTES as usize].into()) <= 0);
        assert!(egress.send(5, Bytes::new()) <= 0);
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
