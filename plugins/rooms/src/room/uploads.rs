//! Blobs that clients store.
//!
//! For: PUT_BLOB frames, and the requests around them.
//! Promises: one frame of a connection at a time, and one upload in parts, each answered with what was
//! stored or with why not; what a connection has staged ends with it.

use bytes::Bytes;
use runtimed_plugin_api::{Digest, PluginError};
use runtimed_protocol::put_blob::{PutBlob, PutBlobHeader};
use runtimed_protocol::request::UploadedPart;
use runtimed_protocol::response::{BlobUploadFailure as Failure, NotebookResponse as Response};
use uuid::Uuid;

use super::core::RoomCore;
use super::event::Effect;
use super::launch::words;
use super::parts::{LIFETIME, Upload};
use super::peers::{Peer, Scope};
use super::requests::{Task, Ticket};
use crate::ids::{JobId, PeerId};

impl RoomCore {
    /// A PUT_BLOB frame came.
    pub(super) fn upload_came(&mut self, peer: PeerId, payload: Bytes) {
        let ticket = |id| Ticket { peer, id, in_line: false };
        let (header, body) = match PutBlob::decode(payload) {
            Ok(PutBlob { header, body }) => (header, body),
            Err(error) => return self.answer(Some(ticket(error.id)), failed(Failure::InvalidHeader)),
        };
        let (PutBlobHeader::Put { id, .. } | PutBlobHeader::Part { id, .. }) = &header;
        let ticket = ticket(Some(id.clone()));
        let Some(it) = self.peers.get_mut(&peer) else { return };
        let begun = match header {
            _ if it.identity.scope == Scope::Viewer => Err(Failure::Forbidden),
            _ if it.uploading => Err(Failure::TooManyInFlight),
            PutBlobHeader::Put { size, .. } if body.len() as u64 != size => Err(Failure::SizeMismatch),
            PutBlobHeader::Put { size, sha256, media_type, .. } => {
                let job = self.ids.job();
                let task =
                    Task::Upload { ticket: ticket.clone(), sha256, size, media_type: media_type.clone() };
                Ok((job, task, Effect::PutBlob { job, bytes: body, media_type }))
            }
            PutBlobHeader::Part { upload_id, part_number, size, sha256, .. } => {
                let part = UploadedPart { part_number, sha256, size };
                let place = it
                    .upload(&upload_id)
                    .and_then(|upload| Ok((upload.id, upload.place(&part, body.len() as u64)?)));
                place.map(|(upload, at)| {
                    let job = self.ids.job();
                    let task = Task::Part { ticket: ticket.clone(), upload, at, part };
                    (job, task, Effect::StagePart { job, upload, at, bytes: body })
                })
            }
        };
        match begun {
            Ok((job, task, effect)) => {
                it.uploading = true;
                self.tasks.insert(job, task);
                self.effects.push(effect);
            }
            Err(failure) => self.answer(Some(ticket), failed(failure)),
        }
    }

    /// A blob was stored, or not.
    pub(super) fn blob_put(&mut self, job: JobId, result: Result<Digest, PluginError>) {
        let result = result.map(|digest| digest.to_string());
        match self.tasks.remove(&job) {
            Some(Task::Upload { ticket, sha256, size, media_type }) => {
                if let Some(peer) = self.peers.get_mut(&ticket.peer) {
                    peer.uploading = false;
                }
                let response = match result {
                    Ok(hash) if hash.eq_ignore_ascii_case(&sha256) => {
                        Response::BlobStored { hash, size, media_type }
                    }
                    // What was stored under its true name is referred to by nobody, and is swept in time.
                    Ok(_) => failed(Failure::HashMismatch),
                    Err(error) => io(&error),
                };
                self.answer(Some(ticket), response);
            }
            Some(Task::Complete { ticket, upload }) => self.upload_stored(ticket, upload, result),
            _ => {}
        }
    }

    /// Begins an upload of `size` bytes in parts.
    pub(super) fn begin_upload(
        &mut self,
        ticket: Ticket,
        what: (String, u64),
        sha256: Option<String>,
        part_size: Option<u64>,
    ) {
        let busy = self.peers.get(&ticket.peer).is_none_or(|peer| peer.upload.is_some());
        let upload = match Upload::new(self.ids.uuid(), self.now, what, sha256, part_size) {
            Ok(_) if busy => Err(Failure::OverPeerBudget),
            upload => upload,
        };
        match upload {
            Ok(upload) => {
                let job = self.ids.job();
                self.effects.push(Effect::BeginUpload { job, upload: upload.id, lifetime: LIFETIME });
                self.tasks.insert(job, Task::Begin { ticket, upload: Box::new(upload) });
            }
            Err(failure) => self.answer(Some(ticket), failed(failure)),
        }
    }

