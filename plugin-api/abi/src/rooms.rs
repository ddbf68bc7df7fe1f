//! `rooms.v1` as it crosses. Documents and their meaning: `runtimed-plugin-api::Rooms`.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::std_types::{RBox, RString};
use abi_stable::{StableAbi, sabi_trait};

use crate::{Bytes, Reply};

/// Opens rooms and answers questions about them.
#[sabi_trait]
pub trait Rooms: Send + Sync + 'static {
    /// `Join` to a session.
    fn attach(&self, join: RString, link: PeerLinkObject) -> Reply<Attached>;
    /// `RoomRequest` to `RoomReply`.
    #[sabi(last_prefix_field)]
    fn ask(&self, request: RString) -> Reply;
}

/// A [`Rooms`] of the other side.
pub type RoomsObject = Rooms_TO<RBox<()>>;

/// A connection that is in its room.
#[repr(C)]
#[derive(StableAbi)]
pub struct Attached {
    /// `RoomInfo`.
    pub info: RString,
    /// Where the connection's frames go.
    pub session: RoomSessionObject,
}

/// The room's side of one connection.
#[sabi_trait]
pub trait RoomSession: Send + Sync + 'static {
    /// Takes a frame; returns the credit left in bytes. Never blocks.
    fn receive(&self, frame_type: u8, payload: Bytes) -> i64;
    /// The link takes frames again. Never blocks.
    fn writable(&self);
    /// To null.
    #[sabi(last_prefix_field)]
    fn detach(&self) -> Reply;
}

/// A [`RoomSession`] of the other side.
pub type RoomSessionObject = RoomSession_TO<RBox<()>>;

/// The host's side of one connection.
#[sabi_trait]
pub trait PeerLink: Send + Sync + 'static {
    /// Queues a frame; returns the credit left in bytes. Never blocks.
    fn send(&self, frame_type: u8, payload: Bytes) -> i64;
    /// Lets the host deliver that many bytes more. Never blocks.
    fn grant(&self, bytes: u64);
    /// Closes the connection after what is queued. Never blocks.
    #[sabi(last_prefix_field)]
    fn close(&self);
}

/// A [`PeerLink`] of the other side.
pub type PeerLinkObject = PeerLink_TO<RBox<()>>;
