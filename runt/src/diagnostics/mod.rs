//! What somebody needs to find out why a daemon does not work, with secrets taken out.

mod archive;
mod secrets;

pub(crate) mod bundle;
