//! Plugins as files: found, copied, pinned, put in place, taken away.
//!
//! For: `runt plugins`, whose commands are in `commands::plugins` and print what happens.
//! Promises: what is installed is whole or not there, whenever this program is ended; no library is ever
//! loaded here.
//!
//! Map: [`rows`] knows which plugins there are, [`origin`] which files make up one that is to be added,
//! [`archive`] unpacks, [`template`] is a
//! plugin to start from, [`staging`] copies and pins, [`user_folder`] is where they end up, [`settings_file`]
//! switches them on and off, [`crash_memory`] is why the daemon may leave one out, [`check`] has the daemon's
//! binary try one out.

pub(crate) mod archive;
pub(crate) mod check;
pub(crate) mod crash_memory;
pub(crate) mod files;
pub(crate) mod origin;
pub(crate) mod rows;
pub(crate) mod settings_file;
pub(crate) mod staging;
pub(crate) mod template;
pub(crate) mod user_folder;
