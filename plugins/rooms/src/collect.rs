//! Deleting the blobs that nothing refers to any more.
//!
//! For: outputs that were shown once and replaced, of notebooks and records that are gone.
//! Promises: a blob goes only after every notebook that is kept, open or not, damaged or not, and every record of an
//! execution was read, none of them names it, and none did for long. If one of them cannot be read nothing goes, and
//! the log names it.
//! Never: understands what it reads: whatever looks like a blob's name keeps the blob.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use runtimed_plugin_api::{Digest, Host, LiveSet};
use runtimed_protocol::documents::automerge::{ChangeHash, ROOT};
use runtimed_protocol::documents::{Document, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::directory::Directory;
use crate::journal::folder::is_older;
use crate::journal::format::Stop;
use crate::journal::{Folded, JournalFolder};
use crate::records::RecordStore;
use crate::reopen::documents;
use crate::room::revive::Actors;
use crate::room::sync::Documents;
use crate::room::task::Message;

/// Time between two rounds, and how long a blob that nothing refers to stays, in seconds: half an hour and 30 days.
/// Source: what clients of the reference daemon know. Settings `blobs.collect_every_secs`, `blobs.keep_unused_secs`.
const EVERY: u64 = 30 * 60;
const KEPT: u64 = 30 * 24 * 60 * 60;
/// Shortest time that an unneeded blob stays: an hour. What is stored and about to be named is told by its age alone.
const SHORTEST: u64 = 60 * 60;
/// Until the first round, at least: starting is busy enough.
const FIRST: Duration = Duration::from_secs(60);
/// Hex digits of a blob's name.
const NAME: usize = 64;

/// What each journal named when it was last read.
type Known = BTreeMap<PathBuf, (SystemTime, u64, BTreeSet<Digest>)>;

/// Deletes what is not needed, again and again, for as long as the rooms are there. They own this work, and it does not
/// own them.
pub(crate) async fn collect(rooms: Weak<Directory>, every: Duration) {
    let mut known = Known::new();
    let mut pause = FIRST.min(every);
    loop {
        tokio::time::sleep(pause).await;
        pause = every;
        let Some(directory) = rooms.upgrade() else { return };
        let Some(blobs) = directory.host.blob_store() else { continue };
        let live;
        (known, live) = look(&directory, known).await;
        let digests = match live {
            Ok(live) => live,
            Err(why) => {
                tracing::warn!("no blob is deleted, because not all that may need one can be read: {why}");
                continue;
            }
        };
        let grace_secs = setting(&directory.host, "keep_unused_secs", KEPT).max(SHORTEST);
        match blobs.sweep(LiveSet { digests, grace_secs }).await {
            Ok(swept) if swept.deleted > 0 => tracing::info!(
                deleted = swept.deleted,
                bytes = swept.bytes,
                kept = swept.kept,
                "blobs that nothing has referred to for long are deleted"
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "blobs that nothing refers to could not be deleted"),
        }
    }
}

/// Time between two rounds.
pub(crate) fn interval(host: &Host) -> Duration {
    Duration::from_secs(setting(host, "collect_every_secs", EVERY).max(1))
}

/// Every blob that is needed, or what stands in the way of knowing.
async fn look(directory: &Arc<Directory>, mut known: Known) -> (Known, Result<BTreeSet<Digest>, String>) {
    let (mut live, mut open) = (BTreeSet::new(), BTreeSet::new());
    for (room, inbox) in directory.open_rooms() {
        let (reply, named) = oneshot::channel();
        // One that ends meanwhile has a journal, or needs nothing any more.
        if inbox.send(Message::Blobs(reply)).is_ok()
            && let Ok(named) = named.await
        {
            live.extend::<BTreeSet<Digest>>(named);
            open.insert(room);
        }
    }
    let (journals, records) = (directory.journals.clone(), RecordStore::of(&directory.host));
    let reading = tokio::task::spawn_blocking(move || {
        // A journal may go, or get another name, between being listed and being read: the second look tells.
        let kept = in_journals(&journals, &open, &mut known);
        let kept = kept.or_else(|_| in_journals(&journals, &open, &mut known));
        let recorded = kept.and_then(|kept| Ok((kept, in_records(&records)?)));
        (known, recorded)
    });
    match reading.await {
        Ok((known, Ok((kept, recorded)))) => {
            live.extend(kept.into_iter().chain(recorded));
            (known, Ok(live))
        }
        Ok((known, Err(why))) => (known, Err(why)),
        Err(error) => (Known::new(), Err(error.to_string())),
    }
}

/// What rooms name that are not in memory, and journals that belong to none.
fn in_journals(
    folder: &JournalFolder,
    open: &BTreeSet<Uuid>,
    known: &mut Known,
) -> Result<BTreeSet<Digest>, String> {
    let all = folder.all().map_err(|error| error.to_string())?;
    let closed = all.into_iter().filter(|journal| !open.contains(&journal.room)).map(|journal| journal.path);
    let unlisted = |error: io::Error| error.to_string();
    let paths = closed.chain(folder.left_behind().map_err(unlisted)?).map(|path| (path, false));
    let damaged = folder.quarantined().map_err(unlisted)?.into_iter().map(|path| (path, true));
    let paths: Vec<_> = paths.chain(damaged).collect();
    let mut before = std::mem::take(known);
    for (path, damaged) in paths {
        let unreadable = |error: io::Error| format!("`{}`: {error}", path.display());
        let metadata = fs::metadata(&path).map_err(unreadable)?;
        let (written, length) = (metadata.modified().map_err(unreadable)?, metadata.len());
        let named = match before.remove(&path) {
            Some((when, bytes, named)) if (when, bytes) == (written, length) => named,
            // Damage keeps everything for a while, and then what can be read.
            _ => match in_journal(&path) {
                Ok(found) if found.whole || damaged && is_older(&path, Duration::from_secs(KEPT)) => {
                    found.named
                }
                Err(_) if damaged && is_older(&path, Duration::from_secs(KEPT)) => BTreeSet::new(),
                Ok(_) => return Err(format!("`{}` is damaged", path.display())),
                Err(why) => return Err(format!("`{}`: {why}", path.display())),
            },
        };
        known.insert(path, (written, length, named));
    }
    Ok(known.values().flat_map(|(_, _, named)| named).copied().collect())
}

/// What a journal names, as far as it can be read.
struct Found {
    named: BTreeSet<Digest>,
    /// Whether that is everything.
    whole: bool,
}

fn in_journal(path: &Path) -> Result<Found, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let folded = Folded::read(&bytes).map_err(|error| error.to_string())?;
    drop(bytes);
    let (mut documents, all) =
        documents(&folded, &Actors::of("collect")).ok_or("the notebook in it is damaged")?;
    Ok(Found { named: Named::default().of(&mut documents), whole: all && folded.stop != Stop::Corrupt })
}

