//! Values inside frames.
//!
//! For: arguments and outcomes of relayed methods.
//! Promises: documents pass as the text they are and are not parsed; an object passes as a number, and the other
//! end gets a stub that stands for it.

use bytes::{Buf, BufMut, BytesMut};
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{Failure, Outcome, ROption, RResult, RStr, RString, RVec};

use super::link::{Link, Target};
use super::wire::{self, Garbage, ObjectId};

/// Payloads up to this length are copied out of the buffer they were read into, so that a short one does not
/// keep a long buffer alive (the link reads this much at once).
const COPIED: usize = 64 << 10;

/// Longest list of objects: what a plugin provides of one kind.
const MAX_OBJECTS: u64 = 256;

/// Writes values.
pub(super) struct Packer<'a> {
    pub(super) out: BytesMut,
    link: &'a Link,
    /// Objects exported by this frame, to be taken back if it cannot be sent.
    exported: Vec<ObjectId>,
}

impl<'a> Packer<'a> {
    /// Goes on writing a frame that has been begun.
    pub(super) fn new(link: &'a Link, begun: BytesMut) -> Self {
        Self { out: begun, link, exported: Vec::new() }
    }

    /// Gives the other end an object.
    pub(super) fn export(&mut self, object: impl Target) {
        let id = self.link.export(std::sync::Arc::new(object));
        self.exported.push(id);
        id.pack(self);
    }

    /// The frame and what it exports.
    pub(super) fn finish(self) -> (BytesMut, Vec<ObjectId>) {
        (self.out, self.exported)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        wire::put_number(&mut self.out, bytes.len() as u64);
        self.out.put_slice(bytes);
    }
}

/// Reads values.
pub(super) struct Unpacker<'a> {
    pub(super) rest: bytes::Bytes,
    pub(super) link: &'a Link,
}

impl Unpacker<'_> {
    /// Everything has been read.
    pub(super) fn end(&self) -> Result<(), Garbage> {
        if self.rest.is_empty() { Ok(()) } else { Err(Garbage::new("values that nobody asked for")) }
    }

    fn bytes(&mut self) -> Result<bytes::Bytes, Garbage> {
        let length = u64::unpack(self)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        Ok(self.rest.split_to(length.ok_or_else(|| Garbage::new("a value longer than its frame"))?))
    }
}

/// A value that can be sent.
pub(super) trait Pack {
    fn pack(self, to: &mut Packer<'_>);
}

/// A value that can be received.
pub(super) trait Unpack: Sized {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage>;
}

impl Pack for () {
    fn pack(self, _: &mut Packer<'_>) {}
}

impl Unpack for () {
    fn unpack(_: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(())
    }
}

impl Pack for u8 {
    fn pack(self, to: &mut Packer<'_>) {
        to.out.put_u8(self);
    }
}

impl Unpack for u8 {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        wire::take_byte(&mut from.rest)
    }
}

impl Pack for bool {
    fn pack(self, to: &mut Packer<'_>) {
        u8::from(self).pack(to);
    }
}

impl Unpack for bool {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        match u8::unpack(from)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Garbage(format!("{other} where there is only yes (1) and no (0)"))),
        }
    }
}

impl Pack for u64 {
    fn pack(self, to: &mut Packer<'_>) {
        wire::put_number(&mut to.out, self);
    }
}

impl Unpack for u64 {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        wire::take_number(&mut from.rest)
    }
}

impl Pack for RStr<'_> {
    fn pack(self, to: &mut Packer<'_>) {
        to.bytes(self.as_str().as_bytes());
    }
}

impl Pack for RString {
    fn pack(self, to: &mut Packer<'_>) {
        self.as_rstr().pack(to);
    }
}

impl Unpack for RString {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        let bytes = from.bytes()?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Garbage::new("text that is not UTF-8"))?;
        Ok(text.into())
    }
}

impl Pack for abi::Bytes {
    fn pack(self, to: &mut Packer<'_>) {
        to.bytes(self.as_ref());
    }
}

impl Unpack for abi::Bytes {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        let bytes = from.bytes()?;
        let bytes = if bytes.len() <= COPIED { bytes::Bytes::copy_from_slice(bytes.chunk()) } else { bytes };
        Ok(bytes.into())
    }
}

impl<T: Pack> Pack for ROption<T> {
    fn pack(self, to: &mut Packer<'_>) {
        self.is_some().pack(to);
        if let ROption::RSome(value) = self {
            value.pack(to);
        }
    }
}

impl<T: Unpack> Unpack for ROption<T> {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(if bool::unpack(from)? { ROption::RSome(T::unpack(from)?) } else { ROption::RNone })
    }
}

impl<T: Pack> Pack for RVec<T> {
    fn pack(self, to: &mut Packer<'_>) {
        (self.len() as u64).pack(to);
        for value in self {
            value.pack(to);
        }
    }
}

impl<T: Unpack> Unpack for RVec<T> {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        let count = u64::unpack(from)?;
        if count > MAX_OBJECTS {
            return Err(Garbage(format!("a list of {count} objects, the limit is {MAX_OBJECTS}")));
        }
        let mut values = RVec::new();
        for _ in 0..count {
            values.push(T::unpack(from)?);
        }
        Ok(values)
    }
}

impl<T: Pack> Pack for Outcome<T> {
    fn pack(self, to: &mut Packer<'_>) {
        match self {
            RResult::ROk(value) => {
                true.pack(to);
                value.pack(to);
            }
            RResult::RErr(failure) => {
                false.pack(to);
                failure.pack(to);
            }
        }
    }
}

impl<T: Unpack> Unpack for Outcome<T> {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(if bool::unpack(from)? {
            RResult::ROk(T::unpack(from)?)
        } else {
            RResult::RErr(Failure::unpack(from)?)
        })
    }
}

impl Pack for Failure {
    fn pack(self, to: &mut Packer<'_>) {
        u64::from(self.code).pack(to);
        self.message.pack(to);
        self.help.pack(to);
        self.detail.pack(to);
        self.retryable.pack(to);
    }
}

impl Unpack for Failure {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(Self {
            // A code that nobody knows counts as internal, also one that is too large.
            code: u32::try_from(u64::unpack(from)?).unwrap_or(u32::MAX),
            message: RString::unpack(from)?,
            help: RString::unpack(from)?,
            detail: RString::unpack(from)?,
            retryable: bool::unpack(from)?,
        })
    }
}

impl Pack for abi::Blob {
    fn pack(self, to: &mut Packer<'_>) {
        self.content.pack(to);
        self.media_type.pack(to);
    }
}

impl Unpack for abi::Blob {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(Self { content: abi::Bytes::unpack(from)?, media_type: RString::unpack(from)? })
    }
}
