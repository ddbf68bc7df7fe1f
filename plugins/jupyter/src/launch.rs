//! Starting a kernel, up to the moment it can be used.
//!
//! For: [`crate::backend`].
//! Promises: what is returned answers on shell and is heard on IOPub, so no output of the first execution
//! can be lost; a process that ends is noticed at once; dropping the future kills the process and deletes
//! its folder.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use runtimed_plugin_api::{
    Channel, ErrorCode, ExitReport, JupyterMessage, KernelInfo, LaunchSpec, PluginError, Result,
};
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::channels::{Channels, Incoming};
use crate::connection::Connection;
use crate::kind::Kind;
use crate::leftovers;
use crate::process::KernelProcess;
use crate::requests::{Header, Status, request};

/// Longest wait for a kernel to answer (the limit clients of the reference know).
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long after the reply on shell its echo on IOPub may take before we ask again: the subscription may
/// have arrived after the kernel published. The echo of a heard request takes about a millisecond.
const ECHO_LIMIT: Duration = Duration::from_millis(200);

/// A kernel that is up. Dropping it kills the process, closes the sockets and deletes the folder.
pub(crate) struct Started {
    pub(crate) info: KernelInfo,
    pub(crate) process: KernelProcess,
    pub(crate) channels: Channels,
    /// Session id of our own requests.
    pub(crate) session: String,
    /// Held for its folder, which goes last.
    _connection: Connection,
}

/// Starts the kernel `spec` describes; its folder is made below `runtime`.
///
/// # Errors
/// As [`Connection::create`], [`KernelProcess::spawn`] and [`Channels::connect`]; `Unavailable` with the last
/// lines of stderr when the process ends early, `Timeout` with them when it does not answer in time.
pub(crate) async fn launch(runtime: &Path, spec: &LaunchSpec, kind: Kind) -> Result<Started> {
    let connection = Connection::create(runtime, kind.kernel_name)?;
    let mut process = KernelProcess::spawn(spec, kind, &connection)?;
    if let Err(error) = leftovers::record(&connection, process.id()) {
        tracing::warn!(%error, "could not note the kernel's process id; after a crash it is not cleaned up");
    }
    let session = Uuid::new_v4().to_string();
    let ready = async {
        let mut channels = Channels::connect(&connection, &session).await?;
        let reply = shake_hands(&mut channels, &session).await?;
        prepare(&mut channels, &session, kind).await?;
        Ok::<_, PluginError>((channels, reply))
    };
    let (channels, reply) = tokio::select! {
        biased;
        report = process.exited() => return Err(died(&report)),
        ready = ready => ready?,
        () = sleep(START_LIMIT) => return Err(silent(&process.stderr_tail())),
    };
    let info = KernelInfo { kernel: spec.kernel.clone(), pid: Some(process.id()), reply };
    Ok(Started { info, process, channels, session, _connection: connection })
}

/// Asks for `kernel_info` until the kernel has answered and the answer's last echo was heard on IOPub.
/// Returns the content of the reply. Everything said meanwhile belongs to the start and is dropped.
async fn shake_hands(channels: &mut Channels, session: &str) -> Result<serde_json::Value> {
    let mut asked = BTreeSet::new();
    let mut reply = None;
    let mut heard = false;
    loop {
        let (id, message) = request(session, "kernel_info_request", json!({}));
        asked.insert(id);
        channels.outgoing.send(Channel::Shell, message)?;
        loop {
            let incoming = channels.incoming.recv();
            let incoming = match reply {
                None => incoming.await,
                Some(_) => match timeout(ECHO_LIMIT, incoming).await {
                    Ok(incoming) => incoming,
                    Err(_) => break,
                },
            };
            let Some(Incoming { channel, message }) = incoming else {
                return Err(closed());
            };
            if !asked.contains(&Header::parse(&message.parent_header).msg_id) {
                continue;
            }
            match channel {
                Channel::Shell => reply = Some(serde_json::from_slice(&message.content)?),
                Channel::Iopub => heard |= is_idle(&message),
                Channel::Stdin | Channel::Control => {}
            }
            if let (Some(reply), true) = (&reply, heard) {
                return Ok(serde_json::Value::clone(reply));
            }
        }
    }
}

