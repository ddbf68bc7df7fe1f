//! The four connections to a kernel.
//!
//! For: turning sockets into one stream of checked messages and one way to send.
//! Promises: each channel has a reader of its own; order within a channel is kept; unverifiable messages are
//! ignored and counted.
//! Never: looks into a message beyond its signature.
//!
//! IOPub's reader has a thread of its own and waits for nothing but its socket: a kernel's IOPub queue holds
//! 1,000 messages and loses what does not fit. As a task, one of two workers held up for 200 ms by a consumer
//! every 500 messages cost up to 3,500 of 10,000 displays; as a thread none.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use runtimed_plugin_api::{Bytes, Channel, JupyterMessage, PluginError, Result};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connection::Connection;
use crate::wire::Signer;
use crate::zmtp::{self, BlockingReceiver, Closer, Receiver, Role, Sender};

/// Time between attempts to connect to a socket the kernel has not opened yet. An attempt costs
/// microseconds; a kernel needs some 100 attempts to come up.
const RETRY: Duration = Duration::from_millis(5);

/// A message and the channel it came on.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) channel: Channel,
    pub(crate) message: JupyterMessage,
}

/// The connections of one kernel. Dropping it closes them and ends their tasks.
pub(crate) struct Channels {
    /// What the kernel says, in order within each channel. Unbounded: a kernel's output is never held back.
    pub(crate) incoming: mpsc::UnboundedReceiver<Incoming>,
    /// The way to the kernel.
    pub(crate) outgoing: Outgoing,
    /// One reader per channel; each ends when the kernel closes its socket.
    pub(crate) readers: JoinSet<()>,
    /// One writer per channel we send on. Held, never joined: a writer ends with its connection.
    _writers: JoinSet<()>,
    /// Ends the thread that reads IOPub when dropped.
    _subscription: Closer,
}

/// Sends to a kernel without waiting. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outgoing {
    shell: mpsc::UnboundedSender<JupyterMessage>,
    stdin: mpsc::UnboundedSender<JupyterMessage>,
    control: mpsc::UnboundedSender<JupyterMessage>,
}

impl Outgoing {
    /// Hands `message` to the writer of `channel`.
    ///
    /// # Errors
    /// `Invalid` for IOPub, `Unavailable` when the kernel has gone.
    pub(crate) fn send(&self, channel: Channel, message: JupyterMessage) -> Result<()> {
        let writer = match channel {
            Channel::Shell => &self.shell,
            Channel::Stdin => &self.stdin,
            Channel::Control => &self.control,
            Channel::Iopub => return Err(PluginError::invalid("nothing can be sent on IOPub")),
        };
        writer.send(message).map_err(|_| PluginError::unavailable("the kernel has ended"))
    }
}

impl Channels {
    /// Connects to all sockets of `connection`, waiting for the kernel to open them. Waits for ever: the
    /// caller watches the process and the clock.
    ///
    /// # Errors
    /// Whatever a socket says that is not "not there yet".
    pub(crate) async fn connect(connection: &Connection, session: &str) -> Result<Self> {
        let signer = Signer::new(&connection.key)?;
        // The kernel answers on stdin whoever asked on shell: by identity.
        let dealer = Role::Dealer { identity: session };
        let open = async |channel, role| -> Result<(Receiver, Sender)> {
            let stream = connect(&connection.socket(channel)).await;
            let halves = match stream {
                Ok(stream) => zmtp::handshake(stream, role).await,
                Err(error) => Err(error),
            };
            halves.map_err(|error| {
                PluginError::unavailable(format!(
                    "could not connect to the kernel's {channel:?} socket: {error}"
                ))
            })
        };
        let (shell, iopub, stdin, control) = tokio::try_join!(
            open(Channel::Shell, dealer),
            open(Channel::Iopub, Role::Subscriber),
            open(Channel::Stdin, dealer),
            open(Channel::Control, dealer),
        )?;

        let lost = |error| PluginError::unavailable(format!("could not listen to the kernel: {error}"));
        let subscription = iopub.0.into_blocking(iopub.1).map_err(lost)?;
        let closer = subscription.closer().map_err(lost)?;

        let (sender, incoming) = mpsc::unbounded_channel();
        let ignored = Arc::<AtomicU64>::default();
        let reader = |channel| Reader {
            channel,
            signer: signer.clone(),
            ignored: ignored.clone(),
            sender: sender.clone(),
        };
        let mut readers = JoinSet::new();
        readers.spawn(reader(Channel::Shell).run(shell.0));
        readers.spawn(reader(Channel::Stdin).run(stdin.0));
        readers.spawn(reader(Channel::Control).run(control.0));
        let listener = reader(Channel::Iopub);
        readers.spawn_blocking(move || listener.run_blocking(subscription));

        let mut writers = JoinSet::new();
        let mut write = |connection| {
            let (sender, messages) = mpsc::unbounded_channel();
            writers.spawn(run_writer(connection, signer.clone(), messages));
            sender
        };
        let outgoing = Outgoing { shell: write(shell.1), stdin: write(stdin.1), control: write(control.1) };
        Ok(Self { incoming, outgoing, readers, _writers: writers, _subscription: closer })
    }
}

/// Connects to the socket at `path` as soon as somebody listens there.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                tokio::time::sleep(RETRY).await;
            }
            result => return result,
        }
    }
}

struct Reader {
    channel: Channel,
    signer: Signer,
    /// Unverifiable messages of all channels.
    ignored: Arc<AtomicU64>,
    sender: mpsc::UnboundedSender<Incoming>,
}

impl Reader {
    async fn run(self, mut receiver: Receiver) {
        while self.take(receiver.receive().await) {}
    }

    fn run_blocking(self, mut receiver: BlockingReceiver) {
        while self.take(receiver.receive()) {}
    }

    /// Passes a received message on; false when there will be no more, or nobody is left to take them.
    fn take(&self, received: io::Result<Option<Vec<Bytes>>>) -> bool {
        let frames = match received {
            Ok(Some(frames)) => frames,
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(channel = ?self.channel, %error, "lost a kernel's connection");
                return false;
            }
        };
        match self.signer.message(frames) {
            Ok(message) => self.sender.send(Incoming { channel: self.channel, message }).is_ok(),
            Err(error) => {
                let ignored = self.ignored.fetch_add(1, Ordering::Relaxed) + 1;
                // A flood of them must not flood the log.
                if ignored.is_power_of_two() {
                    tracing::warn!(channel = ?self.channel, %error, ignored, "ignored a message");
                }
                true
            }
        }
    }
}

/// Writes `messages` until there are no more or the kernel has closed.
async fn run_writer(
    mut connection: Sender,
    signer: Signer,
    mut messages: mpsc::UnboundedReceiver<JupyterMessage>,
) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = connection.send(&signer.frames(message)).await {
            tracing::debug!(%error, "a kernel closed its socket");
            return;
        }
    }
}
