//! The requests of one connection.
//!
//! For: answering them one after the other, in the order they came.
//! Promises: at most one is being answered; the others wait, up to a bound.

use std::collections::VecDeque;

/// Requests that may wait behind the one being answered. Source: the protocol's own limit.
const LONGEST_QUEUE: usize = 64;

/// A strictly ordered queue of one connection's requests.
pub(crate) struct Lane<R> {
    waiting: VecDeque<R>,
    busy: bool,
}

impl<R> Default for Lane<R> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), busy: false }
    }
}

impl<R> Lane<R> {
    /// Puts a request at the end, or gives it back if too many wait.
    pub(crate) fn push(&mut self, request: R) -> Result<(), R> {
        if self.waiting.len() >= LONGEST_QUEUE {
            return Err(request);
        }
        self.waiting.push_back(request);
        Ok(())
    }

    /// The next request to answer, unless one is being answered.
    pub(crate) fn start_next(&mut self) -> Option<R> {
        if self.busy {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.busy = true;
        Some(next)
    }

    /// The request being answered has its answer.
    pub(crate) fn answered(&mut self) {
        self.busy = false;
    }
}
