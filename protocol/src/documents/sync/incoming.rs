//! A sync message from a peer, taken apart.

use automerge::sync::Message;
use automerge::{AutoCommit, Bundle, Change, ChangeHash};

use super::SyncError;

/// A decoded message with every change in it readable.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub(super) message: Message,
    pub(super) changes: Vec<Change>,
}

impl Incoming {
    /// Reads a message.
    ///
    /// # Errors
    /// `Undecodable` when the bytes are no message or a change in it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, SyncError> {
        Self::read(message(bytes)?)
    }

    pub(super) fn read(message: Message) -> Result<Self, SyncError> {
        let mut changes = Vec::new();
        for bytes in message.changes.iter() {
            changes.extend(read_changes(bytes)?);
        }
        Ok(Self { message, changes })
    }

    /// The peer's heads.
    pub fn heads(&self) -> &[ChangeHash] {
        &self.message.heads
    }

    /// The changes the message carries, known or not.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

/// More hash functions than any Bloom filter has a use for; Automerge's own have 7.
const MOST_PROBES: usize = 64;

/// Reads a message without its changes. Automerge reads Bloom filters that it cannot ask: it would divide by zero, or want
/// 16 GiB for the answers of a filter with as many hash functions as fit into its header.
fn message(bytes: &[u8]) -> Result<Message, SyncError> {
    let message = Message::decode(bytes).map_err(undecodable)?;
    match message.have.iter().all(|have| can_be_asked(&have.bloom.to_bytes())) {
        true => Ok(message),
        false => Err(SyncError::Undecodable("a Bloom filter that cannot be asked".to_owned())),
    }
}

/// Whether the Bloom filter in `bytes` has bits, and a number of hash functions that makes sense.
fn can_be_asked(mut bytes: &[u8]) -> bool {
    // How many entries, bits for each, hash functions; then the bits.
    let mut header = [0; 3];
    if bytes.is_empty() {
        return true;
    }
    for number in &mut header {
        let Some((read, length)) = leb128(bytes) else { return false };
        (*number, bytes) = (read, bytes.get(length..).unwrap_or_default());
    }
    !bytes.is_empty() && header[2] <= MOST_PROBES
}

/// A message that carries a whole document.
pub(super) struct Whole {
    pub(super) message: Message,
    pub(super) document: AutoCommit,
}

impl Whole {
    /// Reads a message; as it is if it carries anything else.
    pub(super) fn decode(bytes: &[u8]) -> Result<Result<Self, Message>, SyncError> {
        let message = message(bytes)?;
        let only = match message.changes.len() {
            1 => message.changes.iter().next(),
            _ => None,
        };
        let document = only
            .and_then(|bytes| Some((bytes, Chunk::first(bytes)?)))
            .filter(|(bytes, chunk)| chunk.kind == DOCUMENT && chunk.bytes.len() == bytes.len())
            .map(|(bytes, _)| AutoCommit::load(bytes).map_err(undecodable))
            .transpose()?;
        Ok(match document {
            Some(document) => Ok(Self { message, document }),
            None => Err(message),
        })
    }
}

impl From<Whole> for Incoming {
    fn from(Whole { message, mut document }: Whole) -> Self {
        Self { message, changes: document.get_changes(&[]) }
    }
}

/// Reads changes that were written one behind the other, each as its `raw_bytes`, or whole saved
/// documents. Checksums are compared.
///
/// # Errors
/// `Undecodable` when the bytes are anything else, or cut short.
pub fn read_changes(mut bytes: &[u8]) -> Result<Vec<Change>, SyncError> {
    let mut changes = Vec::new();
    while !bytes.is_empty() {
        let chunk = Chunk::first(bytes).ok_or_else(|| undecodable("a chunk is cut short"))?;
        chunk.read(&mut changes)?;
        bytes = bytes.get(chunk.bytes.len()..).unwrap_or_default();
    }
    Ok(changes)
}

fn undecodable(error: impl std::fmt::Display) -> SyncError {
    SyncError::Undecodable(error.to_string())
}

/// One chunk of automerge's storage format: magic (4), checksum (4), kind (1), length (LEB128), content.
struct Chunk<'a> {
    /// All of it, header included.
    bytes: &'a [u8],
    checksum: &'a [u8],
    kind: u8,
}

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const BUNDLE: u8 = 3;

impl<'a> Chunk<'a> {
    fn first(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let (checksum, rest) = rest.split_at_checked(4)?;
        let (kind, rest) = rest.split_first()?;
        let (length, length_bytes) = leb128(rest)?;
        let header = MAGIC.len() + checksum.len() + 1 + length_bytes;
        let bytes = bytes.get(..header.checked_add(length)?)?;
        Some(Self { bytes, checksum, kind: *kind })
    }

    fn read(&self, changes: &mut Vec<Change>) -> Result<(), SyncError> {
        match self.kind {
            DOCUMENT => changes.extend(AutoCommit::load(self.bytes).map_err(undecodable)?.get_changes(&[])),
            BUNDLE => {
                let bundle = Bundle::try_from(self.bytes).map_err(undecodable)?;
                changes.extend(bundle.to_changes().map_err(undecodable)?);
            }
            _ => {
                let change = Change::try_from(self.bytes).map_err(undecodable)?;
                // The checksum is the beginning of the hash; reading a change does not compare them.
                if !change.hash().0.starts_with(self.checksum) {
                    return Err(undecodable("the checksum of a change is wrong"));
                }
                changes.push(change);
            }
        }
        Ok(())
    }
}

/// An unsigned LEB128 number and the bytes it takes.
fn leb128(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (index, byte) in bytes.iter().enumerate() {
        let bits = usize::from(byte & 0x7f);
        let shift = u32::try_from(index).ok()?.checked_mul(7)?;
        value |= bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits)?;
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}
