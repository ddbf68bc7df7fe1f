//! Installed Jupyter kernels: where they are, what they are, and the command that starts one.
//!
//! For: the jupyter plugin and the command line.
//! Promises: the folders and the precedence of `jupyter --paths`; a broken kernelspec hides no other, and says why it is
//! not there; everything is a function of an injected [`Surroundings`] and of files.
//! Never: starts a process, writes a file, reads the environment of this one but in [`Surroundings::current`].

mod command;
mod paths;
mod spec;
mod template;

pub use command::CONNECTION_FILE;
pub use paths::Surroundings;
pub use spec::{Broken, InterruptMode, KernelSpec, Specs};
