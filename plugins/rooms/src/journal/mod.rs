//! What keeps an open notebook over the end of the daemon: one append-only file for each room.
//!
//! Map: `format` is the bytes of the file; `entry` and `kernel` what they say; `fold` puts records together again, and
//! makes a long journal short. These are pure. `file` is one
//! journal on disk, `folder` where they lie, `sweep` which of them may go.
//! Promises: whatever happened to a file, what is read from it is what was written, up to some moment.

pub(crate) mod entry;
pub(crate) mod file;
pub(crate) mod fold;
pub(crate) mod folder;
pub(crate) mod format;
pub(crate) mod kernel;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;

pub(crate) use entry::{FileState, Meta};
pub(crate) use file::JournalFile;
pub(crate) use fold::Folded;
pub(crate) use folder::JournalFolder;
pub(crate) use format::Record;
pub(crate) use kernel::{Edited, Executing, Heard, KeptKernel};
