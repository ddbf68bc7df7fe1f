//! The room's kernel, as far as it is a process somewhere.
//!
//! For: the [shell](super), which starts it, goes on with one that outlived the daemon, and listens.
//! Promises: a kernel never waits for the room; what it says is one event a burst; one that is taken over says
//! everything again that the journal does not have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use runtimed_plugin_api::{
    Channel, ExitReport, Host, JupyterMessage, Kernel, KernelEvents, LaunchSpec, PluginError, Sequence,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::RoomTask;
use crate::ids::LaunchId;
use crate::kinds::no_backend;
use crate::room::event::Event;
use crate::room::revive::Left;
use crate::warm::Launching;

/// Bytes of kernel messages handled as one event, and the message that goes beyond: a client's interrupt gets its turn
/// in between. A kernel that prints sends so much in some milliseconds, and it takes no longer to handle.
const BURST_BYTES: usize = 128 << 10;

/// A kernel answers in milliseconds. One that does not for this long keeps its notebook closed no longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a kernel tells.
pub(super) struct FromKernel {
    launch: LaunchId,
    said: Said,
}

pub(super) enum Said {
    Message(Sequence, Channel, Bytes),
    Exited(ExitReport),
}

/// A kernel's line to its room.
pub(super) struct Line {
    pub(super) launch: LaunchId,
    pub(super) sender: UnboundedSender<FromKernel>,
}

impl KernelEvents for Line {
    fn message(&self, sequence: Sequence, channel: Channel, message: Bytes) {
        let said = Said::Message(sequence, channel, message);
        let _ = self.sender.send(FromKernel { launch: self.launch, said });
    }

    fn exited(&self, report: ExitReport) {
        let _ = self.sender.send(FromKernel { launch: self.launch, said: Said::Exited(report) });
    }
}

impl RoomTask {
    /// Handles what kernels said, beginning with `first`, in as few events as can be.
    pub(super) fn kernels_said(&mut self, first: FromKernel) {
        let (mut messages, mut taken) = (Vec::new(), 0);
        let mut last: Option<(LaunchId, Sequence)> = None;
        let mut next = Some(first);
        while let Some(FromKernel { launch, said }) = next {
            match said {
                Said::Message(sequence, channel, bytes) => {
                    taken += bytes.len();
                    if last.is_some_and(|(before, _)| before != launch) {
                        self.one_kernel_said(&mut last, &mut messages);
                    }
                    last = Some((launch, sequence));
                    match JupyterMessage::decode(bytes) {
                        Ok(message) => messages.push((channel, message)),
                        Err(error) => tracing::warn!(%error, "a kernel's message is skipped"),
                    }
                }
                Said::Exited(report) => {
                    self.one_kernel_said(&mut last, &mut messages);
                    self.handle(Event::KernelExited { launch, report });
                }
            }
            next = if taken < BURST_BYTES { self.kernel_inbox.try_recv().ok() } else { None };
        }
        self.one_kernel_said(&mut last, &mut messages);
    }

    fn one_kernel_said(
        &mut self,
        last: &mut Option<(LaunchId, Sequence)>,
        messages: &mut Vec<(Channel, JupyterMessage)>,
    ) {
        let Some((launch, upto)) = last.take() else { return };
        self.handle(Event::KernelSaid { launch, upto, messages: std::mem::take(messages) });
    }

    /// Lets a kernel forget what it said so far.
    pub(super) fn acknowledge(&self, heard: Option<(LaunchId, Sequence)>) {
        if let Some((launch, upto)) = heard
            && let Some(kernel) = self.kernels.get(&launch)
        {
            kernel.acknowledge(upto);
        }
    }
}

/// Starts a kernel with whatever backend runs its kind, or goes on with the `warm` one that runs in its environment.
pub(super) async fn run_kernel(
    host: &Host,
    spec: LaunchSpec,
    warm: Option<Box<dyn Kernel>>,
    events: Arc<dyn KernelEvents>,
    launching: &Launching,
) -> Result<Box<dyn Kernel>, PluginError> {
    let backend = host.kernel_backend(&spec.kind).ok_or_else(no_backend)?;
    if let Some(warm) = warm {
        match backend.adopt(&warm.info().kernel, spec.clone(), events.clone()).await {
            Ok(kernel) => return Ok(kernel),
            Err(error) => {
                launching.refused();
                tracing::warn!(%error, "a warm kernel could not be used");
            }
        }
    }
    backend.launch(spec, events).await
}

/// Goes on with the kernel that the journal names, if it is there.
pub(super) async fn attach(
    host: &Host,
    left: &Left,
    sender: &UnboundedSender<FromKernel>,
) -> Option<(LaunchId, Arc<dyn Kernel>)> {
    let kept = left.kernel.as_ref()?;
    let launch = LaunchId(kept.kernel);
    let events = Arc::new(Line { launch, sender: sender.clone() });
    let backend = host.kernel_backend(&kept.kind)?;
    let kernel = kept.kernel.to_string();
    let attached = timeout(PATIENCE, backend.attach(&kernel, left.heard.sequence, events)).await;
    match attached {
        Ok(Ok(kernel)) => {
            tracing::info!(kernel = %kept.kernel, after = left.heard.sequence, "a notebook goes on with its kernel");
            Some((launch, kernel.into()))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, kernel, "a notebook lost its kernel");
            None
        }
        Err(_) => {
            tracing::warn!(kernel, "a notebook lost its kernel: it does not answer");
            None
        }
    }
}
