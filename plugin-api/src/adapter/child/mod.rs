//! The child carrier: the same library in a process of its own.
//!
//! For: environment providers and whatever should not be able to end or slow the daemon. The daemon holds an
//! `Arc<dyn Plugin>` as with the other carrier; calls are relayed over a socket pair as the ABI objects that
//! they are, so documents are not parsed on the way.
//! Promises: whatever the child does, the daemon goes on: calls under way fail with one sentence when it ends,
//! what it sends is bounded and checked, and all its processes end with it, as it does with the daemon.
//! Never: a sandbox. The child has the user's rights.
//!
//! Map: `wire` frames, `value` what is in them, `link` one end of the socket; `contracts`, `host`, `rooms` and
//! `sinks` the relayed objects; `parent` the daemon's end and `serve` the child's.

mod bucket;
mod contracts;
mod driven;
mod end;
mod flow;
mod host;
mod incoming;
mod link;
mod outbox;
mod output;
mod parent;
mod queue;
mod remote;
mod rooms;
mod root;
mod serve;
mod sinks;
mod tree;
mod value;
mod wire;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use end::{ChildEnd, ChildFailure};
pub use parent::{Child, ChildSpec};
pub use serve::serve;

/// What a mutex guards. Nothing panics while it is held, and if it did the data would still be whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a line to stderr, which in the child ends up in the daemon's log and reports.
fn say(message: &str) {
    // Nobody listens if this fails.
    let _ = writeln!(std::io::stderr(), "{message}");
}
