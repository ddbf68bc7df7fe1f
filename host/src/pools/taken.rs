//! An environment between its pool and its owner.
//!
//! For: whoever takes one and may be dropped, or fail, before it has arrived.
//! Promises: it goes back to its pool unless [`Taken::keep`] was called.

use std::sync::Arc;

use runtimed_plugin_api::Result;

use super::environments::blocking;
use super::pool::Pool;
use super::record;
use super::state::Ready;

/// An environment that has left its pool and has no owner yet.
pub(super) struct Taken {
    pool: Arc<Pool>,
    ready: Option<Ready>,
}

impl Taken {
    /// Watches over `ready`, which was taken from `pool`.
    pub(super) fn new(pool: &Arc<Pool>, ready: Ready) -> Self {
        Self { pool: Arc::clone(pool), ready: Some(ready) }
    }

    /// Notes on disk that `owner` has it: the next daemon must not hand it out again.
    ///
    /// # Errors
    /// When that cannot be written; it must not be given away then.
    pub(super) async fn lease(&self, owner: &str) -> Result<()> {
        let Some(ready) = &self.ready else { return Ok(()) };
        let (prefix, owner) = (ready.environment.prefix.clone(), owner.to_owned());
        blocking(move || record::lease(&prefix, &owner)).await
    }

    /// It has arrived.
    pub(super) fn keep(mut self) {
        self.ready = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(ready) = self.ready.take() {
            self.pool.give_back(ready);
        }
    }
}
