//! An upload in parts: what is staged of it, and what it may become.
//!
//! For: blobs too large for one frame.
//! Promises: nothing counts before its hash is proven; a completion names every part exactly once; what is
//! staged is bounded in bytes and in number.
//! Never: holds the bytes of a part; they are in a file of the shell's.

use std::collections::BTreeMap;
use std::time::Duration;

use runtimed_protocol::request::UploadedPart;
use runtimed_protocol::response::BlobUploadFailure as Failure;
use uuid::Uuid;

use super::moment::Moment;

/// Bytes of a part where the client names no size. Source: protocol v4.
const PART_SIZE: u64 = 8 * 1024 * 1024;
/// Largest part; a frame takes no more. Source: protocol v4.
const LARGEST_PART: u64 = 32 * 1024 * 1024;
/// Bytes a connection may stage. Source: protocol v4.
const BUDGET: u64 = 256 * 1024 * 1024;
/// Parts of one upload, so that a list of tiny ones stays short. Source: what object stores allow; a whole
/// budget in parts of 26 KiB.
const MOST_PARTS: usize = 10_000;
/// How long an upload may take. Source: protocol v4.
pub(super) const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// An upload that was begun.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(super) id: Uuid,
    pub(super) media_type: String,
    pub(super) size: u64,
    /// What the whole was announced as, 64 hex digits.
    pub(super) sha256: Option<String>,
    pub(super) part_size: u64,
    pub(super) expires: Moment,
    parts: BTreeMap<u32, Part>,
    /// Bytes staged: where the next part goes.
    staged: u64,
}

/// A part whose hash is proven.
#[derive(Debug)]
struct Part {
    at: u64,
    size: u64,
    sha256: String,
}

impl Upload {
    /// An upload of `size` bytes that begins.
    ///
    /// # Errors
    /// A size or a hash that cannot be.
    pub(super) fn new(
        id: Uuid,
        now: Moment,
        (media_type, size): (String, u64),
        sha256: Option<String>,
        part_size: Option<u64>,
    ) -> Result<Self, Failure> {
        let part_size = part_size.unwrap_or(PART_SIZE);
        if !(1..=LARGEST_PART).contains(&part_size) {
            return Err(Failure::OverCap);
        }
        if size > BUDGET {
            return Err(Failure::OverPeerBudget);
        }
        let is_hash = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !sha256.as_ref().is_none_or(is_hash) {
            return Err(Failure::FinalHashMismatch);
        }
        let (expires, parts) = (now + LIFETIME, BTreeMap::new());
        Ok(Self { id, media_type, size, sha256, part_size, expires, parts, staged: 0 })
    }

    /// Where in the file a part goes; none if a part of this number and hash is there, and only the bytes
    /// remain to be proven.
    ///
    /// # Errors
    /// The part cannot be one of this upload's.
    pub(super) fn place(&self, part: &UploadedPart, body: u64) -> Result<Option<u64>, Failure> {
        if part.size != body || !(1..=self.part_size).contains(&body) {
            return Err(Failure::PartSizeMismatch);
        }
        match self.parts.get(&part.part_number) {
            Some(there) if there.is(part) => Ok(None),
            Some(_) => Err(Failure::DuplicatePartConflict),
            None if self.staged + body > BUDGET || self.parts.len() >= MOST_PARTS => {
                Err(Failure::OverPeerBudget)
            }
            None => Ok(Some(self.staged)),
        }
    }

    /// A part is in the file, and its hash is what it was announced as.
    pub(super) fn stage(&mut self, at: u64, part: UploadedPart) {
        self.staged = at + part.size;
        self.parts.insert(part.part_number, Part { at, size: part.size, sha256: part.sha256 });
    }

    /// Where the bytes of the whole are, in order: offsets and lengths.
    ///
    /// # Errors
    /// `parts` is not what is staged, or not as long as announced.
    pub(super) fn pieces(&self, parts: &[UploadedPart]) -> Result<Vec<(u64, u64)>, Failure> {
        let mut left: BTreeMap<u32, &Part> =
            self.parts.iter().map(|(number, part)| (*number, part)).collect();
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            let there = left.remove(&part.part_number).filter(|there| there.is(part));
            let there = there.ok_or(Failure::ManifestMismatch)?;
            pieces.push((there.at, there.size));
        }
        let whole = left.is_empty() && pieces.iter().map(|(_, size)| size).sum::<u64>() == self.size;
        if whole { Ok(pieces) } else { Err(Failure::ManifestMismatch) }
    }
}

