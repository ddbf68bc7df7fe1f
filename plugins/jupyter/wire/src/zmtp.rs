//! The part of ZMTP 3.0 that a Jupyter client needs: one connection to one kernel socket.
//!
//! For: shell, control, stdin and heartbeat (DEALER) and IOPub (SUB), NULL mechanism.
//! Promises: pure: bytes in, messages out; message parts share the buffer and are not copied; what is sent early goes
//! out when the peer is ready.
//! Never: reads or writes a socket, drops or delays a message, trusts a length before the bytes are there.
//!
//! Why not the `zeromq` crate: docs/adr/0003-own-zmtp.md.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::outbox::Outbox;

/// Length of a ZMTP greeting in bytes (RFC 23, "Framing").
const GREETING_BYTES: usize = 64;
/// Frame flag: another frame of the same message follows.
const MORE: u8 = 1;
/// Frame flag: the length takes eight bytes instead of one.
const LONG: u8 = 2;
/// Frame flag: a command, not part of a message.
const COMMAND: u8 = 4;

/// Which ZeroMQ socket type we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<'a> {
    /// Sends requests and receives replies. The identity is how the kernel addresses us; connections with
    /// the same identity on shell and stdin are the same client to it.
    Dealer {
        /// Routing id, 1 to 255 bytes.
        identity: &'a str,
    },
    /// Receives every broadcast.
    Subscriber,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The peer's greeting is still to come.
    Greeting,
    /// Its READY is still to come.
    Handshake,
    /// Messages flow.
    Open,
}

/// Our side of a connection.
#[derive(Debug)]
pub struct Connection {
    state: State,
    /// Bytes received and not yet taken.
    buffer: BytesMut,
    /// Parts of a message whose last part is still to come.
    parts: Vec<Bytes>,
    /// Messages that wait for the peer to be ready.
    early: Vec<Bytes>,
}

impl Connection {
    /// A connection that greets its peer through `out`.
    pub fn new(role: Role<'_>, out: &mut Outbox) -> Self {
        out.push(Bytes::copy_from_slice(&greeting()));
        out.push(ready(role).freeze());
        let mut connection =
            Self { state: State::Greeting, buffer: BytesMut::new(), parts: Vec::new(), early: Vec::new() };
        if role == Role::Subscriber {
            // In ZMTP 3.0 a subscription is a message: 1, then the prefix. The empty prefix is everything.
            connection.send(&[Bytes::from_static(&[1])], out);
        }
        connection
    }

    /// Takes bytes of the peer, cut anywhere.
    pub fn received(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message among the bytes received. Commands between messages are skipped.
    ///
    /// # Errors
    /// `InvalidData` when the peer does not speak ZMTP 3 with the NULL mechanism, or refuses.
    pub fn next_message(&mut self, out: &mut Outbox) -> io::Result<Option<Vec<Bytes>>> {
        if self.state == State::Greeting {
            if self.buffer.len() < GREETING_BYTES {
                return Ok(None);
            }
            check_greeting(&self.buffer.split_to(GREETING_BYTES))?;
            self.state = State::Handshake;
        }
        while let Some(frame) = take_frame(&mut self.buffer)? {
            if frame.flags & COMMAND != 0 {
                self.command(&frame, out)?;
                continue;
            }
            self.parts.push(frame.body);
            if frame.flags & MORE == 0 {
                return Ok(Some(std::mem::take(&mut self.parts)));
            }
        }
        if self.buffer.is_empty() {
            // Lets go of the memory behind messages that were taken; they may have been large.
            self.buffer = BytesMut::new();
        }
        Ok(None)
    }

    fn command(&mut self, frame: &Frame, out: &mut Outbox) -> io::Result<()> {
        match command_name(frame) {
            Some(b"READY") if self.state == State::Handshake => {
                self.state = State::Open;
                self.early.drain(..).for_each(|message| out.push(message));
                Ok(())
            }
            Some(b"ERROR") => Err(invalid("the kernel's socket refused the connection")),
            _ => Ok(()),
        }
    }

    /// Sends one message.
    pub fn send(&mut self, parts: &[Bytes], out: &mut Outbox) {
        let size = parts.iter().map(|part| part.len() + 9).sum();
        let mut bytes = BytesMut::with_capacity(size);
        for (index, part) in parts.iter().enumerate() {
            put_frame(&mut bytes, if index + 1 < parts.len() { MORE } else { 0 }, part);
        }
        match self.state {
            State::Open => out.push(bytes.freeze()),
            State::Greeting | State::Handshake => self.early.push(bytes.freeze()),
        }
    }
}

struct Frame {
    flags: u8,
    body: Bytes,
}

/// Takes a whole frame off `buffer`, or leaves it untouched when there is none yet.
fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let mut header = &buffer[..];
    let Ok(flags) = header.try_get_u8() else { return Ok(None) };
    let length = if flags & LONG == 0 { header.try_get_u8().map(u64::from) } else { header.try_get_u64() };
    let Ok(length) = length else { return Ok(None) };
    let length = usize::try_from(length).map_err(|_| invalid("a frame is larger than memory"))?;
    if header.len() < length {
        return Ok(None);
    }
    buffer.advance(if flags & LONG == 0 { 2 } else { 9 });
    Ok(Some(Frame { flags, body: buffer.split_to(length).freeze() }))
}

