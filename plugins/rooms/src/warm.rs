//! Kernels that are up before anybody wants them.
//!
//! For: a new notebook whose first cell does not wait for an interpreter to start.
//! Promises: a room gets a warm kernel exactly when it gets the environment the kernel runs in; until then no room, no
//! journal and no other daemon knows of it, and it ends with this daemon, however that ends. What goes wrong costs the
//! head start and nothing else.
//! Never: takes an environment that a room might wait for.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use runtimed_plugin_api::{
    Channel, EnvNeed, Environments, ExitReport, Host, Kernel, KernelEvents, LaunchSpec, PluginError, Release,
    Sequence, Task,
};
use serde_json::Value as Json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use self::stock::{Step, Stock};
use crate::room::moment::Moment;
use crate::room::task::Acquired;

mod stock;

/// What they run; all other kinds bring their own environment.
const KIND: &str = "python";
/// Where they are started: in no folder whose files could be taken for modules.
const NOWHERE: &str = "/";
/// Who has the lease of their environment, for whoever reads it.
const OWNER: &str = "warm kernel";

/// The warm kernels of this daemon.
pub(crate) struct Warm {
    host: Host,
    begun: Instant,
    /// A std mutex: held for decisions only, never across an await.
    stock: Mutex<Stock<Spare>>,
    /// Wakes the keeper.
    changed: Notify,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// A warm kernel. Dropping it ends the kernel: nobody has made use of it.
struct Spare {
    kernel: Box<dyn Kernel>,
    lease: String,
}

impl Warm {
    /// No kernel yet.
    pub(crate) fn new(host: Host) -> Arc<Self> {
        let (stock, changed, keeper) = (Mutex::default(), Notify::new(), Mutex::default());
        Arc::new(Self { host, begun: Instant::now(), stock, changed, keeper })
    }

    /// Keeps kernels warm from now on, until [`Warm::close`].
    pub(crate) fn begin(self: &Arc<Self>) {
        let warm = self.clone();
        let work = async move {
            tokio::select! {
                () = warm.keep() => {}
                () = warm.follow_settings() => {}
            }
        };
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(tokio::spawn(work));
    }

    /// Ends every warm kernel.
    pub(crate) async fn close(&self) {
        self.change(|stock, _| stock.close());
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(keeper) = keeper
            && let Err(error) = keeper.await
        {
            tracing::error!(%error, "what keeps kernels warm broke");
        }
    }

    /// So many rooms are in memory.
    pub(crate) fn rooms(&self, open: usize) {
        self.change(|stock, now| stock.rooms(open, now));
    }

    /// The pools were emptied.
    pub(crate) fn flushed(&self) {
        self.change(|stock, _| stock.flushed());
    }

    /// A room starts a kernel until the result is dropped; no warm one is started meanwhile.
    pub(crate) fn launching(self: &Arc<Self>) -> Launching {
        self.change(|stock, _| stock.launch_began());
        Launching(self.clone())
    }

    /// An environment for a room, with the warm kernel that runs in it, if there is one. Dropping that ends it.
    ///
    /// # Errors
    /// As [`Environments::acquire`].
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        environments: &dyn Environments,
        need: EnvNeed,
        task: Task,
    ) -> Result<Acquired, PluginError> {
        let _launching = self.launching();
        let offer = Offer::of(self);
        let prefer = offer.as_ref().map(|offer| offer.lease.clone());
        let lease = environments.acquire(EnvNeed { prefer: prefer.clone(), ..need }, task).await?;
        let warm = self.change(|stock, _| stock.room_got(prefer.as_deref(), &lease.id, &lease.source));
        Ok((Box::new(lease), warm.map(|spare| spare.kernel)))
    }

    async fn keep(self: &Arc<Self>) {
        loop {
            let step = self.stock().next(self.now());
            match step {
                Step::Start => self.start().await,
                Step::End(Spare { kernel, lease }) => {
                    if let Err(error) = kernel.shutdown(Duration::ZERO).await {
                        tracing::warn!(%error, "a warm kernel did not end as asked");
                    }
                    self.release(&lease).await;
                }
                Step::Over => return,
                Step::Wait(until) => {
                    tokio::select! {
                        () = self.changed.notified() => {}
                        () = self.due(until) => {}
                    }
                }
            }
        }
    }

