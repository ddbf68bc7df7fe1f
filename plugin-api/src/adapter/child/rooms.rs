//! Rooms, sessions and links over the socket.
//!
//! For: the two halves of a connection, which share its credit: what one end's session is told, its link has to
//! do with. See [`super::flow`].
//! Promises: nothing is sent to an object after its release.

use std::sync::{Arc, Mutex};

use runtimed_plugin_abi as abi;
use runtimed_plugin_abi::{Bytes, FfiFuture, RString, Reply, TD_Opaque};

use super::flow::{Receiver, Sender};
use super::link::{Answering, Called, InUse, Link, Target};
use super::locked;
use super::remote::{Remote, no_method};
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::{Garbage, ObjectId};

/// Numbers of the methods of rooms.
mod door {
    pub(super) const ATTACH: u8 = 0;
    pub(super) const ASK: u8 = 1;
}

/// Numbers of the methods of a session.
mod session {
    pub(super) const DETACH: u8 = 0;
    pub(super) const RECEIVE: u8 = 1;
    /// So many bytes of what the session sent have been consumed.
    pub(super) const CONSUMED: u8 = 2;
}

/// Numbers of the methods of a link.
mod link {
    pub(super) const SEND: u8 = 0;
    pub(super) const GRANT: u8 = 1;
    pub(super) const CLOSE: u8 = 2;
}

// --- the end that has the link: the daemon's

struct Rooms(Remote);

impl abi::Rooms for Rooms {
    fn attach(&self, join: RString, link: abi::PeerLinkObject) -> Reply<abi::Attached> {
        let peer = Arc::new(Peer {
            link,
            to_room: Mutex::default(),
            from_room: Mutex::default(),
            session: Mutex::new(None),
        });
        let seat = self.0.call::<Seat>(door::ATTACH, |to| {
            join.pack(to);
            to.export(OfferedLink(peer.clone()));
        });
        FfiFuture::new(async move {
            seat.await.map(|seat| {
                let session = abi::RoomSession_TO::from_value(Session::new(peer, seat.session), TD_Opaque);
                abi::Attached { info: seat.info, session }
            })
        })
    }

    fn ask(&self, request: RString) -> Reply {
        self.0.call(door::ASK, |to| request.pack(to))
    }
}

impl Unpack for abi::RoomsObject {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(abi::Rooms_TO::from_value(Rooms(Remote::unpack(from)?), TD_Opaque))
    }
}

/// The answer of `attach`.
struct Seat {
    info: RString,
    session: Remote,
}

impl Unpack for Seat {
    fn unpack(from: &mut Unpacker<'_>) -> Result<Self, Garbage> {
        Ok(Self { info: RString::unpack(from)?, session: Remote::unpack(from)? })
    }
}

/// A connection, where its link is.
struct Peer {
    link: abi::PeerLinkObject,
    to_room: Mutex<Sender>,
    from_room: Mutex<Receiver>,
    /// The room's session, while it may be sent something. Held while it is.
    session: Mutex<Option<(Link, ObjectId)>>,
}

impl Peer {
    /// Tells the room what became of its frames, if there is a session to tell.
    fn tell(&self, happened: impl FnOnce(&mut Receiver)) {
        let session = locked(&self.session);
        let mut from_room = locked(&self.from_room);
        happened(&mut from_room);
        let Some((link, object)) = &*session else { return };
        let consumed = from_room.news();
        if consumed > 0 {
            // Too short to be refused.
            let _ = link.notify(*object, session::CONSUMED, |to| consumed.pack(to));
        }
    }
}

struct Session {
    peer: Arc<Peer>,
    remote: Remote,
    _needed: InUse,
}

impl Session {
    fn new(peer: Arc<Peer>, remote: Remote) -> Self {
        let needed = remote.link().in_use();
        *locked(&peer.session) = Some((remote.link().clone(), remote.object()));
        // What the room sent before it was known where to.
        peer.tell(|_| ());
        Self { peer, remote, _needed: needed }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Before the remote is released, which happens after this.
        locked(&self.peer.session).take();
    }
}

impl abi::RoomSession for Session {
    fn receive(&self, frame_type: u8, payload: Bytes) -> i64 {
        // Before it is sent, or the news of its end could come first.
        let credit = locked(&self.peer.to_room).sent(payload.as_ref().len());
        self.remote.notify(session::RECEIVE, |to| {
            frame_type.pack(to);
            payload.pack(to);
        });
        credit
    }

    fn writable(&self) {
        self.peer.tell(|from_room| from_room.granted(u64::MAX));
    }

    fn detach(&self) -> Reply {
        self.remote.call(session::DETACH, |_| ())
    }
}

struct OfferedLink(Arc<Peer>);

