//! Presence: who is here, and where in the notebook.
//!
//! For: PRESENCE frames, CBOR maps tagged by `type`.
//! Promises: definite and indefinite maps are read alike, unknown keys are ignored; nothing longer than a
//! frame may be is ever encoded.
//! Never: decides who may say what.

use serde::{Deserialize, Serialize};

use crate::frame::FrameType;

/// The peer id clients give themselves; the daemon puts the real one in its place.
pub const LOCAL_PEER: &str = "local";
/// The peer id of the daemon itself.
pub const DAEMON_PEER: &str = "daemon";

/// A presence message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Presence {
    /// The latest on one channel of a peer. Both ways.
    Update(PresenceUpdate),
    /// Everybody else. Daemon to client.
    Snapshot {
        /// The sender.
        peer_id: String,
        /// The others.
        peers: Vec<PresencePeer>,
    },
    /// A peer is gone. Daemon to client.
    Left {
        /// That peer.
        peer_id: String,
    },
    /// I am still here. Client to daemon.
    Heartbeat {
        /// The sender.
        peer_id: String,
    },
    /// Nothing more on a channel of a peer. Both ways.
    ClearChannel {
        /// That peer.
        peer_id: String,
        /// That channel.
        channel: PresenceChannel,
    },
}

/// The latest on one channel of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresenceUpdate {
    /// The peer.
    pub peer_id: String,
    /// Name shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_label: Option<String>,
    /// `<principal>/<operator>`; clients may send the operator alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_label: Option<String>,
    /// `channel` and `data`.
    #[serde(flatten)]
    pub data: PresenceData,
}

/// One peer in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PresencePeer {
    /// The peer.
    pub peer_id: String,
    /// Name shown to people.
    pub peer_label: String,
    /// `<principal>/<operator>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_label: Option<String>,
    /// The latest on each of its channels.
    pub channels: Vec<PresenceData>,
}

/// The names of the channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceChannel {
    /// Text cursor.
    Cursor,
    /// Text selection.
    Selection,
    /// Focused cell.
    Focus,
    /// What the user does.
    Interaction,
    /// The kernel; the daemon alone.
    KernelState,
    /// Anything.
    Custom,
}

/// A channel with what is on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "channel", content = "data", rename_all = "snake_case")]
pub enum PresenceData {
    /// Text cursor.
    Cursor {
        /// Cell.
        cell_id: String,
        /// Line, from 0.
        line: u32,
        /// Column, from 0.
        column: u32,
    },
    /// Text selection.
    Selection {
        /// Cell.
        cell_id: String,
        /// Line where it began.
        anchor_line: u32,
        /// Column where it began.
        anchor_col: u32,
        /// Line where the cursor is.
        head_line: u32,
        /// Column where the cursor is.
        head_col: u32,
    },
    /// Focused cell.
    Focus {
        /// Cell.
        cell_id: String,
    },
    /// What the user does.
    Interaction(Interaction),
    /// The kernel.
    KernelState {
        /// What it does.
        status: KernelPresence,
        /// Label of its environment.
        env_source: String,
    },
    /// Bytes of the client's own, an array of byte values.
    Custom(Vec<u8>),
}

/// What the user does, by `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Interaction {
    /// On a cell.
    Cell {
        /// Cell.
        cell_id: String,
    },
    /// In a cell's editor.
    Editor {
        /// Cell.
        cell_id: String,
    },
    /// At a place in rendered Markdown.
    MarkdownAnchor {
        /// Cell.
        cell_id: String,
        /// Place.
        anchor_id: String,
    },
    /// At an output.
    Output {
        /// Cell.
        cell_id: String,
        /// Output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output_id: Option<String>,
    },
}

/// What a kernel does, as presence shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelPresence {
    /// None yet.
    NotStarted,
    /// Coming up.
    Starting,
    /// Waiting.
    Idle,
    /// Running code.
    Busy,
    /// Failed.
    Errored,
    /// Gone.
    Shutdown,
}

/// Why a PRESENCE payload is not a presence message. The frame is dropped and the connection stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresenceError {
    /// Not CBOR, or not of a known type.
    #[error("not a presence message: {0}")]
    Undecodable(String),
    /// Longer than a frame may be.
    #[error("a presence message of {0} bytes is over the limit of 4096")]
    TooLong(usize),
}

