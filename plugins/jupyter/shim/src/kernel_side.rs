//! What the kernel says, and what is said and done to it.
//!
//! Promises: what the kernel says is read at once, whatever else goes on.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::channel::Name;
use crate::client::Reading;
use crate::early_idle::Step as Early;
use crate::ending::Step as EndStep;
use crate::message::Message;
use crate::protocol::{Attached, Failed, InterruptMode, Reason, document, from_shim};
use crate::requests::{Header, request};
use crate::run::note;
use crate::shim::{Leave, READS, RETRY, Shim, Stage};
use crate::start::{Start, Step};

/// Largest message that a frame can hold, with its number and channel.
const LARGEST: usize = u32::MAX as usize - 10;

impl Shim {
    /// Reads what a channel has, and writes what it takes.
    pub(crate) fn read_channel(&mut self, at: usize, now: Instant) -> Option<Leave> {
        for _ in 0..READS {
            let channel = self.channels.get_mut(at)?;
            channel.flush();
            let more = channel.read(&mut self.piece);
            loop {
                let channel = self.channels.get_mut(at)?;
                let name = channel.name;
                let frames = match channel.next_message() {
                    Ok(Some(frames)) => frames,
                    Ok(None) => break,
                    Err(error) => {
                        note(format_args!("lost the kernel's {name:?} socket: {error}"));
                        break;
                    }
                };
                match self.signer.message(frames) {
                    Ok(message) => {
                        if let Some(leave) = self.kernel_said(name, &message, now) {
                            return Some(leave);
                        }
                    }
                    Err(error) => {
                        self.ignored += 1;
                        // A flood of them must not flood the log.
                        if self.ignored.is_power_of_two() {
                            note(format_args!("ignored {} message(s) on {name:?}: {error}", self.ignored));
                        }
                    }
                }
            }
            if !more {
                break;
            }
        }
        None
    }

    fn kernel_said(&mut self, name: Name, message: &Message, now: Instant) -> Option<Leave> {
        if let Stage::Starting { start, .. } = &mut self.stage {
            let step = start.take(name, message, now);
            return self.start_step(step);
        }
        if self.is_of_adoption(name, message) {
            return None;
        }
        if self.launch.idle_early {
            match self.early_idle.take(&self.session, name, message, now) {
                Early::Pass => self.keep(name, message),
                Early::Drop => {}
                Early::Ask(ask) => self.send(Name::Shell, ask),
                Early::Release(idle) => self.keep(Name::Iopub, &idle),
            }
        } else {
            self.keep(name, message);
        }
        None
    }

    /// Passes on the ends of cells that wait no longer.
    pub(crate) fn release(&mut self, now: Instant, ended: bool) {
        for idle in self.early_idle.due(now, ended) {
            self.keep(Name::Iopub, &idle);
        }
    }

    fn keep(&mut self, name: Name, message: &Message) {
        let keep = message.encoded_len() <= LARGEST && (!self.journal.is_full() || is_needed(name, message));
        if keep {
            self.journal.push(name as u8, message);
        } else {
            self.journal.drop_message(message);
        }
    }

    fn start_step(&mut self, step: Step) -> Option<Leave> {
        match step {
            Step::Wait => None,
            Step::Ask(message) => {
                self.send(Name::Shell, message);
                None
            }
            Step::Up(reply) => {
                self.reply = reply;
                self.stage = Stage::Running;
                let launched = document(from_shim::LAUNCHED, &self.attached(0));
                if let Some(launcher) = self.clients.iter_mut().find(|client| client.launcher) {
                    launcher.push(launched);
                    launcher.reading = Some(Reading { next: 1, ..Reading::default() });
                }
                None
            }
            Step::Confused => Some(self.failed(Reason::Confused, "its answer is no JSON")),
        }
    }

    /// The answer to whoever attaches and wants what comes after `after`.
    pub(crate) fn attached(&self, after: u64) -> Attached {
        let (kernel, reply) = (self.launch.kernel.clone(), self.reply.clone());
        Attached { kernel, pid: self.process.id(), reply, after, last: self.journal.last() }
    }

    fn failed(&self, reason: Reason, message: &str) -> Leave {
        let exit = self.process.report(&self.ending);
        Leave::Failed(Box::new(Failed { reason, message: message.to_owned(), exit }))
    }

