//! Jupyter kernels without a daemon: found by their connection files, and spoken to.
//!
//! For: `runt ps`, `runt jupyter`.
//! Promises: works with kernels that other Jupyter programs started, and they with ours.
//! Never: keeps anything in memory that Jupyter would not find on disk.

pub(crate) mod client;
pub(crate) mod connection;
pub(crate) mod editor;
pub(crate) mod execute;
pub(crate) mod find;
pub(crate) mod highlight;
pub(crate) mod interrupt;
pub(crate) mod names;
pub(crate) mod probe;
pub(crate) mod processes;
pub(crate) mod show;
pub(crate) mod socket;
pub(crate) mod start;
pub(crate) mod stop;
