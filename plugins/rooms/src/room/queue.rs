//! The execution queue.
//!
//! For: which execution runs next, and how each one ends.
//! Promises: every accepted execution ends exactly once; at most one is in the kernel; executions run in
//! the order of acceptance; the first failure and every interrupt cancel all that waits.
//! Never: touches a document, a kernel or a clock. It says what happened; the room does the rest.

use std::collections::VecDeque;

use runtimed_protocol::documents::runtime_state::Outcome;

use crate::ids::ExecutionId;
use crate::journal::Executing;

/// An execution that ended, and how.
pub(crate) type Ended = (ExecutionId, Outcome);

/// An accepted execution: what will run, as captured when it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) id: ExecutionId,
    pub(crate) cell: String,
    pub(crate) source: String,
}

/// Executions that have not ended, and the one whose messages the kernel still sends.
#[derive(Default)]
pub(crate) struct Queue {
    /// The request in the kernel. Blocks the next one until the kernel says it is idle again.
    in_kernel: Option<InKernel>,
    waiting: VecDeque<Queued>,
    /// Room-wide counter of accepted executions.
    accepted: u64,
}

struct InKernel {
    execution: Queued,
    /// An error output or an error reply was seen.
    failed: bool,
    /// Already reported as ended; only its `idle` and late outputs are still awaited.
    interrupted: bool,
    /// The kernel's `idle` for it was seen.
    idle: bool,
    /// The kernel's `execute_reply` for it was seen.
    replied: bool,
}

impl Queue {
    /// A queue that goes on counting after `accepted`, with what is in the kernel already and what waits.
    pub(crate) fn resume(
        accepted: u64,
        in_kernel: Option<(Queued, &Executing)>,
        waiting: impl IntoIterator<Item = Queued>,
    ) -> Self {
        let in_kernel = in_kernel.map(|(execution, heard)| {
            let Executing { failed, interrupted, idle, replied, .. } = *heard;
            InKernel { execution, failed, interrupted, idle, replied }
        });
        Self { in_kernel, waiting: waiting.into_iter().collect(), accepted }
    }

    /// What the kernel was asked last and is not done with.
    pub(crate) fn request(&self) -> Option<&Queued> {
        self.in_kernel.as_ref().map(|it| &it.execution)
    }

    /// What was heard of the execution in the kernel.
    pub(crate) fn in_kernel(&self) -> Option<Executing> {
        let InKernel { execution, failed, interrupted, idle, replied } = self.in_kernel.as_ref()?;
        let execution = execution.id.to_string();
        let (failed, interrupted, idle, replied) = (*failed, *interrupted, *idle, *replied);
        Some(Executing { execution, failed, interrupted, idle, replied, clears: false })
    }

    /// Takes an execution in.
    pub(crate) fn accept(&mut self, execution: Queued) {
        self.accepted += 1;
        self.waiting.push_back(execution);
    }

    /// How many executions were accepted so far: the number of the next one in the room.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The unfinished execution of `cell`, if it has one.
    pub(crate) fn active(&self, cell: &str) -> Option<&ExecutionId> {
        self.running().into_iter().chain(&self.waiting).find(|e| e.cell == cell).map(|e| &e.id)
    }

    /// The execution shown as running.
    pub(crate) fn executing(&self) -> Option<&ExecutionId> {
        self.running().map(|execution| &execution.id)
    }

