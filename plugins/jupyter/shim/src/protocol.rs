//! What a daemon and a shim say to each other, version 1.
//!
//! For: both sides. docs/KERNEL_SHIM.md has the same in words.
//! Promises: pure. What is here never changes its meaning: a kernel that runs today is driven by the daemons of the
//! future. New frames get new numbers, new fields have defaults; both sides skip what they do not know.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of this protocol. Another number is another protocol, which this one is not part of.
pub const PROTOCOL: u32 = 1;
/// Name of the shim's socket in its folder.
pub const SOCKET: &str = "shim";
/// Stands in a kernel's arguments for the path of its connection file, as in kernelspecs.
pub const CONNECTION_FILE: &str = "{connection_file}";

/// Frames of the daemon.
pub mod to_shim {
    /// First frame of a connection: [`Hello`](super::Hello).
    pub const HELLO: u8 = 0x01;
    /// Start a kernel: [`Launch`](super::Launch). Only on the connection that the shim is born with.
    pub const LAUNCH: u8 = 0x02;
    /// The kernel that was launched is wanted; until this is said it ends with the connection.
    pub const ACCEPT: u8 = 0x03;
    /// Take over: [`Attach`](super::Attach).
    pub const ATTACH: u8 = 0x04;
    /// Messages up to this number (`u64`) need not be kept.
    pub const ACKNOWLEDGE: u8 = 0x05;
    /// A message for the kernel: the channel (`u8`), then the message.
    pub const SEND: u8 = 0x06;
    /// Stop what is running.
    pub const INTERRUPT: u8 = 0x07;
    /// End the kernel: [`Shutdown`](super::Shutdown).
    pub const SHUTDOWN: u8 = 0x08;
    /// The exit report has arrived: the shim may go.
    pub const COLLECT: u8 = 0x09;
    /// Kill the kernel and go, whatever is still to be said.
    pub const END: u8 = 0x0a;
    /// Take over a kernel that is up and nobody's yet, for another purpose: [`Adopt`](super::Adopt). The connection
    /// takes the place of the one that launched it.
    pub const ADOPT: u8 = 0x0b;
}

/// Frames of the shim.
pub mod from_shim {
    /// Answer to the daemon's: [`Welcome`](super::Welcome).
    pub const HELLO: u8 = 0x81;
    /// The kernel is up: [`Attached`](super::Attached). Its messages follow.
    pub const LAUNCHED: u8 = 0x82;
    /// The kernel could not be started, nothing is left of it: [`Failed`](super::Failed).
    pub const FAILED: u8 = 0x83;
    /// Answer to an attach: [`Attached`](super::Attached). Messages follow.
    pub const ATTACHED: u8 = 0x84;
    /// A message of the kernel: number (`u64`), channel (`u8`), message.
    pub const MESSAGE: u8 = 0x85;
    /// Messages that were not kept: number (`u64`) of this notice, then [`Gap`](super::Gap).
    pub const GAP: u8 = 0x86;
    /// The kernel has ended and everything it said was sent: [`Exit`](super::Exit).
    pub const EXITED: u8 = 0x87;
    /// Somebody else has attached; the connection ends.
    pub const REPLACED: u8 = 0x88;
    /// A frame of this type (`u8`) is unknown here, and was skipped.
    pub const UNSUPPORTED: u8 = 0x89;
    /// Answer to an adoption: [`Attached`](super::Attached). Messages follow.
    pub const ADOPTED: u8 = 0x8a;
    /// There is no adoption: [`Refused`](super::Refused). The kernel stays whose it was.
    pub const REFUSED: u8 = 0x8b;
}

/// Who speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the daemon.
    pub protocol: u32,
    /// Its version, for logs.
    #[serde(default)]
    pub version: String,
}

