//! Rooms that leave memory.
//!
//! For: a daemon that was used for a week and holds in memory what is used today.
//! Promises: a room that nobody is in, without a kernel and with nothing to save, leaves memory; its journal
//! brings it back as it was. One that was never to be kept is gone then.
//! Never: a room whose journal lacks something.

use std::time::Duration;

use runtimed_protocol::session_control::InitialLoad;

use super::core::RoomCore;
use super::event::Effect;
use super::kernel::Stage;

/// A room that is of no use stays this long: somebody who reloads a window, or comes back from another
/// notebook, does not wait for it to be read.
pub(in crate::room) const AWAKE: Duration = Duration::from_secs(5 * 60);

impl RoomCore {
    /// Leaves memory, once there has been nothing to do for long enough: the end of every event, and of the
    /// beginning, since nothing else may ever happen.
    pub(super) fn fall_asleep(&mut self) {
        if !self.is_of_no_use() {
            self.sleep_at = None;
            return;
        }
        let at = *self.sleep_at.get_or_insert(self.now + AWAKE);
        if at <= self.now {
            self.sleep_at = None;
            self.effects.push(Effect::Dissolve);
        }
    }

    fn is_of_no_use(&self) -> bool {
        let saved = self.saving.path().is_none() || !self.saving.has_unsaved();
        self.peers.is_empty()
            && self.keep_alive.is_none()
            && matches!(self.kernel.stage, Stage::Down)
            && self.load == InitialLoad::NotNeeded
            && self.publication.is_settled()
            && self.tasks.is_empty()
            && saved
            && self.saving.is_at_rest()
            && (self.is_ephemeral() || self.durable.is_sound())
    }
}
