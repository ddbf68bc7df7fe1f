//! What clients ask, and how they are answered.
//!
//! For: REQUEST frames.
//! Promises: one answer for each request; requests of one connection are answered in order, except that
//! stopping overtakes; a request waits for the changes it was made after, and no longer than 10 s.
//! Never: closes a connection over a request.

use std::collections::BTreeMap;
use std::time::Duration;

use runtimed_plugin_api::{Digest, EnvNeed};
use runtimed_protocol::documents::Document;
use runtimed_protocol::documents::automerge::ChangeHash;
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::request::{
    CommMessage, NotebookRequest as Request, RequestEnvelope, RequestError, UploadedPart,
};
use runtimed_protocol::response::{NotebookResponse as Response, ResponseEnvelope};
use runtimed_protocol::session_control::InitialLoad;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::core::RoomCore;
use super::declarations::Asks;
use super::kernel_message::KernelRequest;
use super::moment::Moment;
use super::parts::Upload;
use super::peers::Scope;
use super::widgets::{Blobs, Outgoing};
use crate::ids::PeerId;

/// How long a request waits for the changes it requires. Source: protocol v4.
const REQUIRED_HEADS: Duration = Duration::from_secs(10);

/// Buffers of a widget's message from a client. Source: protocol v4.
const MOST_BUFFERS: usize = 1024;
/// Bytes in the buffers of a widget's message from a client. Source: protocol v4.
const LARGEST_BUFFERS: u64 = 256 * 1024 * 1024;

/// Whom to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) peer: PeerId,
    /// The request's id, if it had one.
    pub(crate) id: Option<String>,
    /// Whether the connection's next request waits for this answer.
    pub(crate) in_line: bool,
}

/// Slow work, and what to do about its end.
pub(crate) enum Task {
    /// What is to be said about what the notebook declares.
    Trust { asks: Asks },
    /// Packages for the running environment, which `need` declares.
    Install { ticket: Ticket, lease: String, packages: Vec<String>, need: Box<EnvNeed> },
    /// Somebody's blob.
    Upload { ticket: Ticket, sha256: String, size: u64, media_type: String },
    /// The beginning of somebody's upload in parts.
    Begin { ticket: Ticket, upload: Box<Upload> },
    /// A part of an upload, and where it goes if it is new.
    Part { ticket: Ticket, upload: Uuid, at: Option<u64>, part: UploadedPart },
    /// A copy of a notebook.
    Clone { ticket: Ticket },
    /// The end of an upload in parts.
    Complete { ticket: Ticket, upload: Uuid },
    /// The file.
    Save { ticket: Option<Ticket>, heads: Vec<String>, sequence: u64, target: std::path::PathBuf },
}

/// Something the kernel was asked, until it answers.
pub(crate) struct Question {
    pub(super) ticket: Ticket,
    pub(super) kind: QuestionKind,
    /// When nobody waits any longer.
    pub(super) until: Moment,
}

/// What the kernel was asked.
#[derive(Clone, Copy)]
pub(crate) enum QuestionKind {
    /// Completions.
    Completion,
    /// History.
    History,
}

impl RoomCore {
    /// A REQUEST frame came.
    pub(super) fn request_came(&mut self, peer: PeerId, payload: &[u8]) {
        let ticket = |id, in_line| Ticket { peer, id, in_line };
        let envelope = match RequestEnvelope::decode(payload) {
            Ok(envelope) => envelope,
            Err(RequestError::Invalid { id, message }) => {
                return self.answer(Some(ticket(id, false)), Response::error(message));
            }
            Err(error @ RequestError::NotJson(_)) => {
                return self.answer(Some(ticket(None, false)), Response::error(error.to_string()));
            }
        };
        if self.scope(peer) == Some(Scope::Viewer) && envelope.request != Request::GetDocBytes {
            let error = format!("{} is not allowed for viewer connections", envelope.request.action());
            return self.answer(Some(ticket(envelope.id, false)), Response::error(error));
        }
        match envelope.request {
            Request::InterruptExecution => {
                let response = self.interrupt();
                self.answer(Some(ticket(envelope.id, false)), response);
            }
            Request::ShutdownKernel => self.shut_down_kernel(Some(ticket(envelope.id, false))),
            _ => {
                let Some(it) = self.peers.get_mut(&peer) else { return };
                match it.lane.push(envelope) {
                    Ok(()) => self.free_lanes.push(peer),
                    Err(envelope) => self
                        .answer(Some(ticket(envelope.id, false)), Response::error("Peer request queue full")),
                }
            }
        }
    }