    /// There is room for the parts of an upload, or not.
    pub(super) fn upload_begun(&mut self, job: JobId, result: Result<String, PluginError>) {
        let Some(Task::Begin { ticket, upload }) = self.tasks.remove(&job) else { return };
        let response = match result {
            Ok(expires_at) => {
                let (id, part_size) = (upload.id, upload.part_size);
                match self.peers.get_mut(&ticket.peer) {
                    Some(peer) => peer.upload = Some(*upload),
                    None => self.effects.push(Effect::EndUpload { upload: id }),
                }
                Response::BlobUploadCreated { upload_id: id.to_string(), part_size, expires_at }
            }
            Err(error) => io(&error),
        };
        self.answer(Some(ticket), response);
    }

    /// A part was written, or not.
    pub(super) fn part_staged(&mut self, job: JobId, result: Result<Digest, PluginError>) {
        let Some(Task::Part { ticket, upload: id, at, part }) = self.tasks.remove(&job) else { return };
        let Some(peer) = self.peers.get_mut(&ticket.peer) else { return };
        peer.uploading = false;
        let upload = peer.upload(&id.to_string());
        let response = match (upload, result.map(|digest| digest.to_string())) {
            (Err(failure), _) => failed(failure),
            (_, Err(error)) => io(&error),
            (_, Ok(hash)) if !hash.eq_ignore_ascii_case(&part.sha256) => failed(Failure::PartHashMismatch),
            (Ok(upload), Ok(sha256)) => {
                let part_number = part.part_number;
                if let Some(at) = at {
                    upload.stage(at, part);
                }
                Response::BlobPartStored { upload_id: id.to_string(), part_number, sha256 }
            }
        };
        self.answer(Some(ticket), response);
    }

    /// Makes a blob of the parts of an upload.
    pub(super) fn complete_upload(&mut self, ticket: Ticket, id: &str, parts: &[UploadedPart]) {
        let Some(peer) = self.peers.get_mut(&ticket.peer) else { return };
        let pieces = peer
            .upload(id)
            .and_then(|upload| Ok((upload.id, upload.media_type.clone(), upload.pieces(parts)?)));
        match pieces {
            Ok((upload, media_type, pieces)) => {
                let job = self.ids.job();
                self.effects.push(Effect::StoreUpload { job, upload, pieces, media_type });
                self.tasks.insert(job, Task::Complete { ticket, upload });
            }
            Err(failure) => self.answer(Some(ticket), failed(failure)),
        }
    }

    /// Lets go of an upload.
    pub(super) fn abort_upload(&mut self, peer: PeerId, upload_id: String) -> Response {
        let Some(peer) = self.peers.get_mut(&peer) else { return failed(Failure::UnknownUpload) };
        if let Err(failure) = peer.upload(&upload_id) {
            return failed(failure);
        }
        if let Some(upload) = peer.upload.take() {
            self.effects.push(Effect::EndUpload { upload: upload.id });
        }
        Response::BlobUploadAborted { upload_id }
    }

    /// Lets go of uploads that took too long.
    pub(super) fn expire_uploads(&mut self) {
        for peer in self.peers.values_mut() {
            if let Some(upload) = peer.upload.take_if(|upload| upload.expires <= self.now) {
                peer.expired = Some(upload.id);
                self.effects.push(Effect::EndUpload { upload: upload.id });
            }
        }
    }

    /// The parts of an upload are a blob now, or not. If not, all is as it was: the client may name them in
    /// another order, or give up.
    fn upload_stored(&mut self, ticket: Ticket, id: Uuid, result: Result<String, PluginError>) {
        let Some(peer) = self.peers.get_mut(&ticket.peer) else { return };
        let response = match (peer.upload(&id.to_string()), result) {
            (Err(failure), _) => failed(failure),
            (_, Err(error)) => io(&error),
            (Ok(Upload { sha256: Some(sha256), .. }), Ok(hash)) if !hash.eq_ignore_ascii_case(sha256) => {
                failed(Failure::FinalHashMismatch)
            }
            (Ok(upload), Ok(hash)) => {
                let (size, media_type) = (upload.size, std::mem::take(&mut upload.media_type));
                peer.upload = None;
                self.effects.push(Effect::EndUpload { upload: id });
                Response::BlobStored { hash, size, media_type }
            }
        };
        self.answer(Some(ticket), response);
    }
}

impl Peer {
    /// The upload in parts that is called so.
    ///
    /// # Errors
    /// It took too long, or there is none.
    fn upload(&mut self, id: &str) -> Result<&mut Upload, Failure> {
        let expired = self.expired.is_some_and(|expired| expired.to_string() == id);
        let missing = if expired { Failure::SessionExpired } else { Failure::UnknownUpload };
        self.upload.as_mut().filter(|upload| upload.id.to_string() == id).ok_or(missing)
    }
}

fn failed(reason: Failure) -> Response {
    Response::BlobUploadError { reason }
}

fn io(error: &PluginError) -> Response {
    failed(Failure::Io { message: words(error) })
}
