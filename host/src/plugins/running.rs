//! A plugin's process at work.
//!
//! For: the supervisor, which owns it, and the calls that need it.
//! Promises: it is not closed while a call needs it; it is closed when it has been idle for long enough, and
//! killed when it answers nothing any more after a call into it was given up.
//! Never: decides when a process is started.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtimed_plugin_api::adapter::child::{Child, ChildEnd};
use runtimed_plugin_api::{Plugin, SettingsView};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::config;

/// How long a process may take for a trivial answer after a call was given up, before it counts as stuck (our
/// choice: long enough for a busy machine). The end of the cancelled work itself cannot be seen from here: a body
/// that ignores it holds a thread of the plugin, and other calls suffer only if that was the last one.
const REACTION: Duration = Duration::from_secs(5);
/// What a trivial answer is about: whether there is a project in this folder.
const TRIVIAL: &str = "/";
/// What a plugin gets to stop in when nobody needs it any more (our choice).
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// What a process gets to end in once its plugin has stopped (our choice: there is nothing left to do).
const EXIT_GRACE: Duration = Duration::from_secs(1);
/// How long a process is kept that was started to see whether it can be, and that nobody has called since (our
/// choice: the pools call at once if they call at all, and an idle daemon is small soon after its start).
const UNUSED: Duration = Duration::from_millis(500);

/// A process. Dropping it kills everything that is left of it.
pub(super) struct Running {
    child: Child,
    need: Need,
}

/// Who needs a process. Cheap to clone.
#[derive(Clone)]
pub(super) struct Need(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    /// Calls that are under way.
    calls: usize,
    /// There was a call.
    used: bool,
    /// Calls that somebody stopped waiting for.
    given_up: u64,
    /// A call into it panicked.
    poisoned: bool,
    /// Another process takes the next call; this one ends when it has answered its calls.
    leaving: bool,
    /// It is being closed.
    closing: bool,
}

/// How it ended.
pub(super) enum Outcome {
    /// Nobody needed it.
    Closed,
    /// By itself.
    Died(ChildEnd),
    /// We killed it, since it answered nothing any more after a call had been given up.
    Stuck,
}

/// A call's hold of a process.
pub(super) struct Borrowed {
    running: Arc<Running>,
    /// A call is under way.
    calling: AtomicBool,
}

impl Need {
    /// Nobody needs it so far.
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Another process takes the next call.
    pub(super) fn leave(&self) {
        self.0.send_if_modified(|state| !std::mem::replace(&mut state.leaving, true));
    }

    /// A call into it panicked.
    pub(super) fn poison(&self) {
        self.0.send_if_modified(|state| {
            state.poisoned = true;
            false
        });
    }

    /// Whether a call into it panicked.
    pub(super) fn is_poisoned(&self) -> bool {
        self.0.borrow().poisoned
    }
}

impl Running {
    /// A process that has started, with the need that was made for it, and the first hold of it.
    pub(super) fn new(child: Child, need: Need) -> (Arc<Self>, Borrowed) {
        need.0.send_modify(|state| state.calls += 1);
        let running = Arc::new(Self { child, need });
        (Arc::clone(&running), Borrowed::new(running))
    }

