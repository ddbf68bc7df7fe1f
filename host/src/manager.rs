//! The service manager that may have started this process: systemd, or nobody.
//!
//! For: `daemon.rs`, which says how far it is and shows that it still moves.
//! Promises: without a service manager all of it does nothing.
//! Never: fails; a daemon whose manager is gone serves all the same.

use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The socket that clients connect to, if the manager opened it for us before we were there. To be called once, and
/// before there are threads: it takes variables out of the environment.
pub fn activated_socket() -> Option<UnixListener> {
    match ListenFd::from_env().take_unix_listener(0) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!("the service manager's socket cannot be used: {error}");
            None
        }
    }
}

/// Clients are answered from now on.
pub fn ready(version: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("runtimed {version} answers"))]);
}

/// The daemon ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager cannot be told how far the daemon is: {error}");
    }
}

/// Shows the manager's watchdog that the loop that awaits [`Watchdog::tick`] still turns.
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// The watchdog of this process, if it has one.
    pub fn of_this_process() -> Self {
        Self(sd_notify::watchdog_enabled().map(|limit| {
            // Twice within the limit, as its documentation asks for.
            let mut beat = interval((limit / 2).max(Duration::from_millis(1)));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        }))
    }

    /// Waits until it is time and tells the manager. Never returns without a watchdog. Cancel-safe.
    pub async fn tick(&mut self) {
        match &mut self.0 {
            Some(beat) => {
                beat.tick().await;
                tell(&[NotifyState::Watchdog]);
            }
            None => std::future::pending().await,
        }
    }
}
