//! From what a kernel says to what clients see.
//!
//! For: turning bursts of kernel messages into few changes of the runtime state document.
//! Promises: a blob is stored before a change names it; outputs come before the end of their execution, in
//! the same change; while one batch waits for its blobs, everything after it collects in the next.
//! Never: holds more than a bounded number of bytes that are not stored yet; says when it would.

use std::collections::BTreeMap;
use std::time::Duration;

use runtimed_protocol::documents::Output;
use runtimed_protocol::documents::runtime_state::KernelState;

use super::moment::Moment;
use super::queue::Ended;
use super::widgets::{Captures, WidgetChanges};
use crate::ids::{ExecutionId, JobId};
use crate::journal::Heard;
use crate::outputs::{Collector, DisplayUpdate, NewBlob, OutputChange};

/// What comes in after a publication, or after the start of an execution, is published this much later,
/// together. Short enough for a progress bar to move, long enough for 200,000 printed lines to be a few
/// changes, and for a quick cell to be one: the Python client reads everything again at each change.
pub(super) const COALESCE: Duration = Duration::from_millis(50);

/// And this much later for each output that is shown already: at each change clients read all of them again, the Python
/// client at 0.2 ms each, and could not follow. 10,000 outputs are some twenty changes instead of a hundred.
const PER_OUTPUT: Duration = Duration::from_micros(100);

/// But never later than this, so that something always moves.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// With so many bytes collected, the room listens to its kernel no more until they are on their way to the blob
/// store: a few large images. Together with what is being stored it bounds the memory that a flood takes.
const MOST_WAITING: usize = 32 << 20;

/// Outputs on their way into the document.
#[derive(Default)]
pub(crate) struct Publication {
    /// The outputs of executions the kernel speaks of, while they come in.
    pub(super) collectors: BTreeMap<ExecutionId, Collector>,
    /// The outputs that widgets show, while they come in.
    pub(super) captures: Captures,
    /// What the next batch will hold beside outputs.
    pub(super) next: Batch,
    /// The batch whose blobs are being stored.
    pub(super) storing: Option<(JobId, Batch)>,
    /// When the last batch was made, or the execution began.
    pub(super) published: Option<Moment>,
}

/// What goes into one change.
#[derive(Default)]
pub(crate) struct Batch {
    pub(super) updates: Vec<DisplayUpdate>,
    pub(super) counts: Vec<(ExecutionId, i64)>,
    pub(super) outputs: Vec<(ExecutionId, OutputChange)>,
    pub(super) ended: Vec<Ended>,
    pub(super) widgets: WidgetChanges,
    /// Outputs of widgets.
    pub(super) captured: Vec<(String, OutputChange)>,
    /// Where the kernel is after all this.
    pub(super) kernel: Option<KernelState>,
    /// How much of what the kernel said is shown with it.
    pub(super) mark: Heard,
}

impl Publication {
    /// Whether everything the kernel said is in the document.
    pub(super) fn is_settled(&self) -> bool {
        self.storing.is_none() && self.next.is_empty()
    }

    /// Whether everything is in the document that the kernel said of executions. Widgets that move all the time
    /// hold none back.
    pub(super) fn may_go_on(&self) -> bool {
        self.next.concerns_no_execution()
            && self.storing.as_ref().is_none_or(|(_, batch)| batch.concerns_no_execution())
    }

    /// The widgets are gone, and with them what happened to them.
    pub(super) fn forget_widgets(&mut self) {
        self.captures = Captures::default();
        self.next.widgets = WidgetChanges::default();
        if let Some((_, batch)) = &mut self.storing {
            batch.widgets = WidgetChanges::default();
        }
    }

    /// Whether outputs have come that no batch holds yet.
    pub(super) fn is_collecting(&self) -> bool {
        self.collectors.values().any(Collector::is_dirty) || self.captures.is_dirty()
    }

    /// Whether executions have ended whose end is not in the document yet.
    pub(super) fn has_ends(&self) -> bool {
        self.storing.is_some() || !self.next.ended.is_empty()
    }

    /// Whether so much is collected that nothing more should come before it is published.
    pub(super) fn is_full(&self) -> bool {
        let collectors = self.collectors.values().map(Collector::waiting_bytes);
        collectors.sum::<usize>() + self.captures.waiting_bytes() >= MOST_WAITING
    }

    /// When what has been collected must be published.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let waits = !self.next.is_empty() || self.is_collecting();
        let at = self.published.map_or(Moment::default(), |at| at + self.pause());
        (waits && self.storing.is_none()).then_some(at)
    }

    /// Between two publications.
    fn pause(&self) -> Duration {
        let shown: usize = self.collectors.values().map(Collector::shown).sum();
        let more = PER_OUTPUT.saturating_mul(u32::try_from(shown).unwrap_or(u32::MAX));
        COALESCE.saturating_add(more).min(LONGEST_PAUSE)
    }

    /// Whether a batch must be made now.
    pub(super) fn is_due(&self, now: Moment) -> bool {
        let urgent = self.storing.is_none() && (self.next.is_urgent() || self.is_full());
        urgent || self.deadline().is_some_and(|at| at <= now)
    }

    /// Makes a batch of everything there is, and names the blobs that must be stored before it.
    pub(super) fn make_batch(
        &mut self,
        now: Moment,
        new_id: &mut dyn FnMut() -> String,
    ) -> (Batch, Vec<NewBlob>) {
        self.published = Some(now);
        let mut batch = std::mem::take(&mut self.next);
        let mut blobs: Vec<NewBlob> =
            batch.updates.iter_mut().flat_map(|update| std::mem::take(&mut update.blobs)).collect();
        blobs.extend(batch.widgets.take_blobs());
        batch.captured = self.captures.drain(new_id, &mut blobs);
        for (id, collector) in &mut self.collectors {
            if batch.ended.iter().any(|(ended, _)| ended == id) {
                collector.finish(new_id);
            }
            if collector.is_dirty() {
                let drained = collector.drain(new_id);
                blobs.extend(drained.blobs);
                batch.outputs.extend(drained.changes.into_iter().map(|change| (id.clone(), change)));
            }
        }
        (batch, blobs)
    }
}

impl Batch {
    /// Adds an update, in place of an earlier one of the same displays: nobody needs to see both.
    pub(super) fn update(&mut self, update: DisplayUpdate) {
        match self.updates.iter_mut().find(|earlier| earlier.display_id == update.display_id) {
            Some(earlier) => *earlier = update,
            None => self.updates.push(update),
        }
    }

    fn is_empty(&self) -> bool {
        self.concerns_no_execution() && self.widgets.is_empty()
    }

    fn concerns_no_execution(&self) -> bool {
        self.updates.is_empty() && self.counts.is_empty() && self.outputs.is_empty() && !self.is_urgent()
    }

    /// Whether somebody waits for it: an execution has ended.
    fn is_urgent(&self) -> bool {
        !self.ended.is_empty() || self.kernel.is_some()
    }
}

/// A collector that goes on where the document stopped.
pub(super) fn resumed(outputs: Vec<runtimed_protocol::documents::runtime_state::OutputEntry>) -> Collector {
    let outputs: Vec<(u64, Output)> =
        outputs.iter().filter_map(|entry| Some((entry.seq, Output::from_json(&entry.manifest)?))).collect();
    Collector::resume(&outputs)
}
