//! A client of one kernel: four sockets, one session.
//!
//! Promises: what is not signed with the kernel's key is not heard; waiting can be given up at any moment and nothing is
//! lost.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use runtimed_jupyter_wire::requests::{Header, request};
use runtimed_jupyter_wire::signer::Signer;
use runtimed_jupyter_wire::zmtp::Role;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::connection::Connection;
use super::socket::Socket;

/// How long the echo of a request may be behind its answer.
const ECHO: Duration = Duration::from_millis(200);
/// Pause before trying again.
const PAUSE: Duration = Duration::from_millis(20);

/// The channels of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Shell,
    Iopub,
    Stdin,
    Control,
}

/// A message of the kernel.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) channel: Channel,
    /// Such as `stream`.
    pub(crate) kind: String,
    /// Id of the request it belongs to; empty if to none.
    pub(crate) parent: String,
    pub(crate) content: Value,
}

/// Connected to a kernel.
pub(crate) struct KernelClient {
    shell: Socket,
    iopub: Socket,
    stdin: Socket,
    control: Socket,
    signer: Signer,
    session: String,
}

impl Said {
    /// A text in the content; empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.content.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it tells that the kernel is done with what `request` began.
    pub(crate) fn is_idle(&self, request: &str) -> bool {
        self.kind == "status" && self.parent == request && self.text("execution_state") == "idle"
    }
}

impl KernelClient {
    /// Connects to all sockets.
    ///
    /// # Errors
    /// The system's; `ConnectionRefused` and `NotFound` when nobody listens.
    pub(crate) async fn connect(kernel: &Connection) -> io::Result<Self> {
        let session = Uuid::new_v4().to_string();
        let dealer = Role::Dealer { identity: &session };
        // IOPub first: what it misses cannot be had again.
        let iopub = Socket::connect(kernel, kernel.iopub_port, Role::Subscriber).await?;
        let shell = Socket::connect(kernel, kernel.shell_port, dealer).await?;
        let stdin = Socket::connect(kernel, kernel.stdin_port, dealer).await?;
        let control = Socket::connect(kernel, kernel.control_port, dealer).await?;
        let signer = Signer::new(&kernel.key)?;
        Ok(Self { shell, iopub, stdin, control, signer, session })
    }

    /// The same for a kernel that may be about to listen: gives it `patience`.
    ///
    /// # Errors
    /// As [`KernelClient::connect`], when it does not listen by then.
    pub(crate) async fn connect_within(kernel: &Connection, patience: Duration) -> io::Result<Self> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::connect(kernel).await {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
                        && Instant::now() < deadline =>
                {
                    sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Sends a request, or on [`Channel::Stdin`] an answer; returns its id.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn send(&mut self, channel: Channel, kind: &str, content: Value) -> io::Result<String> {
        let (id, message) = request(&self.session, kind, content);
        let frames = self.signer.frames(message);
        match channel {
            Channel::Shell => self.shell.send(&frames)?,
            Channel::Stdin => self.stdin.send(&frames)?,
            Channel::Control => self.control.send(&frames)?,
            Channel::Iopub => return Err(io::Error::other("nothing can be sent on IOPub")),
        }
        Ok(id)
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// `UnexpectedEof` when the kernel has closed a socket; the system's.
    pub(crate) async fn next(&mut self) -> io::Result<Said> {
        loop {
            let (channel, frames) = tokio::select! {
                // What a request brought is heard before the answer to it.
                biased;
                frames = self.iopub.receive() => (Channel::Iopub, frames?),
                frames = self.stdin.receive() => (Channel::Stdin, frames?),
                frames = self.shell.receive() => (Channel::Shell, frames?),
                frames = self.control.receive() => (Channel::Control, frames?),
            };
            if let Some(said) = self.understand(channel, frames) {
                return Ok(said);
            }
        }
    }

    /// Waits until the kernel has answered and is known to be heard on IOPub. Returns its `kernel_info_reply`.
    ///
    /// # Errors
    /// Those of [`KernelClient::next`].
    pub(crate) async fn greet(&mut self) -> io::Result<Value> {
        loop {
            let id = self.send(Channel::Shell, "kernel_info_request", json!({}))?;
            let (mut reply, mut heard) = (None, false);
            while reply.is_none() {
                let said = self.next().await?;
                heard |= said.is_idle(&id);
                if said.channel == Channel::Shell && said.parent == id {
                    reply = Some(said.content);
                }
            }
            let idle = async {
                while !heard {
                    heard = self.next().await?.is_idle(&id);
                }
                io::Result::Ok(())
            };
            // The kernel may have said it before the subscription was there.
            if let (Ok(idle), Some(reply)) = (timeout(ECHO, idle).await, reply) {
                idle?;
                return Ok(reply);
            }
        }
    }

    fn understand(&self, channel: Channel, frames: Vec<Bytes>) -> Option<Said> {
        let message = self.signer.message(frames).ok()?;
        Some(Said {
            channel,
            kind: Header::parse(&message.header).msg_type,
            parent: Header::parse(&message.parent_header).msg_id,
            content: serde_json::from_slice(&message.content).ok()?,
        })
    }
}
