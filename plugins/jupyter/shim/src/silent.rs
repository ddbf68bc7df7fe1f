//! Code that is run in a kernel without anybody seeing it.
//!
//! For: bringing a kernel up, and making one another's.
//! Promises: pure; it counts as no execution and leaves no history; it is over when the kernel has both answered and
//! become idle, so nothing of it is still to come.

use serde::Deserialize;
use serde_json::json;

use crate::channel::Name;
use crate::message::Message;
use crate::requests::{Header, Status, request};

/// A request that runs code, and how far it is.
#[derive(Debug)]
pub(crate) struct Silent {
    id: String,
    reply: Option<Result<(), String>>,
    idle: bool,
}

/// The part of an `execute_reply` that says how it went.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    status: String,
    ename: String,
    evalue: String,
}

impl Silent {
    /// The run of `code`, with the request to send on shell.
    pub(crate) fn new(session: &str, code: &str) -> (Self, Message) {
        let content = json!({
            "code": code, "silent": true, "store_history": false,
            "user_expressions": {}, "allow_stdin": false, "stop_on_error": false,
        });
        let (id, message) = request(session, "execute_request", content);
        (Self { id, reply: None, idle: false }, message)
    }

    /// Takes what the kernel said; false if that is about something else.
    pub(crate) fn take(&mut self, channel: Name, message: &Message) -> bool {
        if Header::parse(&message.parent_header).msg_id != self.id {
            return false;
        }
        match channel {
            Name::Shell => {
                let Reply { status, ename, evalue } =
                    serde_json::from_slice(&message.content).unwrap_or_default();
                self.reply = Some(if status == "ok" { Ok(()) } else { Err(format!("{ename}: {evalue}")) });
            }
            Name::Iopub => self.idle |= is_idle(message),
            Name::Stdin | Name::Control => {}
        }
        true
    }

    /// How it went, once it is over.
    pub(crate) fn outcome(&self) -> Option<&Result<(), String>> {
        self.reply.as_ref().filter(|_| self.idle)
    }
}

/// Whether a message says that the kernel is idle.
pub(crate) fn is_idle(message: &Message) -> bool {
    Header::parse(&message.header).msg_type == "status"
        && serde_json::from_slice::<Status>(&message.content)
            .is_ok_and(|status| status.execution_state == "idle")
}

/// What kernels say, for tests.
#[cfg(test)]
pub(crate) mod kernel {
    use super::*;

    /// A message of `kind` that answers `asked`.
    pub(crate) fn answer(asked: &Message, kind: &str, content: serde_json::Value) -> Message {
        let (_, message) = request("kernel", kind, content);
        Message { parent_header: asked.header.clone(), ..message }
    }

    /// That it is idle again after `asked`.
    pub(crate) fn idle(asked: &Message) -> Message {
        answer(asked, "status", json!({ "execution_state": "idle" }))
    }
}
