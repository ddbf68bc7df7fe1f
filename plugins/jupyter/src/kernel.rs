//! A running kernel: the handle a room holds and the task that owns everything else.
//!
//! For: a room's two-way pipe, with numbered messages and one exit report.
//! Promises: messages are numbered from 1 without a gap, in the order of each channel; `exited` comes once,
//! after the last message; dropping the handle ends the kernel.
//! Limit: until kernels live in shims of their own they end with the daemon, so nothing is kept for a later
//! attach and `acknowledge` has nothing to free.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtimed_plugin_api::{
    Bytes, Channel, ExitReport, JupyterMessage, Kernel, KernelEvents, KernelInfo, PluginError, Result,
    Sequence, async_trait,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::channels::{Incoming, Outgoing};
use crate::kind::InterruptMode;
use crate::launch::Started;
use crate::recent::Recent;
use crate::requests::{Header, request};

/// Most messages taken from the readers at once; bounds the time until the next look at other events.
const BATCH: usize = 64;

/// How long a process may live after it has closed one of its sockets. One that ends by itself needs
/// milliseconds.
const CLOSED_GRACE: Duration = Duration::from_secs(2);

/// How long readers may go on after the process has ended. Only a process that left the kernel's group and
/// inherited its sockets can make them take longer than the bytes left in the socket.
const DRAIN: Duration = Duration::from_secs(1);

/// What the handle asks of the task.
#[derive(Debug)]
enum Command {
    Interrupt,
    Shutdown(Duration),
}

/// The room's handle.
pub(crate) struct JupyterKernel {
    info: KernelInfo,
    outgoing: Outgoing,
    /// Ids of requests that were sent, to drop repeats.
    sent: Mutex<Recent>,
    commands: mpsc::UnboundedSender<Command>,
    /// How the kernel ended, once it has.
    report: watch::Receiver<Option<ExitReport>>,
    /// Ends the task when the handle goes away.
    _end: DropGuard,
}

/// Splits a started kernel into the room's handle and the task that must be run for it.
/// The task ends with the kernel, or ends the kernel when `end` fires.
pub(crate) fn supervise(
    started: Started,
    interrupt: InterruptMode,
    events: Arc<dyn KernelEvents>,
    end: CancellationToken,
) -> (JupyterKernel, impl Future<Output = ()>) {
    let (commands, requests) = mpsc::unbounded_channel();
    let (result, report) = watch::channel(None);
    let kernel = JupyterKernel {
        info: started.info.clone(),
        outgoing: started.channels.outgoing.clone(),
        sent: Mutex::default(),
        commands,
        report,
        _end: end.clone().drop_guard(),
    };
    let life = Life { started, interrupt, events, sequence: 0, requested: false, next: None };
    let task = async move {
        let report = life.run(requests, end).await;
        // Nobody waits when the handle was dropped.
        let _ = result.send(Some(report));
    };
    (kernel, task)
}

#[async_trait]
impl Kernel for JupyterKernel {
    fn info(&self) -> KernelInfo {
        self.info.clone()
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<()> {
        let message = JupyterMessage::decode(message)?;
        let id = Header::parse(&message.header).msg_id;
        if id.is_empty() {
            return Err(PluginError::invalid("a message for a kernel needs a header with a `msg_id`"));
        }
        if self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(id) {
            self.outgoing.send(channel, message)?;
        }
        Ok(())
    }

    fn acknowledge(&self, _: Sequence) {}

    async fn interrupt(&self) -> Result<()> {
        self.commands.send(Command::Interrupt).map_err(|_| PluginError::unavailable("the kernel has ended"))
    }

    async fn shutdown(&self, grace: Duration) -> Result<ExitReport> {
        // A kernel that has ended takes no command and has its report.
        let _ = self.commands.send(Command::Shutdown(grace));
        let mut report = self.report.clone();
        let report = report.wait_for(Option::is_some).await;
        let report = report.map_err(|_| PluginError::internal("the kernel's task ended without a report"))?;
        Ok(report.clone().unwrap_or_default())
    }
}

/// Everything of a kernel that is not the handle. Lives in its task; dropping it kills the process.
struct Life {
    started: Started,
    interrupt: InterruptMode,
    events: Arc<dyn KernelEvents>,
    /// Number of the last message delivered.
    sequence: Sequence,
    /// Whether somebody asked for the end.
    requested: bool,
    /// The next, harder way to end the process, and when.
    next: Option<(Instant, Step)>,
}

/// Ways to end a process by signal. `Terminate` holds the time until `Kill`.
#[derive(Debug, Clone, Copy)]
enum Step {
    Terminate(Duration),
    Kill,
}

impl Life {
    async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        end: CancellationToken,
    ) -> ExitReport {
        let mut batch = Vec::with_capacity(BATCH);
        let mut report = loop {
            let step = self.next;
            let channels = &mut self.started.channels;
            let exhausted = channels.incoming.is_closed() && channels.incoming.is_empty();
            tokio::select! {
                biased;
                report = self.started.process.exited() => break report,
                () = end.cancelled() => {
                    self.requested = true;
                    self.started.process.signal(Signal::KILL);
                    break self.started.process.exited().await;
                }
                Some(command) = commands.recv() => match command {
                    Command::Interrupt => self.interrupt(),
                    Command::Shutdown(grace) => self.shut_down(grace),
                },
                step = due(step) => self.take(step),
                // All readers together never end the loop: the process does.
                Some(_) = channels.readers.join_next(), if self.next.is_none() => {
                    self.next = Some((Instant::now() + CLOSED_GRACE, Step::Terminate(CLOSED_GRACE)));
                }
                _ = channels.incoming.recv_many(&mut batch, BATCH), if !exhausted => {
                    batch.drain(..).for_each(|incoming| self.deliver(incoming));
                }
            }
        };
        self.drain().await;
        report.requested = self.requested;
        self.events.exited(report.clone());
        report
    }