impl Presence {
    /// Reads the payload of a PRESENCE frame.
    ///
    /// # Errors
    /// `Undecodable` if it is none.
    pub fn decode(payload: &[u8]) -> Result<Self, PresenceError> {
        ciborium::from_reader(payload).map_err(|error| PresenceError::Undecodable(error.to_string()))
    }

    /// The payload of a PRESENCE frame.
    ///
    /// # Errors
    /// `TooLong` if it does not fit into one.
    pub fn encode(&self) -> Result<Vec<u8>, PresenceError> {
        let mut payload = Vec::new();
        ciborium::into_writer(self, &mut payload)
            .map_err(|error| PresenceError::Undecodable(error.to_string()))?;
        if FrameType::payload_max(FrameType::PRESENCE).is_some_and(|max| payload.len() > max) {
            return Err(PresenceError::TooLong(payload.len()));
        }
        Ok(payload)
    }
}

impl PresenceData {
    /// The channel it is on.
    pub fn channel(&self) -> PresenceChannel {
        match self {
            Self::Cursor { .. } => PresenceChannel::Cursor,
            Self::Selection { .. } => PresenceChannel::Selection,
            Self::Focus { .. } => PresenceChannel::Focus,
            Self::Interaction(_) => PresenceChannel::Interaction,
            Self::KernelState { .. } => PresenceChannel::KernelState,
            Self::Custom(_) => PresenceChannel::Custom,
        }
    }
}

/// A label fit to be shown: trimmed, without invisible characters, at most 64 characters. None if
/// nothing is left.
pub fn clean_peer_label(label: &str) -> Option<String> {
    /// Longest label in characters.
    const MAX_CHARS: usize = 64;
    let visible: String = label.chars().filter(|&character| !is_invisible(character)).collect();
    let cut: String = visible.trim().chars().take(MAX_CHARS).collect();
    (!cut.is_empty()).then_some(cut)
}

/// Control, zero-width and bidirectional characters and variation selectors.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{E0100}'..='\u{E01EF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn custom_data_is_an_array_of_numbers() {
        let update = Presence::Update(PresenceUpdate {
            peer_id: LOCAL_PEER.into(),
            peer_label: None,
            actor_label: None,
            data: PresenceData::Custom(vec![1, 200]),
        });
        let payload = update.encode().unwrap();
        let value: ciborium::Value = ciborium::from_reader(payload.as_slice()).unwrap();
        let data = value.as_map().unwrap().iter().find(|(key, _)| key.as_text() == Some("data")).unwrap();
        assert!(data.1.is_array());
        assert_eq!(Presence::decode(&payload).unwrap(), update);
    }

    #[test]
    fn every_interaction_survives_the_wire() {
        for interaction in [
            Interaction::Cell { cell_id: "a".into() },
            Interaction::Editor { cell_id: "a".into() },
            Interaction::MarkdownAnchor { cell_id: "a".into(), anchor_id: "b".into() },
            Interaction::Output { cell_id: "a".into(), output_id: None },
        ] {
            let update = Presence::Update(PresenceUpdate {
                peer_id: "p".into(),
                peer_label: Some("P".into()),
                actor_label: None,
                data: PresenceData::Interaction(interaction),
            });
            assert_eq!(Presence::decode(&update.encode().unwrap()).unwrap(), update);
        }
    }

    #[test]
    fn a_message_over_the_limit_is_not_encoded() {
        let long = Presence::Left { peer_id: "x".repeat(4096) };
        assert!(matches!(long.encode(), Err(PresenceError::TooLong(_))));
    }

    #[test]
    fn unknown_keys_are_ignored_and_unknown_types_are_not() {
        let encode = |value: serde_json::Value| {
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).unwrap();
            bytes
        };
        let known = encode(serde_json::json!({"type": "heartbeat", "peer_id": "local", "zzz": [1]}));
        assert_eq!(Presence::decode(&known).unwrap(), Presence::Heartbeat { peer_id: "local".into() });
        assert!(Presence::decode(&encode(serde_json::json!({"type": "zzz", "peer_id": "local"}))).is_err());
        assert!(Presence::decode(b"\xff\x00junk").is_err());
    }

    #[test]
    fn labels_lose_what_cannot_be_seen() {
        assert_eq!(clean_peer_label(" \u{200B}Ana\u{202E}\n ").as_deref(), Some("Ana"));
        assert_eq!(clean_peer_label(" \u{FE0F} "), None);
        assert_eq!(clean_peer_label(&"é".repeat(70)).unwrap().chars().count(), 64);
    }
}
