//! The bytes of a journal.
//!
//! For: telling what was written whole from what was not.
//! Shape: a header (magic 8, version u32, room 16, CRC-32), then records (length u32, CRC-32 of length and
//! payload, payload); a payload is entries (kind u8, length u32, content). Little-endian throughout.
//! Promises: of damaged bytes, the records before the damage; never a record that was not written, never a
//! panic.
//! Never: knows what an entry means.

use bytes::Bytes;
use uuid::Uuid;

/// Begins every journal.
const MAGIC: [u8; 8] = *b"runtjnl\n";
/// Of the format. A journal of another version is left alone.
const VERSION: u32 = 1;
/// Bytes of the header.
pub(crate) const HEADER: usize = 32;
/// Bytes before a record's payload.
pub(super) const RECORD: usize = 8;
/// Bytes before an entry's content.
const ENTRY: usize = 5;

/// What a journal of `room` begins with.
pub(crate) fn header(room: Uuid) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let parts = MAGIC.into_iter().chain(VERSION.to_le_bytes()).chain(room.into_bytes());
    header.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
    let (content, sum) = header.split_at_mut(HEADER - 4);
    sum.copy_from_slice(&crc32fast::hash(content).to_le_bytes());
    header
}

/// Something to be appended, while it is put together.
#[derive(Debug)]
pub(crate) struct Record {
    bytes: Vec<u8>,
    /// Something did not fit.
    too_large: bool,
}

impl Record {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; RECORD], too_large: false }
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == RECORD
    }

    /// Adds an entry whose content is `parts`, one behind the other.
    pub(crate) fn push(&mut self, kind: u8, parts: &[&[u8]]) {
        let Ok(length) = u32::try_from(parts.iter().map(|part| part.len()).sum::<usize>()) else {
            self.too_large = true;
            return;
        };
        self.bytes.push(kind);
        self.bytes.extend(length.to_le_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
    }

    /// The bytes to append. None if they are more than a record can hold (4 GiB), or there are none.
    pub(crate) fn finish(mut self) -> Option<Bytes> {
        let length = u32::try_from(self.bytes.len() - RECORD).ok();
        let length = length.filter(|length| *length > 0 && !self.too_large)?;
        let (prefix, payload) = self.bytes.split_at_mut_checked(RECORD)?;
        let (stated, sum) = prefix.split_at_mut_checked(4)?;
        stated.copy_from_slice(&length.to_le_bytes());
        sum.copy_from_slice(&checksum(stated, payload).to_le_bytes());
        Some(self.bytes.into())
    }
}

/// One statement of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    /// See [`super::entry`].
    pub(crate) kind: u8,
    pub(crate) content: &'a [u8],
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scan<'a> {
    /// Whose journal it is.
    pub(crate) room: Uuid,
    /// Payloads, in order.
    pub(crate) records: Vec<&'a [u8]>,
    /// Where the last of them ends.
    pub(crate) intact: usize,
    /// Why there are no more.
    pub(crate) stop: Stop,
}

/// Where a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// With its last record.
    End,
    /// In the middle of its last record: the daemon, or the machine, ended while it was written.
    Torn,
    /// Before records that are whole: something else damaged it.
    Corrupt,
}

/// Why nothing of a file can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Empty, cut short, or not a journal at all.
    #[error("its beginning is damaged")]
    Damaged,
    /// Written by a later daemon.
    #[error("it was written by a newer version of runtimed (format {0})")]
    Version(u32),
}

/// Reads a journal as far as it is intact.
///
/// # Errors
/// See [`HeaderError`].
pub(crate) fn scan(bytes: &[u8]) -> Result<Scan<'_>, HeaderError> {
    let room = read_header(bytes)?;
    let (mut records, mut intact) = (Vec::new(), HEADER);
    let stop = loop {
        match bytes.get(intact..) {
            None | Some([]) => break Stop::End,
            Some(rest) => match read_record(rest) {
                Some(payload) => {
                    records.push(payload);
                    intact += RECORD + payload.len();
                }
                None if has_record(rest) => break Stop::Corrupt,
                None => break Stop::Torn,
            },
        }
    };
    Ok(Scan { room, records, intact, stop })
}

/// The entries of a record's payload.
pub(crate) fn entries(mut payload: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    std::iter::from_fn(move || {
        let (entry, rest) = split_entry(payload)?;
        payload = rest;
        Some(entry)
    })
}

fn read_header(bytes: &[u8]) -> Result<Uuid, HeaderError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(HeaderError::Damaged)?;
    let (version, rest) = rest.split_first_chunk().ok_or(HeaderError::Damaged)?;
    let (room, rest) = rest.split_first_chunk().ok_or(HeaderError::Damaged)?;
    let (sum, _) = rest.split_first_chunk().ok_or(HeaderError::Damaged)?;
    let content = bytes.get(..HEADER - 4).ok_or(HeaderError::Damaged)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
        return Err(HeaderError::Damaged);
    }
    match u32::from_le_bytes(*version) {
        VERSION => Ok(Uuid::from_bytes(*room)),
        other => Err(HeaderError::Version(other)),
    }
}

/// The payload of the record at the beginning of `bytes`, if it is whole.
fn read_record(bytes: &[u8]) -> Option<&[u8]> {
    let (stated, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let payload = rest.get(..u32::from_le_bytes(*stated) as usize)?;
    // The cheap test first: damage is looked through byte by byte.
    (is_well_formed(payload) && checksum(stated, payload) == u32::from_le_bytes(*sum)).then_some(payload)
}

/// Whether a whole record begins anywhere after the first byte.
fn has_record(bytes: &[u8]) -> bool {
    (1..bytes.len()).any(|from| bytes.get(from..).and_then(read_record).is_some())
}

/// Whether `payload` is entries, at least one, and nothing else.
fn is_well_formed(mut payload: &[u8]) -> bool {
    while let Some((_, rest)) = split_entry(payload) {
        if rest.is_empty() {
            return true;
        }
        payload = rest;
    }
    false
}

fn split_entry(payload: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let (kind, rest) = payload.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (content, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    debug_assert_eq!(payload.len(), ENTRY + content.len() + rest.len());
    Some((Entry { kind: *kind, content }, rest))
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(length);
    sum.update(payload);
    sum.finalize()
}
