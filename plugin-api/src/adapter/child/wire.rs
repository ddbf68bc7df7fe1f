//! What goes over the socket: frames of a length and a few numbers, and values behind them.
//!
//! For: both ends of a child's socket.
//! Promises: reading never panics and never reserves what a frame only claims to be long; what does not fit the
//! format is [`Garbage`] with a reason a person can read.
//! Never: I/O.
//!
//! A frame is `u32` length (big-endian, of what follows), `u8` kind, the kind's numbers, the values. Numbers are
//! unsigned LEB128; text and bytes are a number and that many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest frame in bytes, its length not counted: more than the longest message of a notebook connection and
/// than the longest blob (100 MiB each).
pub(super) const MAX_FRAME: usize = 128 << 20;

/// Bytes of a frame's length.
const LENGTH: usize = 4;
/// Most bytes of a number: 64 bits, 7 to the byte.
const MAX_NUMBER: usize = 10;

/// What the other end sent makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Garbage(pub(super) String);

impl Garbage {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Numbers the objects that one end has exported to the other.
pub(super) type ObjectId = u64;
/// Numbers the calls one end has made.
pub(super) type RequestId = u64;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Begins a method that answers. Exactly one reply follows, also after a [`Frame::Cancel`].
    Call { request: RequestId, object: ObjectId, method: u8, arguments: Bytes },
    /// The one answer to a call: an outcome.
    Reply { request: RequestId, outcome: Bytes },
    /// Nobody waits for this call any more.
    Cancel { request: RequestId },
    /// Begins a method that does not answer.
    Notify { object: ObjectId, method: u8, arguments: Bytes },
    /// The sender has dropped its last hold of one of the receiver's objects.
    Release { object: ObjectId },
    /// The receiver should end its process.
    Close,
}

/// The first byte of a frame.
mod kind {
    pub(super) const CALL: u8 = 1;
    pub(super) const REPLY: u8 = 2;
    pub(super) const CANCEL: u8 = 3;
    pub(super) const NOTIFY: u8 = 4;
    pub(super) const RELEASE: u8 = 5;
    pub(super) const CLOSE: u8 = 6;
}

/// Begins a call's frame; the arguments follow.
pub(super) fn call(request: RequestId, object: ObjectId, method: u8) -> BytesMut {
    let mut out = begin(kind::CALL, &[request, object]);
    out.put_u8(method);
    out
}

/// Begins a reply's frame; the outcome follows.
pub(super) fn reply(request: RequestId) -> BytesMut {
    begin(kind::REPLY, &[request])
}

/// Begins a notification's frame; the arguments follow.
pub(super) fn notify(object: ObjectId, method: u8) -> BytesMut {
    let mut out = begin(kind::NOTIFY, &[object]);
    out.put_u8(method);
    out
}

/// A whole [`Frame::Cancel`].
pub(super) fn cancel(request: RequestId) -> BytesMut {
    begin(kind::CANCEL, &[request])
}

/// A whole [`Frame::Release`].
pub(super) fn release(object: ObjectId) -> BytesMut {
    begin(kind::RELEASE, &[object])
}

/// A whole [`Frame::Close`].
pub(super) fn close() -> BytesMut {
    begin(kind::CLOSE, &[])
}

fn begin(kind: u8, numbers: &[u64]) -> BytesMut {
    let mut out = BytesMut::with_capacity(64);
    out.put_u32(0);
    out.put_u8(kind);
    for number in numbers {
        put_number(&mut out, *number);
    }
    out
}

/// Fills in the length of a begun frame. None if it is too long to be sent.
pub(super) fn finish(mut frame: BytesMut) -> Option<Bytes> {
    let length = frame.len().checked_sub(LENGTH).filter(|length| *length <= MAX_FRAME)?;
    let length = u32::try_from(length).ok()?;
    frame.get_mut(..LENGTH)?.copy_from_slice(&length.to_be_bytes());
    Some(frame.freeze())
}