    /// Does what is due on the kernel's side.
    pub(crate) fn kernel_times(&mut self, now: Instant) -> Option<Leave> {
        match &mut self.stage {
            Stage::Connecting { limit, .. } | Stage::Starting { limit, .. } if *limit <= now => {
                Some(self.failed(Reason::Silent, ""))
            }
            Stage::Connecting { retry, .. } if *retry <= now => self.connect(now),
            Stage::Starting { start, .. } if start.deadline().is_some_and(|at| at <= now) => {
                let step = start.ask_again();
                self.start_step(step)
            }
            Stage::Connecting { .. } | Stage::Starting { .. } | Stage::Running => {
                if self.channels.iter().any(crate::channel::Channel::is_closed) {
                    self.ending.socket_closed(now);
                }
                None
            }
            Stage::Draining { sockets, stderr, started } => {
                let quiet = self.process.stderr().is_none() || *stderr <= now;
                let drained =
                    self.channels.iter().all(|channel| channel.socket().is_none()) || *sockets <= now;
                if !quiet || (*started && !drained) {
                    return None;
                }
                if !*started {
                    return Some(self.failed(Reason::Exited, ""));
                }
                self.release(now, true);
                self.stage = Stage::Ended(self.process.report(&self.ending));
                None
            }
            Stage::Ended(_) => {
                let alone = self.clients.iter().all(|client| client.reading.is_none());
                (self.leaving && alone).then_some(Leave::Quietly)
            }
        }
    }

    fn connect(&mut self, now: Instant) -> Option<Leave> {
        while let Some(channel) = self.channels.iter_mut().find(|channel| channel.is_awaited()) {
            if let Err(error) = channel.connect(&self.address, &self.session) {
                let name = channel.name;
                return Some(self.failed(Reason::Confused, &format!("its {name:?} socket: {error}")));
            }
            if channel.is_awaited() {
                break;
            }
        }
        let all = !self.channels.iter().any(|channel| channel.is_awaited());
        let Stage::Connecting { limit, retry } = &mut self.stage else { return None };
        if all {
            let (start, first) = Start::new(&self.session, &self.launch.preparation);
            self.stage = Stage::Starting { limit: *limit, start };
            self.send(Name::Shell, first);
        } else {
            *retry = now + RETRY;
        }
        None
    }

    /// Sends a message to the kernel.
    pub(crate) fn send(&mut self, name: Name, message: Message) {
        let frames = self.signer.frames(message);
        if let Some(channel) = self.channels.iter_mut().find(|channel| channel.name == name) {
            channel.send(&frames);
        }
    }

    /// Asks the kernel to stop what it is doing.
    pub(crate) fn interrupt(&mut self) {
        match self.launch.interrupt {
            // To the group, as Jupyter clients do: a command the cell runs stops too, and an interpreter
            // behind a launcher such as `uv run` is reached.
            InterruptMode::Signal => self.process.signal(Signal::INT),
            InterruptMode::Message => self.ask("interrupt_request", json!({})),
        }
        self.nudges.interrupted(Instant::now());
    }

    /// Ends the kernel, at the latest after `grace`.
    pub(crate) fn shut_down(&mut self, grace: Duration, now: Instant) {
        if !self.process.is_buried()
            && let Some(step) = self.ending.request(grace, now)
        {
            self.take(step);
        }
    }

    /// Takes a step towards the kernel's end.
    pub(crate) fn take(&mut self, step: EndStep) {
        match step {
            EndStep::Ask => {
                self.interrupt();
                self.ask("shutdown_request", json!({ "restart": false }));
            }
            EndStep::Terminate(_) => self.process.signal(Signal::TERM),
            EndStep::Kill => self.process.signal(Signal::KILL),
        }
    }

    fn ask(&mut self, message_type: &str, content: serde_json::Value) {
        let (_, message) = request(&self.session, message_type, content);
        self.send(Name::Control, message);
    }
}

/// Whether a message must be kept when there is no room: without it, a daemon would wait for ever. These come only
/// in answer to requests, so they are few.
fn is_needed(name: Name, message: &Message) -> bool {
    name != Name::Iopub
        || matches!(Header::parse(&message.header).msg_type.as_str(), "status" | "execute_input")
}
