//! Plugins: found, checked, loaded, started, watched, stopped.
//!
//! For: the rest of the host, which asks [`Registry`] for capabilities and never knows a plugin's crate.
//! Promises: whatever is wrong with a plugin becomes a row with a sentence and a remedy, never the end of
//! the daemon; no lock is held while a plugin is called.
//!
//! Map: [`search`] finds, [`checks`] looks at files and [`permissions`] at who could write them, [`copies`]
//! keeps what was checked, [`probe`] tries it out, [`order`] sorts by needs, [`load`] opens libraries,
//! [`sentinel`] remembers whom the daemon died of. [`registry`] holds a [`slot`] for each plugin and [`reload`]
//! brings them up to date; [`supervisor`] starts and ends the processes of a plugin that has its own, within a
//! [`budget`], [`running`] is one of them, and [`proxy`] stands for the plugin all the time. [`config`] is what
//! the settings say, [`services`] what plugins see of the host, [`row`] and [`report`] what the user sees of
//! plugins.

mod budget;
mod checks;
mod config;
mod copies;
mod load;
mod order;
mod permissions;
pub mod probe;
mod proxy;
mod registry;
mod reload;
mod report;
mod row;
mod running;
mod search;
mod sentinel;
mod services;
mod slot;
mod supervisor;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use runtimed_plugin_api::manifest::Manifest;

pub use registry::{Provided, Providers, Registry};
pub(crate) use row::Problem;
pub use row::{Row, Status};
pub use search::{SearchPath, Source};
pub use services::HostContext;

/// Checks the files of the plugin in `folder`, as the daemon does before it loads one, and returns the absolute path
/// of what may be loaded: a copy of its library below `base`. Blocks on the file system.
pub(crate) fn check_files(folder: &Path, base: &Path) -> Result<PathBuf, Problem> {
    let manifest =
        Manifest::read(folder).map_err(|error| Problem::refused(error.to_string(), error.remedy))?;
    let found = search::Found {
        source: Source::Argument,
        folder: folder.to_owned(),
        manifest: Ok(manifest.clone()),
        pin: None,
    };
    Ok(checks::check(&manifest, &found, &copies::Copies::new(base))?.path)
}
