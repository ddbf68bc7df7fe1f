//! The command line of `runtimed`.
//!
//! For: `main.rs`.
//! Promises: the options of the reference daemon keep their names and meaning.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::plugins_check::PluginsCheck;

/// What `--version` and every handshake say: the crate's version, or what `RUNTIMED_VERSION` said when it was built.
pub const VERSION: &str = match option_env!("RUNTIMED_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// The notebook runtime daemon.
#[derive(Debug, Parser)]
#[command(name = "runtimed", version = VERSION, about = "The notebook runtime daemon")]
pub struct Cli {
    /// What to log: error, warn, info, debug, trace, or a filter such as `warn,runtimed_host=debug`; otherwise the
    /// setting `log.level`, or warn. RUST_LOG wins.
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Keep everything in a place of its own for the git work tree of the current directory.
    #[arg(long, global = true)]
    pub dev: bool,

    /// What to do; `run` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Options of `run`, which may stand before or after the word, or without it.
    #[command(flatten)]
    pub run: RunOptions,
}

/// Subcommands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground (the default).
    Run,
    /// Hold one plugin for the daemon, which starts this by itself.
    #[command(hide = true)]
    PluginChild {
        /// Only open this library, and see whether the process survives that.
        #[arg(long, value_name = "LIBRARY")]
        probe: Option<PathBuf>,
    },
    /// Find out whether a plugin is good; `runt plugins check` runs this.
    #[command(hide = true)]
    PluginsCheck(PluginsCheck),
}

/// Options of `runtimed run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunOptions {
    /// Listen on this socket instead of ~/.cache/runt/runtimed.sock.
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Keep the environments of the pools here.
    #[arg(long, global = true, value_name = "PATH")]
    pub cache_dir: Option<PathBuf>,

    /// Keep blobs here.
    #[arg(long, global = true, value_name = "PATH")]
    pub blob_store_dir: Option<PathBuf>,

    /// How many uv environments are kept ready, whatever the settings say; 0 switches the pool off.
    #[arg(long, global = true, value_name = "N")]
    pub uv_pool_size: Option<usize>,

    /// How many conda environments are kept ready, whatever the settings say; 0 switches the pool off.
    #[arg(long, global = true, value_name = "N")]
    pub conda_pool_size: Option<usize>,

    /// How many pixi environments are kept ready, whatever the settings say; 0 switches the pool off.
    #[arg(long, global = true, value_name = "N")]
    pub pixi_pool_size: Option<usize>,

    /// Read and write settings here.
    #[arg(long, global = true, value_name = "PATH", hide = true)]
    pub settings_json: Option<PathBuf>,

    /// Look for plugins here before the usual places; may be given more than once.
    #[arg(long, global = true, value_name = "PATH")]
    pub plugin_dir: Vec<PathBuf>,
}

impl RunOptions {
    /// Sizes of pools that are set here, by kind; settings decide about the others.
    pub fn pool_sizes(&self) -> BTreeMap<String, usize> {
        let sizes =
            [("uv", self.uv_pool_size), ("conda", self.conda_pool_size), ("pixi", self.pixi_pool_size)];
        sizes.into_iter().filter_map(|(kind, size)| Some((kind.to_owned(), size?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_may_be_left_out() {
        for arguments in [
            vec!["runtimed", "--log-level", "info", "run", "--socket", "/s", "--uv-pool-size", "0"],
            vec!["runtimed", "--socket", "/s", "run", "--uv-pool-size", "0", "--log-level", "info"],
            vec!["runtimed", "--socket", "/s", "--uv-pool-size", "0", "--log-level", "info"],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            assert_eq!(cli.log_level.as_deref(), Some("info"));
            assert_eq!(cli.run.socket.as_deref(), Some(std::path::Path::new("/s")));
            assert_eq!(cli.run.pool_sizes(), BTreeMap::from([("uv".to_owned(), 0)]));
        }
    }
}
