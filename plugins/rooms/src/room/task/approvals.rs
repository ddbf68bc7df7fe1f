//! Approvals that are under way.
//!
//! For: launches. What a notebook declares when it is made is approved with it, while its kernel is launched.
//! Promises: an environment that is wanted meanwhile is asked for afterwards.

use tokio::sync::watch;

/// How many there are. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Approvals(watch::Sender<usize>);

/// One of them, until this is dropped.
pub(super) struct Approval(Approvals);

impl Approvals {
    /// One more.
    pub(super) fn begin(&self) -> Approval {
        self.0.send_modify(|count| *count += 1);
        Approval(self.clone())
    }

    /// Waits until there is none.
    pub(super) async fn settled(&self) {
        // The sender is there as long as this is.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Approval {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
