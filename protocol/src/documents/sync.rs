//! Synchronisation of one document with one peer.
//!
//! For: whoever serves documents over a connection; the client library too.
//! Promises: the same messages as automerge's own [`SyncDoc`], at a cost that depends on the message and
//! not on the history; a bad message changes nothing.
//! Never: two peers or two documents on one [`SyncPeer`]; it starts fresh with every connection.
//!
//! Automerge 0.12 walks all ancestors of the peer's heads on every message it receives (3.7 ms at
//! 100,000 changes). Here the walk ends where the oldest change sent and not yet acknowledged is.

use std::collections::HashSet;

use automerge::sync::{Capability, Message, MessageFlags, State, SyncDoc};
use automerge::{AutoCommit, AutomergeError, Change, ChangeHash};

use super::{Document, apply};

mod actors;
mod incoming;
#[cfg(test)]
mod tests;

use incoming::Whole;
pub use incoming::{Incoming, read_changes};

/// Why a message was refused. The connection it came from ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The bytes are no sync message, or hold a change that cannot be read.
    #[error("the sync message cannot be decoded: {0}")]
    Undecodable(String),
    /// A change is signed with the name of somebody else.
    #[error("the principal `{principal}` is not authorized to write as `{actor}`")]
    Forbidden {
        /// Who is connected.
        principal: String,
        /// Who the change says wrote it.
        actor: String,
    },
    /// A change contradicts one that is there.
    #[error("the changes cannot be applied: {0}")]
    Apply(#[from] AutomergeError),
}

/// What a message brought.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The changes that were not known before. Those whose dependencies are still missing wait inside
    /// the document and count as unknown until they can be applied.
    pub changes: Vec<Change>,
    /// Whether the document is different now.
    pub changed: bool,
    /// How many changes were dropped because the peer may not write.
    pub stripped: usize,
}

/// The state of synchronisation of one document over one connection.
#[derive(Debug, Clone, Default)]
pub struct SyncPeer {
    state: State,
}

impl SyncPeer {
    /// The state for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies a message. Answer with [`SyncPeer::generate`], here and to every other peer.
    ///
    /// # Errors
    /// See [`SyncError`]; the document has not changed then.
    pub fn receive(
        &mut self,
        document: &mut impl Document,
        incoming: Incoming,
    ) -> Result<Received, SyncError> {
        let document = document.automerge_mut();
        let before = document.get_heads();
        let Incoming { message, changes } = incoming;
        let brought_changes = !message.changes.is_empty();
        let changes: Vec<Change> =
            changes.into_iter().filter(|change| !is_known(document, &change.hash())).collect();
        if !changes.is_empty() {
            apply(document, changes.clone())?;
        }
        let changed = document.get_heads() != before;
        self.update(document, &before, brought_changes, message);
        Ok(Received { changes, changed, stripped: 0 })
    }

    /// As [`SyncPeer::receive`], for who does not ask which changes came; true if the document is different now.
    /// A whole document that holds all of ours takes its place: that costs a quarter of applying its changes.
    ///
    /// # Errors
    /// See [`SyncError`]; the document has not changed then.
    pub fn follow(&mut self, document: &mut impl Document, bytes: &[u8]) -> Result<bool, SyncError> {
        let incoming = match Whole::decode(bytes)? {
            Ok(mut whole) => {
                let ours = document.automerge_mut();
                let before = ours.get_heads();
                let waits = !ours.get_missing_deps(&[]).is_empty();
                if !waits && before.iter().all(|head| is_known(&mut whole.document, head)) {
                    let actor = ours.get_actor().clone();
                    *ours = whole.document.with_actor(actor);
                    let changed = ours.get_heads() != before;
                    self.update(ours, &before, true, whole.message);
                    return Ok(changed);
                }
                whole.into()
            }
            Err(message) => Incoming::read(message)?,
        };
        Ok(self.receive(document, incoming)?.changed)
    }

    /// As [`SyncPeer::receive`], for a peer whose label is known: the changes it brings must be written
    /// by its own `principal`, or by a label without one, or be a genesis.
    ///
    /// # Errors
    /// `Forbidden` if they are not; nothing has been applied then.
    pub fn receive_from(
        &mut self,
        document: &mut impl Document,
        incoming: Incoming,
        principal: &str,
    ) -> Result<Received, SyncError> {
        for change in &incoming.changes {
            if !actors::may_write(principal, change) && !is_known(document.automerge_mut(), &change.hash()) {
                // As much as makes a line of a log.
                let actor = String::from_utf8_lossy(change.actor_id().to_bytes()).chars().take(100).collect();
                return Err(SyncError::Forbidden { principal: principal.to_owned(), actor });
            }
        }
        self.receive(document, incoming)
    }

