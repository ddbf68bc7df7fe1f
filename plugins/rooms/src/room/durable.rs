//! What of the room is in its journal, and what is not yet.
//!
//! For: nobody hears of anything before it is in the journal.
//! Promises: whatever an event changed is in one record, in front of the event's other effects; what a
//! failed append left out is in the next one; its cost does not grow with the history.
//! Never: writes. The shell does, and says when it could not.

use std::time::Duration;

use bytes::Bytes;
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::session_control::InitialLoad;

use super::core::{RoomCore, kept};
use super::event::Effect;
use super::moment::Moment;
use super::save::Stamp;
use super::sync::Stream;
use crate::ids::LaunchId;
use crate::journal::{Heard, Meta, Record};

/// A failed append is tried again after this long; then after twice as long each time, up to [`SLOWEST`].
/// Soon enough for a disk that was full for a moment to go unnoticed.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Longest time between two tries: what the user freed is used before they wonder.
const SLOWEST: Duration = Duration::from_secs(30);

/// Value of `source_issue_kind` while edits are in memory only, or something of the notebook was lost.
pub(super) const DEGRADED: &str = "degraded";

/// How far the journal is.
pub(super) struct Durable {
    /// A room that keeps nothing has no journal.
    enabled: bool,
    meta: Meta,
    /// What is in the journal, if the last append did not fail.
    held: Held,
    /// What was in it before that.
    before: Held,
    /// What the notebook's file holds, packed, while it is not in the journal.
    template: Option<Bytes>,
    /// The one in the last record.
    last_template: Option<Bytes>,
    trouble: Option<Trouble>,
}

#[derive(Clone, Default)]
struct Held {
    heads: [Vec<ChangeHash>; 4],
    meta: bool,
    file: Option<Stamp>,
    /// The kernel it names, if any; none if that is not known.
    kernel: Option<Option<LaunchId>>,
    heard: Heard,
}

struct Trouble {
    /// What the system says.
    reason: String,
    /// For the user.
    notice: String,
    /// How often appending, or flushing what was appended, has failed in a row.
    failures: u32,
    /// A flush failed, so that only a flush shows that it is over.
    lost: bool,
    stage: Stage,
}

enum Stage {
    /// Nothing is appended before this.
    Waiting(Moment),
    /// A record is on its way; if the next event is no failure, it arrived.
    Trying,
    /// It arrived, with all that follows, and waits to be flushed.
    Unflushed,
}

impl Durable {
    /// For a room whose journal holds nothing, or that keeps none.
    pub(super) fn new(enabled: bool, meta: Meta) -> Self {
        Self {
            enabled,
            meta,
            held: Held::default(),
            before: Held::default(),
            template: None,
            last_template: None,
            trouble: None,
        }
    }

    /// The journal holds the documents up to these heads.
    pub(super) fn resume(
        &mut self,
        heads: [Vec<ChangeHash>; 4],
        file: Stamp,
        kernel: Option<LaunchId>,
        heard: Heard,
    ) {
        self.held = Held { heads, meta: true, file: Some(file), kernel: Some(kernel), heard };
    }

    /// The journal does not know the notebook's file.
    pub(super) fn rename(&mut self) {
        self.held.meta = false;
    }

    /// The journal does not know the kernel's environment as it is now.
    pub(super) fn environment_changed(&mut self) {
        self.held.kernel = None;
    }

    /// The notebook's file holds something else now.
    pub(super) fn set_template(&mut self, template: Option<Bytes>) {
        self.template = template.or(self.template.take());
    }

    /// When an append that failed is tried again.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match self.trouble.as_ref()?.stage {
            Stage::Waiting(next) => Some(next),
            Stage::Trying => Some(Moment::default()),
            Stage::Unflushed => None,
        }
    }

    /// What stood in the way is gone.
    pub(super) fn try_now(&mut self) {
        if let Some(Trouble { stage: Stage::Waiting(next), .. }) = &mut self.trouble {
            *next = Moment::default();
        }
    }

    /// Whether [`super::event::Event::Flushed`] would be news.
    pub(super) fn awaits_flush(&self) -> bool {
        matches!(self.trouble, Some(Trouble { stage: Stage::Unflushed, .. }))
    }

    /// Whether everything is in the journal and stays there, as far as is known.
    pub(super) fn is_sound(&self) -> bool {
        self.enabled && self.trouble.is_none()
    }

    /// Whether the next daemon finds everything in the journal, unless the machine ends before that.
    pub(super) fn is_written(&self) -> bool {
        self.is_sound() || self.enabled && self.awaits_flush()
    }

    /// Kind and reason of what is wrong, for the file checkpoint; empty if nothing is.
    pub(super) fn issue(&self) -> (String, String) {
        match &self.trouble {
            Some(trouble) => (DEGRADED.to_owned(), trouble.notice.clone()),
            None => Default::default(),
        }
    }
}

impl RoomCore {
    /// Whether anything is kept of this room.
    pub(crate) fn has_journal(&self) -> bool {
        self.durable.enabled
    }

