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
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::egress::Egress;
use super::in_words;
use super::pool_doc::PoolDocument;
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
    egress.send_first(bootstrap(&handshake, info).encode(typed)?)?;
    let shared = Shared { pool_document: &daemon.pool_document, disconnect: &daemon.disconnect };
    converse(shared, &*session, &egress, connection).await
}

/// Carries frames both ways until either side leaves, then tells the room.
async fn converse(
    shared: Shared<'_>,
    session: &dyn RoomSession,
    egress: &Egress,
    connection: Connection,
) -> Result<()> {
    let Connection { reader, writer } = connection;
    let peer = Peer { shared, session, egress, pool_sync: SyncPeer::new(), last_active: Instant::now() };
    let served = async {
        tokio::select! {
            written = egress.write_to(writer) => Ok(written?),
            received = peer.run(reader) => received,
        }
    };
    let served = AssertUnwindSafe(served).catch_unwind().await;
    egress.close();
    if timeout(DETACH_LIMIT, session.detach()).await.is_err() {
        tracing::error!("a room did not let go of a peer within {DETACH_LIMIT:?}");
    }
    served.unwrap_or_else(|_| Err(anyhow!("serving a notebook connection panicked; its room goes on")))
}

/// What a connection needs of the daemon.
struct Shared<'a> {
    pool_document: &'a PoolDocument,
    /// Ends the connection.
    disconnect: &'a CancellationToken,
}

/// A connection in its room.
struct Peer<'a> {
    shared: Shared<'a>,
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
        let mut pools = self.shared.pool_document.watch();
        self.send_pool_sync();
        // What the room will still take; frames wait in the reader while it is not positive.
        let mut credit = 1;
        loop {
            while credit > 0 {
                let Some(frame) = decoder.decode(&mut reader.buffer)? else { break };
                match frame.frame_type {
                    FrameType::POOL_SYNC => {
                        self.shared.pool_document.receive(&mut self.pool_sync, &frame.payload)?;
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
                () = self.shared.disconnect.cancelled() => return Ok(()),
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
        if let Some(message) = self.shared.pool_document.message_for(&mut self.pool_sync) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use runtimed_plugin_api::{Credit, async_trait};
    use runtimed_protocol::frame::typed_header;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    /// Reports what it is told and answers what the test says.
    struct FakeSession {
        received: mpsc::UnboundedSender<Bytes>,
        /// What is left after each frame.
        credit: Credit,
        detached: AtomicBool,
    }

    #[async_trait]
    impl RoomSession for FakeSession {
        fn receive(&self, _: u8, payload: Bytes) -> Credit {
            assert_ne!(&payload[..], b"panic");
            self.received.send(payload).unwrap();
            self.credit
        }

        fn writable(&self) {}

        async fn detach(&self) {
            self.detached.store(true, Ordering::SeqCst);
        }
    }

    /// A connection between a client and a session.
    struct World {
        session: Arc<FakeSession>,
        egress: Arc<Egress>,
        received: mpsc::UnboundedReceiver<Bytes>,
        client: UnixStream,
        serving: tokio::task::JoinHandle<Result<()>>,
    }

    impl World {
        fn new(credit: Credit) -> Self {
            let (client, ours) = UnixStream::pair().unwrap();
            let (sender, received) = mpsc::unbounded_channel();
            let session =
                Arc::new(FakeSession { received: sender, credit, detached: AtomicBool::new(false) });
            let egress = Arc::new(Egress::default());
            egress.send_first(b"{}".to_vec()).unwrap();
            let (reader, writer) = ours.into_split();
            let connection = Connection { reader: Reader::new(reader, BytesMut::new()), writer };
            let (session2, egress2) = (Arc::clone(&session), Arc::clone(&egress));
            let serving = tokio::spawn(async move {
                let (pool_document, disconnect) = (PoolDocument::new().unwrap(), CancellationToken::new());
                let shared = Shared { pool_document: &pool_document, disconnect: &disconnect };
                converse(shared, &*session2, &egress2, connection).await
            });
            Self { session, egress, received, client, serving }
        }

        async fn send(&mut self, frame_type: u8, payload: &[u8]) {
            let mut frame = typed_header(frame_type, payload.len()).unwrap().to_vec();
            frame.extend(payload);
            self.client.write_all(&frame).await.unwrap();
        }

        /// Reads until the daemon closes, then checks that the room was told.
        async fn end(mut self) -> (Vec<u8>, Result<()>) {
            let mut rest = Vec::new();
            self.client.read_to_end(&mut rest).await.ok();
            let served = self.serving.await.unwrap();
            assert!(self.session.detached.load(Ordering::SeqCst));
            (rest, served)
        }
    }

    #[tokio::test]
    async fn the_reply_comes_first_and_what_is_queued_is_written_before_a_close() {
        let world = World::new(1);
        world.egress.send(FrameType::RESPONSE, Bytes::from_static(b"last words"));
        world.egress.close();
        let (read, served) = world.end().await;
        served.unwrap();
        assert!(read.starts_with(b"\x00\x00\x00\x02{}"), "{read:?}");
        assert!(read.windows(10).any(|part| part == b"last words"));
    }

    #[tokio::test]
    async fn reading_pauses_without_credit_and_goes_on_after_a_grant() {
        let mut world = World::new(0);
        world.send(FrameType::REQUEST, b"one").await;
        world.send(FrameType::REQUEST, b"two").await;
        assert_eq!(&world.received.recv().await.unwrap()[..], b"one");
        // An unknown type would be skipped at once; nothing overtakes the frame that waits.
        assert!(world.received.try_recv().is_err());
        world.egress.grant(1);
        assert_eq!(&world.received.recv().await.unwrap()[..], b"two");
        world.egress.grant(1);
        world.egress.close();
        world.end().await.1.unwrap();
    }

    #[tokio::test]
    async fn only_frames_a_client_may_send_reach_the_room() {
        let mut world = World::new(1);
        for frame_type in [FrameType::RESPONSE, FrameType::BROADCAST, FrameType::SESSION_CONTROL] {
            world.send(frame_type, b"ignored").await;
        }
        world.client.write_all(b"\x00\x00\x00\x03\x7fab").await.unwrap();
        world.send(FrameType::PRESENCE, b"seen").await;
        assert_eq!(&world.received.recv().await.unwrap()[..], b"seen");
    }

    #[tokio::test]
    async fn a_broken_frame_and_a_broken_pool_message_end_the_connection() {
        for bytes in [&b"\x00\x00\x00\x00"[..], b"\xff\xff\xff\xff", b"\x00\x00\x00\x08\x06garbage"] {
            let mut world = World::new(1);
            world.client.write_all(bytes).await.unwrap();
            assert!(world.end().await.1.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn the_room_is_told_even_after_a_panic() {
        let mut world = World::new(1);
        world.send(FrameType::REQUEST, b"panic").await;
        assert!(world.end().await.1.unwrap_err().to_string().contains("panicked"));
    }
}
