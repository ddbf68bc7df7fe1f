//! How much of what the kernel said is in the documents.
//!
//! For: a kernel that outlives the daemon, and is asked by the next one for everything since.
//! Promises: what is said to be heard is in the documents, with the change it caused in the same record of the
//! journal; a kernel forgets a message only after that is flushed.

use runtimed_plugin_api::Sequence;

use super::core::RoomCore;
use super::kernel::Environment;
use crate::ids::LaunchId;
use crate::journal::{Executing, Heard, KeptKernel};

/// Messages without a change to be written with that a kernel keeps at most. A thousand of them are what a kernel
/// holds in memory anyway; a record for each would be what a plain cell costs.
const MOST_BEHIND: Sequence = 1_000;

/// What was heard of the kernel that is up.
#[derive(Default)]
pub(super) struct Hearing {
    /// The last message that was handled.
    last: Sequence,
    /// What is in the documents.
    shown: Heard,
}

impl Hearing {
    /// Of a kernel that goes on where the documents are.
    pub(super) fn resume(heard: Heard) -> Self {
        Self { last: heard.sequence, shown: heard }
    }

    /// Everything up to this message was handled.
    pub(super) fn heard(&mut self, upto: Sequence) {
        self.last = self.last.max(upto);
    }

    /// What is in the documents.
    pub(super) fn shown(&self) -> &Heard {
        &self.shown
    }

    /// The last message that was handled.
    pub(super) fn last(&self) -> Sequence {
        self.last
    }

    /// The documents show everything that was heard up to `mark`.
    pub(super) fn show(&mut self, mark: Heard) {
        self.shown = mark;
    }

    /// The kernel gets this to do; whatever it still says about others comes on top.
    pub(super) fn begin(&mut self, execution: &str) {
        self.shown.executing = Some(Executing { execution: execution.to_owned(), ..Executing::default() });
    }

    /// Whether what is shown should be written even if nothing else is.
    pub(super) fn is_far_from(&self, held: &Heard) -> bool {
        self.shown.sequence.saturating_sub(held.sequence) > MOST_BEHIND
    }
}

impl RoomCore {
    /// Where the room is in what the kernel says, as soon as everything collected so far is shown.
    pub(super) fn mark(&self) -> Heard {
        let executing = self.queue.in_kernel().map(|mut executing| {
            let collector = self.publication.collectors.get(executing.execution.as_str());
            executing.clears = collector.is_some_and(|collector| collector.clears_next());
            executing
        });
        Heard { sequence: self.hearing.last, executing, edited: Vec::new() }
    }

    /// Takes note that nothing is waiting to be shown, if so, and of what the kernel has not taken.
    pub(super) fn note_what_is_shown(&mut self) {
        if self.publication.is_settled() && !self.publication.is_collecting() {
            let mark = self.mark();
            self.hearing.show(mark);
        }
        self.hearing.shown.edited = self.edited_since(self.hearing.shown.sequence);
    }

    /// The kernel that is up, as the next daemon has to know it.
    pub(super) fn kept_kernel(&self) -> Option<KeptKernel> {
        let LaunchId(kernel) = self.kernel.live()?;
        let environment = self.kernel.environment.as_ref();
        Some(KeptKernel {
            kernel,
            kind: self.kernel.kind()?.to_owned(),
            deno: self.kernel.deno().cloned().unwrap_or_default(),
            environment: environment.map(|Environment { need, lease }| (need.clone(), lease.clone())),
        })
    }
}
