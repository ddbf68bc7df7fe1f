//! A client's way through the room: joining, synchronizing, leaving.
//!
//! For: the order of frames that clients rely on.
//! Promises: the daemon speaks first on every document; what was sent before a connection is closed is
//! delivered, so a client learns why; a phase is reported once.

use std::time::Duration;

use bytes::Bytes;
use runtimed_protocol::documents::runtime_state::{KernelState, Outcome};
use runtimed_protocol::documents::sync::SyncError;
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::presence::Presence;
use runtimed_protocol::session_control::{
    BridgeStatus, InitialLoad, NotebookPhase, RuntimePhase, SessionControl, SyncStatus,
};

use super::core::{RoomCore, kept};
use super::declarations::Asks;
use super::event::Effect;
use super::kernel::Stage;
use super::load::Loaded;
use super::peers::{Identity, Peer, Scope};
use super::presence::To;
use super::sync::Stream;
use crate::ids::PeerId;

/// How long a room that could not be loaded stays for its clients to read why. A client that is cut off
/// at once finds a closed connection before it has looked at the reason.
const LINGER: Duration = Duration::from_secs(1);

impl RoomCore {
    /// A connection was made. Sends everything it needs without waiting for it.
    pub(super) fn peer_joined(&mut self, id: PeerId, identity: Identity) {
        self.had_peers = true;
        self.keep_alive = None;
        self.peers.insert(id, Peer::new(identity, self.load.clone()));
        // Before the client hears of the runtime state: one that finds a kernel on its way does not
        // launch one itself.
        if self.peers.len() == 1 {
            if self.load != InitialLoad::Streaming {
                self.launch_for_visitors();
            } else if matches!(self.kernel.stage, Stage::Down) {
                self.show_kernel(KernelState::Resolving);
            }
        }

        self.report(id, |_| {});
        let bridge = SessionControl::HostedBridgeStatus { status: BridgeStatus::NotApplicable };
        self.control(id, &bridge);
        if self.load != InitialLoad::Streaming {
            self.begin_stream(id, Stream::Notebook);
        }
        self.report(id, |status| status.notebook_doc = NotebookPhase::Syncing);
        self.begin_stream(id, Stream::Runtime);
        self.report(id, |status| status.runtime_state = RuntimePhase::Syncing);
        self.begin_stream(id, Stream::Comms);
        self.begin_stream(id, Stream::Comments);
        if let Some(others) = self.presence.others(id) {
            self.tell(To::Only(id), &others);
        }
    }

    /// A connection is gone.
    pub(super) fn peer_left(&mut self, id: PeerId, keep_alive: Duration) {
        let Some(peer) = self.peers.remove(&id) else { return };
        if let Some(upload) = peer.upload {
            self.effects.push(Effect::EndUpload { upload: upload.id });
        }
        if let Some(left) = self.presence.leave(id) {
            self.tell(To::All, &left);
        }
        if self.peers.is_empty() {
            self.keep_alive = Some((self.now + keep_alive, keep_alive));
        }
    }

    /// Nobody came back in time: ends the kernel, unless it works.
    pub(super) fn end_kept_alive_kernel(&mut self) {
        match self.keep_alive {
            Some((at, keep_alive)) if at <= self.now => {
                if self.queue.is_empty() {
                    self.keep_alive = None;
                    self.close();
                } else {
                    self.keep_alive = Some((self.now + keep_alive, keep_alive));
                }
            }
            _ => {}
        }
    }

    /// Ends a room that could not be loaded, once every client had time to read why, or has left. Whoever
    /// asked for it may be on the way still.
    pub(super) fn end_failed_room(&mut self) {
        let left = self.had_peers && self.peers.is_empty();
        if self.linger.is_some_and(|at| at <= self.now || left) {
            self.linger = None;
            self.effects.push(Effect::Dissolve);
        }
    }

    /// Ends the kernel and writes the file.
    pub(super) fn close(&mut self) {
        self.give_up_kernel();
        self.save_if_dirty();
        if self.closing {
            self.save_aside();
        }
    }