impl Default for Hello {
    fn default() -> Self {
        Self { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`PROTOCOL`] of the shim.
    pub protocol: u32,
    /// Its version, for logs.
    #[serde(default)]
    pub version: String,
    /// UUID of the kernel; empty before the launch.
    #[serde(default)]
    pub kernel: String,
    /// How far the kernel is.
    #[serde(default)]
    pub state: State,
}

/// How far a kernel is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not yet anybody's.
    Starting,
    /// Up.
    Running,
    /// Gone; its report waits to be collected.
    Ended,
    /// Something newer than this side.
    #[default]
    #[serde(other)]
    Unknown,
}

/// A kernel to start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Launch {
    /// UUID of the kernel.
    pub kernel: String,
    /// Program and arguments; [`CONNECTION_FILE`] in one stands for that path.
    pub argv: Vec<String>,
    /// Variables on top of the shim's own.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Name in the connection file.
    pub kernel_name: String,
    /// How to interrupt it.
    pub interrupt: InterruptMode,
    /// What it is reached by.
    pub transport: Transport,
    /// Whether it may say that it is idle before all of a cell's outputs, which are waited for then.
    pub idle_early: bool,
    /// Code that is run silently before anybody uses the kernel; none if empty.
    pub preparation: String,
    /// Longest time until the kernel answers, in milliseconds.
    pub start_limit_ms: u64,
    /// How long to go on without a daemon, in seconds.
    pub keep_alive_secs: u64,
    /// Where messages may lie that are too many for memory.
    pub spill: PathBuf,
    /// Bytes of messages kept in memory.
    pub memory_bytes: u64,
    /// Bytes of messages kept on disk. What does not fit is a [`Gap`].
    pub disk_bytes: u64,
    /// What the daemon wants to read in the record; nothing to the shim.
    pub label: Value,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            kernel: String::new(),
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: "/".into(),
            kernel_name: String::new(),
            interrupt: InterruptMode::Signal,
            transport: Transport::Ipc,
            idle_early: false,
            preparation: String::new(),
            // The limit clients of the reference know.
            start_limit_ms: 30_000,
            keep_alive_secs: 24 * 3600,
            spill: std::env::temp_dir(),
            // What a flood says in the 250 ms until a daemon has flushed it, with room to spare.
            memory_bytes: 4 << 20,
            disk_bytes: 2 << 30,
            label: Value::Null,
        }
    }
}

/// How a kernel is told to stop what it is doing (`interrupt_mode` of a kernelspec).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InterruptMode {
    /// SIGINT to its process group.
    Signal,
    /// `interrupt_request` on the control channel.
    Message,
}

/// What a kernel is reached by (`transport` of a connection file).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Unix sockets in the kernel's folder.
    #[default]
    Ipc,
    /// Ports on 127.0.0.1, for kernels that know nothing else.
    Tcp,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// Number of the last message that is not wanted any more.
    pub after: u64,
}

/// What becomes of a kernel that is nobody's yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adopt {
    /// UUID of the kernel from now on.
    pub kernel: String,
    /// Code that is run silently before; none if empty. If it fails there is no adoption.
    pub preparation: String,
    /// As [`Launch::label`], from now on.
    pub label: Value,
}

/// Why a kernel was not adopted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// In words.
    pub message: String,
}

/// The kernel one is attached to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attached {
    /// UUID of the kernel.
    pub kernel: String,
    /// Its process.
    pub pid: u32,
    /// Content of its `kernel_info_reply`.
    pub reply: Value,
    /// Messages after this number follow.
    pub after: u64,
    /// Number of the last one that there is.
    pub last: u64,
}

/// How to end a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shutdown {
    /// Time to end by itself, in milliseconds; 0 kills.
    pub grace_ms: u64,
}

/// Why there is no kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// What kind of failure.
    pub reason: Reason,
    /// What the system said.
    pub message: String,
    /// How the process ended, with its last words.
    pub exit: Exit,
}

/// Kinds of failed launches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is no such program.
    NotFound,
    /// It could not be started.
    NotStarted,
    /// It ended before it answered.
    Exited,
    /// It did not answer in time, and was killed.
    Silent,
    /// It closed its sockets, or did not say what a kernel says, and was killed.
    Confused,
    /// Something newer than this side.
    #[default]
    #[serde(other)]
    Other,
}