/// What a room's documents name, by their heads when that was read last: most notebooks that are open do not change between
/// two rounds.
#[derive(Default)]
pub(crate) struct Named([(Vec<ChangeHash>, BTreeSet<Digest>); 4]);

impl Named {
    /// Everything in the documents that looks like a blob's name. Costs what the documents that changed are large.
    pub(crate) fn of(&mut self, documents: &mut Documents) -> BTreeSet<Digest> {
        let heads = documents.heads();
        let Documents { notebook, runtime, comms, comments, .. } = documents;
        let all = [notebook.automerge(), runtime.automerge(), comms.automerge(), comments.automerge()];
        for ((known, heads), document) in self.0.iter_mut().zip(heads).zip(all) {
            if known.0 != heads {
                *known = (heads, named_in(&json::read(document, &ROOT).to_string()));
            }
        }
        self.0.iter().flat_map(|(_, named)| named).copied().collect()
    }
}

/// What executions showed whose record is young enough; older records are removed.
fn in_records(records: &RecordStore) -> Result<BTreeSet<Digest>, String> {
    let mut named = BTreeSet::new();
    for record in records.files().map_err(|error| error.to_string())? {
        let unreadable = |error: io::Error| format!("`{}`: {error}", record.display());
        match fs::metadata(&record).and_then(|file| file.modified()) {
            Ok(written) if written.elapsed().unwrap_or_default() > Duration::from_secs(KEPT) => {
                fs::remove_file(&record).map_err(unreadable)?;
            }
            Ok(_) => match fs::read(&record) {
                // What a killed daemon did not finish may end within a letter.
                Ok(bytes) => named.extend(named_in(&String::from_utf8_lossy(&bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(error)),
            },
            // Replaced by another name: it was being written.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(named)
}

/// Every run of 64 lower-case hex digits.
fn named_in(text: &str) -> BTreeSet<Digest> {
    let runs = text.split(|it: char| !matches!(it, '0'..='9' | 'a'..='f'));
    runs.filter(|run| run.len() == NAME).filter_map(|run| run.parse().ok()).collect()
}

fn setting(host: &Host, name: &str, default: u64) -> u64 {
    let settings = host.settings().values;
    settings.pointer(&format!("/blobs/{name}")).and_then(|value| value.as_u64()).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use runtimed_protocol::documents::notebook::{NewCell, Place};
    use runtimed_protocol::documents::{CommentsDoc, CommsDoc, NotebookDoc, RuntimeStateDoc};

    use super::*;

    #[test]
    fn whatever_looks_like_a_name_is_one() {
        let (a, b) = ("a".repeat(64), "0123456789abcdef".repeat(4));
        let text = format!(
            r#"{{"blob":"{a}","x":"see /blob/{b}?","short":"{}","long":"{}"}}"#,
            &a[1..],
            a.clone() + "a"
        );
        let found: Vec<_> = named_in(&text).iter().map(ToString::to_string).collect();
        assert_eq!(found, [b, a]);
    }

    #[test]
    fn what_a_document_names_is_read_again_when_it_changed() {
        let (first, second) = ("a".repeat(64), "b".repeat(64));
        let actors = Actors::of("test");
        let mut documents = Documents::new(
            NotebookDoc::genesis(&actors.notebook).unwrap(),
            RuntimeStateDoc::new(&actors.runtime).unwrap(),
            CommsDoc::new(&actors.comms).unwrap(),
            CommentsDoc::new("id", &serde_json::json!({}), &actors.comments).unwrap(),
        );
        let mut named = Named::default();
        assert!(named.of(&mut documents).is_empty());
        for (place, digest) in [&first, &second].into_iter().enumerate() {
            let cell = NewCell { id: digest.clone(), cell_type: "raw".to_owned(), ..NewCell::default() };
            documents.notebook.insert_cell(Place::End, &cell).unwrap();
            assert_eq!(named.of(&mut documents).len(), place + 1);
        }
        assert_eq!(named.of(&mut documents), named_in(&format!("{first} {second}")));
    }
}