    fn deliver(&mut self, incoming: Incoming) {
        self.sequence += 1;
        self.events.message(self.sequence, incoming.channel, incoming.message.encode());
    }

    /// Delivers what the readers still find in their sockets.
    async fn drain(&mut self) {
        let readers = &mut self.started.channels.readers;
        // What comes later than that is of no process of this kernel; dropping the channels ends the readers.
        let _ = timeout(DRAIN, async { while readers.join_next().await.is_some() {} }).await;
        while let Ok(incoming) = self.started.channels.incoming.try_recv() {
            self.deliver(incoming);
        }
    }

    fn interrupt(&self) {
        match self.interrupt {
            // To the group, as Jupyter clients do: a command the cell runs stops too, and an interpreter
            // behind a launcher such as `uv run` is reached.
            InterruptMode::Signal => self.started.process.signal(Signal::INT),
            InterruptMode::Message => self.ask("interrupt_request", json!({})),
        }
    }

    /// First politely: an interrupt, so that a busy kernel listens, and a request. Two fifths of `grace`
    /// later SIGTERM, at its end SIGKILL (2 s and 3 s of the reference's 5 s).
    fn shut_down(&mut self, grace: Duration) {
        if self.requested {
            return;
        }
        self.requested = true;
        self.interrupt();
        self.ask("shutdown_request", json!({ "restart": false }));
        let polite = grace * 2 / 5;
        self.next = Some((Instant::now() + polite, Step::Terminate(grace.saturating_sub(polite))));
    }

    fn take(&mut self, step: Step) {
        self.next = match step {
            Step::Terminate(rest) => {
                self.started.process.signal(Signal::TERM);
                Some((Instant::now() + rest, Step::Kill))
            }
            Step::Kill => {
                self.started.process.signal(Signal::KILL);
                None
            }
        };
    }

    fn ask(&self, message_type: &str, content: serde_json::Value) {
        let (_, message) = request(&self.started.session, message_type, content);
        if let Err(error) = self.started.channels.outgoing.send(Channel::Control, message) {
            tracing::debug!(%error, message_type, "a kernel was not asked");
        }
    }
}

/// The step of `next` when its time has come; never without one.
async fn due(next: Option<(Instant, Step)>) -> Step {
    match next {
        Some((at, step)) => {
            sleep_until(at).await;
            step
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::PYTHON;
    use crate::recorder::{Recorder, execute};

    #[tokio::test]
    async fn a_kernel_can_be_interrupted_by_message() {
        let Some(python) = crate::python::kernel_python() else { return };
        let folder = tempfile::tempdir().unwrap();
        let command = runtimed_plugin_api::LaunchCommand {
            argv: vec![python.to_str().unwrap().into()],
            env: [("IPYTHONDIR".into(), folder.path().to_str().unwrap().into())].into(),
            ..Default::default()
        };
        let spec = runtimed_plugin_api::LaunchSpec {
            kernel: "kernel".into(),
            kind: "python".into(),
            room: "room".into(),
            notebook_path: None,
            command,
            cwd: folder.path().to_owned(),
        };
        let started = crate::launch::launch(folder.path(), &spec, PYTHON).await.unwrap();
        let (mut recorder, events) = Recorder::new();
        let (kernel, life) = supervise(started, InterruptMode::Message, events, CancellationToken::new());
        let mut lives = tokio::task::JoinSet::new();
        lives.spawn(life);
        let id = execute(&kernel, "import time\nprint('running', flush=True)\ntime.sleep(600)");
        recorder.until(|message| message.kind == "stream").await;
        kernel.interrupt().await.unwrap();
        let (_, reply) = recorder.answer(&id).await;
        assert_eq!(reply["ename"], "KeyboardInterrupt");
        kernel.shutdown(Duration::from_secs(10)).await.unwrap();
        lives.join_all().await;
    }
}
