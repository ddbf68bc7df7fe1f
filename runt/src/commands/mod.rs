//! One file per command.

pub(crate) mod daemon;
pub(crate) mod notebooks;
pub(crate) mod plugins;
pub(crate) mod recovery;
pub(crate) mod restart;
pub(crate) mod run;
