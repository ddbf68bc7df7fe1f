//! Waiting, in sight of the user.
//!
//! For: whatever may take longer than a moment.
//! Promises: says so only on a terminal, in one line of stderr that is gone afterwards; with `--quiet` never.

use std::io::{IsTerminal, Write, stderr};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use crate::terminal;

/// What takes less is not told, and how often it is told.
const MOMENT: Duration = Duration::from_secs(1);

/// Waits for `work`; meanwhile the user sees `what` is done, and for how long.
pub(crate) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    if terminal::is_quiet() || !stderr().is_terminal() {
        return work.await;
    }
    let mut work = pin!(work);
    let began = Instant::now();
    let mut moments = interval_at(began + MOMENT, MOMENT);
    let mut line = Line { told: false };
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = moments.tick() => line.tell(&format!("{what} ... {} s", began.elapsed().as_secs())),
        }
    }
}

/// The line. Gone when it is dropped.
struct Line {
    told: bool,
}

impl Line {
    fn tell(&mut self, text: &str) {
        self.told = true;
        // Nobody is waiting there any more, if it fails.
        let _ = write!(stderr(), "\r\x1b[K{text}").and_then(|()| stderr().flush());
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.told {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
