//! What Jupyter kernels speak: signed messages over ZeroMQ sockets.
//!
//! For: the process that keeps a kernel, and the command line, which talks to kernels that nobody keeps.
//! Promises: pure: bytes in, messages out; whoever uses it owns sockets and threads.
//! Never: knows cells, documents, the daemon.

pub mod message;
pub mod outbox;
pub mod requests;
pub mod signer;
pub mod zmtp;
