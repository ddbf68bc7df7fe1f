//! The command line's shape: commands, options, help texts.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Run notebooks and look after the daemon that runs them.
#[derive(Parser)]
#[command(name = "runt", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run all cells of a notebook and save it
    Run(RunOptions),
    /// Look after the daemon
    Daemon {
        #[command(subcommand)]
        command: DaemonCommand,
    },
    /// Same as `runt daemon status`
    #[command(hide = true)]
    Status {
        #[arg(long)]
        json: bool,
    },
    /// List open notebooks
    Notebooks {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look after plugins
    Plugins {
        #[command(subcommand)]
        command: PluginsCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Options of `runt run`.
#[derive(clap::Args)]
pub(crate) struct RunOptions {
    /// The notebook
    pub(crate) notebook: PathBuf,
    /// Save here and leave the notebook itself alone
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Give up when a cell runs longer than this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Print one JSON document about the run instead of the outputs
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand)]
pub(crate) enum DaemonCommand {
    /// Show whether the daemon runs, where, and how its pools and plugins are
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Start the daemon
    Start {
        /// Stay in this terminal until Ctrl-C
        #[arg(long)]
        foreground: bool,
    },
    /// Stop the daemon and its kernels
    Stop {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask the daemon whether it is there
    Ping {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum PluginsCommand {
    /// List plugins: from the daemon, or from their manifests while it is down
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}