impl Target for OfferedLink {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        no_method(call.method)
    }

    fn notify(&self, method: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
        let peer = &self.0;
        match method {
            link::SEND => {
                let (frame_type, payload) = (u8::unpack(&mut from)?, Bytes::unpack(&mut from)?);
                from.end()?;
                let length = payload.as_ref().len();
                locked(&peer.from_room).handing();
                let credit = peer.link.send(frame_type, payload);
                peer.tell(|from_room| from_room.handed(length, credit));
                Ok(())
            }
            link::GRANT => {
                let bytes = u64::unpack(&mut from)?;
                from.end()?;
                // In this order: a host that asks for its credit in between may count the grant twice, never not.
                locked(&peer.to_room).consumed(bytes);
                peer.link.grant(bytes);
                Ok(())
            }
            link::CLOSE => {
                from.end()?;
                peer.link.close();
                Ok(())
            }
            _ => no_method(method),
        }
    }
}

// --- the end that has the rooms: the child's

impl Pack for abi::RoomsObject {
    fn pack(self, to: &mut Packer<'_>) {
        to.export(OfferedRooms(self));
    }
}

struct OfferedRooms(abi::RoomsObject);

impl Target for OfferedRooms {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        let Called { request, method, mut from } = call;
        match method {
            door::ATTACH => {
                let (join, link) = (RString::unpack(&mut from)?, Remote::unpack(&mut from)?);
                from.end()?;
                let place = Arc::new(Place { link, from_room: Mutex::default(), to_room: Mutex::default() });
                let link = abi::PeerLink_TO::from_value(PeerLink(place.clone()), TD_Opaque);
                let attached = self.0.attach(join, link);
                let reply = FfiFuture::new(async move {
                    attached.await.map(|attached| Taken {
                        info: attached.info,
                        session: OfferedSession { session: attached.session, place },
                    })
                });
                Ok(Some(from.link.answer(request, reply)))
            }
            door::ASK => {
                let question = RString::unpack(&mut from)?;
                from.end()?;
                Ok(Some(from.link.answer(request, self.0.ask(question))))
            }
            _ => no_method(method),
        }
    }

    fn notify(&self, method: u8, _: Unpacker<'_>) -> Result<(), Garbage> {
        no_method(method)
    }
}

/// The answer of `attach`.
struct Taken {
    info: RString,
    session: OfferedSession,
}

impl Pack for Taken {
    fn pack(self, to: &mut Packer<'_>) {
        self.info.pack(to);
        to.export(self.session);
    }
}

/// A connection, where its room is.
struct Place {
    link: Remote,
    from_room: Mutex<Sender>,
    to_room: Mutex<Receiver>,
}

impl Place {
    fn tell(&self, happened: impl FnOnce(&mut Receiver)) {
        let consumed = {
            let mut to_room = locked(&self.to_room);
            happened(&mut to_room);
            to_room.news()
        };
        if consumed > 0 {
            self.link.notify(link::GRANT, |to| consumed.pack(to));
        }
    }
}

struct PeerLink(Arc<Place>);

impl abi::PeerLink for PeerLink {
    fn send(&self, frame_type: u8, payload: Bytes) -> i64 {
        // Before it is sent, or the news of its end could come first.
        let credit = locked(&self.0.from_room).sent(payload.as_ref().len());
        self.0.link.notify(link::SEND, |to| {
            frame_type.pack(to);
            payload.pack(to);
        });
        credit
    }

    fn grant(&self, bytes: u64) {
        self.0.tell(|to_room| to_room.granted(bytes));
    }

    fn close(&self) {
        self.0.link.notify(link::CLOSE, |_| ());
    }
}

struct OfferedSession {
    session: abi::RoomSessionObject,
    place: Arc<Place>,
}

impl Target for OfferedSession {
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage> {
        if call.method != session::DETACH {
            return no_method(call.method);
        }
        call.from.end()?;
        Ok(Some(call.from.link.answer(call.request, self.session.detach())))
    }

    fn notify(&self, method: u8, mut from: Unpacker<'_>) -> Result<(), Garbage> {
        match method {
            session::RECEIVE => {
                let (frame_type, payload) = (u8::unpack(&mut from)?, Bytes::unpack(&mut from)?);
                from.end()?;
                let length = payload.as_ref().len();
                locked(&self.place.to_room).handing();
                let credit = self.session.receive(frame_type, payload);
                self.place.tell(|to_room| to_room.handed(length, credit));
                Ok(())
            }
            session::CONSUMED => {
                let bytes = u64::unpack(&mut from)?;
                from.end()?;
                let writable = locked(&self.place.from_room).consumed(bytes);
                if writable {
                    self.session.writable();
                }
                Ok(())
            }
            _ => no_method(method),
        }
    }
}
