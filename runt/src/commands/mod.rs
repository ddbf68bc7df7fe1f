//! One file per command.

pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod daemon;
pub(crate) mod diagnostics;
pub(crate) mod env;
pub(crate) mod inspect;
pub(crate) mod jupyter;
pub(crate) mod man;
pub(crate) mod mcp;
pub(crate) mod notebooks;
pub(crate) mod plugins;
pub(crate) mod ps;
pub(crate) mod recovery;
pub(crate) mod run;
pub(crate) mod stop;
pub(crate) mod trust;
