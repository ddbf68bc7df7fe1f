//! A kernel in a shim's keeping: the handle a room holds and the task behind it.
//!
//! For: a room's two-way pipe, with numbered messages and one exit report.
//! Promises: messages come in the order of their numbers; `exited` comes once, after the last message; dropping the
//! handle leaves the kernel to its shim, or ends a kernel that was launched and never made use of.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use runtimed_kernel_shim::protocol::{
    Attach, Attached, Frame, Shutdown, document, frame, from_shim, to_shim,
};
use runtimed_plugin_api::{
    Bytes, Channel, ExitReport, JupyterMessage, Kernel, KernelEvents, KernelInfo, PluginError, Result,
    Sequence, async_trait,
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::found;
use crate::gap;
use crate::launch::report;
use crate::link::{Link, Reader};
use crate::outgoing::{Outgoing, Waiting, outgoing};

/// How long a shim may take to go. It has nothing left to do but to delete its folder.
const GOING: Duration = Duration::from_secs(5);

/// Bytes of messages that a room holds at a time; a larger message comes alone. What is not handed over yet waits in
/// the shim, which keeps little of it in memory.
const HANDED_OVER: u32 = 32 << 20;

/// A message until the room is done with it.
struct HandedOver {
    message: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HandedOver {
    fn as_ref(&self) -> &[u8] {
        &self.message
    }
}

/// What a room has asked for so far.
#[derive(Debug, Default)]
struct Asked {
    acknowledged: Sequence,
    shutdown: bool,
}

/// The room's handle.
pub(crate) struct JupyterKernel {
    info: KernelInfo,
    /// Frames for the shim.
    outgoing: Outgoing,
    asked: watch::Sender<Asked>,
    /// How the kernel ended, once it has.
    report: watch::Receiver<Option<ExitReport>>,
    /// Fires when the room makes use of the kernel for the first time. Until then nobody knows whether the launch has
    /// arrived at all, and the kernel ends with this connection.
    accepted: CancellationToken,
}

/// Splits a connection to a shim, attached, into the room's handle and the task that must be run for it.
/// The task ends with the kernel or with the handle, and ends the kernel when `end` fires; it says whether the kernel
/// goes on without us. `accepted` has fired already for a kernel that was not launched here.
pub(crate) fn supervise(
    kernel: Attached,
    link: Link,
    folder: PathBuf,
    events: Arc<dyn KernelEvents>,
    accepted: CancellationToken,
    end: CancellationToken,
) -> (JupyterKernel, impl Future<Output = bool>) {
    let (outgoing, waiting) = outgoing(&link.writer);
    let (result, report) = watch::channel(None);
    let (asked, heard) = watch::channel(Asked::default());
    let Attached { kernel, pid, reply, after, .. } = kernel;
    let info = KernelInfo { kernel, pid: Some(pid), reply };
    let handle = JupyterKernel { info, outgoing, asked, report, accepted: accepted.clone() };
    let space = Arc::new(Semaphore::new(HANDED_OVER as usize));
    let life = Life { folder, last: after, space, report: result, asked: heard, accepted, end };
    (handle, life.run(link, waiting, events))
}

/// The part of a header that is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Header {
    msg_id: String,
}

#[async_trait]
impl Kernel for JupyterKernel {
    fn info(&self) -> KernelInfo {
        self.info.clone()
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<()> {
        let header = JupyterMessage::decode(message.clone())?.header;
        let id = serde_json::from_slice::<Header>(&header).unwrap_or_default().msg_id;
        if id.is_empty() {
            return Err(PluginError::invalid("a message for a kernel needs a header with a `msg_id`"));
        }
        if channel == Channel::Iopub {
            return Err(PluginError::invalid("nothing can be sent on IOPub"));
        }
        self.say(frame(to_shim::SEND, &[&[channel as u8], &message[..]].concat()))
    }

    fn acknowledge(&self, up_to: Sequence) {
        self.asked.send_modify(|asked| asked.acknowledged = asked.acknowledged.max(up_to));
        // A kernel that has ended knows by the line above.
        let _ = self.say(frame(to_shim::ACKNOWLEDGE, &up_to.to_be_bytes()));
    }

    async fn interrupt(&self) -> Result<()> {
        self.say(frame(to_shim::INTERRUPT, &[]))
    }

    async fn shutdown(&self, grace: Duration) -> Result<ExitReport> {
        self.asked.send_modify(|asked| asked.shutdown = true);
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        // Nobody wants what it still says; after a flood that is more than anybody wants to wait for.
        let _ = self.say(document(to_shim::ATTACH, &Attach { after: u64::MAX }));
        // A kernel that has ended takes no command and has its report.
        let _ = self.say(document(to_shim::SHUTDOWN, &Shutdown { grace_ms }));
        let mut report = self.report.clone();
        let report = report.wait_for(Option::is_some).await.map(|report| report.clone());
        let report =
            report.map_err(|_| PluginError::unavailable("somebody else has taken the kernel over"))?;
        // The shim goes as soon as the task has told it to.
        self.outgoing.closed().await;
        Ok(report.unwrap_or_default())
    }
}

impl JupyterKernel {
    /// Says a frame; for the first time, that the kernel is wanted.
    fn say(&self, frame: Bytes) -> Result<()> {
        let gone = || PluginError::unavailable("the kernel has ended");
        if self.report.borrow().is_some() {
            return Err(gone());
        }
        if !self.accepted.is_cancelled() {
            self.accepted.cancel();
            self.outgoing.send(self::frame(to_shim::ACCEPT, &[])).map_err(|_| gone())?;
        }
        self.outgoing.send(frame).map_err(|_| gone())
    }
}

/// Whether the shim says that somebody else has the kernel now, before it closes.
async fn is_replaced(reader: &mut Reader) -> bool {
    while let Ok(Some(frame)) = reader.next().await {
        if frame.kind == from_shim::REPLACED {
            return true;
        }
    }
    false
}

/// The task's part.
struct Life {
    folder: PathBuf,
    /// Number of the last message delivered.
    last: Sequence,
    /// Bytes that may still be handed over.
    space: Arc<Semaphore>,
    report: watch::Sender<Option<ExitReport>>,
    asked: watch::Receiver<Asked>,
    accepted: CancellationToken,
    end: CancellationToken,
}

/// Why nothing more is read.
enum Over {
    /// The kernel has ended.
    Exited(ExitReport),
    /// Somebody else has attached.
    Replaced,
    /// The shim is gone without a word.
    Lost,
}

impl Life {
    async fn run(mut self, link: Link, mut waiting: Waiting, events: Arc<dyn KernelEvents>) -> bool {
        let Link { mut reader, writer } = link;
        let end = self.end.clone();
        let over = tokio::select! {
            over = self.read(&mut reader, &*events) => over,
            // Ends when the handle is dropped, which detaches.
            () = waiting.write(&writer, end) => {
                if self.accepted.is_cancelled() {
                    return true;
                }
                // Nobody has made use of it here, so it ends with this connection, unless another has replaced that.
                drop(writer);
                return timeout(GOING, is_replaced(&mut reader)).await.unwrap_or(false);
            }
        };
        match over {
            Over::Exited(report) => {
                self.tell(report, events);
                self.until_collected().await;
                // A shim that is gone needs no collecting.
                let _ = writer.send(&frame(to_shim::COLLECT, &[])).await;
                // Its folder goes before the connection does.
                let gone = async { while let Ok(Some(_)) = reader.next().await {} };
                let _ = timeout(GOING, gone).await;
                false
            }
            Over::Replaced => true,
            Over::Lost => {
                found::bury(self.folder.clone()).await;
                let report = ExitReport {
                    stderr_tail: "The process that kept the kernel ended, and the kernel with it.".to_owned(),
                    ..ExitReport::default()
                };
                self.tell(report, events);
                false
            }
        }
    }

    fn tell(&self, report: ExitReport, events: Arc<dyn KernelEvents>) {
        // The report first: whoever hears of the end must not find the handle alive.
        let _ = self.report.send(Some(report.clone()));
        events.exited(report);
    }

    async fn read(&mut self, reader: &mut Reader, events: &dyn KernelEvents) -> Over {
        loop {
            match reader.next().await {
                Ok(Some(frame)) => {
                    let size = u32::try_from(frame.body.len()).unwrap_or(u32::MAX).min(HANDED_OVER);
                    // Never closed.
                    let Ok(space) = self.space.clone().acquire_many_owned(size).await else {
                        return Over::Lost;
                    };
                    if let Some(over) = self.take(&frame, space, events) {
                        return over;
                    }
                }
                Ok(None) => return Over::Lost,
                Err(error) => {
                    tracing::warn!(%error, "lost the process that keeps a kernel");
                    return Over::Lost;
                }
            }
        }
    }

    fn take(
        &mut self,
        frame: &Frame,
        space: OwnedSemaphorePermit,
        events: &dyn KernelEvents,
    ) -> Option<Over> {
        match frame.kind {
            // There may be a gap now, and nobody who minds.
            from_shim::MESSAGE | from_shim::GAP if self.asked.borrow().shutdown => {}
            from_shim::MESSAGE => {
                let (sequence, body) = frame.numbered();
                let channel = body.first().copied().and_then(Channel::from_number);
                if let Some(channel) = channel {
                    self.last = sequence;
                    let message = HandedOver { message: body.slice(1..), _room: space };
                    events.message(sequence, channel, Bytes::from_owner(message));
                }
            }
            from_shim::GAP => {
                let (sequence, body) = frame.numbered();
                let gap = serde_json::from_slice(&body).unwrap_or_default();
                tracing::warn!(?gap, "a kernel said more than could be kept");
                self.last = sequence;
                events.message(sequence, Channel::Iopub, gap::notice(&gap).encode());
            }
            from_shim::EXITED => {
                return Some(Over::Exited(report(frame.document().unwrap_or_default())));
            }
            from_shim::REPLACED => return Some(Over::Replaced),
            // Of a shim that is newer; nothing that we asked for.
            _ => {}
        }
        None
    }

    /// Waits until what the kernel said has had its effect, or nobody cares: the shim keeps it until then.
    async fn until_collected(&mut self) {
        let last = self.last;
        tokio::select! {
            // Fails when the handle is dropped.
            _ = self.asked.wait_for(|asked| asked.shutdown || asked.acknowledged >= last) => {}
            () = self.end.cancelled() => {}
        }
    }
}
