//! The connections of a room.
//!
//! For: what the room knows of each client, and how far that client has come.
//! Promises: phases only go forward; what a client cannot take is marked and left out, never waited for.

use bytes::Bytes;
use runtimed_protocol::identity;
use runtimed_protocol::request::RequestEnvelope;
use runtimed_protocol::session_control::{InitialLoad, SyncStatus};
use uuid::Uuid;

use super::lane::Lane;
use super::moment::{Moment, earliest};
use super::parts::Upload;
use super::sync::Streams;

/// On whose behalf a connection acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `local:ana`.
    pub(crate) principal: String,
    /// `agent:codex:1a2b3c4d`.
    pub(crate) operator: String,
    /// What it may do.
    pub(crate) scope: Scope,
}

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything a client can.
    Owner,
    /// Read: the notebook's file cannot be written.
    Viewer,
}

impl Identity {
    /// Somebody who may do everything.
    #[cfg(test)]
    pub(crate) fn owner(principal: &str, operator: &str) -> Self {
        Self { principal: principal.to_owned(), operator: operator.to_owned(), scope: Scope::Owner }
    }

    /// `<principal>/<operator>`: the actor its changes carry.
    pub(crate) fn label(&self) -> String {
        identity::actor_label(&self.principal, &self.operator)
    }
}

impl Scope {
    /// The wire's word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Viewer => "viewer",
        }
    }
}

/// One connection.
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    /// What each document's synchronization knows of this client.
    pub(crate) streams: Streams,
    /// What the client was told about its progress.
    pub(crate) status: SyncStatus,
    /// Its requests.
    pub(crate) lane: Lane<RequestEnvelope>,
    /// The request that waits for changes of the notebook document, and until when.
    pub(crate) blocked: Option<(RequestEnvelope, Moment)>,
    /// Frames that wait for the notebook's file.
    pub(crate) held: Vec<(u8, Bytes)>,
    /// It cannot take presence at the moment. When it can again, a snapshot brings it up to date.
    pub(crate) missed_presence: bool,
    /// Whether a frame of an upload is being stored.
    pub(crate) uploading: bool,
    /// Its upload in parts.
    pub(crate) upload: Option<Upload>,
    /// Its last upload that took too long.
    pub(crate) expired: Option<Uuid>,
}

impl Peer {
    /// A connection that has just been made.
    pub(crate) fn new(identity: Identity, load: InitialLoad) -> Self {
        Self {
            identity,
            streams: Streams::default(),
            status: SyncStatus::initial(load),
            lane: Lane::default(),
            blocked: None,
            held: Vec::new(),
            missed_presence: false,
            uploading: false,
            upload: None,
            expired: None,
        }
    }

    /// When something must be done about it if nothing comes from it: its request gives up waiting, its
    /// upload has taken too long, or it gets the next message though it has not answered the last. Nothing is
    /// sent before `held`.
    pub(crate) fn deadline(&self, held: Option<Moment>) -> Option<Moment> {
        let next_message = self.streams.deadline().map(|at| held.map_or(at, |held| held.max(at)));
        let expires = self.upload.as_ref().map(|upload| upload.expires);
        earliest([self.blocked.as_ref().map(|(_, until)| *until), next_message, expires])
    }
}