impl Part {
    fn is(&self, part: &UploadedPart) -> bool {
        self.size == part.size && self.sha256.eq_ignore_ascii_case(&part.sha256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(size: u64, part_size: Option<u64>, sha256: Option<&str>) -> Result<Upload, Failure> {
        let what = ("text/plain".to_owned(), size);
        Upload::new(Uuid::nil(), Moment::default(), what, sha256.map(str::to_owned), part_size)
    }

    fn part(part_number: u32, size: u64) -> UploadedPart {
        UploadedPart { part_number, sha256: format!("{part_number:064x}"), size }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for (size, part_size, failure) in [
            (1, Some(0), Failure::OverCap),
            (1, Some(LARGEST_PART + 1), Failure::OverCap),
            (BUDGET + 1, None, Failure::OverPeerBudget),
        ] {
            assert_eq!(begin(size, part_size, None).unwrap_err(), failure);
        }
        for hash in ["", "zz", &"g".repeat(64)] {
            assert_eq!(begin(1, None, Some(hash)).unwrap_err(), Failure::FinalHashMismatch);
        }
        assert_eq!(begin(BUDGET, Some(LARGEST_PART), Some(&"A".repeat(64))).unwrap().part_size, LARGEST_PART);
        assert_eq!(begin(0, None, None).unwrap().pieces(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_completion_names_every_part_once_in_any_order() {
        let mut upload = begin(30, Some(20), None).unwrap();
        for (number, size, at) in [(7, 20, 0), (2, 10, 20)] {
            assert_eq!(upload.place(&part(number, size), size), Ok(Some(at)));
            upload.stage(at, part(number, size));
        }
        assert_eq!(upload.place(&part(7, 20), 20), Ok(None));
        assert_eq!(upload.place(&part(7, 19), 19), Err(Failure::DuplicatePartConflict));
        assert_eq!(upload.pieces(&[part(7, 20), part(2, 10)]), Ok(vec![(0, 20), (20, 10)]));
        assert_eq!(upload.pieces(&[part(2, 10), part(7, 20)]), Ok(vec![(20, 10), (0, 20)]));
        for wrong in
            [&[part(7, 20)][..], &[part(7, 20), part(7, 20)], &[part(7, 20), part(2, 10), part(3, 0)], &[]]
        {
            assert_eq!(upload.pieces(wrong), Err(Failure::ManifestMismatch));
        }
        let renamed = UploadedPart { sha256: "0".repeat(64), ..part(2, 10) };
        assert_eq!(upload.pieces(&[part(7, 20), renamed]), Err(Failure::ManifestMismatch));
        let longer = Upload { size: 31, ..upload };
        assert_eq!(longer.pieces(&[part(7, 20), part(2, 10)]), Err(Failure::ManifestMismatch));
    }

    #[test]
    fn what_is_staged_is_bounded() {
        let mut upload = begin(1, Some(LARGEST_PART), None).unwrap();
        for (size, body) in [(0, 0), (LARGEST_PART + 1, LARGEST_PART + 1), (5, 4)] {
            assert_eq!(upload.place(&part(1, size), body), Err(Failure::PartSizeMismatch));
        }
        for number in 0..8 {
            let at = upload.place(&part(number, LARGEST_PART), LARGEST_PART).unwrap().unwrap();
            upload.stage(at, part(number, LARGEST_PART));
        }
        assert_eq!(upload.place(&part(8, 1), 1), Err(Failure::OverPeerBudget));

        let mut upload = begin(1, None, None).unwrap();
        for number in 0..MOST_PARTS as u32 {
            let at = upload.place(&part(number, 1), 1).unwrap().unwrap();
            upload.stage(at, part(number, 1));
        }
        assert_eq!(upload.place(&part(u32::MAX, 1), 1), Err(Failure::OverPeerBudget));
    }
}