/// Runs the kind's preparation to its end, unseen by the user and whether or not it succeeds.
async fn prepare(channels: &mut Channels, session: &str, kind: Kind) -> Result<()> {
    let content = json!({
        "code": kind.preparation, "silent": true, "store_history": false,
        "user_expressions": {}, "allow_stdin": false, "stop_on_error": false,
    });
    let (id, message) = request(session, "execute_request", content);
    channels.outgoing.send(Channel::Shell, message)?;
    let (mut replied, mut idle) = (false, false);
    while !(replied && idle) {
        let Some(Incoming { channel, message }) = channels.incoming.recv().await else {
            return Err(closed());
        };
        if Header::parse(&message.parent_header).msg_id == id {
            replied |= channel == Channel::Shell;
            idle |= channel == Channel::Iopub && is_idle(&message);
        }
    }
    Ok(())
}

fn is_idle(message: &JupyterMessage) -> bool {
    Header::parse(&message.header).msg_type == "status"
        && serde_json::from_slice::<Status>(&message.content)
            .is_ok_and(|status| status.execution_state == "idle")
}

fn closed() -> PluginError {
    PluginError::unavailable("the kernel closed its sockets while it was starting")
}

fn died(report: &ExitReport) -> PluginError {
    let how = match (report.code, report.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    };
    with_tail(ErrorCode::Unavailable, format!("Kernel process exited: {how}"), &report.stderr_tail)
        .detail(json!({ "exit": report }))
}

fn silent(tail: &str) -> PluginError {
    let message = format!("the kernel did not answer within {} s; it was ended", START_LIMIT.as_secs());
    with_tail(ErrorCode::Timeout, message, tail).retryable()
}

/// The error texts clients show: one line, then what the kernel wrote last.
fn with_tail(code: ErrorCode, message: String, tail: &str) -> PluginError {
    let message = if tail.is_empty() { message } else { format!("{message}\nstderr tail:\n{tail}") };
    PluginError::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Signer;
    use crate::zmtp::{self, Role};
    use bytes::Bytes;
    use runtimed_plugin_api::JupyterMessage;
    use tokio::net::UnixListener;

    /// A message of `kind` that answers `request`.
    fn answer(request_: &JupyterMessage, kind: &str, content: serde_json::Value) -> JupyterMessage {
        let (_, message) = request("kernel", kind, content);
        JupyterMessage { parent_header: request_.header.clone(), ..message }
    }

    #[tokio::test]
    async fn a_lost_echo_is_asked_for_again_and_forgeries_do_not_count() {
        let runtime = tempfile::tempdir().unwrap();
        let connection = Connection::create(runtime.path(), "python3").unwrap();
        let signer = Signer::new(&connection.key).unwrap();
        let listen = |channel| UnixListener::bind(connection.socket(channel)).unwrap();
        let listeners = [Channel::Shell, Channel::Iopub, Channel::Stdin, Channel::Control].map(listen);
        let kernel = async {
            let mut sockets = Vec::new();
            for listener in &listeners {
                let (stream, _) = listener.accept().await.unwrap();
                // Two dealers understand each other as well.
                sockets.push(zmtp::handshake(stream, Role::Dealer { identity: "kernel" }).await.unwrap());
            }
            let [(mut shell, mut reply), (mut subscription, mut iopub), ..] =
                <[_; 4]>::try_from(sockets).ok().unwrap();
            assert_eq!(subscription.receive().await.unwrap().unwrap(), [Bytes::from_static(&[1])]);
            let idle = json!({ "execution_state": "idle" });
            for attempt in 0..2 {
                let asked = signer.message(shell.receive().await.unwrap().unwrap()).unwrap();
                let info = answer(&asked, "kernel_info_reply", json!({ "attempt": attempt }));
                reply.send(&signer.frames(info)).await.unwrap();
                let echo = answer(&asked, "status", idle.clone());
                let signer = if attempt == 0 { Signer::new("forged").unwrap() } else { signer.clone() };
                iopub.send(&signer.frames(echo)).await.unwrap();
            }
            (shell, reply, subscription, iopub)
        };
        let client = async {
            let mut channels = Channels::connect(&connection, "session").await.unwrap();
            shake_hands(&mut channels, "session").await.unwrap()
        };
        let (_open, reply) = tokio::join!(kernel, client);
        assert!(reply["attempt"].is_number());
    }
}
