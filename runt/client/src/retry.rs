//! Trying again while there is no daemon.
//!
//! For: whoever can wait for a daemon that is being started or replaced.
//! Promises: what the daemon says is never asked for twice; only not reaching it is.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{ClientError, Result};

/// First pause between two attempts: a daemon that is restarted is back after some 10 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts: nobody notices it.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Attempts until one reaches the daemon, for `patience` at most. Returns what that one did, or the last failure.
pub(crate) async fn until_reached<T, F>(patience: Duration, mut attempt: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let end = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match attempt().await {
            Err(failure @ (ClientError::Connect(_) | ClientError::Timeout | ClientError::Disconnected)) => {
                failure
            }
            answered => return answered,
        };
        if Instant::now() >= end {
            return Err(failure);
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
