//! The room's journal, as far as it touches the disk.
//!
//! For: the [shell](super), which appends in front of every other effect, and flushes in the background.
//! Promises: what could not be appended is the core's next event; what was is flushed, blobs first, at most
//! [`FLUSH`] later.

use std::io;
use std::path::PathBuf;

use tokio::sync::oneshot;
use tokio::time::Instant;

use runtimed_plugin_api::Sequence;

use super::{Done, FLUSH, RoomTask};
use crate::ids::LaunchId;
use crate::journal::file::{Compacted, flush};
use crate::journal::{JournalFile, Record};
use crate::room::event::Event;

impl RoomTask {
    /// Appends a record before anything else of the event is carried out.
    /// What a kernel may forget then is told to it with the next flush.
    pub(super) fn append(
        &mut self,
        record: Record,
        path: Option<Option<PathBuf>>,
        heard: Option<(LaunchId, Sequence)>,
    ) {
        let appended = match self.refused() {
            // What it names must be there.
            Some(reason) => Err(reason),
            None => self.try_append(record).map_err(|error| error.to_string()),
        };
        if let Err(reason) = appended {
            tracing::warn!(reason, room = %self.author.room, "a journal could not be written");
            // Before anything else: the next record must hold what this one did.
            return self.next.push_front(Event::JournalFailed { reason, lost: false });
        }
        self.unflushed = heard.or(self.unflushed);
        self.flush_at.get_or_insert_with(|| Instant::now() + FLUSH);
        if let Some(path) = path {
            self.name_journal(path);
        }
        if let Some(compaction) = self.journal.as_mut().and_then(JournalFile::compaction) {
            self.jobs.spawn_blocking(|| Done::Compacted(compaction.run()));
        }
    }

    fn try_append(&mut self, record: Record) -> io::Result<()> {
        let record = record.finish().ok_or(io::ErrorKind::FileTooLarge)?;
        let journal = match &mut self.journal {
            Some(journal) => journal,
            none => {
                let journals = &self.directory.journals;
                journals.make()?;
                let path = journals.path(self.author.room, self.path.as_deref());
                none.insert(JournalFile::create(path, self.author.room)?)
            }
        };
        journal.append(&record)
    }

    /// The daemon may have been killed between a save under another name and the new name of the journal.
    pub(super) fn mend_name(&mut self) {
        let name = self.directory.journals.path(self.author.room, self.path.as_deref());
        if self.journal.as_ref().is_some_and(|journal| journal.path() != name) {
            self.name_journal(self.path.clone());
        }
    }

    /// The notebook has another file: its journal is found by that from now on.
    fn name_journal(&mut self, path: Option<PathBuf>) {
        let journals = &self.directory.journals;
        if let Some(journal) = &mut self.journal
            && let Err(error) = journals
                .make_way(path.as_deref(), self.author.room)
                .and_then(|()| journal.rename(journals.path(self.author.room, path.as_deref())))
        {
            tracing::warn!(%error, room = %self.author.room, "a journal keeps the name of the notebook's former file");
        }
        self.path = path;
    }

    /// Puts a shorter journal in place of a long one.
    pub(super) fn replace_journal(&mut self, compacted: Option<Compacted>) {
        match self.journal.as_mut().map(|journal| journal.join(compacted)) {
            Some(Ok(Some(replacement))) => {
                self.jobs.spawn_blocking(|| Done::Replaced(replacement.run()));
            }
            Some(Err(error)) => {
                tracing::warn!(%error, room = %self.author.room, "a journal could not be shortened");
            }
            _ => {}
        }
    }

    /// Makes what was appended survive a power cut, in the background. The receiver ends when that is done.
    pub(super) fn flush(&mut self) -> oneshot::Receiver<()> {
        self.flush_at = None;
        let (doing, done) = oneshot::channel();
        let heard = self.unflushed.take();
        let files = self.journal.as_mut().map(JournalFile::take_unflushed).unwrap_or_default();
        if !files.is_empty() {
            let blobs = self.host.blob_store();
            self.jobs.spawn(async move {
                // First what the documents refer to.
                let stored = match blobs {
                    Some(blobs) => blobs.flush().await.map_err(|error| io::Error::other(error.message)),
                    None => Ok(()),
                };
                // Also without that: these files are not asked to be flushed again.
                let flushed = tokio::task::spawn_blocking(move || flush(&files)).await;
                let flushed = flushed.unwrap_or_else(|error| Err(io::Error::other(error)));
                drop(doing);
                Done::Flushed(stored.and(flushed), heard)
            });
        }
        done
    }
}
