//! Code that runs in a kernel while somebody watches.
//!
//! For: `runt jupyter exec` and `console`.
//! Promises: what the code prints is on the screen before the call returns; it is answered when it asks; Ctrl-C
//! interrupts it, and the third one gives it up.

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::{Value, json};

use super::client::{Channel, KernelClient, Said};
use super::interrupt::Interrupter;
use super::show::Screen;
use crate::interrupt::{Asked, Interrupt};
use crate::lines::Lines;

/// What `input()` gets for the end of the input (ipykernel, `_input_request`).
const END_OF_INPUT: &str = "\x04";

/// Requests that are remembered: threads of more are rare.
const REMEMBERED: usize = 100;

/// How code ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    pub(crate) succeeded: bool,
    /// How the kernel counts it.
    pub(crate) number: Option<u64>,
}

/// A kernel, and a person or a script in front of it.
pub(crate) struct Front {
    pub(crate) client: KernelClient,
    interrupter: Interrupter,
    pub(crate) screen: Screen,
    pub(crate) lines: Lines,
    /// Whether to say on stderr what the kernel says.
    verbose: bool,
    /// Ids of what was run here last: code may go on to print from a thread.
    ran: VecDeque<String>,
}

impl Front {
    /// In front of a kernel that has been greeted.
    pub(crate) fn new(client: KernelClient, interrupter: Interrupter, screen: Screen, verbose: bool) -> Self {
        Self { client, interrupter, screen, lines: Lines::default(), verbose, ran: VecDeque::new() }
    }

    /// Whether the request `id` was made here to run code, not long ago.
    pub(crate) fn is_ours(&self, id: &str) -> bool {
        self.ran.iter().any(|ran| ran == id)
    }

    /// Runs code to its end.
    ///
    /// # Errors
    /// When the kernel is gone, or nobody wants to wait for it any more.
    pub(crate) async fn execute(&mut self, code: &str, interrupt: &mut Interrupt) -> anyhow::Result<Ended> {
        let content = json!({
            "code": code, "silent": false, "store_history": true, "user_expressions": {},
            "allow_stdin": true, "stop_on_error": true,
        });
        let id = self.client.send(Channel::Shell, "execute_request", content).context(GONE)?;
        self.ran.push_front(id.clone());
        self.ran.truncate(REMEMBERED);
        let (mut ended, mut idle, mut asked, mut interrupted) = (None, false, None, 0);
        while ended.is_none() || !idle {
            tokio::select! {
                biased;
                what = interrupt.asked() => {
                    asked = None;
                    if what == Asked::End {
                        return Err(what.into());
                    }
                    interrupted += 1;
                    match interrupted {
                        1 => {}
                        2 => anstream::eprintln!("interrupting once more; Ctrl-C again gives the code up"),
                        _ => bail!("given up; the kernel may still run the code"),
                    }
                    self.interrupter.interrupt(&mut self.client)?;
                }
                said = self.client.next() => {
                    let said = said.context(GONE)?;
                    self.note(&said, &id);
                    if said.channel == Channel::Iopub && self.is_ours(&said.parent) {
                        self.screen.show(&said)?;
                    }
                    if said.parent != id {
                        continue;
                    }
                    match (said.channel, said.kind.as_str()) {
                        (Channel::Stdin, "input_request") => asked = Some(self.prompt(&said)?),
                        (Channel::Shell, _) => ended = Some(self.conclude(&said)?),
                        _ => {}
                    }
                    idle |= said.is_idle(&id);
                }
                line = self.lines.next(), if asked.is_some() => {
                    asked = None;
                    let line = line?.unwrap_or_else(|| END_OF_INPUT.to_owned());
                    self.client.send(Channel::Stdin, "input_reply", json!({ "value": line }))?;
                }
            }
        }
        self.screen.end_line()?;
        Ok(ended.unwrap_or_default())
    }

    /// Asks the kernel something that runs no code; none if it does not answer within `limit`.
    ///
    /// # Errors
    /// When the kernel is gone.
    pub(crate) async fn ask(
        &mut self,
        kind: &str,
        content: Value,
        limit: Duration,
    ) -> anyhow::Result<Option<Value>> {
        let id = self.client.send(Channel::Shell, kind, content).context(GONE)?;
        let answer = async {
            loop {
                let said = self.client.next().await?;
                if said.channel == Channel::Shell && said.parent == id {
                    return io::Result::Ok(said.content);
                }
            }
        };
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => Ok(Some(answer.context(GONE)?)),
            Err(_) => Ok(None),
        }
    }

    /// Shows what a reply brings beside its status.
    fn conclude(&mut self, reply: &Said) -> io::Result<Ended> {
        for page in reply.content.get("payload").and_then(Value::as_array).into_iter().flatten() {
            let text = page.pointer("/data/text~1plain").and_then(Value::as_str);
            if let (Some("page"), Some(text)) = (page.get("source").and_then(Value::as_str), text) {
                self.screen.end_line()?;
                self.screen.out(text)?;
            }
        }
        Ok(Ended {
            succeeded: reply.text("status") == "ok",
            number: reply.content.get("execution_count").and_then(Value::as_u64),
        })
    }

    /// Puts a question on the screen. What is typed is not seen until the result is dropped if it is a password.
    fn prompt(&mut self, question: &Said) -> io::Result<Option<Hidden>> {
        self.screen.out(question.text("prompt"))?;
        let secret = question.content.get("password").and_then(Value::as_bool).unwrap_or_default();
        if secret && io::stdin().is_terminal() { Hidden::begin().map(Some) } else { Ok(None) }
    }

    fn note(&self, said: &Said, id: &str) {
        if self.verbose {
            let whose = if said.parent == id { "ours" } else { "another's" };
            anstream::eprintln!("[{:?}] {} ({whose})", said.channel, said.kind);
        }
    }
}

/// Why nothing more comes.
pub(crate) const GONE: &str = "the kernel is gone";

/// The terminal does not show what is typed.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing anyway.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
