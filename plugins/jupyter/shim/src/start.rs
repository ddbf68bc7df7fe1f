//! Bringing a kernel up: from its sockets being there to its being of use.
//!
//! For: a kernel that answers on shell and is heard on IOPub, so that no output of its first execution can be lost.
//! Promises: pure. Everything said meanwhile belongs to the start and is dropped.
//! Never: looks at the process or at the time limit of the start; its owner does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::channel::Name;
use crate::message::Message;
use crate::requests::{Header, request};
use crate::silent::{Silent, is_idle};

/// How long after the reply on shell its echo on IOPub may take before we ask again: the subscription may
/// have arrived after the kernel published. The echo of a heard request takes about a millisecond.
const ECHO_LIMIT: Duration = Duration::from_millis(200);
/// Requests whose echo may fail to come before we go on without. Some kernels broadcast nothing about `kernel_info`;
/// five seconds are more than a subscription takes on a machine that has other things to do.
const ECHOES: usize = 25;

/// The conversation that opens a kernel's life.
#[derive(Debug)]
pub(crate) struct Start {
    session: String,
    preparation: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// `kernel_info` was asked for, more than once if need be.
    Asking { asked: BTreeSet<String>, reply: Option<Value>, heard: bool, again: Option<Instant> },
    /// The preparation runs.
    Preparing { preparation: Silent, reply: Value },
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Wait.
    Wait,
    /// Send this on shell.
    Ask(Message),
    /// The kernel is up; the content of its `kernel_info_reply`.
    Up(Value),
    /// The kernel answers with something that is no answer.
    Confused,
}

impl Start {
    /// The start of a kernel, with the first request to send on shell. `preparation` is code, or empty.
    pub(crate) fn new(session: &str, preparation: &str) -> (Self, Message) {
        let (id, message) = request(session, "kernel_info_request", json!({}));
        let stage = Stage::Asking { asked: [id].into(), reply: None, heard: false, again: None };
        (Self { session: session.to_owned(), preparation: preparation.to_owned(), stage }, message)
    }

    /// When [`Start::ask_again`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asking { again, .. } => *again,
            Stage::Preparing { .. } => None,
        }
    }

    /// Another request, because the echo of the last one did not come; or no more of them.
    pub(crate) fn ask_again(&mut self) -> Step {
        let Stage::Asking { asked, reply, again, .. } = &mut self.stage else { return Step::Wait };
        *again = None;
        if let Some(reply) = reply.take_if(|_| asked.len() >= ECHOES) {
            return self.prepare(reply);
        }
        let (id, message) = request(&self.session, "kernel_info_request", json!({}));
        asked.insert(id);
        Step::Ask(message)
    }

    /// Takes what the kernel said at `now`.
    pub(crate) fn take(&mut self, channel: Name, message: &Message, now: Instant) -> Step {
        match &mut self.stage {
            Stage::Asking { asked, reply, heard, again } => {
                if !asked.contains(&Header::parse(&message.parent_header).msg_id) {
                    return Step::Wait;
                }
                match channel {
                    Name::Shell => match serde_json::from_slice(&message.content) {
                        Ok(content) => {
                            *reply = Some(content);
                            *again = Some(now + ECHO_LIMIT);
                        }
                        Err(_) => return Step::Confused,
                    },
                    Name::Iopub => *heard |= is_idle(message),
                    Name::Stdin | Name::Control => {}
                }
                match reply.take_if(|_| *heard) {
                    Some(reply) => self.prepare(reply),
                    None => Step::Wait,
                }
            }
            Stage::Preparing { preparation, reply } => {
                preparation.take(channel, message);
                if preparation.outcome().is_some() { Step::Up(reply.take()) } else { Step::Wait }
            }
        }
    }

    /// Runs the preparation to its end, unseen by the user and whether or not it succeeds.
    fn prepare(&mut self, reply: Value) -> Step {
        if self.preparation.is_empty() {
            return Step::Up(reply);
        }
        let (preparation, message) = Silent::new(&self.session, &self.preparation);
        self.stage = Stage::Preparing { preparation, reply };
        Step::Ask(message)
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
    fn a_lost_echo_is_asked_for_again_and_then_the_preparation_runs() {
        let now = Instant::now();
        let (mut start, first) = Start::new("session", "code");
        assert_eq!(start.deadline(), None, "a kernel may take its time to answer");
        let reply = answer(&first, "kernel_info_reply", json!({ "banner": 1 }));
        assert!(matches!(start.take(Name::Shell, &reply, now), Step::Wait));
        assert_eq!(start.deadline(), Some(now + ECHO_LIMIT));
        let second = asked(start.ask_again());
        // Another client's request is nothing to us.
        let (_, stranger) = request("other", "kernel_info_request", json!({}));
        assert!(matches!(start.take(Name::Iopub, &idle(&stranger), now), Step::Wait));
        let preparation = asked(start.take(Name::Iopub, &idle(&second), now));
        assert!(matches!(start.take(Name::Iopub, &idle(&second), now), Step::Wait));
        assert!(matches!(start.take(Name::Iopub, &idle(&preparation), now), Step::Wait));
        let done = answer(&preparation, "execute_reply", json!({}));
        let Step::Up(reply) = start.take(Name::Shell, &done, now) else { panic!("not up") };
        assert_eq!(reply["banner"], 1);
    }

    #[test]
    fn a_kernel_that_broadcasts_nothing_is_up_all_the_same() {
        let now = Instant::now();
        let (mut start, mut last) = Start::new("session", "");
        for _ in 1..ECHOES {
            let reply = answer(&last, "kernel_info_reply", json!({ "banner": 1 }));
            assert!(matches!(start.take(Name::Shell, &reply, now), Step::Wait));
            last = asked(start.ask_again());
        }
        let Step::Up(reply) = start.ask_again() else { panic!("not up") };
        assert_eq!(reply["banner"], 1);
    }

    #[test]
    fn an_answer_that_is_no_json_is_no_kernel() {
        let (mut start, first) = Start::new("session", "");
        let reply = Message { content: "?".into(), ..answer(&first, "kernel_info_reply", json!({})) };
        assert!(matches!(start.take(Name::Shell, &reply, Instant::now()), Step::Confused));
    }
}
