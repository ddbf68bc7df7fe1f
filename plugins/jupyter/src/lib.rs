//! Runs Jupyter kernels for runtimed: ipykernel over ZeroMQ on Unix sockets.
//!
//! Map, from the outside in: `plugin` and `backend` are what the host sees; `launch` brings a kernel up;
//! `kernel` is the handle of a running one and the task behind it; `process` is its process and
//! `channels` its sockets, over `zmtp` (ZeroMQ's framing) and `wire` (Jupyter's signing).
//!
//! When the daemon is killed, kernels end within a second: ipykernel watches its parent (`JPY_PARENT_PID`).
//! One that cannot (stuck in native code) is ended at the next start from its record (`leftovers`).

mod backend;
mod channels;
mod connection;
mod environment;
mod kernel;
mod kind;
mod launch;
mod leftovers;
mod out_of_memory;
mod plugin;
mod process;
mod recent;
mod requests;
mod stderr_tail;
mod wire;
mod zmtp;

pub use plugin::JupyterPlugin;

// Two workers: a room that takes its time with one message does not keep others from being read.
runtimed_plugin_api::export_plugin!(JupyterPlugin, id = "jupyter", workers = 2);

#[cfg(test)]
#[path = "../tests/support/python.rs"]
mod python;
#[cfg(test)]
#[allow(dead_code, reason = "shared with tests/, which use all of it")]
#[path = "../tests/support/recorder.rs"]
mod recorder;