    /// The executions shown as waiting, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &ExecutionId> {
        self.waiting.iter().map(|execution| &execution.id)
    }

    /// Whether nothing is in the kernel and nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.in_kernel.is_none() && self.waiting.is_empty()
    }

    /// Whether the kernel has a request of ours that it has not finished.
    pub(crate) fn kernel_is_busy(&self) -> bool {
        self.in_kernel.is_some()
    }

    /// Whether the kernel has said it is idle after `id`, but its reply is still missing.
    pub(crate) fn awaits_reply(&self) -> bool {
        self.in_kernel.as_ref().is_some_and(|it| it.idle && !it.replied)
    }

    /// Whether an execution waits that an idle kernel can have.
    pub(crate) fn has_next(&self) -> bool {
        self.in_kernel.is_none() && !self.waiting.is_empty()
    }

    /// The next execution to send to an idle kernel. It counts as running from now on.
    pub(crate) fn start_next(&mut self) -> Option<&Queued> {
        if self.in_kernel.is_some() {
            return None;
        }
        let execution = self.waiting.pop_front()?;
        let it = InKernel { execution, failed: false, interrupted: false, idle: false, replied: false };
        Some(&self.in_kernel.insert(it).execution)
    }

    /// The kernel reported an error of `id`.
    pub(crate) fn failed(&mut self, id: &str) {
        if let Some(it) = self.in_kernel_as(id) {
            it.failed = true;
        }
    }

    /// The kernel answered the request of `id`. Returns what ended by that.
    pub(crate) fn replied(&mut self, id: &str, ok: bool) -> Vec<Ended> {
        if let Some(it) = self.in_kernel_as(id) {
            it.replied = true;
            it.failed |= !ok;
        }
        self.finish()
    }

    /// The kernel is idle after `id`. Returns what ended by that.
    pub(crate) fn idle(&mut self, id: &str) -> Vec<Ended> {
        if let Some(it) = self.in_kernel_as(id) {
            it.idle = true;
        }
        self.finish()
    }

    /// Stops waiting for a reply that should have come long ago. Returns what ended by that.
    pub(crate) fn reply_overdue(&mut self) -> Vec<Ended> {
        if let Some(it) = self.in_kernel.as_mut().filter(|it| it.idle) {
            it.replied = true;
        }
        self.finish()
    }

    /// The user asked to stop: what runs counts as failed now, what waits is cancelled. The kernel gets
    /// nothing new until it is idle.
    pub(crate) fn interrupt(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        if let Some(it) = self.in_kernel.as_mut().filter(|it| !it.interrupted) {
            it.interrupted = true;
            ended.push((it.execution.id.clone(), Outcome::Error));
        }
        self.cancel_waiting(&mut ended);
        ended
    }

    /// The kernel is gone, or will never come: everything ends.
    pub(crate) fn kernel_lost(&mut self) -> Vec<Ended> {
        let ended = self.interrupt();
        self.in_kernel = None;
        ended
    }

    fn running(&self) -> Option<&Queued> {
        self.in_kernel.as_ref().filter(|it| !it.interrupted).map(|it| &it.execution)
    }

    fn in_kernel_as(&mut self, id: &str) -> Option<&mut InKernel> {
        self.in_kernel.as_mut().filter(|it| &*it.execution.id == id)
    }

    fn finish(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        if let Some(it) = self.in_kernel.take_if(|it| it.idle && it.replied)
            && !it.interrupted
        {
            let outcome = if it.failed { Outcome::Error } else { Outcome::Done };
            ended.push((it.execution.id, outcome));
            if it.failed {
                self.cancel_waiting(&mut ended);
            }
        }
        ended
    }

    fn cancel_waiting(&mut self, ended: &mut Vec<Ended>) {
        ended.extend(self.waiting.drain(..).map(|execution| (execution.id, Outcome::Cancelled)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(id: &str) -> Queued {
        Queued { id: id.into(), cell: format!("cell of {id}"), source: String::new() }
    }

    fn queue(ids: &[&str]) -> Queue {
        let mut queue = Queue::default();
        ids.iter().for_each(|id| queue.accept(queued(id)));
        queue
    }

    fn started(queue: &mut Queue) -> Option<String> {
        queue.start_next().map(|execution| execution.id.to_string())
    }

    #[test]
    fn executions_run_one_at_a_time_in_order() {
        let mut queue = queue(&["a", "b"]);
        assert_eq!(started(&mut queue).as_deref(), Some("a"));
        assert_eq!(started(&mut queue), None);
        assert_eq!(queue.idle("a"), []);
        assert!(queue.awaits_reply());
        assert_eq!(queue.replied("a", true), [("a".into(), Outcome::Done)]);
        assert_eq!(started(&mut queue).as_deref(), Some("b"));
    }

    #[test]
    fn the_first_failure_cancels_everything_behind_it() {
        let mut queue = queue(&["a", "b", "c"]);
        started(&mut queue);
        queue.failed("a");
        assert_eq!(queue.replied("a", true), []);
        let ended = queue.idle("a");
        let expected = [
            ("a".into(), Outcome::Error),
            ("b".into(), Outcome::Cancelled),
            ("c".into(), Outcome::Cancelled),
        ];
        assert_eq!(ended, expected);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_interrupted_kernel_gets_nothing_before_it_is_idle() {
        let mut queue = queue(&["a", "b"]);
        started(&mut queue);
        assert_eq!(queue.interrupt(), [("a".into(), Outcome::Error), ("b".into(), Outcome::Cancelled)]);
        assert_eq!(queue.interrupt(), []);
        assert_eq!(queue.executing(), None);
        queue.accept(queued("c"));
        assert_eq!(started(&mut queue), None);
        assert_eq!(queue.replied("a", false), []);
        assert_eq!(queue.idle("a"), []);
        assert_eq!(started(&mut queue).as_deref(), Some("c"));
    }

    #[test]
    fn a_lost_kernel_ends_everything_and_an_old_reply_changes_nothing() {
        let mut queue = queue(&["a", "b"]);
        started(&mut queue);
        assert_eq!(queue.kernel_lost().len(), 2);
        assert_eq!(queue.idle("a"), []);
        assert!(queue.is_empty());
        assert_eq!(queue.accepted(), 2);
    }

    #[test]
    fn a_cell_has_one_active_execution() {
        let mut queue = queue(&["a", "b"]);
        assert_eq!(queue.active("cell of b").map(|id| &**id), Some("b"));
        started(&mut queue);
        assert_eq!(queue.active("cell of a").map(|id| &**id), Some("a"));
        queue.interrupt();
        assert_eq!(queue.active("cell of a"), None);
    }
}