fn put_frame(out: &mut BytesMut, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(length) => {
            out.put_u8(flags);
            out.put_u8(length);
        }
        Err(_) => {
            out.put_u8(flags | LONG);
            out.put_u64(body.len() as u64);
        }
    }
    out.put_slice(body);
}

/// Signature, version 3.0, mechanism NULL, as-server 0, filler.
fn greeting() -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    let fields: [(usize, &[u8]); 4] = [(0, &[0xff]), (9, &[0x7f]), (10, &[3, 0]), (12, b"NULL")];
    for (target, source) in fields.iter().flat_map(|(at, bytes)| (*at..).zip(bytes.iter())) {
        if let Some(byte) = greeting.get_mut(target) {
            *byte = *source;
        }
    }
    greeting
}

fn check_greeting(greeting: &[u8]) -> io::Result<()> {
    let is = |at: usize, bytes: &[u8]| greeting.get(at..at + bytes.len()) == Some(bytes);
    if !is(0, &[0xff]) || !is(9, &[0x7f]) || greeting.get(10).is_none_or(|major| *major < 3) {
        return Err(invalid("the kernel's socket does not speak ZMTP 3"));
    }
    if !is(12, b"NULL\0") {
        return Err(invalid("the kernel's socket wants authentication"));
    }
    Ok(())
}

/// The READY command with our socket type and, for a dealer, the identity.
fn ready(role: Role<'_>) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_slice(b"\x05READY");
    let mut property = |name: &str, value: &str| {
        body.put_u8(name.len() as u8);
        body.put_slice(name.as_bytes());
        body.put_u32(value.len() as u32);
        body.put_slice(value.as_bytes());
    };
    match role {
        Role::Dealer { identity } => {
            property("Socket-Type", "DEALER");
            property("Identity", identity);
        }
        Role::Subscriber => property("Socket-Type", "SUB"),
    }
    let mut out = BytesMut::new();
    put_frame(&mut out, COMMAND, &body);
    out
}

/// The name of a command frame: a length byte and that many letters.
fn command_name(frame: &Frame) -> Option<&[u8]> {
    let (length, rest) = frame.body.split_first()?;
    if frame.flags & COMMAND == 0 { None } else { rest.get(..usize::from(*length)) }
}

fn invalid(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ipykernel's XPUB socket says first, as recorded from pyzmq 27: greeting 3.1 and READY.
    fn peer_hello() -> Vec<u8> {
        let mut hello = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL".to_vec();
        hello.resize(GREETING_BYTES, 0);
        hello.extend(b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04XPUB");
        hello
    }

    fn said(out: &mut Outbox) -> Vec<u8> {
        let mut said = Vec::new();
        out.write_to(&mut said).unwrap();
        said
    }

    #[test]
    fn messages_arrive_whole_however_they_are_cut() {
        let parts = [
            Bytes::new(),
            Bytes::from(vec![7; 255]),
            Bytes::from(vec![8; 256]),
            Bytes::from(vec![9; 300_000]),
        ];
        let mut bytes = BytesMut::from(&peer_hello()[..]);
        for (index, part) in parts.iter().enumerate() {
            put_frame(&mut bytes, if index < 3 { MORE } else { 0 }, part);
        }
        // A command between messages, as libzmq may send one.
        put_frame(&mut bytes, COMMAND, b"\x04PING\0\0");
        put_frame(&mut bytes, 0, b"last");
        let mut out = Outbox::default();
        let mut connection = Connection::new(Role::Subscriber, &mut out);
        assert!(!said(&mut out).ends_with(&[0, 1, 1]), "the peer is not ready yet");
        let mut found = Vec::new();
        for piece in bytes.chunks(1013) {
            connection.received(piece);
            while let Some(message) = connection.next_message(&mut out).unwrap() {
                found.push(message);
            }
        }
        assert_eq!(found, [parts.to_vec(), vec![Bytes::from_static(b"last")]]);
        assert_eq!(said(&mut out), [0, 1, 1], "the subscription to everything");
    }

    #[test]
    fn a_length_from_the_peer_reserves_nothing() {
        let mut buffer = BytesMut::from(&[LONG, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'x'][..]);
        assert!(take_frame(&mut buffer).unwrap().is_none());
        assert!(buffer.capacity() < 1024);
    }

    #[test]
    fn what_is_no_zeromq_socket_is_refused() {
        let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        for hello in [&http[..], &[0xff; 64], &[0; 64]] {
            let mut out = Outbox::default();
            let mut connection = Connection::new(Role::Subscriber, &mut out);
            connection.received(hello);
            assert!(connection.next_message(&mut out).is_err());
        }
    }
}
