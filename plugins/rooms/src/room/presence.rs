//! Who is in the room, and where.
//!
//! For: cursors, selections and names that every window shows of the others.
//! Promises: peers appear under the ids and actor labels the daemon gave them, whatever they claim; a peer
//! is visible from its first update until it leaves.
//! Never: keeps a client waiting or fails one; what makes no sense is dropped.

use std::collections::BTreeMap;

use runtimed_protocol::identity;
use runtimed_protocol::presence::{
    DAEMON_PEER, Presence, PresenceChannel, PresenceData, PresencePeer, PresenceUpdate, clean_peer_label,
};

use super::peers::Identity;
use crate::ids::PeerId;

/// Whom a presence message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// Everybody but this peer.
    AllBut(PeerId),
    /// This peer alone.
    Only(PeerId),
    /// Everybody.
    All,
}

/// The latest of every visible peer.
#[derive(Default)]
pub(crate) struct Board {
    visible: BTreeMap<PeerId, Visible>,
    /// What the daemon says about the kernel.
    kernel: Option<PresenceData>,
}

struct Visible {
    label: String,
    actor_label: String,
    channels: BTreeMap<PresenceChannel, PresenceData>,
}

impl Board {
    /// Takes a message from `peer` and returns what others must hear.
    pub(crate) fn receive(
        &mut self,
        peer: PeerId,
        identity: &Identity,
        message: Presence,
    ) -> Vec<(To, Presence)> {
        match message {
            Presence::Update(update) => self.update(peer, identity, update),
            Presence::ClearChannel { channel, .. } => self.clear(peer, channel),
            Presence::Heartbeat { .. } | Presence::Snapshot { .. } | Presence::Left { .. } => Vec::new(),
        }
    }

    /// Everybody but `peer`, if there is anybody.
    pub(crate) fn others(&self, peer: PeerId) -> Option<Presence> {
        let snapshot = self.snapshot(peer);
        let anybody = matches!(&snapshot, Presence::Snapshot { peers, .. } if !peers.is_empty());
        anybody.then_some(snapshot)
    }

    /// Everybody but `peer`.
    pub(crate) fn snapshot(&self, peer: PeerId) -> Presence {
        let daemon = self.kernel.iter().map(|kernel| PresencePeer {
            peer_id: DAEMON_PEER.to_owned(),
            peer_label: DAEMON_PEER.to_owned(),
            actor_label: None,
            channels: vec![kernel.clone()],
        });
        let others = self.visible.iter().filter(|(id, _)| **id != peer).map(|(id, it)| PresencePeer {
            peer_id: id.to_string(),
            peer_label: it.label.clone(),
            actor_label: Some(it.actor_label.clone()),
            channels: it.channels.values().cloned().collect(),
        });
        Presence::Snapshot { peer_id: DAEMON_PEER.to_owned(), peers: daemon.chain(others).collect() }
    }

    /// Forgets a peer whose connection ended.
    pub(crate) fn leave(&mut self, peer: PeerId) -> Option<Presence> {
        self.visible.remove(&peer).map(|_| Presence::Left { peer_id: peer.to_string() })
    }

    /// Notes what the daemon says about the kernel.
    pub(crate) fn kernel(&mut self, state: PresenceData) -> Option<Presence> {
        if self.kernel.as_ref() == Some(&state) {
            return None;
        }
        self.kernel = Some(state.clone());
        Some(Presence::Update(PresenceUpdate {
            peer_id: DAEMON_PEER.to_owned(),
            peer_label: None,
            actor_label: None,
            data: state,
        }))
    }

    fn update(&mut self, peer: PeerId, identity: &Identity, update: PresenceUpdate) -> Vec<(To, Presence)> {
        if update.data.channel() == PresenceChannel::KernelState {
            return Vec::new();
        }
        let operator = update.actor_label.as_deref().and_then(identity::valid_operator);
        let operator = operator.unwrap_or(&identity.operator);
        let actor_label = identity::actor_label(&identity.principal, operator);
        let label = update.peer_label.as_deref().and_then(clean_peer_label);
        let label = label.unwrap_or_else(|| peer.to_string());

        let snapshot = (!self.visible.contains_key(&peer)).then(|| self.others(peer)).flatten();
        let seen = self.visible.entry(peer).or_insert_with(|| Visible {
            label: String::new(),
            actor_label: String::new(),
            channels: BTreeMap::new(),
        });
        seen.label.clone_from(&label);
        seen.actor_label.clone_from(&actor_label);
        seen.channels.insert(update.data.channel(), update.data.clone());

        let relayed = Presence::Update(PresenceUpdate {
            peer_id: peer.to_string(),
            peer_label: Some(label),
            actor_label: Some(actor_label),
            data: update.data,
        });
        let snapshot = snapshot.map(|snapshot| (To::Only(peer), snapshot));
        snapshot.into_iter().chain([(To::AllBut(peer), relayed)]).collect()
    }

    fn clear(&mut self, peer: PeerId, channel: PresenceChannel) -> Vec<(To, Presence)> {
        let Some(seen) = self.visible.get_mut(&peer) else { return Vec::new() };
        seen.channels.remove(&channel);
        vec![(To::AllBut(peer), Presence::ClearChannel { peer_id: peer.to_string(), channel })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;

    fn focus(cell: &str, label: Option<&str>, actor: Option<&str>) -> Presence {
        Presence::Update(PresenceUpdate {
            peer_id: "local".into(),
            peer_label: label.map(str::to_owned),
            actor_label: actor.map(str::to_owned),
            data: PresenceData::Focus { cell_id: cell.into() },
        })
    }

    #[test]
    fn a_peer_cannot_claim_another_name() {
        let (mut ids, mut board) = (Ids::seeded(1), Board::default());
        let (ana, bob) = (PeerId(ids.uuid()), PeerId(ids.uuid()));
        let identity = Identity::owner("local:ana", "desktop:1");
        let heard =
            board.receive(ana, &identity, focus("c", Some(" Ana\u{200B} "), Some("local:bob/agent:x:1")));
        let [(To::AllBut(from), Presence::Update(update))] = heard.as_slice() else { panic!("{heard:?}") };
        assert_eq!(*from, ana);
        assert_eq!(update.peer_id, ana.to_string());
        assert_eq!(update.peer_label.as_deref(), Some("Ana"));
        assert_eq!(update.actor_label.as_deref(), Some("local:ana/agent:x:1"));

        // The second peer's first update brings it a snapshot of the first.
        let heard = board.receive(bob, &identity, focus("d", None, None));
        assert!(
            matches!(&heard[0], (To::Only(to), Presence::Snapshot { peers, .. }) if *to == bob && peers.len() == 1)
        );
        assert!(matches!(board.leave(ana), Some(Presence::Left { peer_id }) if peer_id == ana.to_string()));
        assert_eq!(board.others(bob), None);
    }

    #[test]
    fn only_the_daemon_speaks_for_the_kernel() {
        let (mut ids, mut board) = (Ids::seeded(2), Board::default());
        let peer = PeerId(ids.uuid());
        let state = PresenceData::KernelState {
            status: runtimed_protocol::presence::KernelPresence::Idle,
            env_source: "uv:prewarmed".into(),
        };
        let claim = Presence::Update(PresenceUpdate {
            peer_id: "local".into(),
            peer_label: None,
            actor_label: None,
            data: state.clone(),
        });
        assert_eq!(board.receive(peer, &Identity::owner("local:ana", "desktop:1"), claim), []);
        assert!(board.kernel(state.clone()).is_some());
        assert!(board.kernel(state).is_none());
        assert!(board.others(peer).is_some());
    }
}
