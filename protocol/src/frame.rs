//! Length-prefixed frames and typed frames.
//!
//! For: cutting a byte stream into frames, and putting headers before payloads, on both ends.
//! Promises: a length over its limit is an error before a byte of the body is asked for; a payload is a
//! view into the read buffer, never a copy.
//! Never: reads or writes a socket.

use bytes::{Buf, Bytes, BytesMut};

/// Longest handshake frame in bytes (64 KiB).
pub const HANDSHAKE_MAX: usize = 64 * 1024;
/// Longest frame on the pool channel in bytes, both ways (64 KiB).
pub const POOL_MAX: usize = 64 * 1024;
/// Longest frame anywhere else in bytes, type byte included (100 MiB).
pub const FRAME_MAX: usize = 100 * 1024 * 1024;
/// Bytes of the length prefix.
const LENGTH_BYTES: usize = 4;
/// One MiB.
const MIB: usize = 1024 * 1024;

/// The type bytes of typed frames, and what each may carry.
#[derive(Debug, Clone, Copy)]
pub enum FrameType {}

impl FrameType {
    /// Automerge sync message of the notebook document; both ways.
    pub const NOTEBOOK_SYNC: u8 = 0x00;
    /// JSON request envelope; client to daemon.
    pub const REQUEST: u8 = 0x01;
    /// JSON response envelope; daemon to client.
    pub const RESPONSE: u8 = 0x02;
    /// JSON broadcast; daemon to client.
    pub const BROADCAST: u8 = 0x03;
    /// CBOR presence message; both ways.
    pub const PRESENCE: u8 = 0x04;
    /// Automerge sync message of the runtime-state document; both ways.
    pub const RUNTIME_STATE_SYNC: u8 = 0x05;
    /// Automerge sync message of the daemon's pool document; both ways.
    pub const POOL_SYNC: u8 = 0x06;
    /// JSON session control and bootstrap replies; daemon to client.
    pub const SESSION_CONTROL: u8 = 0x07;
    /// Blob upload: header length, JSON header, body; client to daemon.
    pub const PUT_BLOB: u8 = 0x08;
    /// Automerge sync message of the comms document; both ways.
    pub const COMMS_SYNC: u8 = 0x09;
    /// Automerge sync message of the comments document; both ways.
    pub const COMMENTS_SYNC: u8 = 0x0A;

    /// Whether a frame to a client may overtake what waits for it: edits, answers, and where others are.
    /// Edits and answers keep their order among each other. What says how far the client is, or belongs to
    /// a widget, never comes before the state that it speaks of, so it does not overtake.
    pub fn is_urgent(frame_type: u8) -> bool {
        matches!(frame_type, Self::NOTEBOOK_SYNC | Self::RESPONSE | Self::PRESENCE)
    }

    /// The longest payload of `frame_type` in bytes, without the type byte; none for an unknown type,
    /// whose payload is discarded.
    pub fn payload_max(frame_type: u8) -> Option<usize> {
        match frame_type {
            Self::NOTEBOOK_SYNC
            | Self::RESPONSE
            | Self::RUNTIME_STATE_SYNC
            | Self::COMMS_SYNC
            | Self::COMMENTS_SYNC => Some(64 * MIB),
            Self::PUT_BLOB => Some(32 * MIB),
            Self::REQUEST | Self::BROADCAST => Some(16 * MIB),
            Self::POOL_SYNC | Self::SESSION_CONTROL => Some(MIB),
            Self::PRESENCE => Some(4096),
            _ => None,
        }
    }
}

/// Why a stream is not a sequence of frames. The connection is closed without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix, or what is to be sent, is over the limit of the channel.
    #[error("a frame of {length} bytes is over the limit of {max}")]
    TooLong {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// A typed frame without its type byte.
    #[error("a typed frame must have at least its type byte")]
    NoType,
    /// A payload over the limit of its type.
    #[error("a payload of {length} bytes is over the limit of {max} for frame type {frame_type:#04x}")]
    PayloadTooLong {
        /// Type byte.
        frame_type: u8,
        /// Bytes announced, without the type byte.
        length: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// Cuts length-prefixed frames out of a growing buffer.
#[derive(Debug, Clone, Copy)]
pub struct FrameDecoder {
    /// Longest body in bytes.
    max: usize,
}

impl FrameDecoder {
    /// A decoder for bodies of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max }
    }

    /// Takes the next whole frame off `buffer`; none while it is incomplete.
    ///
    /// # Errors
    /// `TooLong` as soon as the length prefix is there. The stream cannot be continued then.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = peek_length(buffer) else { return Ok(None) };
        if length > self.max {
            return Err(FrameError::TooLong { length, max: self.max });
        }
        if buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        Ok(Some(buffer.split_to(length).freeze()))
    }
}

