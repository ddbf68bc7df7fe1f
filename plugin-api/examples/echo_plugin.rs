//! A plugin for tests that provides one of everything, each as small as it can be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtimed_plugin_api::{
    Attached, Blob, BlobFile, BlobStore, Bytes, Channel, Credit, Digest, ExitReport, Host, Join, Kernel,
    KernelBackend, KernelEvents, KernelInfo, KernelKind, LaunchSpec, LiveSet, PeerLink, Plugin, PluginError,
    Result, RoomInfo, RoomReply, RoomRequest, RoomSession, Rooms, Sequence, Swept, async_trait,
};
use sha2::{Digest as _, Sha256};

struct Echo(Host);

#[async_trait]
impl Plugin for Echo {
    fn create(host: Host) -> Result<Self> {
        Ok(Self(host))
    }

    fn blob_store(&self) -> Option<Arc<dyn BlobStore>> {
        Some(Arc::new(Memory::default()))
    }

    fn kernel_backends(&self) -> Vec<Arc<dyn KernelBackend>> {
        vec![Arc::new(Kernels(self.0.clone()))]
    }

    fn rooms(&self) -> Option<Arc<dyn Rooms>> {
        Some(Arc::new(EchoRooms))
    }
}

/// Blobs that live as long as the plugin.
#[derive(Default)]
struct Memory(Mutex<HashMap<Digest, Blob>>);

#[async_trait]
impl BlobStore for Memory {
    async fn put(&self, bytes: Bytes, media_type: &str) -> Result<Digest> {
        let digest = Digest(Sha256::digest(&bytes).into());
        let blob = Blob { bytes, media_type: media_type.to_owned() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, blob);
        Ok(digest)
    }

    async fn get(&self, digest: Digest) -> Result<Option<Blob>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned())
    }

    async fn locate(&self, _: Digest) -> Result<Option<BlobFile>> {
        Ok(None)
    }

    async fn sweep(&self, live: LiveSet) -> Result<Swept> {
        let mut blobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = blobs.len();
        blobs.retain(|digest, _| live.digests.contains(digest));
        Ok(Swept { deleted: (before - blobs.len()) as u64, bytes: 0, kept: blobs.len() as u64 })
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }
}

/// Kernels that send every message back.
struct Kernels(Host);

#[async_trait]
impl KernelBackend for Kernels {
    async fn kinds(&self) -> Result<Vec<KernelKind>> {
        let name = || "echo".to_owned();
        Ok(vec![KernelKind { name: name(), language: name(), display_name: name() }])
    }

    async fn launch(&self, spec: LaunchSpec, events: Arc<dyn KernelEvents>) -> Result<Box<dyn Kernel>> {
        let info =
            KernelInfo { kernel: spec.kernel, pid: None, reply: serde_json::json!({ "status": "ok" }) };
        Ok(Box::new(EchoKernel { info, events, sent: Mutex::new(0), host: self.0.clone() }))
    }
}

struct EchoKernel {
    info: KernelInfo,
    events: Arc<dyn KernelEvents>,
    sent: Mutex<Sequence>,
    host: Host,
}

#[async_trait]
impl Kernel for EchoKernel {
    fn info(&self) -> KernelInfo {
        self.info.clone()
    }

    fn send(&self, channel: Channel, message: Bytes) -> Result<()> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent += 1;
        self.events.message(*sent, channel, message);
        Ok(())
    }

    fn acknowledge(&self, up_to: Sequence) {
        self.host.log(2, "echo", &format!("acknowledged {up_to}"), "{}");
    }

    async fn interrupt(&self) -> Result<()> {
        Err(PluginError::unsupported("an echo cannot be interrupted"))
    }

    async fn shutdown(&self, _: Duration) -> Result<ExitReport> {
        let report = ExitReport { code: Some(0), requested: true, ..ExitReport::default() };
        self.events.exited(report.clone());
        Ok(report)
    }
}

impl Drop for EchoKernel {
    fn drop(&mut self) {
        self.host.log(2, "echo", "the kernel was dropped", "{}");
    }
}

/// Rooms in which a peer is alone. Each session takes [`WINDOW`] bytes and asks for more when it is told to.
struct EchoRooms;

/// What a session takes before it says that it is full.
const WINDOW: Credit = 100_000;
/// A frame of this type is not sent back but grants as many bytes as it says.
const GRANT_FRAME: u8 = 9;
/// A frame of this type is answered with frames of 64 KiB until the link is full.
const FLOOD_FRAME: u8 = 10;

#[async_trait]
impl Rooms for EchoRooms {
    async fn attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Attached> {
        link.send(1, Bytes::from_static(b"welcome"));
        let info = RoomInfo { actor_label: join.operator, ..RoomInfo::default() };
        Ok(Attached { info, session: Box::new(EchoSession { link, taken: Mutex::new(0) }) })
    }

    async fn ask(&self, _: RoomRequest) -> Result<RoomReply> {
        Ok(RoomReply::Closed)
    }
}

struct EchoSession {
    link: Arc<dyn PeerLink>,
    taken: Mutex<Credit>,
}

#[async_trait]
impl RoomSession for EchoSession {
    fn receive(&self, frame_type: u8, payload: Bytes) -> Credit {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match frame_type {
            GRANT_FRAME => {
                let more = String::from_utf8_lossy(&payload).parse().unwrap_or(0);
                *taken -= Credit::try_from(more).unwrap_or(0);
                self.link.grant(more);
            }
            FLOOD_FRAME => while self.link.send(2, Bytes::from(vec![0; 64 << 10])) > 0 {},
            _ => {
                *taken += payload.len() as Credit;
                self.link.send(frame_type, payload);
            }
        }
        WINDOW - *taken
    }

    fn writable(&self) {
        self.link.send(3, Bytes::from_static(b"writable"));
    }

    async fn detach(&self) {
        self.link.close();
    }
}

runtimed_plugin_api::export_plugin!(Echo, id = "echo");
