//! A future that is polled by whichever thread wakes it.
//!
//! For: answers in the child. A plugin's body ends on a thread of the plugin, and that thread writes the answer:
//! going through the thread that reads the socket would cost as much again as the way to the daemon.
//! Promises: one thread polls at a time; a wake-up meanwhile lets it poll again.
//! Never: for futures that are woken with a lock held which polling them takes. Those of the export macro wake
//! through tokio, which holds none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};

use futures_util::future::BoxFuture;

use super::locked;

pub(super) struct Driven {
    /// None when it is done.
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    /// Polls that are due. Whoever makes it one polls until it is zero.
    due: AtomicUsize,
}

impl Driven {
    /// Polls `future` for the first time; it keeps itself alive through its wakers.
    pub(super) fn start(future: impl Future<Output = ()> + Send + 'static) {
        let driven = Self { future: Mutex::new(Some(Box::pin(future))), due: AtomicUsize::new(0) };
        Arc::new(driven).wake();
    }
}

impl Wake for Driven {
    fn wake(self: Arc<Self>) {
        if self.due.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let waker = Waker::from(self.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            let due = self.due.load(Ordering::Acquire);
            {
                let mut future = locked(&self.future);
                if future.as_mut().is_some_and(|future| future.as_mut().poll(&mut context).is_ready()) {
                    future.take();
                }
            }
            if self.due.fetch_sub(due, Ordering::AcqRel) == due {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn the_thread_that_ends_the_wait_goes_on_with_the_future() {
        let ((go, gone), (seen, end)) = (oneshot::channel::<()>(), mpsc::channel());
        Driven::start(async move {
            let _ = gone.await;
            seen.send(std::thread::current().id()).unwrap();
        });
        assert!(end.try_recv().is_err());
        let other = std::thread::spawn(move || {
            go.send(()).unwrap();
            std::thread::current().id()
        });
        assert_eq!(other.join().unwrap(), end.recv().unwrap());
    }

    #[test]
    fn a_wake_up_while_it_is_polled_is_not_lost() {
        let (seen, end) = mpsc::channel();
        let woken = AtomicBool::new(false);
        Driven::start(async move {
            std::future::poll_fn(|context| {
                if woken.swap(true, Ordering::SeqCst) {
                    return std::task::Poll::Ready(());
                }
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
            seen.send(()).unwrap();
        });
        end.recv().unwrap();
    }
}
