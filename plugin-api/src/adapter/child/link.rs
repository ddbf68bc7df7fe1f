//! One end of a child's socket: calls out, calls in, and the objects behind them.
//!
//! For: the daemon's end and the child's end alike; they differ in where a call is delivered ([`Delivery`]).
//! Promises: every call has exactly one answer, at the latest when the link ends; a dropped reply cancels its
//! call at the other end; nothing the other end sends can panic here or be kept without bound.
//! Never: runs a plugin's code in the child; that is the [queue](super::queue)'s thread's and the plugin's own.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll};
use std::thread::ThreadId;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use runtimed_plugin_abi::{Failure, FfiFuture, Outcome, RResult, Reply};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{Notify, oneshot, watch};

use super::incoming::{Delivery, Incoming};
use super::outbox::{DAEMON_KEEPS, Full, Outbox};
use super::value::{Pack, Packer, Unpack, Unpacker};
use super::wire::{self, Frame, Garbage, MAX_FRAME, ObjectId, RequestId};
use super::{locked, say};
use crate::{ErrorCode, PluginError};

/// Read at once: what a socket holds by default, about.
const CHUNK: usize = 64 << 10;
/// A read buffer that had to grow beyond this, for a long frame, is given back afterwards.
const BUFFER_KEPT: usize = 1 << 20;
/// Objects the other end may hold.
const MAX_OBJECTS: usize = 64 << 10;

/// One end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    outbox: Outbox,
    of_daemon: bool,
    calls: Mutex<Calls>,
    exports: Mutex<Exports>,
    /// Calls into the other end, and its objects that keep it busy.
    busy: Arc<watch::Sender<usize>>,
    /// How many calls the other end has begun so far.
    calls_in: AtomicU64,
    /// Why this end gives up, and the news of it.
    broken: OnceLock<LinkEnd>,
    broke: Notify,
    /// The thread that reads the socket, which must not wait for an answer.
    reader: OnceLock<ThreadId>,
}

/// Calls out.
#[derive(Default)]
struct Calls {
    last: RequestId,
    waiting: HashMap<RequestId, Expected>,
    /// Why there can be no more.
    ended: Option<Failure>,
}

/// The other end is needed.
pub(super) struct InUse(Arc<watch::Sender<usize>>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy = busy.saturating_sub(1));
    }
}

/// Takes a call's answer. Runs once, without a lock held.
type Complete = Box<dyn FnOnce(&Link, Result<Bytes, Failure>) -> Result<(), Garbage> + Send>;

/// A call whose answer is to come.
pub(super) struct Expected {
    complete: Complete,
    /// A thread waits for it, perhaps the one that would otherwise have to finish something else first.
    pub(super) urgent: bool,
    _in_use: InUse,
}

impl Expected {
    pub(super) fn complete(self, link: &Link, answer: Result<Bytes, Failure>) -> Result<(), Garbage> {
        (self.complete)(link, answer)
    }
}

/// Our objects that the other end holds.
#[derive(Default)]
struct Exports {
    last: ObjectId,
    objects: HashMap<ObjectId, Arc<dyn Target>>,
}

/// The object every child exports from the start.
pub(super) const ROOT: ObjectId = 0;

/// One of our objects, called by the other end.
pub(super) trait Target: Send + Sync + 'static {
    /// Begins a method that answers: with [`Link::answer`] or [`Link::reply`], exactly once.
    fn call(&self, call: Called<'_>) -> Result<Option<Answering>, Garbage>;

    /// Runs a method that does not answer.
    fn notify(&self, method: u8, from: Unpacker<'_>) -> Result<(), Garbage>;

    /// Whether its methods that do not answer may be left out when too many wait.
    fn lossy(&self) -> bool {
        false
    }
}

/// A method that answers, about to begin.
pub(super) struct Called<'a> {
    pub(super) request: RequestId,
    pub(super) method: u8,
    pub(super) from: Unpacker<'a>,
}

/// A method that answers, under way. Dropping it cancels it.
pub(super) type Answering = BoxFuture<'static, ()>;

/// How a link ended.
#[derive(Debug, Clone)]
pub(super) enum LinkEnd {
    /// The other end has closed the socket.
    Closed,
    /// The other end asks this process to end.
    Asked,
    /// The other end broke the protocol.
    Garbage(Garbage),
    /// The other end asks for too much; why, in a sentence about it.
    Greedy(String),
}

