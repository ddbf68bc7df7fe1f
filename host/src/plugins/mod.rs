//! Plugins: found, checked, loaded, started, watched, stopped.
//!
//! For: the rest of the host, which asks [`Registry`] for capabilities and never knows a plugin's crate.
//! Promises: whatever is wrong with a plugin becomes a row with a sentence and a remedy, never the end of
//! the daemon; no lock is held while a plugin is called.
//!
//! Map: [`search`] finds, [`checks`] looks at files and [`permissions`] at who could write them, [`copies`]
//! keeps what was checked, [`order`] sorts by needs, [`load`] opens libraries, [`sentinel`] remembers whom the
//! daemon died of, [`registry`] holds the lives, [`services`] is what plugins see of the host.

mod checks;
mod copies;
mod load;
mod order;
mod permissions;
mod registry;
mod row;
mod search;
mod sentinel;
mod services;
#[cfg(test)]
mod tests;

pub use registry::{Providers, Registry};
pub use row::{Row, Status};
pub use search::{SearchPath, Source};
pub use services::HostContext;
