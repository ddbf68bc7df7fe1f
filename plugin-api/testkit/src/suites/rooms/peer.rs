//! One connection, from the host's side.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{
    Attached, Bytes, Credit, Join, JoinTarget, PeerLink, Result, RoomInfo, RoomSession, Rooms,
};

use crate::bench::lock;

/// Type of a frame with a sync message of the notebook document (docs/PROTOCOL.md).
pub(super) const SYNC: u8 = 0x00;
/// First bytes of the two forms of sync message that there are.
const MESSAGES: [u8; 2] = [0x42, 0x43];

/// A connection that is in a room.
pub(super) struct Peer {
    pub(super) info: RoomInfo,
    pub(super) session: Box<dyn RoomSession>,
    link: Arc<Link>,
    said: AtomicU64,
}

/// What the room has told the connection.
struct Link {
    sent: Mutex<Vec<(u8, Bytes)>>,
    granted: AtomicU64,
    credit: AtomicI64,
    closed: AtomicBool,
}

/// Brings a connection into a room.
pub(super) async fn join(rooms: &dyn Rooms, name: &str, target: JoinTarget) -> Result<Peer> {
    let link = Arc::new(Link {
        sent: Mutex::default(),
        granted: AtomicU64::new(0),
        credit: AtomicI64::new(i64::MAX),
        closed: AtomicBool::new(false),
    });
    let join = Join { target, principal: "local:testkit".to_owned(), operator: format!("kit:{name}") };
    let Attached { info, session } = rooms.attach(join, link.clone()).await?;
    Ok(Peer { info, session, link, said: AtomicU64::new(0) })
}

impl Peer {
    /// Sends a frame.
    pub(super) fn say(&self, frame_type: u8, payload: &'static [u8]) {
        self.session.receive(frame_type, Bytes::from_static(payload));
        self.said.fetch_add(payload.len() as u64, Ordering::SeqCst);
    }

    /// Bytes sent so far.
    pub(super) fn said(&self) -> u64 {
        self.said.load(Ordering::SeqCst)
    }

    /// Bytes the room lets the connection send again.
    pub(super) fn granted(&self) -> u64 {
        self.link.granted.load(Ordering::SeqCst)
    }

    /// Frames the room has sent.
    pub(super) fn frames(&self) -> usize {
        lock(&self.link.sent).len()
    }

    /// Bytes of all of them.
    pub(super) fn heard(&self) -> usize {
        lock(&self.link.sent).iter().map(|(_, frame)| frame.len()).sum()
    }

    /// Whether the room has closed the connection.
    pub(super) fn closed(&self) -> bool {
        self.link.closed.load(Ordering::SeqCst)
    }

    /// What is left of the connection's credit from now on, whatever is sent.
    pub(super) fn set_credit(&self, credit: Credit) {
        self.link.credit.store(credit, Ordering::SeqCst);
    }

    /// The heads of the notebook as the room told them, message by message.
    pub(super) fn heard_heads(&self) -> Vec<Vec<[u8; 32]>> {
        let sent = lock(&self.link.sent);
        sent.iter()
            .filter(|(frame_type, _)| *frame_type == SYNC)
            .filter_map(|(_, frame)| told_heads(frame))
            .collect()
    }
}

/// The heads at the start of a sync message: a type, a count, and so many hashes. None for anything else.
pub(super) fn told_heads(frame: &[u8]) -> Option<Vec<[u8; 32]>> {
    let (kind, rest) = frame.split_first()?;
    // LEB128; documents here have few heads, so it is one byte.
    let (count, rest) = rest.split_first()?;
    let heads = rest.get(..usize::from(*count) * 32)?;
    (MESSAGES.contains(kind) && *count < 0x80)
        .then(|| heads.chunks_exact(32).filter_map(|head| head.try_into().ok()).collect())
}

impl PeerLink for Link {
    fn send(&self, frame_type: u8, payload: Bytes) -> Credit {
        lock(&self.sent).push((frame_type, payload));
        self.credit.load(Ordering::SeqCst)
    }

    fn grant(&self, bytes: u64) {
        self.granted.fetch_add(bytes, Ordering::SeqCst);
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}
