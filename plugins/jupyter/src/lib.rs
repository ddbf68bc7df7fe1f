//! Runs Jupyter kernels for runtimed, each in the keeping of a process that outlives the daemon.
//!
//! Map, from the outside in: `plugin` and `backend` are what the host sees; `installed` knows which kernels there are,
//! `kind` how one is started, `deno` what a notebook says about Deno; `launch` starts a shim and has it bring a
//! kernel up; `kernel` is the handle of a running one and the task behind it, over `link` and `outgoing`; `found` finds kernels again.
//! What happens between shim and kernel is in the crate `runtimed-kernel-shim`.
//!
//! When the daemon is killed, and when it lets go of kernels before it stops, shims and kernels go on. Whose they are
//! and whether they go on at all, rooms decide at the next start.

mod backend;
mod deno;
mod environment;
mod folder;
mod found;
mod gap;
mod installed;
mod kernel;
mod kind;
mod launch;
mod link;
mod outgoing;
mod plugin;

pub use plugin::JupyterPlugin;

// Two workers: a room that takes its time with one message does not keep others from being read.
runtimed_plugin_api::export_plugin!(JupyterPlugin, id = "jupyter", workers = 2);