/// One typed frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypedFrame {
    /// Type byte, one of [`FrameType`]'s.
    pub frame_type: u8,
    /// What follows it.
    pub payload: Bytes,
}

impl TypedFrame {
    /// Splits the body of a length-prefixed frame, such as a bootstrap reply, into type and payload.
    ///
    /// # Errors
    /// `NoType` for an empty body; `PayloadTooLong` for a payload over its type's limit.
    pub fn split(mut body: Bytes) -> Result<Self, FrameError> {
        if body.is_empty() {
            return Err(FrameError::NoType);
        }
        let frame_type = body.get_u8();
        check_payload(frame_type, body.len())?;
        Ok(Self { frame_type, payload: body })
    }
}

/// Cuts typed frames out of a growing buffer. Frames of unknown type are skipped as their bytes
/// arrive, without being kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct TypedDecoder {
    /// Bytes of an unknown frame that are still to be thrown away.
    skip: usize,
}

impl TypedDecoder {
    /// A decoder at a frame boundary.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next whole frame of a known type off `buffer`; none while it is incomplete.
    ///
    /// # Errors
    /// As soon as length and type byte are there. The stream cannot be continued then.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<TypedFrame>, FrameError> {
        loop {
            let skipped = self.skip.min(buffer.len());
            buffer.advance(skipped);
            self.skip -= skipped;
            if self.skip > 0 {
                return Ok(None);
            }
            let Some(length) = peek_length(buffer) else { return Ok(None) };
            if length == 0 {
                return Err(FrameError::NoType);
            }
            if length > FRAME_MAX {
                return Err(FrameError::TooLong { length, max: FRAME_MAX });
            }
            let Some(&frame_type) = buffer.get(LENGTH_BYTES) else { return Ok(None) };
            if FrameType::payload_max(frame_type).is_none() {
                self.skip = LENGTH_BYTES + length;
                continue;
            }
            check_payload(frame_type, length - 1)?;
            if buffer.len() < LENGTH_BYTES + length {
                return Ok(None);
            }
            buffer.advance(LENGTH_BYTES + 1);
            return Ok(Some(TypedFrame { frame_type, payload: buffer.split_to(length - 1).freeze() }));
        }
    }
}

/// The bytes that go before an untyped body of `length` bytes.
///
/// # Errors
/// `TooLong` if the body is over `max`.
pub fn length_header(length: usize, max: usize) -> Result<[u8; 4], FrameError> {
    match u32::try_from(length) {
        Ok(prefix) if length <= max => Ok(prefix.to_be_bytes()),
        _ => Err(FrameError::TooLong { length, max }),
    }
}

/// The bytes that go before a payload of `length` bytes in a typed frame.
///
/// # Errors
/// `PayloadTooLong` if the payload is over its type's limit.
pub fn typed_header(frame_type: u8, length: usize) -> Result<[u8; 5], FrameError> {
    check_payload(frame_type, length)?;
    let [a, b, c, d] = length_header(length + 1, FRAME_MAX)?;
    Ok([a, b, c, d, frame_type])
}

/// The length prefix at the start of `buffer`, once it is there.
fn peek_length(buffer: &BytesMut) -> Option<usize> {
    let prefix = buffer.first_chunk::<LENGTH_BYTES>()?;
    usize::try_from(u32::from_be_bytes(*prefix)).ok()
}

/// Checks a payload's length against its type's limit; types nobody knows have the frame's.
fn check_payload(frame_type: u8, length: usize) -> Result<(), FrameError> {
    let max = FrameType::payload_max(frame_type).unwrap_or(FRAME_MAX - 1);
    if length > max {
        return Err(FrameError::PayloadTooLong { frame_type, length, max });
    }
    Ok(())
}
