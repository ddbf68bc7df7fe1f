//! The notebook channels: a client in a room.
//!
//! For: `create_notebook`, `open_notebook`, `notebook_sync`; `open_hosted_notebook` is refused.
//! Promises: the bootstrap reply is the first thing a client reads; reading stops while the room has no
//! credit left; the room always learns that a peer is gone, even if this code panics.
//! Never: looks into a payload, except that of the pool document, which is the host's own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::FutureExt;
use runtimed_plugin_api::{
    Attached, CreateNotebook, Join, JoinTarget, PeerLink, PluginError, RoomInfo, RoomSession,
};
use runtimed_protocol::bootstrap::{Bootstrap, NotebookConnectionInfo, ProtocolCapabilities};
use runtimed_protocol::documents::SyncPeer;
use runtimed_protocol::frame::{FRAME_MAX, FrameType, TypedDecoder, length_header};
use runtimed_protocol::handshake::Handshake;
use runtimed_protocol::identity::{desktop_operator, valid_operator};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::OwnedReadHalf;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::Connection;
use super::egress::Egress;
use super::in_words;
use super::reader::Reader;
use crate::cli::VERSION;
use crate::daemon::Daemon;

/// A client that sends no request, presence or blob for so long is gone (wire contract, section 3.9).
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// Time a room has to forget a peer (our choice; a room in good health needs microseconds).
const DETACH_LIMIT: Duration = Duration::from_secs(10);

/// Brings the connection into its room and serves it until either side leaves.
pub(super) async fn serve(daemon: &Daemon, mut connection: Connection, handshake: Handshake) -> Result<()> {
    let typed = handshake.typed_bootstrap();
    let egress = Arc::new(Egress::default());
    let joining = async {
        let rooms = daemon.rooms().await?;
        rooms.attach(join(daemon, &handshake)?, Arc::clone(&egress) as Arc<dyn PeerLink>).await
    };
    let attached = tokio::select! {
        () = daemon.disconnect.cancelled() => return Ok(()),
        attached = joining => attached,
    };
    let Attached { info, session } = match attached {
        Ok(attached) => attached,
        Err(error) => {
            let refusal =
                NotebookConnectionInfo::refusal(ProtocolCapabilities::new(VERSION), in_words(&error));
            let body = Bootstrap::NotebookConnectionInfo(refusal).encode(typed)?;
            connection.writer.write_all(&length_header(body.len(), FRAME_MAX)?).await?;
            connection.writer.write_all(&body).await?;
            return Ok(connection.writer.shutdown().await?);
        }
    };
    let served = async {
        egress.send_first(bootstrap(&handshake, info).encode(typed)?)?;
        let peer = Peer {
            daemon,
            session: &*session,
            egress: &egress,
            pool_sync: SyncPeer::new(),
            last_active: Instant::now(),
        };
        tokio::select! {
            written = egress.write_to(connection.writer) => Ok(written?),
            received = peer.run(connection.reader) => received,
        }
    };
    let served = AssertUnwindSafe(served).catch_unwind().await;
    egress.close();
    if timeout(DETACH_LIMIT, session.detach()).await.is_err() {
        tracing::error!("a room did not let go of a peer within {DETACH_LIMIT:?}");
    }
    served.unwrap_or_else(|_| Err(anyhow!("serving a notebook connection panicked; its room goes on")))
}

/// A connection in its room.
struct Peer<'a> {
    daemon: &'a Daemon,
    session: &'a dyn RoomSession,
    egress: &'a Egress,
    pool_sync: SyncPeer,
    /// When the client last sent a request, presence or a blob.
    last_active: Instant,
}

