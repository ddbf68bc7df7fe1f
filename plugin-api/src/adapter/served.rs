//! One of our objects, offered to the other side.

use std::future::Future;
use std::sync::Arc;

use runtimed_plugin_abi::{RString, Reply};
use serde::Serialize;

use super::Side;
use super::convert::json;
use crate::Result;

/// Implements the ABI's traits for the object it holds. Each method is one of the calls below.
pub(super) struct Served<T: ?Sized> {
    /// Empty only while it is dropped.
    object: Option<Arc<T>>,
    /// Where the object lives.
    side: Side,
}

impl<T: ?Sized> Served<T> {
    pub(super) fn new(object: Arc<T>, side: &Side) -> Self {
        Self { object: Some(object), side: side.clone() }
    }

    pub(super) fn side(&self) -> &Side {
        &self.side
    }

    #[expect(clippy::expect_used, reason = "only `drop` empties it, and nobody calls after that")]
    fn object(&self) -> &Arc<T> {
        self.object.as_ref().expect("the object is there until it is dropped")
    }

    /// A method that returns at once.
    pub(super) fn call<R>(&self, neutral: impl FnOnce() -> R, body: impl FnOnce(&T) -> R) -> R {
        let object = self.object();
        self.side.call(neutral, || body(object))
    }

    /// A method that returns a document at once; empty after a panic.
    pub(super) fn document<R: Serialize>(&self, body: impl FnOnce(&T) -> R) -> RString {
        self.call(RString::new, |object| json(&body(object)).unwrap_or_default())
    }

    /// A method that answers with an ABI value.
    pub(super) fn answer<R, F>(&self, body: impl FnOnce(Arc<T>) -> F) -> Reply<R>
    where
        R: Send + 'static,
        F: Future<Output = Result<R>> + Send + 'static,
    {
        self.side.answer(body(self.object().clone()))
    }

    /// A method that answers with a document.
    pub(super) fn reply<R, F>(&self, body: impl FnOnce(Arc<T>) -> F) -> Reply
    where
        R: Serialize + Send + 'static,
        F: Future<Output = Result<R>> + Send + 'static,
    {
        let body = body(self.object().clone());
        self.side.answer(async move { json(&body.await?) })
    }
}

impl<T: ?Sized> Drop for Served<T> {
    fn drop(&mut self) {
        // A destructor that panics here would unwind into the other side.
        let object = self.object.take();
        self.side.call(|| (), || drop(object));
    }
}