    /// Takes note of what a peer has that may not write this document. Its changes are dropped, and so
    /// are the heads they lead to: asking for them would go round in circles.
    ///
    /// # Errors
    /// None at present.
    pub fn receive_stripped(
        &mut self,
        document: &mut impl Document,
        incoming: Incoming,
    ) -> Result<Received, SyncError> {
        let document = document.automerge_mut();
        let before = document.get_heads();
        let Incoming { mut message, changes } = incoming;
        let stripped = changes.iter().filter(|change| !is_known(document, &change.hash())).count();
        message.changes = Vec::<Vec<u8>>::new().into();
        if !message.heads.is_empty() {
            message.heads.retain(|head| is_known(document, head));
            if message.heads.is_empty() {
                // All it has is its own, on top of what we agreed on.
                message.heads.clone_from(&self.state.shared_heads);
            }
        }
        self.update(document, &before, false, message);
        Ok(Received { changes: Vec::new(), changed: false, stripped })
    }

    /// The next message for the peer, or none if there is nothing to say.
    pub fn generate(&mut self, document: &mut impl Document) -> Option<Vec<u8>> {
        let message = document.automerge_mut().sync().generate_sync_message(&mut self.state)?;
        Some(message.encode())
    }

    /// Whether the peer has answered and has all of `document`, or will have as soon as it reads what
    /// was sent. (A peer that finds its heads equal to ours need not say so.) Looks at every change that the peer did
    /// not have when it last said what it has.
    pub fn is_caught_up(&self, document: &mut impl Document) -> bool {
        let State { their_heads, shared_heads, sent_hashes, .. } = &self.state;
        let Some(theirs) = their_heads else { return false };
        let document = document.automerge_mut();
        let has = theirs.iter().chain(shared_heads).filter(|head| is_known(document, head));
        let has: Vec<ChangeHash> = has.copied().collect();
        // One of a hundred changes is left out, because the peer's filter says that it has that. It will ask for it.
        document.get_changes_meta(&has).iter().all(|change| sent_hashes.contains(&change.hash))
    }

    /// The heads in the peer's last message; none before the first.
    pub fn their_heads(&self) -> Option<&[ChangeHash]> {
        self.state.their_heads.as_deref()
    }

    /// Does to the state what automerge's `receive_sync_message` does after the changes are applied.
    fn update(
        &mut self,
        document: &mut AutoCommit,
        before: &[ChangeHash],
        brought_changes: bool,
        message: Message,
    ) {
        let state = &mut self.state;
        let Message { heads, need, have, flags, .. } = message;
        state.in_flight = false;
        if let Some(flags) = flags {
            // The section with the flags is as old as the second version of messages.
            let mut capabilities = vec![Capability::MessageV2];
            if flags.contains(MessageFlags::SUPPORTS_SYNC_RESET) {
                capabilities.push(Capability::SyncReset);
            }
            state.their_capabilities = Some(capabilities);
            if flags.contains(MessageFlags::SYNC_RESET) {
                state.sent_hashes.clear();
            }
            state.peer_read_only = flags.contains(MessageFlags::READ_ONLY);
        }
        let now = document.get_heads();
        if brought_changes {
            state.shared_heads = advanced(before, &now, &state.shared_heads);
        }
        forget_acknowledged(document, &heads, &now, state);
        if !brought_changes && heads == before {
            state.last_sent_heads.clone_from(&heads);
        }
        let known: Vec<ChangeHash> = heads.iter().filter(|head| is_known(document, head)).copied().collect();
        if known.len() == heads.len() {
            state.shared_heads.clone_from(&heads);
            if heads.is_empty() {
                // The peer has lost everything: start over.
                state.last_sent_heads.clear();
                state.sent_hashes.clear();
            }
        } else {
            state.shared_heads.extend(known);
            state.shared_heads.sort_unstable();
            state.shared_heads.dedup();
        }
        state.their_have = Some(have);
        state.their_heads = Some(heads);
        state.their_need = Some(need);
    }
}

fn is_known(document: &mut AutoCommit, hash: &ChangeHash) -> bool {
    document.get_change_meta_by_hash(hash).is_some()
}

/// What both sides have after the peer's changes moved our heads from `before` to `now`.
fn advanced(before: &[ChangeHash], now: &[ChangeHash], shared: &[ChangeHash]) -> Vec<ChangeHash> {
    let in_both = |head: &&ChangeHash| !before.contains(head) || shared.contains(head);
    now.iter().filter(in_both).copied().collect()
}

/// Removes from `sent_hashes` what the peer has by now: the ancestors of its heads.
///
/// An ancestor's highest operation number is never above that of its descendants, so the walk leaves
/// out everything below the lowest one among the hashes that are looked for.
fn forget_acknowledged(
    document: &mut AutoCommit,
    their_heads: &[ChangeHash],
    our_heads: &[ChangeHash],
    state: &mut State,
) {
    let sent = &mut state.sent_hashes;
    if their_heads == our_heads {
        sent.clear();
    }
    let mut max_op = |hash: &ChangeHash| document.get_change_meta_by_hash(hash).map(|meta| meta.max_op);
    let Some(floor) = sent.iter().filter_map(&mut max_op).min() else { return };
    let mut to_visit = their_heads.to_vec();
    let mut visited = HashSet::new();
    while let Some(hash) = to_visit.pop() {
        if sent.is_empty() || !visited.insert(hash) {
            continue;
        }
        if let Some(meta) = document.get_change_meta_by_hash(&hash)
            && meta.max_op >= floor
        {
            sent.remove(&hash);
            to_visit.extend(meta.deps);
        }
    }
}