impl Link {
    /// An end on `socket`. Its daemon's side gives up a child for which too much waits.
    pub(super) fn new(socket: UnixStream, of_daemon: bool) -> (Self, OwnedReadHalf) {
        let (read, write) = socket.into_split();
        let limit = if of_daemon { DAEMON_KEEPS } else { usize::MAX };
        let shared = Shared {
            outbox: Outbox::new(write, limit),
            of_daemon,
            calls: Mutex::default(),
            exports: Mutex::default(),
            busy: Arc::new(watch::Sender::new(0)),
            calls_in: AtomicU64::new(0),
            broken: OnceLock::new(),
            broke: Notify::new(),
            reader: OnceLock::new(),
        };
        (Self(Arc::new(shared)), read)
    }

    /// How much of what this end has begun is under way.
    pub(super) fn busy(&self) -> watch::Receiver<usize> {
        self.0.busy.subscribe()
    }

    /// Marks the other end as needed until this is dropped.
    pub(super) fn in_use(&self) -> InUse {
        self.0.busy.send_modify(|busy| *busy += 1);
        InUse(self.0.busy.clone())
    }

    /// Says that something went wrong which nobody asked about.
    pub(super) fn complain(&self, what: &str) {
        if self.0.of_daemon {
            tracing::warn!("{what}");
        } else {
            say(what);
        }
    }

    /// Lossy frames left out since this was last asked.
    pub(super) fn take_lost(&self) -> u64 {
        self.0.outbox.take_lost()
    }

    // --- calls out

    /// Calls a method of the other end's `object`. The call is under way when this returns.
    pub(super) fn call<T: Unpack + Send + 'static>(
        &self,
        object: ObjectId,
        method: u8,
        arguments: impl FnOnce(&mut Packer<'_>),
    ) -> Reply<T> {
        let (answered, answer) = oneshot::channel();
        let request = self.begin(object, method, false, arguments, move |outcome| {
            // Without a listener the outcome is dropped here, which releases what came with it.
            let _ = answered.send(outcome);
        });
        FfiFuture::new(Waiting { link: self.clone(), request, answer })
    }

    /// Calls a method and waits for its answer, which the other end gives at once. None if it is gone.
    pub(super) fn ask<T: Unpack + Send + 'static>(
        &self,
        object: ObjectId,
        method: u8,
        arguments: impl FnOnce(&mut Packer<'_>),
    ) -> Option<T> {
        if self.0.reader.get() == Some(&std::thread::current().id()) {
            return None;
        }
        let (answered, answer) = mpsc::sync_channel(1);
        self.begin(object, method, true, arguments, move |outcome| {
            let _ = answered.send(outcome);
        });
        answer.recv().ok()?.into_result().ok()
    }

    fn begin<T: Unpack + Send + 'static>(
        &self,
        object: ObjectId,
        method: u8,
        urgent: bool,
        arguments: impl FnOnce(&mut Packer<'_>),
        answered: impl FnOnce(Outcome<T>) + Send + 'static,
    ) -> RequestId {
        let complete = Box::new(move |link: &Link, answer: Result<Bytes, Failure>| {
            let read = |rest: Bytes| {
                let mut from = Unpacker { rest, link };
                let outcome = Outcome::<T>::unpack(&mut from)?;
                from.end().map(|()| outcome)
            };
            let (outcome, end) = match answer.map(read) {
                Ok(Ok(outcome)) => (outcome, Ok(())),
                Ok(Err(garbage)) => {
                    let message = format!("the answer makes no sense: it has {}", garbage.0);
                    (RResult::RErr(failure(PluginError::unavailable(message))), Err(garbage))
                }
                Err(failure) => (RResult::RErr(failure), Ok(())),
            };
            answered(outcome);
            end
        });
        let expected = Expected { complete, urgent, _in_use: self.in_use() };
        let request = match self.expect_answer(expected) {
            Ok(request) => request,
            Err(refused) => return refused,
        };
        let mut packer = Packer::new(self, wire::call(request, object, method));
        arguments(&mut packer);
        if let Err(failure) = self.send(packer) {
            // Nobody is there to expect it any more if the link has ended meanwhile.
            if let Ok(expected) = self.expected(request) {
                let _ = expected.complete(self, Err(failure));
            }
        }
        request
    }

    /// Notes down who waits for the next call's answer. If the link has ended, they have it already.
    fn expect_answer(&self, expected: Expected) -> Result<RequestId, RequestId> {
        let (request, failure) = {
            let mut calls = locked(&self.0.calls);
            calls.last += 1;
            let request = calls.last;
            let Some(failure) = calls.ended.clone() else {
                calls.waiting.insert(request, expected);
                return Ok(request);
            };
            (request, failure)
        };
        let _ = expected.complete(self, Err(failure));
        Err(request)
    }