    /// Writes the file and lets go of the kernel, which the next daemon finds again. One that it would not know
    /// of ends.
    pub(super) fn detach(&mut self) {
        self.detaches = self.kernel.live().is_some() && self.durable.is_written();
        if !self.detaches {
            self.give_up_kernel();
        }
        self.save_if_dirty();
        self.save_aside();
    }

    /// Whether the kernel goes on without the room.
    pub(crate) fn detached(&self) -> bool {
        self.detaches && self.kernel.live().is_some()
    }

    /// A client sent a frame.
    pub(super) fn frame(&mut self, id: PeerId, frame_type: u8, payload: Bytes) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if frame_type == FrameType::NOTEBOOK_SYNC && self.load == InitialLoad::Streaming {
            // Without credit for it: what waits stays bounded.
            return peer.held.push((frame_type, payload));
        }
        let bytes = payload.len();
        self.frame_came(id, frame_type, payload);
        self.effects.push(Effect::Grant { peer: id, bytes });
    }

    fn frame_came(&mut self, id: PeerId, frame_type: u8, payload: Bytes) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match frame_type {
            FrameType::REQUEST => self.request_came(id, &payload),
            FrameType::PUT_BLOB => self.upload_came(id, payload),
            FrameType::PRESENCE => {
                let Ok(message) = Presence::decode(&payload) else { return };
                let heard = self.presence.receive(id, &peer.identity, message);
                heard.iter().for_each(|(to, message)| self.tell(*to, message));
            }
            _ => {
                if let Some(stream) = Stream::of(frame_type) {
                    self.sync_frame(id, stream, &payload);
                }
            }
        }
    }

    /// A client cannot take more frames of a type. What can be made good in one message is left out.
    pub(super) fn congested(&mut self, id: PeerId, frame_type: u8) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(stream) = Stream::of(frame_type) {
            peer.streams.line(stream).stale = true;
        }
        peer.missed_presence |= frame_type == FrameType::PRESENCE;
    }

    /// A client takes everything again.
    pub(super) fn writable(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.streams.refresh();
        if std::mem::take(&mut peer.missed_presence) {
            let others = self.presence.snapshot(id);
            self.tell(To::Only(id), &others);
        }
    }

    /// Sends every client what it does not have yet: the end of every event.
    pub(super) fn publish_documents(&mut self) {
        self.start_held = self.start_held.filter(|until| *until > self.now);
        let changed = self.documents.take_changed();
        if changed[Stream::Notebook as usize] {
            self.saving.changed(self.now);
            self.declarations.touched(self.now);
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            for (stream, changed) in Stream::ALL.into_iter().zip(changed) {
                self.publish_to(id, stream, changed);
            }
        }
    }

    /// The file was read, or could not be.
    pub(super) fn loaded(&mut self, result: Result<Box<Loaded>, String>) {
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        let loaded = match result {
            Ok(loaded) => loaded,
            Err(reason) => {
                self.load = InitialLoad::Failed { reason };
                for peer in ids {
                    let load = self.load.clone();
                    self.report(peer, |status| status.initial_load = load);
                }
                // The next who opens the file reads it anew.
                self.effects.push(Effect::Forget);
                self.linger = Some(self.now + LINGER);
                return;
            }
        };
        self.take_over(*loaded);
        // For who joins from now on, there is nothing to wait for.
        self.load = InitialLoad::NotNeeded;
        for &id in &ids {
            self.begin_stream(id, Stream::Notebook);
            self.report(id, |status| status.initial_load = InitialLoad::Ready);
        }
        if self.peers.is_empty() {
            self.show_kernel(KernelState::NotStarted);
        } else {
            self.launch_for_visitors();
        }
        self.ask_host(Asks::Opinion);
        for id in ids {
            let held = self.peers.get_mut(&id).map(|peer| std::mem::take(&mut peer.held)).unwrap_or_default();
            held.into_iter().for_each(|(frame_type, payload)| self.frame(id, frame_type, payload));
            self.free_lanes.push(id);
        }
    }

    fn take_over(&mut self, loaded: Loaded) {
        self.durable.set_template(loaded.file.template.clone());
        self.saving.set_known(loaded.file.into());
        // What was read is what is in the file: nothing of it needs saving.
        self.documents.replace_notebook(loaded.notebook);
        let runtime = &mut self.documents.runtime;
        for execution in loaded.executions {
            kept(runtime.restore_execution(&execution.id, Outcome::Done, execution.count));
            for (seq, output) in (0..).zip(&execution.outputs) {
                kept(runtime.put_output(&execution.id, seq, output));
            }
        }
    }

    fn sync_frame(&mut self, id: PeerId, stream: Stream, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let may_write = stream != Stream::Runtime && peer.identity.scope == Scope::Owner;
        let principal = may_write.then_some(peer.identity.principal.as_str());
        let line = peer.streams.line(stream);
        match self.documents.receive(stream, line, payload, principal) {
            Ok(received) if received.stripped > 0 => {
                tracing::warn!(peer = %id, ?stream, changes = received.stripped, "dropped changes of a client that may not write this document");
            }
            Ok(received) if stream == Stream::Comms => self.widgets_edited(&received.changes),
            Ok(_) => {}
            // Comments that make no sense must never end a session.
            Err(error @ SyncError::Undecodable(_)) if stream == Stream::Comments => {
                tracing::warn!(peer = %id, %error, "a comments message was dropped");
            }
            Err(error) => {
                tracing::warn!(peer = %id, ?stream, %error, "closing a connection over a bad sync message");
                self.effects.push(Effect::Close { peer: id });
            }
        }
    }

    fn publish_to(&mut self, id: PeerId, stream: Stream, changed: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let line = peer.streams.line(stream);
        line.behind |= changed && line.open;
        let asked = line.asked;
        let held = stream == Stream::Runtime && self.start_held.is_some() && !asked;
        if held || !line.is_due(self.now) {
            return;
        }
        let message = self.documents.generate(stream, line, self.now);
        // A client that came with changes of its own may have nothing to say to ours.
        let syncs = stream == Stream::Notebook && peer.status.notebook_doc != NotebookPhase::Interactive;
        let has_all = syncs && asked && self.documents.has_notebook(line);
        if let Some(message) = message {
            self.send(id, stream.frame_type(), message);
        }
        match stream {
            // It said what it has, and what it lacked is on its way.
            Stream::Notebook if has_all => {
                self.report_progress(id, |status| status.notebook_doc = NotebookPhase::Interactive);
            }
            Stream::Runtime if asked => {
                self.report_progress(id, |status| status.runtime_state = RuntimePhase::Ready);
            }
            _ => {}
        }
    }

    /// Sends the first message on a document, which says what the daemon has.
    fn begin_stream(&mut self, id: PeerId, stream: Stream) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let line = peer.streams.line(stream);
        line.open = true;
        if let Some(message) = self.documents.generate(stream, line, self.now) {
            self.send(id, stream.frame_type(), message);
        }
    }

    /// Tells a client how far it is, if that is news.
    fn report_progress(&mut self, id: PeerId, change: impl FnOnce(&mut SyncStatus)) {
        let Some(peer) = self.peers.get(&id) else { return };
        let mut status = peer.status.clone();
        change(&mut status);
        if status != peer.status {
            self.report(id, |there| *there = status);
        }
    }

    /// Tells a client how far it is.
    fn report(&mut self, id: PeerId, change: impl FnOnce(&mut SyncStatus)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        change(&mut peer.status);
        let status = SessionControl::SyncStatus(peer.status.clone());
        self.control(id, &status);
    }

    fn control(&mut self, id: PeerId, message: &SessionControl) {
        if let Ok(payload) = serde_json::to_vec(message) {
            self.send(id, FrameType::SESSION_CONTROL, payload);
        }
    }
}
