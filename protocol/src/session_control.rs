//! Session control: how far a connection's synchronization has come.
//!
//! For: the daemon that reports the phases and the clients that wait for them.
//! Promises: every `sync_status` carries all three phases; [`SyncStatus::advance`] never goes back.

use serde::{Deserialize, Serialize};

/// What a SESSION_CONTROL frame says after the bootstrap reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SessionControl {
    /// The phases of this connection.
    SyncStatus(SyncStatus),
    /// The link to a cloud room.
    HostedBridgeStatus {
        /// `not_applicable` in every local room.
        status: BridgeStatus,
    },
}

/// How far this connection has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncStatus {
    /// The notebook document.
    pub notebook_doc: NotebookPhase,
    /// The runtime-state document.
    pub runtime_state: RuntimePhase,
    /// The notebook's file.
    pub initial_load: InitialLoad,
}

/// Phases of the notebook document, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotebookPhase {
    /// Nothing was sent yet.
    Pending,
    /// The first sync message left, or is held back until the file is read.
    Syncing,
    /// The client has everything.
    Interactive,
}

/// Phases of the runtime-state document, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimePhase {
    /// Nothing was sent yet.
    Pending,
    /// The first sync message left.
    Syncing,
    /// The client has answered it.
    Ready,
}

/// Reading the notebook's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum InitialLoad {
    /// The room had its content already. Stays so.
    NotNeeded,
    /// Cells are arriving.
    Streaming,
    /// All cells are there.
    Ready,
    /// The file could not be read; the daemon closes after saying so.
    Failed {
        /// For the user.
        reason: String,
    },
}

/// The link to a cloud room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BridgeStatus {
    /// The room is local.
    NotApplicable,
    /// First attempt.
    Connecting,
    /// Up.
    Connected,
    /// Lost, trying again.
    Reconnecting,
    /// Refused.
    AuthenticationFailed,
    /// Gone for good.
    TerminalError,
}

impl SyncStatus {
    /// Where every connection starts.
    pub fn initial(initial_load: InitialLoad) -> Self {
        Self { notebook_doc: NotebookPhase::Pending, runtime_state: RuntimePhase::Pending, initial_load }
    }

    /// Whether a client may work with the notebook.
    pub fn is_ready(&self) -> bool {
        self.notebook_doc == NotebookPhase::Interactive
            && self.runtime_state == RuntimePhase::Ready
            && matches!(self.initial_load, InitialLoad::NotNeeded | InitialLoad::Ready)
    }

    /// Takes over what is further in `next`; a step back is ignored.
    pub fn advance(&mut self, next: Self) {
        self.notebook_doc = self.notebook_doc.max(next.notebook_doc);
        self.runtime_state = self.runtime_state.max(next.runtime_state);
        if self.initial_load == InitialLoad::Streaming
            && let ready_or_failed @ (InitialLoad::Ready | InitialLoad::Failed { .. }) = next.initial_load
        {
            self.initial_load = ready_or_failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_go_forward() {
        let mut status = SyncStatus::initial(InitialLoad::Streaming);
        let done = SyncStatus {
            notebook_doc: NotebookPhase::Interactive,
            runtime_state: RuntimePhase::Ready,
            initial_load: InitialLoad::Ready,
        };
        status.advance(done.clone());
        assert!(status.is_ready());
        status.advance(SyncStatus::initial(InitialLoad::Streaming));
        assert_eq!(status, done);
        let mut loaded = SyncStatus::initial(InitialLoad::NotNeeded);
        loaded.advance(SyncStatus { initial_load: InitialLoad::Failed { reason: "x".into() }, ..done });
        assert!(loaded.is_ready());
    }
}
