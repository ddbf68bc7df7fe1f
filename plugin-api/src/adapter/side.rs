//! One side of the boundary: where its bodies run, and who hears of its panics.
//!
//! Promises: nothing unwinds into the other side; a dropped reply aborts its body.

use std::future::{Future, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use runtimed_plugin_abi::{FfiFuture, Outcome, Reply, crash};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use super::{convert, panic};
use crate::{ErrorCode, PluginError, Result};

/// This side, as every object it serves knows it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Side {
    shared: Arc<Shared>,
    /// Whether bodies are polled by the caller instead of hopping onto this side's runtime.
    passing: bool,
}

struct Shared {
    runtime: Bodies,
    /// How errors name this side.
    name: &'static str,
    /// Code of the error that a panic becomes.
    code: ErrorCode,
    /// Hears message and location of every panic that was caught here.
    on_panic: OnPanic,
}

/// Hears of a caught panic: message and location.
pub(super) type OnPanic = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What an asynchronous method does.
type Body<T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send>>;

/// Where bodies run.
enum Bodies {
    /// On a runtime of the plugin's own, started by the first call that needs it.
    Own { started: OnceLock<io::Result<Runtime>>, threads: &'static str, workers: usize },
    /// On the runtime the daemon has anyway.
    Existing(Handle),
}

impl Side {
    /// A plugin's side: its threads' name and how many workers; zero means one per core.
    pub(crate) fn plugin(
        threads: &'static str,
        workers: usize,
        on_panic: impl Fn(&str, &str) + Send + Sync + 'static,
    ) -> Self {
        let runtime = Bodies::Own { started: OnceLock::new(), threads, workers };
        Self::new(runtime, "the plugin", ErrorCode::Panicked, on_panic)
    }

    /// The host's side.
    pub(crate) fn host(runtime: Handle, on_panic: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        Self::new(Bodies::Existing(runtime), "the daemon", ErrorCode::Internal, on_panic)
    }

    fn new(
        runtime: Bodies,
        name: &'static str,
        code: ErrorCode,
        on_panic: impl Fn(&str, &str) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared { runtime, name, code, on_panic: Arc::new(on_panic) };
        Self { shared: Arc::new(shared), passing: false }
    }

    /// This side for objects that only hand calls on to somebody else: their bodies are polled where the
    /// caller polls, in the context of this side's runtime, which spares a thread switch in each direction.
    pub(crate) fn passing(&self) -> Self {
        Self { shared: self.shared.clone(), passing: true }
    }

    /// Runs a synchronous body; a panic is reported and becomes `neutral`.
    pub(super) fn call<T>(&self, neutral: impl FnOnce() -> T, body: impl FnOnce() -> T) -> T {
        self.attempt(|| Ok(body())).unwrap_or_else(|_| neutral())
    }

    /// Runs a synchronous body; a panic is reported and becomes an error.
    pub(crate) fn attempt<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(self.caught(payload)))
    }

    /// Runs an asynchronous body where this side's bodies run.
    pub(super) fn answer<T, F>(&self, body: F) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let side = self.clone();
        let body = AssertUnwindSafe(body).catch_unwind();
        // Boxed before it is spawned: else every method of every contract would have a copy of the runtime's tasks
        // in every plugin, 100 KiB in all.
        let body: Body<T> = Box::pin(
            body.map(move |end| convert::outcome(end.unwrap_or_else(|payload| Err(side.caught(payload))))),
        );
        match self.shared.runtime.handle() {
            Ok(runtime) if self.passing => FfiFuture::new(Entered { runtime: runtime.clone(), body }),
            Ok(runtime) => FfiFuture::new(Hop { task: runtime.spawn(body), name: self.shared.name }),
            Err(error) => FfiFuture::new(ready(convert::outcome(Err(error)))),
        }
    }

    /// Reports a caught panic and makes it an error.
    fn caught(&self, payload: Box<dyn std::any::Any + Send>) -> PluginError {
        let Shared { name, code, on_panic, .. } = &*self.shared;
        let (message, location) = panic::describe(payload);
        on_panic(&message, &location);
        PluginError::new(*code, format!("{name} panicked: {message}"))
            .help("save your work, restart the daemon and report this to the plugin's author")
            .detail(serde_json::json!({ "location": location }))
    }
}

impl Bodies {
    fn handle(&self) -> Result<&Handle> {
        match self {
            Self::Existing(handle) => Ok(handle),
            Self::Own { started, threads, workers } => started
                .get_or_init(|| start_runtime(threads, *workers))
                .as_ref()
                .map(Runtime::handle)
                .map_err(|error| PluginError::unavailable(format!("no threads for the plugin: {error}"))),
        }
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        // The last object may go on a thread that must not block, so nobody waits for the workers here.
        if let Self::Own { started, .. } = self
            && let Some(Ok(runtime)) = started.take()
        {
            runtime.shutdown_background();
        }
    }
}

fn start_runtime(threads: &str, workers: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if workers > 0 {
        builder.worker_threads(workers);
    }
    // The plugin's std does not know that somebody handles signals, and gives its threads no stack for that.
    builder.thread_name(threads).on_thread_start(crash::provide_signal_stack).enable_all().build()
}

/// A reply whose body runs elsewhere. Dropping it aborts the body.
struct Hop<T> {
    task: JoinHandle<Outcome<T>>,
    name: &'static str,
}

impl<T> Future for Hop<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.task).poll(context).map(|end| {
            // The body catches its own panics, so what is left is a runtime that was shut down.
            end.unwrap_or_else(|_| {
                convert::outcome(Err(PluginError::new(
                    ErrorCode::Cancelled,
                    format!("{name} is shutting down"),
                )))
            })
        })
    }
}

impl<T> Drop for Hop<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A reply whose body is polled by the caller, in the context of a runtime. Dropping it drops the body.
struct Entered<T> {
    runtime: Handle,
    body: Body<T>,
}

impl<T> Future for Entered<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { runtime, body } = &mut *self;
        let _entered = runtime.enter();
        body.as_mut().poll(context)
    }
}
