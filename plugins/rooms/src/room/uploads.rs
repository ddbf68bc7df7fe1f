//! Blobs that clients store.
//!
//! For: PUT_BLOB frames, one blob each.
//! Promises: one upload of a connection at a time, answered with the blob's hash or with why not.

use bytes::Bytes;
use runtimed_plugin_api::{Digest, PluginError};
use runtimed_protocol::put_blob::{PutBlob, PutBlobHeader};
use runtimed_protocol::response::{BlobUploadFailure, NotebookResponse as Response};

use super::core::RoomCore;
use super::event::Effect;
use super::launch::words;
use super::peers::Scope;
use super::requests::{Task, Ticket};
use crate::ids::{JobId, PeerId};

impl RoomCore {
    /// A PUT_BLOB frame came.
    pub(super) fn upload_came(&mut self, peer: PeerId, payload: Bytes) {
        let ticket = |id| Ticket { peer, id, in_line: false };
        let (header, body) = match PutBlob::decode(payload) {
            Ok(PutBlob { header, body }) => (header, body),
            Err(error) => {
                return self.refuse_upload(ticket(error.id), BlobUploadFailure::InvalidHeader);
            }
        };
        let (id, size, sha256, media_type) = match header {
            PutBlobHeader::Put { id, size, sha256, media_type, .. } => (id, size, sha256, media_type),
            PutBlobHeader::Part { id, .. } => {
                return self.refuse_upload(ticket(Some(id)), BlobUploadFailure::UnknownUpload);
            }
        };
        let ticket = ticket(Some(id));
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if it.identity.scope == Scope::Viewer {
            return self.refuse_upload(ticket, BlobUploadFailure::Forbidden);
        }
        if it.uploading {
            return self.refuse_upload(ticket, BlobUploadFailure::TooManyInFlight);
        }
        if body.len() as u64 != size {
            return self.refuse_upload(ticket, BlobUploadFailure::SizeMismatch);
        }
        it.uploading = true;
        let job = self.ids.job();
        self.effects.push(Effect::PutBlob { job, bytes: body, media_type: media_type.clone() });
        self.tasks.insert(job, Task::Upload { ticket, sha256, size, media_type });
    }

    /// An upload was stored, or not.
    pub(super) fn blob_put(&mut self, job: JobId, result: Result<Digest, PluginError>) {
        let Some(Task::Upload { ticket, sha256, size, media_type }) = self.tasks.remove(&job) else { return };
        if let Some(peer) = self.peers.get_mut(&ticket.peer) {
            peer.uploading = false;
        }
        let response = match result.map(|digest| digest.to_string()) {
            Ok(hash) if hash == sha256 => Response::BlobStored { hash, size, media_type },
            // What was stored under its true name is referred to by nobody, and is swept in time.
            Ok(_) => Response::BlobUploadError { reason: BlobUploadFailure::HashMismatch },
            Err(error) => {
                Response::BlobUploadError { reason: BlobUploadFailure::Io { message: words(&error) } }
            }
        };
        self.answer(Some(ticket), response);
    }

    fn refuse_upload(&mut self, ticket: Ticket, reason: BlobUploadFailure) {
        self.answer(Some(ticket), Response::BlobUploadError { reason });
    }
}
