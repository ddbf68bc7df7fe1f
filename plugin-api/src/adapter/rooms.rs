//! `rooms.v1`, both ways: rooms, sessions and the links of their peers.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{RString, Reply, TD_Opaque};

use super::Side;
use super::convert::{document, json, parse, result};
use super::served::Served;
use crate::{Attached, Credit, Join, PeerLink, Result, RoomReply, RoomRequest, RoomSession, Rooms};

/// Credit of a side that panicked: send nothing more.
const NO_CREDIT: fn() -> Credit = || 0;

pub(super) fn serve_rooms(rooms: Arc<dyn Rooms>, side: &Side) -> abi::RoomsObject {
    abi::Rooms_TO::from_value(Served::new(rooms, side), TD_Opaque)
}

impl abi::Rooms for Served<dyn Rooms> {
    fn attach(&self, join: RString, link: abi::PeerLinkObject) -> Reply<abi::Attached> {
        let side = self.side().clone();
        self.answer(|it| async move {
            let Attached { info, session } = it.attach(parse(&join)?, Arc::new(RemoteLink(link))).await?;
            let session = Served::<dyn RoomSession>::new(Arc::from(session), &side);
            let session = abi::RoomSession_TO::from_value(session, TD_Opaque);
            Ok(abi::Attached { info: json(&info)?, session })
        })
    }

    fn ask(&self, request: RString) -> Reply {
        self.reply(|it| async move { it.ask(parse(&request)?).await })
    }
}

pub(super) fn remote_rooms(object: abi::RoomsObject, side: &Side) -> Arc<dyn Rooms> {
    Arc::new(RemoteRooms { object, side: side.clone() })
}

struct RemoteRooms {
    object: abi::RoomsObject,
    side: Side,
}

#[async_trait]
impl Rooms for RemoteRooms {
    async fn attach(&self, join: Join, link: Arc<dyn PeerLink>) -> Result<Attached> {
        let link = abi::PeerLink_TO::from_value(Served::new(link, &self.side), TD_Opaque);
        let attached = result(self.object.attach(json(&join)?, link).await)?;
        let info = parse(&attached.info)?;
        Ok(Attached { info, session: Box::new(RemoteSession(attached.session)) })
    }

    async fn ask(&self, request: RoomRequest) -> Result<RoomReply> {
        document(self.object.ask(json(&request)?)).await
    }
}

impl abi::RoomSession for Served<dyn RoomSession> {
    fn receive(&self, frame_type: u8, payload: abi::Bytes) -> i64 {
        self.call(NO_CREDIT, |it| it.receive(frame_type, payload.into()))
    }

    fn writable(&self) {
        self.call(|| (), |it| it.writable());
    }

    fn detach(&self) -> Reply {
        self.reply(|it| async move {
            it.detach().await;
            Ok(())
        })
    }
}

struct RemoteSession(abi::RoomSessionObject);

#[async_trait]
impl RoomSession for RemoteSession {
    fn receive(&self, frame_type: u8, payload: Bytes) -> Credit {
        self.0.receive(frame_type, payload.into())
    }

    fn writable(&self) {
        self.0.writable();
    }

    async fn detach(&self) {
        if let Err(error) = document::<()>(self.0.detach()).await {
            tracing::warn!("a connection did not leave its room cleanly: {error}");
        }
    }
}

impl abi::PeerLink for Served<dyn PeerLink> {
    fn send(&self, frame_type: u8, payload: abi::Bytes) -> i64 {
        self.call(NO_CREDIT, |it| it.send(frame_type, payload.into()))
    }

    fn grant(&self, bytes: u64) {
        self.call(|| (), |it| it.grant(bytes));
    }

    fn close(&self) {
        self.call(|| (), |it| it.close());
    }
}

struct RemoteLink(abi::PeerLinkObject);

impl PeerLink for RemoteLink {
    fn send(&self, frame_type: u8, payload: Bytes) -> Credit {
        self.0.send(frame_type, payload.into())
    }

    fn grant(&self, bytes: u64) {
        self.0.grant(bytes);
    }

    fn close(&self) {
        self.0.close();
    }
}
