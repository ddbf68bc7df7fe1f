//! Every message that nobody has acknowledged yet, and where it is.
//!
//! For: numbering what the kernel says and finding it again.
//! Promises: pure; numbers start at 1 and have no gap; memory is bounded, then the disk's share, and what is dropped
//! then is one record that says so; a message is found until it is acknowledged.
//! Never: touches the disk. It says what to write there, in files of numbers of its own.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::Message;
use crate::protocol::{self, from_shim, numbered_document};

/// A file is closed when it has so many bytes. It is deleted when all of it is acknowledged.
const FILE_BYTES: u64 = 32 << 20;
/// Most bytes handed to the disk at once, but for a message that is larger.
const WRITE_BYTES: u64 = 4 << 20;
/// Most bytes that may wait for a disk that is slower than the kernel. A hundred megabytes in one message are not
/// unheard of, and a disk takes them in less than a second.
const WAITING_BYTES: u64 = 256 << 20;

/// How much is kept where, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) memory: u64,
    pub(crate) disk: u64,
}

/// The messages of one kernel, each as the frame that a daemon is sent.
#[derive(Debug)]
pub(crate) struct Journal {
    limits: Limits,
    /// Number of the next record.
    next: u64,
    /// Records up to here are not needed.
    acknowledged: u64,
    /// The newest records, the last with the number before `next`.
    memory: VecDeque<Bytes>,
    memory_bytes: u64,
    /// So many of the oldest in memory are being written.
    writing: usize,
    /// Older records, in order.
    disk: VecDeque<File>,
    disk_bytes: u64,
    /// Name of the next file.
    next_file: u64,
    /// The disk has failed; until everything is acknowledged there is only memory.
    disk_failed: bool,
    /// What is being dropped; becomes a record when something is kept again or everything else was read.
    gap: Option<Gap>,
}

/// Records on disk.
#[derive(Debug)]
struct File {
    name: u64,
    first: u64,
    last: u64,
    bytes: u64,
    /// Nothing more is written to it.
    closed: bool,
}

#[derive(Debug)]
struct Gap {
    parent_header: Bytes,
    messages: u64,
    bytes: u64,
}

/// Records to be added to a file.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) file: u64,
    pub(crate) frames: Vec<Bytes>,
}

/// Where a record is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Here.
    Memory(Bytes),
    /// In a file whose records are in order, up to the one numbered `last`.
    Disk { file: u64, last: u64 },
    /// Not said yet.
    Nowhere,
}

