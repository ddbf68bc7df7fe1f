//! How to stop what a kernel is doing.
//!
//! Promises: the way its kernelspec says; of a kernel whose kernelspec nobody knows, by asking it.

use std::io;

use runtimed_kernelspecs::{InterruptMode, Specs, Surroundings};
use rustix::process::{Pid, Signal};
use serde_json::json;

use super::client::{Channel, KernelClient};
use super::connection::Connection;

/// Interrupts one kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interrupter {
    /// By SIGINT.
    Signal(Pid),
    /// By a request.
    Message,
}

impl Interrupter {
    /// For the kernel with this connection file and process.
    pub(crate) fn new(kernel: &Connection, pid: Option<u32>) -> Self {
        let mode = || {
            let name = kernel.kernel_name.as_deref().filter(|name| !name.is_empty())?;
            Some(Specs::find(&Surroundings::current()).get(name)?.interrupt_mode)
        };
        match pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            Some(pid) if mode() == Some(InterruptMode::Signal) => Self::Signal(pid),
            _ => Self::Message,
        }
    }

    /// Interrupts it.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn interrupt(self, client: &mut KernelClient) -> io::Result<()> {
        match self {
            // With what it runs, if it leads a group, as terminals do.
            Self::Signal(pid) if rustix::process::getpgid(Some(pid)) == Ok(pid) => {
                Ok(rustix::process::kill_process_group(pid, Signal::INT)?)
            }
            Self::Signal(pid) => Ok(rustix::process::kill_process(pid, Signal::INT)?),
            Self::Message => client.send(Channel::Control, "interrupt_request", json!({})).map(drop),
        }
    }
}