    /// Puts what changed in front of the effects of the event: the end of every event.
    pub(super) fn journal(&mut self) {
        self.note_what_is_shown();
        if !self.durable.enabled {
            return self.acknowledge();
        }
        let waits = |it: &Trouble| match it.stage {
            Stage::Waiting(next) => next > self.now,
            Stage::Trying => true,
            Stage::Unflushed => false,
        };
        if self.load != InitialLoad::NotNeeded || self.durable.trouble.as_ref().is_some_and(waits) {
            return;
        }
        let mut record = Record::new();
        let held = &self.durable.held;
        let renamed = !held.meta;
        if renamed {
            record.meta(&self.durable.meta);
        }
        for stream in Stream::ALL {
            self.documents.record(stream, &held.heads[stream as usize], &mut record);
        }
        let stamp = self.saving.stamp();
        if held.file != Some(stamp) {
            record.file(&self.saving.file_state());
        }
        if let Some(template) = &self.durable.template {
            record.template(template);
        }
        let (kernel, shown) = (self.kernel.live(), self.hearing.shown().clone());
        let other_kernel = held.kernel != Some(kernel);
        if other_kernel {
            record.kernel(self.kept_kernel().as_ref());
        }
        let news = shown != held.heard && (!record.is_empty() || self.hearing.is_far_from(&held.heard));
        let heard = kernel.filter(|_| other_kernel || news).map(|launch| {
            record.heard(&shown);
            (launch, shown.sequence)
        });
        if record.is_empty() {
            return;
        }
        let heads = self.documents.published().clone();
        let heard_now = if heard.is_some() { shown } else { held.heard.clone() };
        let now = Held { heads, meta: true, file: Some(stamp), kernel: Some(kernel), heard: heard_now };
        let durable = &mut self.durable;
        durable.before = std::mem::replace(&mut durable.held, now);
        durable.last_template = durable.template.take();
        if let Some(Trouble { stage: stage @ Stage::Waiting(_), .. }) = &mut durable.trouble {
            *stage = Stage::Trying;
        }
        let path = renamed.then(|| durable.meta.path.clone());
        self.effects.insert(0, Effect::Journal { record, path, heard });
        if let Some(launch) = kernel.filter(|_| other_kernel) {
            // The journal names it now, so that it may outlive the daemon from before anybody hears of it.
            self.effects.insert(1, Effect::Acknowledge { launch, upto: 0 });
        }
    }

    /// Why edits would be lost if the daemon ended now: the journal lacks them, and the file does, if there is one.
    pub(super) fn at_risk(&self) -> Option<&str> {
        let trouble = self.durable.trouble.as_ref().filter(|_| !self.durable.awaits_flush())?;
        let in_file = self.saving.path().is_some() && !self.saving.has_unsaved();
        (!in_file).then_some(&trouble.reason)
    }

    /// Lets the kernel forget what nobody will ask for: nothing is kept of this room.
    fn acknowledge(&mut self) {
        let upto = self.hearing.shown().sequence;
        if let Some(launch) = self.kernel.live()
            && upto != self.durable.held.heard.sequence
        {
            self.durable.held.heard.sequence = upto;
            self.effects.push(Effect::Acknowledge { launch, upto });
        }
    }

    /// The last record did not reach the journal, for this reason. With `lost`, nothing that was appended
    /// lately can be relied on either.
    pub(super) fn journal_failed(&mut self, reason: &str, lost: bool) {
        let durable = &mut self.durable;
        durable.held = if lost { Held::default() } else { durable.before.clone() };
        if let Some(template) = durable.last_template.take() {
            durable.template.get_or_insert(template);
        }
        let (failures, lost) =
            durable.trouble.as_ref().map_or((0, lost), |trouble| (trouble.failures, lost || trouble.lost));
        let wait = FIRST_RETRY.saturating_mul(2u32.saturating_pow(failures)).min(SLOWEST);
        if std::mem::take(&mut self.detaches) {
            // The next daemon would not know of it.
            self.give_up_kernel();
        }
        let durable = &mut self.durable;
        let notice = format!(
            "The journal of this notebook cannot be written: {reason}.\n\
             Kept: every edit is in the open notebook, but would be lost if the daemon ended now.\n\
             Next: make room, or save the notebook; the journal is tried again by itself."
        );
        let (stage, failures) = (Stage::Waiting(self.now + wait), failures + 1);
        let reason = reason.to_owned();
        durable.trouble = Some(Trouble { reason, notice: notice.clone(), failures, lost, stage });
        let mut checkpoint = self.documents.runtime.file_checkpoint();
        (checkpoint.source_issue_kind, checkpoint.source_issue_reason) = (DEGRADED.to_owned(), notice);
        kept(self.documents.runtime.set_file_checkpoint(&checkpoint));
    }

    /// The record that was tried again arrived.
    pub(super) fn journal_arrived(&mut self) {
        match &mut self.durable.trouble {
            Some(Trouble { stage: stage @ Stage::Trying, lost: true, .. }) => *stage = Stage::Unflushed,
            Some(Trouble { stage: Stage::Trying, .. }) => self.journal_is_well(),
            _ => {}
        }
    }

    /// What was appended was flushed.
    pub(super) fn journal_flushed(&mut self) {
        if self.durable.awaits_flush() {
            self.journal_is_well();
        }
    }

    fn journal_is_well(&mut self) {
        if self.durable.trouble.take().is_some() {
            tracing::info!(room = %self.id, "the journal is written again");
            let mut checkpoint = self.documents.runtime.file_checkpoint();
            (checkpoint.source_issue_kind, checkpoint.source_issue_reason) = Default::default();
            kept(self.documents.runtime.set_file_checkpoint(&checkpoint));
        }
    }

    /// The notebook has another file now.
    pub(super) fn journal_moves(&mut self) {
        let path = self.saving.path();
        if self.durable.meta.path.as_deref() != path {
            self.durable.meta.path = path.map(ToOwned::to_owned);
            self.durable.rename();
            self.declarations.touched(self.now);
        }
    }
}
