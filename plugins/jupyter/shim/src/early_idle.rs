//! Kernels that say they are idle while what a cell printed is still on its way.
//!
//! For: Deno, which hands output and state to IOPub in no fixed order; whoever takes the state for the end of a cell would
//! overlook a third of its outputs on a busy machine.
//! Promises: pure. The end of a cell is passed on once the kernel has answered a request that came after it, or after
//! [`LIMIT`]; everything else passes at once.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::channel::Name;
use crate::message::Message;
use crate::requests::{Header, request};
use crate::silent::is_idle;

/// Longest time that the end of a cell is held back. The answer takes about a millisecond; a kernel that does not give it
/// in a thousand times that is busy with something else.
const LIMIT: Duration = Duration::from_secs(1);

/// Ends of cells that are held back.
#[derive(Debug, Default)]
pub(crate) struct EarlyIdle(Vec<Held>);

#[derive(Debug)]
struct Held {
    idle: Message,
    /// Id of the request that came after it.
    asked: String,
    limit: Instant,
}

/// What to do with a message.
#[derive(Debug)]
pub(crate) enum Step {
    /// Pass it on.
    Pass,
    /// Nothing: it is nobody's business.
    Drop,
    /// Send this on shell; the message is held back.
    Ask(Message),
    /// Pass this on instead.
    Release(Message),
}

impl EarlyIdle {
    /// Takes what the kernel said at `now`; `session` is that of our own requests.
    pub(crate) fn take(&mut self, session: &str, name: Name, message: &Message, now: Instant) -> Step {
        let parent = Header::parse(&message.parent_header);
        if let Some(at) = self.0.iter().position(|held| held.asked == parent.msg_id) {
            return match name == Name::Iopub && is_idle(message) {
                true => Step::Release(self.0.remove(at).idle),
                false => Step::Drop,
            };
        }
        if name != Name::Iopub || parent.msg_type != "execute_request" || !is_idle(message) {
            return Step::Pass;
        }
        let (asked, ask) = request(session, "kernel_info_request", json!({}));
        self.0.push(Held { idle: message.clone(), asked, limit: now + LIMIT });
        Step::Ask(ask)
    }

    /// When [`EarlyIdle::due`] has something.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|held| held.limit).min()
    }

    /// What has been held back for too long, or at all if the kernel has nothing more to say.
    pub(crate) fn due(&mut self, now: Instant, ended: bool) -> Vec<Message> {
        self.0.extract_if(.., |held| ended || held.limit <= now).map(|held| held.idle).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silent::kernel::{answer, idle};

    fn asked(step: Step) -> Message {
        let Step::Ask(message) = step else { panic!("{step:?}") };
        message
    }

    #[test]
    fn what_follows_the_end_of_a_cell_comes_before_it() {
        let (mut early, now) = (EarlyIdle::default(), Instant::now());
        let (_, cell) = request("daemon", "execute_request", json!({}));
        let end = idle(&cell);
        let ours = asked(early.take("shim", Name::Iopub, &end, now));
        for late in [answer(&cell, "stream", json!({})), answer(&cell, "execute_result", json!({}))] {
            assert!(matches!(early.take("shim", Name::Iopub, &late, now), Step::Pass));
        }
        let busy = answer(&ours, "status", json!({ "execution_state": "busy" }));
        assert!(matches!(early.take("shim", Name::Iopub, &busy, now), Step::Drop));
        let reply = answer(&ours, "kernel_info_reply", json!({}));
        assert!(matches!(early.take("shim", Name::Shell, &reply, now), Step::Drop));
        let Step::Release(released) = early.take("shim", Name::Iopub, &idle(&ours), now) else {
            panic!("still held back")
        };
        assert_eq!(released.header, end.header);
        assert_eq!(early.deadline(), None);
    }

    #[test]
    fn other_states_pass_and_nothing_is_held_back_for_ever() {
        let (mut early, now) = (EarlyIdle::default(), Instant::now());
        let (_, other) = request("daemon", "complete_request", json!({}));
        assert!(matches!(early.take("shim", Name::Iopub, &idle(&other), now), Step::Pass));
        let (_, cell) = request("daemon", "execute_request", json!({}));
        asked(early.take("shim", Name::Iopub, &idle(&cell), now));
        assert_eq!(early.deadline(), Some(now + LIMIT));
        assert!(early.due(now, false).is_empty());
        assert_eq!(early.due(now + LIMIT, false).len(), 1);
        asked(early.take("shim", Name::Iopub, &idle(&cell), now));
        assert_eq!(early.due(now, true).len(), 1, "the kernel is gone");
        assert!(early.due(now + LIMIT, true).is_empty());
    }
}
