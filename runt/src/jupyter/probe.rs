//! Whether a kernel is there, and what it is.
//!
//! Promises: takes no longer than it is given; a kernel that is busy answers as well as an idle one, where it can.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use runtimed_jupyter_wire::requests::{Header, request};
use runtimed_jupyter_wire::signer::Signer;
use runtimed_jupyter_wire::zmtp::Role;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::Connection;
use super::socket::Socket;

/// What was found out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Whether its heart beats.
    pub(crate) alive: bool,
    /// Language it says it speaks.
    pub(crate) language: Option<String>,
    /// Version of that.
    pub(crate) version: Option<String>,
}

/// Finds out what can be found out within `limit`.
pub(crate) async fn probe(kernel: &Connection, limit: Duration) -> Probe {
    let (alive, about) = tokio::join!(timeout(limit, heartbeat(kernel)), timeout(limit, about(kernel)));
    let about = about.ok().and_then(Result::ok).unwrap_or_default();
    let text = |name| about.pointer(name).and_then(Value::as_str).map(str::to_owned);
    Probe {
        // Who answers anything is alive.
        alive: matches!(alive, Ok(Ok(()))) || !about.is_null(),
        language: text("/language_info/name"),
        version: text("/language_info/version"),
    }
}

/// Waits until the kernel echoes.
///
/// # Errors
/// The system's.
pub(crate) async fn heartbeat(kernel: &Connection) -> io::Result<()> {
    let identity = Uuid::new_v4().to_string();
    let mut socket = Socket::connect(kernel, kernel.hb_port, Role::Dealer { identity: &identity }).await?;
    // As a REQ socket would: an empty part in front.
    socket.send(&[Bytes::new(), Bytes::from_static(b"runt")])?;
    socket.receive().await.map(drop)
}

/// The kernel's `kernel_info_reply`, asked for where it is answered while a cell runs.
async fn about(kernel: &Connection) -> io::Result<Value> {
    let session = Uuid::new_v4().to_string();
    let mut control =
        Socket::connect(kernel, kernel.control_port, Role::Dealer { identity: &session }).await?;
    let signer = Signer::new(&kernel.key)?;
    let (id, message) = request(&session, "kernel_info_request", json!({}));
    control.send(&signer.frames(message))?;
    loop {
        if let Ok(message) = signer.message(control.receive().await?)
            && Header::parse(&message.parent_header).msg_id == id
        {
            return Ok(serde_json::from_slice(&message.content)?);
        }
    }
}