/// Takes the first frame off `buffer`, if it is there as a whole.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, Garbage> {
    let Some(length) = buffer.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_FRAME {
        return Err(Garbage(format!("a frame of {length} bytes, the limit is {MAX_FRAME}")));
    }
    if buffer.len() < LENGTH + length {
        return Ok(None);
    }
    buffer.advance(LENGTH);
    let mut rest = buffer.split_to(length).freeze();
    let frame = match take_byte(&mut rest)? {
        kind::CALL => {
            let (request, object) = (take_number(&mut rest)?, take_number(&mut rest)?);
            Frame::Call { request, object, method: take_byte(&mut rest)?, arguments: rest }
        }
        kind::REPLY => Frame::Reply { request: take_number(&mut rest)?, outcome: rest },
        kind::CANCEL => Frame::Cancel { request: take_number(&mut rest)? },
        kind::NOTIFY => {
            let object = take_number(&mut rest)?;
            Frame::Notify { object, method: take_byte(&mut rest)?, arguments: rest }
        }
        kind::RELEASE => Frame::Release { object: take_number(&mut rest)? },
        kind::CLOSE => Frame::Close,
        other => return Err(Garbage(format!("a frame of the unknown kind {other}"))),
    };
    Ok(Some(frame))
}

/// Writes a number.
pub(super) fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

/// Reads a number.
pub(super) fn take_number(from: &mut Bytes) -> Result<u64, Garbage> {
    let mut number = 0u64;
    for place in 0..MAX_NUMBER {
        let byte = take_byte(from)?;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * place as u32;
        if bits.leading_zeros() < shift {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Garbage::new("a number of more than 64 bits"))
}

/// Reads a byte.
pub(super) fn take_byte(from: &mut Bytes) -> Result<u8, Garbage> {
    from.try_get_u8().map_err(|_| Garbage::new("a frame that ends too early"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of frame, with numbers of every length.
    fn frames() -> Vec<(BytesMut, Frame)> {
        let with = |mut frame: BytesMut| {
            frame.put_slice(b"values");
            frame
        };
        let values = || Bytes::from_static(b"values");
        vec![
            (
                with(call(u64::MAX, 0, 255)),
                Frame::Call { request: u64::MAX, object: 0, method: 255, arguments: values() },
            ),
            (with(reply(127)), Frame::Reply { request: 127, outcome: values() }),
            (cancel(128), Frame::Cancel { request: 128 }),
            (with(notify(1 << 40, 3)), Frame::Notify { object: 1 << 40, method: 3, arguments: values() }),
            (release(16_384), Frame::Release { object: 16_384 }),
            (close(), Frame::Close),
        ]
    }

    #[test]
    fn frames_arrive_however_they_are_cut() {
        let frames = frames();
        let mut stream = BytesMut::new();
        for (encoded, _) in &frames {
            stream.put(finish(encoded.clone()).unwrap());
        }
        for size in [1, 2, 3, 7, stream.len()] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in stream.chunks(size) {
                buffer.put_slice(piece);
                while let Some(frame) = take(&mut buffer).unwrap() {
                    found.push(frame);
                }
            }
            assert!(buffer.is_empty());
            assert!(found.iter().eq(frames.iter().map(|(_, frame)| frame)), "in pieces of {size}");
        }
    }

    #[test]
    fn garbage_is_named_and_never_waited_for() {
        for (bytes, reason) in [
            (&b"\xff\xff\xff\xff"[..], "a frame of 4294967295 bytes, the limit is 134217728"),
            (b"GET / HTTP", "a frame of 1195725856 bytes, the limit is 134217728"),
            (b"\0\0\0\0", "a frame that ends too early"),
            (b"\0\0\0\x01\x09", "a frame of the unknown kind 9"),
            (b"\0\0\0\x02\x03\x80", "a frame that ends too early"),
            (b"\0\0\0\x0b\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "a number of more than 64 bits"),
        ] {
            let mut buffer = BytesMut::from(bytes);
            assert_eq!(take(&mut buffer), Err(Garbage::new(reason)));
        }
    }
}
