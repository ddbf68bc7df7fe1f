//! A call that goes on after it was dropped.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use runtimed_plugin_api::{Environment, Result, Task};

use crate::orders::Orders;
use crate::provider;

/// Reports of progress nobody waits for.
const REPORTS: usize = 1000;

/// Waits for ever. When the call is dropped, a thread reports progress on it and builds the environment.
pub(crate) async fn create(
    orders: Orders,
    python: PathBuf,
    prefix: &Path,
    task: Task,
) -> Result<Environment> {
    let (dropped, noticed) = channel::<()>();
    let prefix = prefix.to_owned();
    thread::spawn(move || {
        // Its sender is never used, so this ends when the call is dropped.
        let _ = noticed.recv();
        (0..REPORTS).for_each(|_| task.phase("late"));
        let _ = provider::build(&python, &prefix);
        orders.note("done", "late");
    });
    let _held: Sender<()> = dropped;
    pending().await
}
