//! The thread in the child that runs a plugin's synchronous methods.
//!
//! For: keeping them in the order the daemon made them, away from the thread that reads the socket.
//! Promises: one at a time, in order; what may be lost is left out once [`LOSSY_BYTES`] wait. The rest is bounded
//! by the credit of the contracts.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::say;

/// Process lines and progress are left out while this many bytes wait (our choice, as in the outbox).
const LOSSY_BYTES: usize = 1 << 20;

/// Dropping it lets the thread end after what is queued.
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<Waiting>,
    /// Lossy jobs left out since that was last said.
    lost: AtomicU64,
}

struct Job {
    bytes: usize,
    run: Box<dyn FnOnce() + Send>,
}

/// What is not done yet.
#[derive(Default)]
struct Waiting {
    jobs: AtomicUsize,
    bytes: AtomicUsize,
}

impl Queue {
    /// Starts the thread.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queued) = mpsc::channel::<Job>();
        let waiting = Arc::new(Waiting::default());
        let done = waiting.clone();
        let work = move || {
            for job in queued {
                // Plugins catch their own panics. One that got out must not cost the jobs behind it.
                let _ = catch_unwind(AssertUnwindSafe(job.run));
                done.bytes.fetch_sub(job.bytes, Ordering::Relaxed);
                done.jobs.fetch_sub(1, Ordering::Release);
            }
        };
        std::thread::Builder::new().name("plugin calls".to_owned()).spawn(work)?;
        Ok(Self { jobs, waiting, lost: AtomicU64::new(0) })
    }

    /// Queues `run`, which holds on to `bytes` until it has run.
    pub(super) fn add(&self, bytes: usize, lossy: bool, run: impl FnOnce() + Send + 'static) {
        if lossy {
            if self.waiting.bytes.load(Ordering::Relaxed) > LOSSY_BYTES {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                say(&format!("{lost} process lines or progress steps were left out: the plugin is too slow"));
            }
        }
        self.waiting.jobs.fetch_add(1, Ordering::Relaxed);
        self.waiting.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The thread is gone only if a method of the plugin took it along; the process is about to end then.
        let _ = self.jobs.send(Job { bytes, run: Box::new(run) });
    }

    /// Whether everything queued so far is done.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.jobs.load(Ordering::Acquire) == 0
    }

    /// Resolves once everything queued so far is done.
    pub(super) fn turn(&self) -> impl Future<Output = ()> + Send + use<> {
        let done = (!self.is_idle()).then(|| {
            let (done, turn) = oneshot::channel();
            self.add(0, false, move || {
                let _ = done.send(());
            });
            turn
        });
        async move {
            if let Some(done) = done {
                // An error is a dead thread.
                let _ = done.await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_in_order_and_a_turn_comes_after_them() {
        let queue = Queue::start().unwrap();
        let (seen, order) = mpsc::channel();
        for number in 0..100 {
            let seen = seen.clone();
            queue.add(1, false, move || seen.send(number).unwrap());
        }
        queue.turn().await;
        assert!(order.try_iter().eq(0..100));
        queue.turn().await;
    }

    #[tokio::test]
    async fn what_may_be_lost_is_bounded_and_nothing_else_is_lost() {
        let queue = Queue::start().unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (seen, count) = mpsc::channel();
        queue.add(0, false, move || wait.recv().unwrap());
        for lossy in [true, false] {
            for _ in 0..64 {
                let seen = seen.clone();
                queue.add(64 << 10, lossy, move || seen.send(lossy).unwrap());
            }
        }
        go.send(()).unwrap();
        queue.turn().await;
        let seen: Vec<bool> = count.try_iter().collect();
        assert_eq!(seen.iter().filter(|lossy| !**lossy).count(), 64);
        assert_eq!(seen.iter().filter(|lossy| **lossy).count(), LOSSY_BYTES / (64 << 10) + 1);
    }
}
