//! The notebook runtime daemon's executable. Everything is in the library beside it.

use std::process::ExitCode;

use clap::Parser;
use runtimed_host::cli::{Cli, Command};
use runtimed_host::plugins::probe;
use runtimed_host::{daemon, plugins_check};
use runtimed_plugin_api::adapter::child;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        // Without a log file, a lock or the daemon's runtime.
        Some(Command::PluginChild { probe: Some(library) }) => probe::open(library),
        Some(Command::PluginChild { probe: None }) => {
            name_process();
            child::serve()
        }
        Some(Command::PluginsCheck(options)) => plugins_check::run(options, &cli.run.plugin_dir),
        Some(Command::Run) | None => daemon::run(&cli),
    }
}

/// Calls the process by the program's name wherever processes are listed: it was started through a link.
fn name_process() {
    #[cfg(target_os = "linux")]
    // Only a name: without it everything works.
    let _ = rustix::thread::set_name(c"runtimed");
}
