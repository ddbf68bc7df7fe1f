//! One open notebook.
//!
//! For: everything that happens between "open" and "forgotten".
//! Shape: [`core`] is the state and decides; the files beside it are its parts, one concept each;
//! [`task`] is the shell that feeds it events and carries out its effects.

mod autosave;
pub(crate) mod choice;
pub(crate) mod copies;
pub(crate) mod core;
mod death;
mod declarations;
pub(crate) mod deno;
mod durable;
pub(crate) mod event;
mod executions;
mod hearing;
mod inspect;
mod kernel;
mod kernel_message;
mod kernel_said;
mod lane;
mod launch;
pub(crate) mod load;
pub(crate) mod moment;
pub(crate) mod outside;
mod parts;
pub(crate) mod peers;
mod presence;
pub(crate) mod projection;
mod publication;
mod questions;
mod queue;
mod requests;
pub(crate) mod revive;
pub(crate) mod save;
mod script;
mod session;
mod sleep;
mod superseded;
pub(crate) mod sync;
pub(crate) mod task;
#[cfg(test)]
mod tests;
mod uploads;
mod widgets;