    /// Begins the next request of every connection whose last one is answered.
    pub(super) fn start_requests(&mut self) {
        while let Some(peer) = self.free_lanes.pop() {
            if self.load == InitialLoad::Streaming {
                continue;
            }
            let next = self.peers.get_mut(&peer).and_then(|it| it.lane.start_next());
            if let Some(envelope) = next {
                self.start_request(peer, envelope);
            }
        }
    }

    /// Begins requests whose changes have come, and gives up on those that waited too long.
    pub(super) fn unblock_requests(&mut self) {
        let blocked: Vec<PeerId> =
            self.peers.iter().filter(|(_, peer)| peer.blocked.is_some()).map(|(id, _)| *id).collect();
        for id in blocked {
            let Some((envelope, until)) = self.peers.get_mut(&id).and_then(|peer| peer.blocked.take()) else {
                continue;
            };
            if self.has_heads(&envelope.required_heads) == Ok(true) {
                self.perform(id, envelope);
            } else if until <= self.now {
                let ticket = Ticket { peer: id, id: envelope.id, in_line: true };
                let error = Response::error("Timed out waiting for required notebook heads");
                self.answer(Some(ticket), error);
            } else if let Some(peer) = self.peers.get_mut(&id) {
                peer.blocked = Some((envelope, until));
            }
        }
    }

    /// Answers a request, if it was one.
    pub(super) fn answer(&mut self, ticket: Option<Ticket>, response: Response) {
        let Some(Ticket { peer, id, in_line }) = ticket else { return };
        let Some(it) = self.peers.get_mut(&peer) else { return };
        if in_line {
            it.lane.answered();
            self.free_lanes.push(peer);
        }
        match serde_json::to_vec(&ResponseEnvelope { id, response }) {
            Ok(payload) => self.send(peer, FrameType::RESPONSE, payload),
            Err(error) => tracing::warn!(%error, "a response could not be written"),
        }
    }

