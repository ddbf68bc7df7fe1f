//! What daemons ask, and what they are told.
//!
//! Promises: the last one that attaches is the one that is told; a daemon that reads slowly makes nobody wait.

use std::time::{Duration, Instant};

use bytes::Buf;

use crate::channel::Name;
use crate::client::{Client, End, Reading};
use crate::journal::Found;
use crate::message::Message;
use crate::protocol::{
    self, Attach, Decoder, Frame, Gap, Hello, PROTOCOL, Shutdown, State, Welcome, document, frame_length,
    from_shim, numbered_document, to_shim,
};
use crate::requests::Header;
use crate::run::note;
use crate::shim::{Leave, Shim, Stage};
use crate::spill::{Done, Job};

/// Bytes handed to a connection ahead of what its daemon has read.
const AHEAD: usize = 1 << 20;
/// Bytes read from disk at a time, unless one record is larger.
const CHUNK: usize = 1 << 20;
/// Connections at a time; one more ends the oldest that is not attached.
const CLIENTS: usize = 16;

impl Shim {
    /// Takes new connections.
    pub(crate) fn accept(&mut self) {
        // What could not be accepted now is there the next time.
        while let Ok((stream, _)) = self.listener.accept() {
            self.next_client += 1;
            let Ok(client) = Client::new(self.next_client, stream, Decoder::default()) else { continue };
            if self.clients.len() >= CLIENTS
                && let Some(oldest) = self.clients.iter_mut().find(|client| client.reading.is_none())
            {
                oldest.end = End::Now;
            }
            self.clients.push(client);
        }
    }

    /// Reads what a daemon sent, and writes what it takes.
    pub(crate) fn read_client(&mut self, at: usize, now: Instant) -> Option<Leave> {
        let client = self.clients.get_mut(at)?;
        client.flush();
        client.read(&mut self.piece);
        while let Some(frame) = self.clients.get_mut(at)?.next_frame() {
            if let Some(leave) = self.asked(at, &frame, now) {
                return Some(leave);
            }
        }
        None
    }

    fn asked(&mut self, at: usize, frame: &Frame, now: Instant) -> Option<Leave> {
        let reading = self.clients.get(at)?.reading.as_ref();
        let attached = reading.map(|reading| (reading.next, reading.told || reading.told_before));
        match (frame.kind, attached) {
            (to_shim::HELLO, _) => self.welcome(at, frame),
            (to_shim::ATTACH, _) => self.attach(at, frame),
            (to_shim::ADOPT, _) => self.adopt(at, frame),
            (to_shim::END, _) => return Some(Leave::Quietly),
            (to_shim::ACCEPT, Some(_)) => self.accepted = true,
            (to_shim::ACKNOWLEDGE, Some((next, _))) => {
                // What it was not told, it cannot know.
                let gone = self.journal.acknowledge(frame.numbered().0.min(next - 1));
                self.forget(gone);
            }
            (to_shim::SEND, Some(_)) => self.pass_on(frame),
            (to_shim::INTERRUPT, Some(_)) => self.interrupt(),
            (to_shim::SHUTDOWN, Some(_)) => {
                let grace = frame.document::<Shutdown>().map_or(0, |asked| asked.grace_ms);
                self.shut_down(Duration::from_millis(grace), now);
            }
            (to_shim::COLLECT, Some((_, true))) => return Some(Leave::Quietly),
            // Of somebody who is not attached, or not any more.
            (to_shim::ACCEPT..=to_shim::COLLECT, _) => {}
            (unknown, _) => {
                self.clients.get_mut(at)?.push(protocol::frame(from_shim::UNSUPPORTED, &[unknown]));
            }
        }
        None
    }

    fn welcome(&mut self, at: usize, frame: &Frame) {
        let hello = frame.document::<Hello>().unwrap_or_default();
        let welcome = Welcome {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: self.launch.kernel.clone(),
            state: match self.stage {
                _ if !self.accepted => State::Starting,
                Stage::Connecting { .. } | Stage::Starting { .. } => State::Starting,
                Stage::Running | Stage::Draining { .. } => State::Running,
                Stage::Ended(_) => State::Ended,
            },
        };
        if hello.protocol != PROTOCOL {
            note(format_args!("a daemon speaks protocol {}, this shim {PROTOCOL}", hello.protocol));
        }
        if let Some(client) = self.clients.get_mut(at) {
            client.push(document(from_shim::HELLO, &welcome));
        }
    }

