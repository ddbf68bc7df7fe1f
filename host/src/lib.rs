//! The notebook runtime daemon.
//!
//! It owns sockets and framing (`ipc`, `http`), the settings document (`settings`), the environment
//! pools (`pools`) and the plugin registry (`plugins`). Everything that can vary is a plugin.
//!
//! Start reading at `daemon`: it boots, serves and stops. `paths` says where things are.
//! Never: the name of a plugin's crate, a list of environment kinds, a notebook's content.

pub mod announcement;
pub mod at_risk;
pub mod cli;
pub mod daemon;
pub mod disk;
pub mod http;
pub mod ipc;
pub mod limits;
pub mod lock;
pub mod log;
pub mod manager;
pub mod paths;
pub mod plugins;
pub mod plugins_check;
pub mod pools;
pub mod settings;
pub mod shutdown;
pub mod socket;
pub mod upkeep;
