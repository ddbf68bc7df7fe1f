//! What clients and the notebook runtime daemon say to each other.
//!
//! For: everything on the daemon's socket, protocol v4: preamble, handshake, frames, messages, and the
//! documents they synchronize. It alone knows the wire's names.
//! Promises: bytes from a peer never panic; limits are checked before anything is kept.
//! Never: does I/O, reads a clock or makes random numbers.

pub mod bootstrap;
pub mod broadcast;
pub mod documents;
pub mod environments;
pub mod frame;
pub mod handshake;
pub mod identity;
mod lenient;
pub mod pool;
pub mod preamble;
pub mod presence;
pub mod put_blob;
pub mod request;
pub mod response;
pub mod session_control;
pub mod settings;
