//! What an execution produces.
//!
//! For: turning a kernel's messages into the output manifests of the runtime state document.
//! Promises: outputs keep their order; a burst of messages becomes one change per output; the cost of
//! a message does not grow with the outputs that are there; `clear_output` is honored.
//! Never: does I/O, reads a clock or draws ids of its own.

mod boundary;
mod collector;
mod content;
pub(crate) mod display;
mod edits;
pub(crate) mod error;
pub(crate) mod mime;
mod preview;
#[cfg(test)]
mod replay_tests;
mod stream;

pub(crate) use self::collector::Collector;
pub(crate) use self::content::parse as parse_content;
pub(crate) use self::display::DisplayUpdate;
pub(crate) use self::edits::OutputChange;
pub(crate) use self::mime::NewBlob;
pub(crate) use self::stream::stream_output;