impl Peer<'_> {
    /// Delivers frames until the client leaves, breaks the protocol or falls silent.
    async fn run(mut self, mut reader: Reader<OwnedReadHalf>) -> Result<()> {
        let mut decoder = TypedDecoder::new();
        let mut pools = self.daemon.pool_document.watch();
        self.send_pool_sync();
        // What the room will still take; frames wait in the reader while it is not positive.
        let mut credit = 1;
        loop {
            while credit > 0 {
                let Some(frame) = decoder.decode(&mut reader.buffer)? else { break };
                match frame.frame_type {
                    FrameType::POOL_SYNC => {
                        self.daemon.pool_document.receive(&mut self.pool_sync, &frame.payload)?;
                        self.send_pool_sync();
                    }
                    FrameType::RESPONSE | FrameType::BROADCAST | FrameType::SESSION_CONTROL => {}
                    frame_type => {
                        if matches!(
                            frame_type,
                            FrameType::REQUEST | FrameType::PRESENCE | FrameType::PUT_BLOB
                        ) {
                            self.last_active = Instant::now();
                        }
                        self.egress.reset_grants();
                        credit = self.session.receive(frame_type, frame.payload);
                    }
                }
            }
            tokio::select! {
                () = self.daemon.disconnect.cancelled() => return Ok(()),
                () = self.egress.broken.cancelled() => return Ok(()),
                () = self.egress.writable.notified() => self.session.writable(),
                () = self.egress.grant.notified(), if credit <= 0 => {
                    let granted = self.egress.granted();
                    if credit + granted > 0 {
                        credit += granted;
                    }
                }
                more = reader.fill(), if credit > 0 => if !more? { return Ok(()) },
                changed = pools.changed() => {
                    changed?;
                    self.send_pool_sync();
                }
                () = sleep_until(self.last_active + IDLE_LIMIT) => {
                    return Err(anyhow!("the client was silent for {IDLE_LIMIT:?}"));
                }
            }
        }
    }

    fn send_pool_sync(&mut self) {
        if let Some(message) = self.daemon.pool_document.message_for(&mut self.pool_sync) {
            self.egress.send(FrameType::POOL_SYNC, message.into());
        }
    }
}

/// Who wants in where.
fn join(daemon: &Daemon, handshake: &Handshake) -> Result<Join, PluginError> {
    let target = match handshake {
        Handshake::CreateNotebook(create) => JoinTarget::Create(CreateNotebook {
            runtime: create.runtime.clone(),
            working_dir: create.working_dir.clone().map(Into::into),
            notebook_id: create.notebook_id.clone(),
            ephemeral: create.ephemeral,
            package_manager: create.provider_kind().map(str::to_owned),
            environment_mode: Some(create.environment_mode.as_str().to_owned()),
            dependencies: create.dependencies.clone(),
        }),
        Handshake::OpenNotebook(open) => JoinTarget::Open {
            path: open.path.clone().into(),
            working_dir: open.working_dir.clone().map(Into::into),
        },
        Handshake::NotebookSync(sync) => JoinTarget::Attach {
            notebook_id: sync.notebook_id.clone(),
            working_dir: sync.working_dir.clone().map(Into::into),
            initial_metadata: sync.initial_metadata.clone(),
        },
        _ => {
            return Err(PluginError::unsupported("This daemon has no access to notebooks in the cloud.")
                .help("Open a local copy of the notebook instead."));
        }
    };
    let presented = handshake.operator().and_then(valid_operator);
    let random = uuid::Uuid::new_v4().as_fields().0;
    let operator = presented.map_or_else(|| desktop_operator(random), str::to_owned);
    Ok(Join { target, principal: daemon.principal.clone(), operator })
}

/// The reply that tells the client where it is.
fn bootstrap(handshake: &Handshake, info: RoomInfo) -> Bootstrap {
    let capabilities = ProtocolCapabilities {
        actor_label: Some(info.actor_label),
        connection_scope: Some(info.connection_scope),
        comments_doc_id: Some(info.comments_doc_id),
        comments_notebook_ref: Some(info.comments_notebook_ref),
        ..ProtocolCapabilities::new(VERSION)
    };
    if matches!(handshake, Handshake::NotebookSync(_)) {
        return Bootstrap::ProtocolCapabilities(capabilities);
    }
    Bootstrap::NotebookConnectionInfo(NotebookConnectionInfo {
        capabilities,
        notebook_id: info.notebook_id,
        cell_count: info.cell_count,
        needs_trust_approval: info.needs_trust_approval,
        error: None,
        ephemeral: info.ephemeral,
        notebook_path: info.notebook_path.map(|path| path.to_string_lossy().into_owned()),
    })
}