    fn attach(&mut self, at: usize, frame: &Frame) {
        if !self.accepted {
            return;
        }
        self.replace_others(at);
        let after = frame.document::<Attach>().map_or(0, |asked| asked.after);
        let after = after.clamp(self.journal.acknowledged(), self.journal.last());
        let attached = document(from_shim::ATTACHED, &self.attached(after));
        if let Some(client) = self.clients.get_mut(at) {
            client.push(attached);
            // What it collects may be a report that came before it attached again.
            let told_before = client.reading.as_ref().is_some_and(|it| it.told || it.told_before);
            client.reading = Some(Reading { next: after + 1, told_before, ..Reading::default() });
            self.alone_since = None;
        }
    }

    /// Passes a message on to the kernel, once for each id.
    fn pass_on(&mut self, frame: &Frame) {
        let mut body = frame.body.clone();
        let channel = body.try_get_u8().ok().and_then(Name::from_number);
        let (Some(channel), Some(message)) = (channel, Message::decode(body)) else {
            note(format_args!("ignored a message for the kernel that is none"));
            return;
        };
        if channel != Name::Iopub && self.sent.insert(Header::parse(&message.header).msg_id) {
            self.send(channel, message);
        }
    }

    /// Moves to disk what is too much for memory.
    pub(crate) fn relieve_memory(&mut self) {
        if let Some(write) = self.journal.spill() {
            self.spill.start(Job::Write { file: write.file, frames: write.frames });
        }
    }

    pub(crate) fn forget(&mut self, files: Vec<u64>) {
        files.into_iter().for_each(|file| self.spill.start(Job::Forget { file }));
    }

    /// Takes what the disk has done.
    pub(crate) fn disk_answered(&mut self) {
        while let Some(done) = self.spill.answer() {
            match done {
                Done::Written { file, result } => {
                    if let Err(error) = &result {
                        note(format_args!("messages could not be kept on disk: {error}"));
                    }
                    let gone = self.journal.written(file, result.is_ok());
                    self.forget(gone);
                }
                Done::Read { client, file, offset, result } => self.disk_read(client, file, offset, result),
            }
        }
    }

    fn disk_read(&mut self, id: u64, file: u64, offset: u64, result: std::io::Result<bytes::Bytes>) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        let Some(reading) = &mut client.reading else { return };
        reading.waiting = false;
        let mut chunk = match result {
            Ok(chunk) => chunk,
            Err(error) => {
                note(format_args!("kept messages could not be read: {error}"));
                bytes::Bytes::new()
            }
        };
        let mut taken = 0;
        while let Some(length) = frame_length(&chunk).filter(|length| *length <= chunk.len()) {
            let record = chunk.split_to(length);
            taken += length as u64;
            let number = record.get(5..13).map_or(0, |mut number| number.get_u64());
            if number >= reading.next {
                reading.next = number + 1;
                client.out.push(record);
            }
        }
        if taken > 0 {
            reading.place = Some((file, offset + taken));
            return;
        }
        if let Some(length) = frame_length(&chunk) {
            // Larger than what was read.
            reading.waiting = true;
            self.spill.start(Job::Read { client: id, file, offset, length });
            return;
        }
        // The disk has lost the rest of the file.
        if let Found::Disk { last, .. } = self.journal.find(reading.next) {
            let lost = Gap { messages: last + 1 - reading.next, ..Gap::default() };
            client.out.push(numbered_document(from_shim::GAP, last, &lost));
            reading.next = last + 1;
            reading.place = None;
        }
    }

    /// Hands on what there is to whoever is attached.
    pub(crate) fn deliver(&mut self) {
        for client in &mut self.clients {
            if let Some(reading) = client.reading.as_mut().filter(|reading| !reading.told) {
                while client.out.bytes() < AHEAD && !reading.waiting {
                    match self.journal.find(reading.next) {
                        Found::Memory(record) => {
                            client.out.push(record);
                            reading.next += 1;
                        }
                        Found::Disk { file, .. } => {
                            let place = reading.place.filter(|(at, _)| *at == file);
                            let offset = place.map_or(0, |(_, offset)| offset);
                            reading.waiting = true;
                            let job = Job::Read { client: client.id, file, offset, length: CHUNK };
                            self.spill.start(job);
                        }
                        Found::Nowhere => {
                            if let Stage::Ended(exit) = &self.stage {
                                client.out.push(document(from_shim::EXITED, exit));
                                reading.told = true;
                            }
                            break;
                        }
                    }
                }
            }
            client.flush();
        }
    }

    /// Forgets connections that have ended.
    pub(crate) fn bury_clients(&mut self, now: Instant) -> Option<Leave> {
        let launcher_left = |client: &Client| client.launcher && client.end == End::Now;
        if !self.accepted && self.clients.iter().any(launcher_left) {
            return Some(Leave::Quietly);
        }
        self.clients.retain(|client| client.end != End::Now);
        let alone = self.clients.iter().all(|client| client.reading.is_none());
        if alone && self.accepted {
            self.alone_since.get_or_insert(now);
        }
        None
    }
}
