//! Keeps one Jupyter kernel: its process, its sockets, its key, and every message until somebody has made use of it.
//!
//! For: kernels that outlive the daemon. The program `runtimed-kernel` is [`run()`]; the jupyter plugin uses the rest.
//! Promises: one thread watches everything and waits for nothing but `poll`; what may wait (the disk, the end of the
//! process, signals) has threads of its own. docs/KERNEL_SHIM.md is the contract with daemons of other versions.
//! Never: knows cells, documents, environments.
//!
//! Map. Pure: [`protocol`], `journal`, `start`, `early_idle`, `ending`, `nudge`, and the crate `runtimed-jupyter-wire`. The rest touches
//! the system: `run` leaves the daemon, `shim` is the loop, `kernel_side` and `daemon_side` are its two ends, `spill` is the disk.

mod adoption;
mod channel;
mod client;
mod daemon_side;
mod descendants;
mod early_idle;
mod ending;
mod journal;
mod kernel_side;
mod nudge;
mod out_of_memory;
mod process;
pub mod protocol;
mod recent;
pub mod record;
mod run;
mod shim;
mod silent;
mod socket;
mod spill;
mod start;
mod stderr_tail;

pub use run::run;
use runtimed_jupyter_wire::{message, outbox, requests, signer, zmtp};