/// Messages that were not kept because the bound was reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// Header of the request they answered.
    pub parent_header: Value,
    /// How many.
    pub messages: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// How a kernel ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// Exit code, when it exited by itself.
    pub code: Option<i32>,
    /// Signal number, when one ended it.
    pub signal: Option<i32>,
    /// Whether the system reported that it ran out of memory.
    pub out_of_memory: bool,
    /// Whether somebody asked for the end.
    pub requested: bool,
    /// Whether it had to be ended because it had closed a socket.
    pub unreachable: bool,
    /// Last lines of its stderr, at most 50.
    pub stderr_tail: String,
}

/// One frame: `u32` number of bytes that follow, `u8` type, body. Numbers are big-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// What follows the type.
    pub body: Bytes,
}

impl Frame {
    /// The document in the body.
    ///
    /// # Errors
    /// `InvalidData` when there is none of that shape.
    pub fn document<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.body).map_err(io::Error::from)
    }

    /// The number in front of the body, and the rest. Zero and nothing if there is none.
    pub fn numbered(&self) -> (u64, Bytes) {
        let mut body = self.body.clone();
        (body.try_get_u64().unwrap_or_default(), body)
    }
}

/// A frame of `kind` with `body`, which is far shorter than 4 GiB.
pub fn frame(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u32(1 + body.len() as u32);
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

/// A frame of `kind` with a document.
pub fn document(kind: u8, document: &impl Serialize) -> Bytes {
    // Fails for maps whose keys are no strings, and there are none here.
    frame(kind, &serde_json::to_vec(document).unwrap_or_default())
}

/// A frame of `kind` with a number and a document.
pub fn numbered_document(kind: u8, number: u64, document: &impl Serialize) -> Bytes {
    let document = serde_json::to_vec(document).unwrap_or_default();
    frame(kind, &[&number.to_be_bytes(), document.as_slice()].concat())
}

/// Finds frames in a stream of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes received and not yet taken.
    pub buffer: BytesMut,
}

impl Decoder {
    /// The next whole frame.
    ///
    /// # Errors
    /// `InvalidData` when the bytes are no frames; there is no way to go on then.
    pub fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        let Some(length) = frame_length(&self.buffer) else { return Ok(None) };
        if length <= 4 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame without a type"));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let mut body = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            // Lets go of the memory behind frames that were taken; they may have been large.
            self.buffer = BytesMut::new();
        }
        body.advance(4);
        let kind = body.get_u8();
        Ok(Some(Frame { kind, body }))
    }
}

/// Length of the frame at the start of `bytes`, all its parts included, once that can be seen.
pub(crate) fn frame_length(mut bytes: &[u8]) -> Option<usize> {
    bytes.try_get_u32().ok().and_then(|length| usize::try_from(length).ok()?.checked_add(4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let sent = [frame(1, b""), frame(200, &[7; 300]), document(2, &Shutdown { grace_ms: 5 })];
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for byte in sent.concat() {
            decoder.buffer.put_u8(byte);
            found.extend(decoder.next_frame().unwrap());
        }
        assert_eq!(
            found.iter().map(|it| (it.kind, it.body.len())).collect::<Vec<_>>(),
            [(1, 0), (200, 300), (2, 14)]
        );
        assert_eq!(found[2].document::<Shutdown>().unwrap(), Shutdown { grace_ms: 5 });
        decoder.buffer.put_slice(&[0; 4]);
        assert!(decoder.next_frame().is_err());
    }

    #[test]
    fn what_is_newer_reads_as_unknown() {
        let welcome: Welcome =
            serde_json::from_str(r#"{"protocol": 1, "state": "dreaming", "mood": 7}"#).unwrap();
        assert_eq!(welcome.state, State::Unknown);
        let failed: Failed = serde_json::from_str(r#"{"reason": "moon phase"}"#).unwrap();
        assert_eq!(failed.reason, Reason::Other);
    }
}
