//! An async client of the notebook runtime daemon.
//!
//! For: the command line, desktop applications and tests.
//! Promises: what a session holds is a replica; reading it never waits. Nothing outlives its owner: a
//! dropped session ends its task and its connection.
//! Never: starts a daemon, or knows what is inside it.

mod blobs;
mod client;
mod connection;
mod endpoint;
mod error;
mod session;

pub use blobs::BlobReader;
pub use client::{Client, Pong};
pub use endpoint::Places;
pub use error::{ClientError, Result};
pub use runtimed_protocol as protocol;
pub use session::{Changes, Documents, NotebookSession};