    /// Whoever waits for the answer to a call.
    fn expected(&self, request: RequestId) -> Result<Expected, Garbage> {
        let expected = locked(&self.0.calls).waiting.remove(&request);
        expected.ok_or_else(|| Garbage(format!("an answer to call {request}, which is not under way")))
    }

    fn cancel(&self, request: RequestId) {
        if locked(&self.0.calls).waiting.contains_key(&request) {
            self.send_whole(wire::cancel(request));
        }
    }

    /// Runs a method that does not answer. None of its arguments is lost.
    pub(super) fn notify(
        &self,
        object: ObjectId,
        method: u8,
        arguments: impl FnOnce(&mut Packer<'_>),
    ) -> Result<(), Failure> {
        let mut packer = Packer::new(self, wire::notify(object, method));
        arguments(&mut packer);
        self.send(packer)
    }

    /// The same for what may be left out when too much of it waits. Carries no objects.
    pub(super) fn notify_lossy(&self, object: ObjectId, method: u8, arguments: impl FnOnce(&mut Packer<'_>)) {
        let mut packer = Packer::new(self, wire::notify(object, method));
        arguments(&mut packer);
        let (frame, _) = packer.finish();
        if let Some(frame) = wire::finish(frame)
            && let Err(Full) = self.0.outbox.send_lossy(frame)
        {
            self.full();
        }
    }

    /// Tells the other end that its object is not needed here any more.
    pub(super) fn release(&self, object: ObjectId) {
        self.send_whole(wire::release(object));
    }

    /// Asks the other end to end its process.
    pub(super) fn ask_to_close(&self) {
        self.send_whole(wire::close());
    }

    /// Sends a frame that is complete and short.
    fn send_whole(&self, frame: BytesMut) {
        if let Some(frame) = wire::finish(frame)
            && let Err(Full) = self.0.outbox.send(frame)
        {
            self.full();
        }
    }

    /// Sends a frame with values. On failure the objects in it are taken back.
    fn send(&self, packer: Packer<'_>) -> Result<(), Failure> {
        let (frame, exported) = packer.finish();
        let length = frame.len();
        let failure = match wire::finish(frame).map(|frame| self.0.outbox.send(frame)) {
            Some(Ok(())) => return Ok(()),
            Some(Err(Full)) => {
                self.full();
                failure(PluginError::unavailable("the plugin does not take what it is sent"))
            }
            None => failure(
                PluginError::invalid(format!(
                    "{length} bytes are too many for a plugin in a process of its own, which takes {MAX_FRAME}"
                ))
                .help("let the plugin run in the daemon's process, or send less at once"),
            ),
        };
        let taken_back: Vec<_> = {
            let mut exports = locked(&self.0.exports);
            exported.iter().filter_map(|id| exports.objects.remove(id)).collect()
        };
        drop(taken_back);
        Err(failure)
    }

    fn full(&self) {
        let reason = format!("it does not read what it is sent, and {DAEMON_KEEPS} bytes wait for it");
        self.give_up(LinkEnd::Greedy(reason));
    }

    // --- calls in

    /// How many calls the other end has begun so far.
    pub(super) fn calls_in(&self) -> u64 {
        self.0.calls_in.load(Ordering::Relaxed)
    }

    /// Exports an object; the id goes into the frame that hands it over.
    pub(super) fn export(&self, object: Arc<dyn Target>) -> ObjectId {
        let (id, count) = {
            let mut exports = locked(&self.0.exports);
            exports.last += 1;
            let id = exports.last;
            exports.objects.insert(id, object);
            (id, exports.objects.len())
        };
        if count > MAX_OBJECTS {
            self.give_up(LinkEnd::Greedy(format!("it holds more than {MAX_OBJECTS} objects")));
        }
        id
    }

    /// Exports the object that is there from the start.
    pub(super) fn export_root(&self, root: Arc<dyn Target>) {
        locked(&self.0.exports).objects.insert(ROOT, root);
    }

    /// Answers a call when `reply` does.
    pub(super) fn answer<T: Pack + Send + 'static>(&self, request: RequestId, reply: Reply<T>) -> Answering {
        let link = self.clone();
        Box::pin(async move {
            // A library that lets a panic out of its future must not cost us the answer.
            let outcome = AssertUnwindSafe(reply).catch_unwind().await.unwrap_or_else(|_| {
                RResult::RErr(failure(PluginError::new(ErrorCode::Panicked, "the plugin panicked")))
            });
            link.reply(request, outcome);
        })
    }

    /// Answers a call.
    pub(super) fn reply<T: Pack>(&self, request: RequestId, outcome: Outcome<T>) {
        let mut packer = Packer::new(self, wire::reply(request));
        outcome.pack(&mut packer);
        if let Err(failure) = self.send(packer) {
            let mut packer = Packer::new(self, wire::reply(request));
            Outcome::<()>::RErr(failure).pack(&mut packer);
            // A failure is short; if even that cannot be sent, the link is at its end.
            let _ = self.send(packer);
        }
    }

    /// Ends the link because of what the other end did.
    pub(super) fn give_up(&self, end: LinkEnd) {
        if self.0.broken.set(end).is_ok() {
            self.0.broke.notify_one();
        }
    }

    /// Serves the socket until one end has enough.
    pub(super) async fn run(&self, mut socket: OwnedReadHalf, delivery: Delivery) -> LinkEnd {
        if matches!(delivery, Delivery::InTurn(_)) {
            let _ = self.0.reader.set(std::thread::current().id());
        }
        let mut buffer = BytesMut::new();
        // Whether the buffer has grown beyond what is kept.
        let mut grown = false;
        let mut incoming = Incoming::new(delivery);
        let flush = self.0.outbox.flush();
        tokio::pin!(flush);
        loop {
            grown |= buffer.len() > BUFFER_KEPT;
            match self.take(&mut buffer, &mut incoming) {
                Ok(false) => {}
                Ok(true) => return LinkEnd::Asked,
                Err(garbage) => return LinkEnd::Garbage(garbage),
            }
            if grown && buffer.is_empty() {
                (buffer, grown) = (BytesMut::new(), false);
            }
            buffer.reserve(CHUNK);
            tokio::select! {
                read = socket.read_buf(&mut buffer) => {
                    if read.unwrap_or(0) == 0 {
                        return LinkEnd::Closed;
                    }
                }
                () = self.0.broke.notified() => {
                    return self.0.broken.get().cloned().unwrap_or(LinkEnd::Closed);
                }
                // Ends with the socket, which the reader will see.
                () = &mut flush => return LinkEnd::Closed,
            }
        }
    }

    /// Delivers every whole frame; true if one asks for the end.
    fn take(&self, buffer: &mut BytesMut, incoming: &mut Incoming) -> Result<bool, Garbage> {
        while let Some(frame) = wire::take(buffer)? {
            match frame {
                Frame::Call { request, object, method, arguments } => {
                    self.0.calls_in.fetch_add(1, Ordering::Relaxed);
                    incoming.begin(self, request, self.target(object)?, method, arguments)?;
                }
                Frame::Reply { request, outcome } => {
                    incoming.answered(self, self.expected(request)?, outcome)?
                }
                Frame::Cancel { request } => incoming.cancel(request),
                Frame::Notify { object, method, arguments } => {
                    incoming.notify(self, self.target(object)?, method, arguments)?;
                }
                Frame::Release { object } => {
                    let released = locked(&self.0.exports).objects.remove(&object);
                    incoming.release(released.ok_or_else(|| unknown(object))?);
                }
                Frame::Close => return Ok(true),
            }
        }
        Ok(false)
    }

    fn target(&self, object: ObjectId) -> Result<Arc<dyn Target>, Garbage> {
        locked(&self.0.exports).objects.get(&object).cloned().ok_or_else(|| unknown(object))
    }

    /// Lets every call fail with `failure`, those under way and those to come, and drops what was exported.
    pub(super) fn end(&self, failure: Failure) {
        let waiting = {
            let mut calls = locked(&self.0.calls);
            calls.ended.get_or_insert_with(|| failure.clone());
            std::mem::take(&mut calls.waiting)
        };
        self.0.outbox.close();
        for expected in waiting.into_values() {
            let _ = expected.complete(self, Err(failure.clone()));
        }
        let objects = std::mem::take(&mut locked(&self.0.exports).objects);
        drop(objects);
    }
}

fn unknown(object: ObjectId) -> Garbage {
    Garbage(format!("something for object {object}, which it does not hold"))
}

/// An error as it crosses.
pub(super) fn failure(error: PluginError) -> Failure {
    error.into()
}

/// An answer to come. Dropping it cancels the call.
struct Waiting<T> {
    link: Link,
    request: RequestId,
    answer: oneshot::Receiver<Outcome<T>>,
}

impl<T> Future for Waiting<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer).poll(context).map(|answer| {
            // Whoever takes the answer gives it on, so there is always one.
            answer.unwrap_or_else(|_| RResult::RErr(failure(PluginError::unavailable("the answer was lost"))))
        })
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.link.cancel(self.request);
    }
}

#[cfg(test)]
mod tests;
