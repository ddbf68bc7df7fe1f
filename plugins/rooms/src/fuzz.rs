//! The readers of files, for fuzzers.
//!
//! For: the crate `runtimed-fuzz`; a daemon is built without it.
//! Promises: each panics when a promise is broken, and never else.

#![allow(clippy::expect_used, reason = "that is how a fuzzer learns of it")]

use std::collections::BTreeMap;

use bytes::Bytes;
use runtimed_plugin_api::Digest;
use uuid::Uuid;

use crate::journal::entry::{CHANGES, HEARD, META};
use crate::journal::fold::compacted;
use crate::journal::format::header;
use crate::journal::{FileState, Folded, Heard, Meta, Record};
use crate::notebook_file::{Parsed, Template, parse, upgraded, write};

/// Reads a notebook file, writes it from nothing, reads that and writes it again: the same bytes. With the file as its
/// template it is written as it was.
pub fn notebook_file(bytes: &[u8]) {
    let Some(mut first) = read(bytes) else { return };
    if let Ok(written) = write(&first.notebook, None, &blobs(&first)) {
        let again = read(&written).expect("what was written can be read");
        first.blobs.extend(again.blobs);
        let again = write(&again.notebook, None, &blobs(&first)).ok();
        assert_eq!(again, Some(written), "what was written reads otherwise");
    }
    if let Ok(text) = upgraded(bytes)
        && let Ok(Some(template)) = Template::read(bytes, &text, Uuid::nil())
        && let Ok(Some(same)) = parse(&text, Uuid::nil(), &mut String::new)
        && let Ok(written) = write(&same.notebook, Some(&template), &blobs(&first))
    {
        assert_eq!(written, bytes, "an unchanged notebook was rewritten");
    }
}

fn blobs(parsed: &Parsed) -> impl Fn(&Digest) -> Option<Bytes> + use<> {
    let blobs: BTreeMap<Digest, Bytes> =
        parsed.blobs.iter().map(|blob| (blob.digest, blob.bytes.clone())).collect();
    move |digest| blobs.get(digest).cloned()
}

fn read(bytes: &[u8]) -> Option<Parsed> {
    let mut last = 0;
    let mut new_id = || {
        last += 1;
        format!("o{last}")
    };
    parse(bytes, Uuid::nil(), &mut new_id).ok().flatten()
}

/// Reads a journal; compacted it says the same. The bytes are taken as a whole journal, and as one entry of an intact
/// one: its kind, then its content.
pub fn journal(bytes: &[u8]) {
    read_journal(bytes);
    if let Some((&kind, content)) = bytes.split_first() {
        let mut record = Record::new();
        record.push(kind, &[content]);
        read_journal(&whole(record));
    }
}

/// A journal, and entries.
pub fn journal_seeds() -> Vec<Vec<u8>> {
    let mut record = Record::new();
    record.meta(&Meta::default());
    record.file(&FileState::default());
    let meta = serde_json::to_vec(&Meta::default()).unwrap_or_default();
    let heard = serde_json::to_vec(&Heard::default()).unwrap_or_default();
    vec![whole(record), [&[META][..], &meta].concat(), [&[HEARD][..], &heard].concat(), vec![CHANGES, 0, 1]]
}

fn whole(record: Record) -> Vec<u8> {
    let record = record.finish().unwrap_or_default();
    [&header(Uuid::nil())[..], &record].concat()
}

fn read_journal(bytes: &[u8]) {
    let Ok(folded) = Folded::read(bytes) else { return };
    assert!(folded.intact <= bytes.len() && folded.snapshot <= folded.intact, "an end behind the end");
    if let Some(compacted) = compacted(bytes) {
        let again = Folded::read(&compacted).map(|again| (again.room, again.template));
        assert_eq!(again.ok(), Some((folded.room, folded.template)), "compacting changed what it says");
    }
}
