//! One file per command.

pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod daemon;
pub(crate) mod env;
pub(crate) mod jupyter;
pub(crate) mod notebooks;
pub(crate) mod plugins;
pub(crate) mod ps;
pub(crate) mod recovery;
pub(crate) mod run;
pub(crate) mod trust;
