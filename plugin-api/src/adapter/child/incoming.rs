//! Calls of the other end that are under way here.
//!
//! Promises: each is answered exactly once, also one that is cancelled or refused; how many there are and how much
//! they hold is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use runtimed_plugin_abi::Outcome;
use tokio::task::JoinSet;

use super::driven::Driven;
use super::link::{Called, Expected, Link, LinkEnd, Target, failure};
use super::locked;
use super::queue::Queue;
use super::value::Unpacker;
use super::wire::{Garbage, MAX_FRAME, RequestId};
use crate::{ErrorCode, PluginError};

/// Calls that are under way; further ones are refused (our choice: far beyond what the pools and a busy notebook
/// need).
pub(super) const MAX_CALLS: usize = 1024;
/// Bytes of arguments of those calls.
const MAX_ARGUMENTS: usize = 2 * MAX_FRAME;

/// Where what the other end begins is delivered.
pub(super) enum Delivery {
    /// To the object, at once: while it works, nothing is read. Answers are made by tasks of this runtime.
    AtOnce,
    /// One by one to a thread of its own, so that a method may wait for an answer of the other end. Answers are
    /// made by whichever thread is done with them.
    InTurn(Queue),
}

/// The calls, and everything else that has to keep its place among them.
pub(super) struct Incoming {
    delivery: Delivery,
    calls: Arc<Mutex<Calls>>,
    /// The calls' answers, for [`Delivery::AtOnce`]. They end with this.
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Calls {
    under_way: HashMap<RequestId, Under>,
    /// Arguments of all of them.
    bytes: usize,
}

/// A call under way.
struct Under {
    cancel: AbortHandle,
    bytes: usize,
}

impl Incoming {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self { delivery, calls: Arc::default(), tasks: JoinSet::new() }
    }

    /// Begins a call. [`Garbage`] if the other end has no such call to make.
    pub(super) fn begin(
        &mut self,
        link: &Link,
        request: RequestId,
        target: Arc<dyn Target>,
        method: u8,
        arguments: Bytes,
    ) -> Result<(), Garbage> {
        let bytes = arguments.len();
        let (cancel, registration) = AbortHandle::new_pair();
        if !locked(&self.calls).add(request, Under { cancel, bytes })? {
            let error = PluginError::unavailable("too many calls are under way")
                .help("wait for some of them to end before making more");
            link.reply(request, Outcome::<()>::RErr(failure(error)));
            return Ok(());
        }
        let (calls, answerer) = (self.calls.clone(), link.clone());
        let until_cancelled = move |answering: BoxFuture<'static, ()>| async move {
            // What is left of the call has ended before that is told.
            let end = Abortable::new(answering, registration).await;
            if end.is_err() {
                let error = PluginError::new(ErrorCode::Cancelled, "the call was cancelled");
                answerer.reply(request, Outcome::<()>::RErr(failure(error)));
            }
            locked(&calls).remove(request);
        };
        match &self.delivery {
            Delivery::AtOnce => {
                let from = Unpacker { rest: arguments, link };
                match target.call(Called { request, method, from })? {
                    Some(answering) => drop(self.tasks.spawn(until_cancelled(answering))),
                    None => locked(&self.calls).remove(request),
                }
                // Those that have ended need no room any more.
                while self.tasks.try_join_next().is_some() {}
            }
            Delivery::InTurn(queue) => {
                let (turn, link) = (queue.turn(), link.clone());
                Driven::start(until_cancelled(Box::pin(async move {
                    turn.await;
                    let from = Unpacker { rest: arguments, link: &link };
                    match target.call(Called { request, method, from }) {
                        Ok(Some(answering)) => answering.await,
                        Ok(None) => {}
                        Err(garbage) => link.give_up(LinkEnd::Garbage(garbage)),
                    }
                })));
            }
        }
        Ok(())
    }

    /// An answer comes after everything that was sent before it.
    pub(super) fn answered(&self, link: &Link, expected: Expected, outcome: Bytes) -> Result<(), Garbage> {
        match &self.delivery {
            Delivery::InTurn(queue) if !expected.urgent && !queue.is_idle() => {
                let link = link.clone();
                queue.add(outcome.len(), false, move || {
                    if let Err(garbage) = expected.complete(&link, Ok(outcome)) {
                        link.give_up(LinkEnd::Garbage(garbage));
                    }
                });
                Ok(())
            }
            _ => expected.complete(link, Ok(outcome)),
        }
    }

    /// A call that has been answered meanwhile is not here any more.
    pub(super) fn cancel(&self, request: RequestId) {
        let cancel = locked(&self.calls).under_way.get(&request).map(|call| call.cancel.clone());
        if let Some(cancel) = cancel {
            cancel.abort();
        }
    }

    pub(super) fn notify(
        &self,
        link: &Link,
        target: Arc<dyn Target>,
        method: u8,
        arguments: Bytes,
    ) -> Result<(), Garbage> {
        match &self.delivery {
            Delivery::AtOnce => target.notify(method, Unpacker { rest: arguments, link }),
            Delivery::InTurn(queue) => {
                let (bytes, link) = (arguments.len(), link.clone());
                queue.add(bytes, target.lossy(), move || {
                    if let Err(garbage) = target.notify(method, Unpacker { rest: arguments, link: &link }) {
                        link.give_up(LinkEnd::Garbage(garbage));
                    }
                });
                Ok(())
            }
        }
    }

    pub(super) fn release(&self, object: Arc<dyn Target>) {
        match &self.delivery {
            Delivery::AtOnce => drop(object),
            Delivery::InTurn(queue) => queue.add(0, false, move || drop(object)),
        }
    }
}

impl Calls {
    /// Whether there is room for one more.
    fn add(&mut self, request: RequestId, call: Under) -> Result<bool, Garbage> {
        if self.under_way.contains_key(&request) {
            return Err(Garbage(format!("call {request} twice")));
        }
        let bytes = self.bytes.saturating_add(call.bytes);
        if self.under_way.len() >= MAX_CALLS || bytes > MAX_ARGUMENTS {
            return Ok(false);
        }
        self.bytes = bytes;
        self.under_way.insert(request, call);
        Ok(true)
    }

    fn remove(&mut self, request: RequestId) {
        if let Some(call) = self.under_way.remove(&request) {
            self.bytes = self.bytes.saturating_sub(call.bytes);
        }
    }
}