    fn start_request(&mut self, peer: PeerId, envelope: RequestEnvelope) {
        if let InitialLoad::Failed { reason } = &self.load {
            let (ticket, error) = (Ticket { peer, id: envelope.id, in_line: true }, Response::error(reason));
            return self.answer(Some(ticket), error);
        }
        match self.has_heads(&envelope.required_heads) {
            Ok(true) => self.perform(peer, envelope),
            Ok(false) => {
                let until = self.now + REQUIRED_HEADS;
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.blocked = Some((envelope, until));
                }
            }
            Err(error) => {
                let ticket = Ticket { peer, id: envelope.id, in_line: true };
                self.answer(Some(ticket), Response::error(error));
            }
        }
    }

    /// Whether the notebook document has these changes.
    fn has_heads(&mut self, heads: &[String]) -> Result<bool, &'static str> {
        let heads: Result<Vec<ChangeHash>, _> = heads.iter().map(|head| head.parse()).collect();
        let heads = heads.map_err(|_| "Request contained an invalid required notebook head")?;
        Ok(self.documents.notebook.contains(&heads))
    }

    fn perform(&mut self, peer: PeerId, envelope: RequestEnvelope) {
        let RequestEnvelope { id, required_heads, request } = envelope;
        let ticket = Ticket { peer, id, in_line: true };
        let action = request.action();
        let response = match request {
            Request::ExecuteCell { cell_id, execution_id } => {
                self.execute_cell(&ticket, cell_id, execution_id)
            }
            Request::ExecuteCellGuarded { cell_id, execution_id, observed_heads } => {
                match self.guard_cell(&cell_id, &observed_heads) {
                    Some(reason) => Response::GuardRejected { reason: reason.to_owned() },
                    None => self.execute_cell(&ticket, cell_id, execution_id),
                }
            }
            Request::RunAllCells { cell_execution_ids } => {
                self.run_all_cells(&ticket, cell_execution_ids.unwrap_or_default())
            }
            Request::RunAllCellsGuarded { cell_execution_ids, observed_heads } => {
                match self.guard_notebook(&observed_heads) {
                    Some(reason) => Response::GuardRejected { reason: reason.to_owned() },
                    None => self.run_all_cells(&ticket, cell_execution_ids.unwrap_or_default()),
                }
            }
            Request::LaunchKernel { kernel_type, env_source, .. } => {
                let wanted = Self::wanted(&kernel_type, &env_source);
                return self.launch(wanted, Some(ticket));
            }
            Request::Complete { code, cursor_pos } => return self.complete(ticket, &code, cursor_pos),
            Request::GetHistory { pattern, n, unique } => {
                return self.history(ticket, pattern.as_deref(), n, unique);
            }
            Request::SaveNotebook { path, .. } => return self.save(ticket, path),
            Request::SyncEnvironment { guard } => {
                let observed = guard.map(|guard| guard.observed_heads);
                return self.sync_environment(ticket, observed.as_deref());
            }
            Request::ApproveTrust { observed_heads } => {
                match self.guard_dependencies(observed_heads.as_deref(), "approving") {
                    Some(reason) => Response::GuardRejected { reason },
                    None => return self.ask_host(Asks::Approval { ticket: Some(ticket) }),
                }
            }
            Request::SendComm { message } => return self.send_comm(ticket, *message),
            Request::GetDocBytes => Response::DocBytes { bytes: self.documents.notebook.save() },
            Request::AcknowledgeNotebookSync => Response::NotebookSyncAcknowledged { heads: required_heads },
            Request::ReconcileNotebookSource { operation } => Response::NotebookSourceReconciliationBlocked {
                operation: operation.get("type").and_then(Json::as_str).unwrap_or_default().to_owned(),
                reason: json!({"type": "not_required", "message": "room source is not degraded"}),
            },
            Request::CreateBlobUpload { media_type, size, sha256, part_size, .. } => {
                return self.begin_upload(ticket, (media_type, size), sha256, part_size);
            }
            Request::CompleteBlobUpload { upload_id, parts } => {
                return self.complete_upload(ticket, &upload_id, &parts);
            }
            Request::AbortBlobUpload { upload_id } => self.abort_upload(peer, upload_id),
            Request::CloneAsEphemeral { source_notebook_id } => {
                return self.clone_room(ticket, &source_notebook_id);
            }
            Request::ApproveProjectEnvironment { project_file_path } => {
                return self.approve_project(ticket, project_file_path.as_deref());
            }
            Request::ApplyBokehSessionPatch { request } => unknown_bokeh_session(&request),
            _ => Response::error(format!("This daemon cannot do `{action}`")),
        };
        self.answer(Some(ticket), response);
    }

    /// Sends a widget's message to the kernel.
    fn send_comm(&mut self, ticket: Ticket, message: CommMessage) {
        if self.kernel.live().is_none() {
            let response = if self.kernel.existed { Response::Ok } else { Response::NoKernel };
            return self.answer(Some(ticket), response);
        }
        let mut blobs = BTreeMap::new();
        for buffer in &message.buffer_refs {
            let (Ok(place), Ok(digest)) = (usize::try_from(buffer.index), buffer.blob.parse::<Digest>())
            else {
                let error = format!("`{}` is not a blob hash (64 lower-case hex digits)", buffer.blob);
                return self.answer(Some(ticket), Response::error(error));
            };
            blobs.insert(place, digest);
        }
        let sizes = message.buffers.iter().map(|buffer| buffer.len() as u64);
        let sizes = sizes.chain(message.buffer_refs.iter().map(|buffer| buffer.size));
        let count = message.buffers.len() + message.buffer_refs.len();
        if count > MOST_BUFFERS || sizes.fold(0, u64::saturating_add) > LARGEST_BUFFERS {
            let error = "A widget's message has at most 1024 buffers and 256 MiB in them. Nothing was sent.";
            return self.answer(Some(ticket), Response::error(error));
        }
        let text = |key: &str| message.header.get(key).and_then(Json::as_str).map(str::to_owned);
        let mut request = KernelRequest::shell(
            text("msg_id").unwrap_or_else(|| self.ids.uuid().to_string()),
            &text("msg_type").unwrap_or_else(|| "comm_msg".to_owned()),
            Json::Object(message.content),
        );
        request.metadata = Json::Object(message.metadata);
        request.buffers = message.buffers.into_iter().map(Into::into).collect();
        self.send_to_widget(Outgoing { request, blobs: Blobs::Buffers(blobs), ticket: Some(ticket) });
    }
}

/// The answer to a patch of a live Bokeh document. There are none.
fn unknown_bokeh_session(request: &Json) -> Response {
    let reply = json!({
        "status": "error",
        "session_id": request.get("session_id"),
        "transaction_id": request.get("transaction_id"),
        "error": "unknown Bokeh session",
    });
    Response::BokehSessionPatch { reply }
}