    async fn follow_settings(&self) {
        let mut view = self.host.settings();
        loop {
            let revision = view.revision;
            self.change(|stock, _| stock.configure(view.values));
            view = self.host.settings_changed(revision).await;
        }
    }

    /// Starts a kernel in an environment that is to spare.
    async fn start(self: &Arc<Self>) {
        let settings = self.stock().start_began();
        let (Some(environments), Some(backend)) = (self.host.environments(), self.host.kernel_backend(KIND))
        else {
            return self.change(Stock::start_failed);
        };
        let need = EnvNeed { room: OWNER.to_owned(), spare: true, ..EnvNeed::default() };
        let lease = match self.while_wanted(&settings, environments.acquire(need, Task::silent())).await {
            Some(Ok(lease)) => lease,
            Some(Err(error)) => return self.failed(&error),
            None => return self.change(|stock, _| stock.start_given_up()),
        };
        let spec = LaunchSpec {
            kernel: Uuid::new_v4().to_string(),
            kind: KIND.to_owned(),
            room: String::new(),
            notebook_path: None,
            command: lease.launch,
            cwd: PathBuf::from(NOWHERE),
            options: serde_json::Map::new(),
        };
        let events = Arc::new(Watch { warm: Arc::downgrade(self), lease: lease.id.clone() });
        match self.while_wanted(&settings, backend.launch(spec, events)).await {
            Some(Ok(kernel)) => {
                let pid = kernel.info().pid;
                let spare = Spare { kernel, lease: lease.id.clone() };
                self.change(|stock, _| stock.start_ended(spare, &lease.id, &lease.source, settings));
                // Whoever reads this may have it now.
                tracing::info!(pid, source = lease.source, "a kernel is warm");
            }
            Some(Err(error)) => {
                self.release(&lease.id).await;
                self.failed(&error);
            }
            None => {
                self.release(&lease.id).await;
                self.change(|stock, _| stock.start_given_up());
            }
        }
    }

    fn failed(&self, error: &PluginError) {
        tracing::warn!(%error, "no kernel was started in advance");
        self.change(Stock::start_failed);
    }

    /// Does something for as long as the kernel that is being started with `settings` is wanted.
    async fn while_wanted<T>(&self, settings: &Json, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let until = {
                let stock = self.stock();
                if !stock.is_wanted(settings, self.now()) {
                    return None;
                }
                stock.wanted_until()
            };
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.changed.notified() => {}
                () = self.due(until) => {}
            }
        }
    }

    /// Waits until then, or for ever.
    async fn due(&self, at: Option<Moment>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.begun + at.0).await,
            None => std::future::pending().await,
        }
    }

    /// Gives an environment back in which no notebook ever was.
    async fn release(&self, lease: &str) {
        if let Some(environments) = self.host.environments()
            && let Err(error) = environments.release(lease, Release::Delete).await
        {
            tracing::warn!(%error, lease, "the environment of a warm kernel was not given back");
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Stock<Spare>, Moment) -> T) -> T {
        let changed = change(&mut self.stock(), self.now());
        self.changed.notify_one();
        changed
    }

    fn stock(&self) -> MutexGuard<'_, Stock<Spare>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        Moment(self.begun.elapsed())
    }
}

/// A room is starting a kernel.
pub(crate) struct Launching(Arc<Warm>);

impl Launching {
    /// The warm kernel that the room got is of no use to it.
    pub(crate) fn refused(&self) {
        self.0.change(Stock::refused);
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        self.0.change(Stock::launch_ended);
    }
}

/// A kernel that a room may get.
struct Offer {
    warm: Arc<Warm>,
    lease: String,
}

impl Offer {
    fn of(warm: &Arc<Warm>) -> Option<Self> {
        let lease = warm.stock().offer()?;
        Some(Self { warm: warm.clone(), lease })
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.warm.change(|stock, _| stock.withdraw(&self.lease));
    }
}

/// Hears when a warm kernel dies.
struct Watch {
    warm: Weak<Warm>,
    lease: String,
}

impl KernelEvents for Watch {
    fn message(&self, _: Sequence, _: Channel, _: Bytes) {}

    fn exited(&self, report: ExitReport) {
        if let Some(warm) = self.warm.upgrade() {
            if !report.requested {
                tracing::warn!(?report, "a warm kernel died");
            }
            warm.change(|stock, now| stock.died(&self.lease, now));
        }
    }
}