impl Journal {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 1,
            acknowledged: 0,
            memory: VecDeque::new(),
            memory_bytes: 0,
            writing: 0,
            disk: VecDeque::new(),
            disk_bytes: 0,
            next_file: 0,
            disk_failed: false,
            gap: None,
        }
    }

    /// Number of the last record.
    pub(crate) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Records up to here are gone.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether there is no room. What nobody can do without may still be added.
    pub(crate) fn is_full(&self) -> bool {
        let Limits { memory, disk } = self.limits;
        let most = if self.disk_failed { memory } else { memory.saturating_add(disk) };
        self.memory_bytes + self.disk_bytes >= most || self.memory_bytes >= WAITING_BYTES.max(2 * memory)
    }

    /// Adds a message of the kernel.
    pub(crate) fn push(&mut self, channel: u8, message: &Message) {
        self.close_gap();
        let size = 9 + message.encoded_len();
        let mut frame = BytesMut::with_capacity(5 + size);
        frame.put_u32(1 + size as u32);
        frame.put_u8(from_shim::MESSAGE);
        frame.put_u64(self.next);
        frame.put_u8(channel);
        message.encode(&mut frame);
        self.add(frame.freeze());
    }

    /// Counts a message that is not kept.
    pub(crate) fn drop_message(&mut self, message: &Message) {
        if self.gap.as_ref().is_some_and(|gap| gap.parent_header != message.parent_header) {
            self.close_gap();
        }
        let parent_header = || Bytes::copy_from_slice(&message.parent_header);
        let gap =
            self.gap.get_or_insert_with(|| Gap { parent_header: parent_header(), messages: 0, bytes: 0 });
        gap.messages += 1;
        gap.bytes += message.encoded_len() as u64;
    }

    fn close_gap(&mut self) {
        let Some(Gap { parent_header, messages, bytes }) = self.gap.take() else { return };
        let parent_header = serde_json::from_slice(&parent_header).unwrap_or_default();
        let notice = protocol::Gap { parent_header, messages, bytes };
        self.add(numbered_document(from_shim::GAP, self.next, &notice));
    }

    fn add(&mut self, frame: Bytes) {
        self.memory_bytes += frame.len() as u64;
        self.memory.push_back(frame);
        self.next += 1;
    }

    /// Where the record `number` is. To be asked in order, by whoever has had all before.
    pub(crate) fn find(&mut self, number: u64) -> Found {
        if number == self.next {
            self.close_gap();
        }
        if number >= self.next || number <= self.acknowledged {
            return Found::Nowhere;
        }
        if let Some(file) = self.disk.iter().find(|file| file.first <= number && number <= file.last) {
            return Found::Disk { file: file.name, last: file.last };
        }
        let at = number.checked_sub(self.first_in_memory()).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.memory.get(at)).map_or(Found::Nowhere, |frame| Found::Memory(frame.clone()))
    }

    fn first_in_memory(&self) -> u64 {
        self.next - self.memory.len() as u64
    }

    /// Forgets records up to `number`; returns files that can be deleted.
    pub(crate) fn acknowledge(&mut self, number: u64) -> Vec<u64> {
        self.acknowledged = self.acknowledged.max(number.min(self.last()));
        self.forget()
    }

    fn forget(&mut self) -> Vec<u64> {
        // What is being written stays until that is known to have worked or failed.
        while self.writing == 0 && self.first_in_memory() <= self.acknowledged {
            let Some(frame) = self.memory.pop_front() else { break };
            self.memory_bytes -= frame.len() as u64;
        }
        let mut gone = Vec::new();
        while self.disk.front().is_some_and(|file| file.last <= self.acknowledged) {
            let Some(file) = self.disk.pop_front() else { break };
            self.disk_bytes -= file.bytes;
            gone.push(file.name);
        }
        if self.memory.is_empty() {
            self.disk_failed = false;
            // A burst leaves a large buffer behind.
            self.memory.shrink_to(64);
        }
        gone
    }

    /// What to write to disk now, if memory holds too much. The answer must come to [`Journal::written`].
    pub(crate) fn spill(&mut self) -> Option<Write> {
        if self.writing > 0 || self.disk_failed || self.memory_bytes <= self.limits.memory {
            return None;
        }
        let surplus = self.memory_bytes - self.limits.memory / 2;
        let (mut frames, mut bytes) = (Vec::new(), 0);
        for frame in &self.memory {
            let size = frame.len() as u64;
            if bytes >= surplus || (bytes > 0 && bytes + size > WRITE_BYTES) {
                break;
            }
            bytes += size;
            frames.push(frame.clone());
        }
        self.writing = frames.len();
        if self.disk.back().is_none_or(|file| file.closed || file.bytes >= FILE_BYTES) {
            self.next_file += 1;
        }
        Some(Write { file: self.next_file, frames })
    }

    /// The last write is done or has failed; returns files that can be deleted.
    pub(crate) fn written(&mut self, file: u64, worked: bool) -> Vec<u64> {
        let count = std::mem::take(&mut self.writing);
        if !worked {
            self.disk_failed = true;
            // Half a record may be at its end.
            if let Some(last) = self.disk.back_mut().filter(|last| last.name == file) {
                last.closed = true;
            } else {
                self.next_file += 1;
            }
            return self.forget();
        }
        let first = self.first_in_memory();
        let bytes: u64 = self.memory.drain(..count).map(|frame| frame.len() as u64).sum();
        self.memory_bytes -= bytes;
        self.disk_bytes += bytes;
        let last = first + count as u64 - 1;
        match self.disk.back_mut().filter(|back| back.name == file) {
            Some(back) => {
                back.last = last;
                back.bytes += bytes;
            }
            None => self.disk.push_back(File { name: file, first, last, bytes, closed: false }),
        }
        self.forget()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::{Decoder, Frame};

    fn message(size: usize) -> Message {
        let content = vec![b'x'; size];
        Message {
            parent_header: Bytes::from_static(b"{\"msg_id\":\"p\"}"),
            content: content.into(),
            ..Default::default()
        }
    }

    fn frame(bytes: Bytes) -> Frame {
        Decoder { buffer: BytesMut::from(&bytes[..]) }.next_frame().unwrap().unwrap()
    }

    /// A disk of files that are lists of frames.
    #[derive(Default)]
    struct Disk(BTreeMap<u64, Vec<Bytes>>);

    impl Disk {
        fn read(&self, file: u64, number: u64) -> Bytes {
            let found = self.0[&file].iter().find(|it| frame((*it).clone()).numbered().0 == number);
            found.unwrap().clone()
        }
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Push(usize),
        Acknowledge(u64),
        Begin,
        Finish(bool),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => (0usize..400).prop_map(Deed::Push),
            1 => (0u64..40).prop_map(Deed::Acknowledge),
            2 => Just(Deed::Begin),
            2 => prop_oneof![9 => Just(true), 1 => Just(false)].prop_map(Deed::Finish),
        ]
    }

    proptest! {
        #[test]
        fn every_record_that_is_not_acknowledged_is_found(deeds in prop::collection::vec(deed(), 0..300)) {
            let mut journal = Journal::new(Limits { memory: 1000, disk: 5000 });
            let mut disk = Disk::default();
            let mut pending: Option<Write> = None;
            let (mut said, mut dropped) = (0, 0);
            for deed in deeds {
                let gone = match deed {
                    Deed::Push(size) if journal.is_full() => {
                        journal.drop_message(&message(size));
                        dropped += 1;
                        Vec::new()
                    }
                    Deed::Push(size) => {
                        journal.push(1, &message(size));
                        said += 1;
                        Vec::new()
                    }
                    Deed::Acknowledge(ahead) => {
                        let to = journal.acknowledged() + ahead;
                        journal.acknowledge(to)
                    }
                    Deed::Begin => {
                        pending = journal.spill().or(pending);
                        Vec::new()
                    }
                    Deed::Finish(worked) => match pending.take() {
                        Some(write) => {
                            if worked {
                                disk.0.entry(write.file).or_default().extend(write.frames);
                            }
                            journal.written(write.file, worked)
                        }
                        None => Vec::new(),
                    },
                };
                gone.iter().for_each(|file| drop(disk.0.remove(file)));
                prop_assert!(journal.memory_bytes + journal.disk_bytes <= 6000 + 500);
                // An open gap is the record after the last.
                for number in journal.acknowledged() + 1..=journal.last() {
                    let bytes = match journal.find(number) {
                        Found::Memory(bytes) => bytes,
                        Found::Disk { file, last } => {
                            prop_assert!(number <= last);
                            disk.read(file, number)
                        }
                        Found::Nowhere => return Err(TestCaseError::fail(format!("{number} is lost"))),
                    };
                    prop_assert_eq!(frame(bytes).numbered().0, number);
                }
            }
            let last = journal.last();
            journal.find(last + 1);
            let notices = journal.last() - said;
            prop_assert_eq!(notices > 0, dropped > 0);
            prop_assert!(notices <= dropped);
        }
    }

    #[test]
    fn what_is_dropped_becomes_one_record_for_each_request() {
        let mut journal = Journal::new(Limits { memory: 100, disk: 0 });
        journal.push(1, &message(200));
        assert!(journal.is_full());
        journal.drop_message(&message(1));
        journal.drop_message(&message(2));
        let other = Message { parent_header: Bytes::from_static(b"{\"msg_id\":\"q\"}"), ..message(3) };
        journal.drop_message(&other);
        assert_eq!(journal.last(), 2);
        let gap = |journal: &mut Journal, number| {
            let Found::Memory(bytes) = journal.find(number) else { panic!("no record {number}") };
            let frame = frame(bytes);
            assert_eq!(frame.kind, from_shim::GAP);
            let (found, body) = frame.numbered();
            assert_eq!(found, number);
            serde_json::from_slice::<crate::protocol::Gap>(&body).unwrap()
        };
        let first = gap(&mut journal, 2);
        assert_eq!((first.messages, first.parent_header["msg_id"].as_str()), (2, Some("p")));
        // Reading as far as there is something closes the gap that is open.
        let second = gap(&mut journal, 3);
        assert_eq!((second.messages, second.parent_header["msg_id"].as_str()), (1, Some("q")));
        assert_eq!(journal.find(4), Found::Nowhere);
        journal.acknowledge(u64::MAX);
        assert!(!journal.is_full());
        journal.push(1, &message(1));
        assert_eq!(journal.last(), 4);
    }
}