    /// Its plugin, for a moment; calls are made through [`Borrowed`].
    pub(super) fn plugin(&self) -> &Arc<dyn Plugin> {
        self.child.plugin()
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Another process takes the next call.
    pub(super) fn leave(&self) {
        self.need.leave();
    }

    /// A hold of it for a call; none if it is on its way out.
    pub(super) fn borrow(self: &Arc<Self>) -> Option<Borrowed> {
        let borrowed = self.need.0.send_if_modified(|state| {
            let there = !state.leaving && !state.closing;
            state.calls += usize::from(there);
            there
        });
        borrowed.then(|| Borrowed::new(Arc::clone(self)))
    }

    /// Sees it to its end: closes it when it is idle, kills it when it is stuck, and closes it within the grace
    /// that `stop` gives. `stateless` says that it may be closed and started again without anybody noticing.
    pub(super) async fn look_after(
        self: Arc<Self>,
        stateless: bool,
        settings: watch::Receiver<SettingsView>,
        mut stop: watch::Receiver<Option<Duration>>,
    ) -> Outcome {
        tokio::select! {
            biased;
            end = self.child.ended() => return Outcome::Died(end),
            grace = asked(&mut stop) => self.close(grace).await,
            () = self.stuck() => {
                self.child.close(Duration::ZERO).await;
                return Outcome::Stuck;
            }
            () = self.idle(stateless, &settings) => self.close(CLOSE_GRACE).await,
        }
        Outcome::Closed
    }

    /// Stops the plugin within `grace`, then ends the process.
    async fn close(&self, grace: Duration) {
        match timeout(grace, self.plugin().stop(grace)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(pid = self.pid(), "a plugin stopped with an error: {error}"),
            Err(_) => tracing::warn!(pid = self.pid(), "a plugin did not stop within {grace:?}"),
        }
        self.child.close(EXIT_GRACE).await;
    }

    /// From now on it takes no calls; false if there is one already.
    fn begin_closing(&self) -> bool {
        self.need.0.send_if_modified(|state| {
            state.closing |= state.calls == 0;
            state.closing
        })
    }

    /// Resolves when nobody has needed it for long enough, and nobody can begin to need it any more.
    async fn idle(&self, stateless: bool, settings: &watch::Receiver<SettingsView>) {
        let (mut need, mut busy) = (self.need.0.subscribe(), self.child.in_flight());
        loop {
            let pause = {
                let (state, busy) = (need.borrow_and_update(), *busy.borrow_and_update());
                match (state.calls + busy, state.leaving) {
                    (1.., _) => None,
                    (0, true) => Some(Duration::ZERO),
                    (0, false) if !stateless => None,
                    (0, false) => {
                        let pause = config::idle(&settings.borrow().values);
                        Some(if state.used { pause } else { pause.min(UNUSED) })
                    }
                }
            };
            let passing = async {
                match pause {
                    Some(pause) => sleep(pause).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = passing => if self.begin_closing() { return },
                () = either_changed(&mut need, &mut busy) => {}
            }
        }
    }

    /// Resolves when it does not give a trivial answer in time after a call was given up.
    async fn stuck(&self) {
        let mut need = self.need.0.subscribe();
        let mut known = 0;
        loop {
            let news = need.wait_for(|state| state.given_up > known).await.map(|state| state.given_up);
            // The sender lives in `self`, so this cannot fail.
            known = news.unwrap_or(u64::MAX);
            // Whoever provides no environments is asked nothing: there is no question that is trivial for it.
            let Some(provider) = self.plugin().env_providers().into_iter().next() else { continue };
            if timeout(REACTION, provider.detect(Path::new(TRIVIAL))).await.is_err() {
                return;
            }
        }
    }
}

impl Borrowed {
    /// A hold that was counted already.
    fn new(running: Arc<Running>) -> Self {
        Self { running, calling: AtomicBool::new(false) }
    }

    /// The plugin to call.
    pub(super) fn plugin(&self) -> &Arc<dyn Plugin> {
        self.running.child.plugin()
    }

    /// Makes a call; until then the process was only looked at.
    pub(super) async fn call<T>(&self, answer: impl Future<Output = T>) -> T {
        self.running.need.0.send_if_modified(|state| !std::mem::replace(&mut state.used, true));
        self.calling.store(true, Ordering::Relaxed);
        let answer = answer.await;
        self.calling.store(false, Ordering::Relaxed);
        answer
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let given_up = *self.calling.get_mut();
        self.running.need.0.send_modify(|state| {
            state.calls = state.calls.saturating_sub(1);
            state.given_up += u64::from(given_up);
        });
    }
}

async fn either_changed(need: &mut watch::Receiver<State>, busy: &mut watch::Receiver<usize>) {
    tokio::select! {
        Ok(()) = need.changed() => {}
        Ok(()) = busy.changed() => {}
        // Nobody is left who could change anything; the end of the process is the next news.
        else => pending().await,
    }
}

/// Resolves with its grace when the daemon stops.
pub(super) async fn asked(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    let grace = stop.wait_for(Option::is_some).await.map(|grace| *grace);
    match grace {
        Ok(Some(grace)) => grace,
        // Whoever could ask is gone: the process ends when it is not needed any more.
        _ => pending().await,
    }
}
