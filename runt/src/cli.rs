//! The command line's shape: commands, options, help texts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The crate's version, with the commit in what is shipped; `RUNTIMED_VERSION` decided it when this was built.
pub(crate) const VERSION: &str = match option_env!("RUNTIMED_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

/// Run notebooks and look after the daemon that runs them.
#[derive(Parser)]
#[command(
    name = "runt",
    version = VERSION,
    after_help = "Begin with 'runt daemon start' and 'runt run notebook.ipynb'. 'runt daemon doctor' says what is wrong, if \
                  anything is."
)]
pub(crate) struct Cli {
    /// Say nothing of what was done; only results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
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
    /// Same as `runt daemon doctor`
    #[command(hide = true)]
    Doctor {
        #[arg(long)]
        fix: bool,
        #[arg(long, requires = "fix")]
        no_start: bool,
        #[arg(long)]
        json: bool,
    },
    /// Same as `runt daemon logs`
    #[command(hide = true)]
    Logs {
        #[arg(long, short)]
        follow: bool,
        #[arg(long, short = 'n', default_value = "50", value_name = "N")]
        lines: usize,
    },
    /// List open notebooks
    Notebooks {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End a notebook's kernel and close the notebook
    #[command(visible_alias = "shutdown")]
    Stop {
        /// Its file, or its id as in `runt notebooks`
        notebook: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what the daemon has of a notebook, without joining it
    Inspect {
        /// Its file, or its id as in `runt notebooks`
        notebook: String,
        /// Also whole outputs, as `runt run` prints them
        #[arg(long)]
        full_outputs: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List all kernels: those of the daemon and those with a connection file
    Ps {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Also show where kernels listen
        #[arg(long, short)]
        verbose: bool,
    },
    /// Start, stop and use Jupyter kernels without a notebook
    Jupyter {
        #[command(subcommand)]
        command: JupyterCommand,
    },
    /// Check whether everything that is kept of notebooks can be brought back
    Verify {
        /// Bring in order what is damaged; nothing is deleted
        #[arg(long)]
        repair: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List what is kept of notebooks, or write one of them to a new file
    Recover(RecoverOptions),
    /// Look after environments: what they take on disk, and getting rid of them
    Env {
        #[command(subcommand)]
        command: EnvCommand,
    },
    /// Look at what notebooks may install, allow more, or take that back
    Trust {
        #[command(subcommand)]
        command: TrustCommand,
    },
    /// Look at settings and change them
    #[command(visible_alias = "settings")]
    Config {
        /// `show` if none
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
    /// Look after plugins
    Plugins {
        #[command(subcommand)]
        command: PluginsCommand,
    },
    /// Pack logs and facts, without secrets, for whoever is to find out what is wrong
    Diagnostics {
        /// Folder to write to; otherwise the current one
        #[arg(long, short, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve notebooks to an agent, in the Model Context Protocol on stdin and stdout
    Mcp(McpOptions),
    /// Print a completion script for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, or the reference as Markdown
    #[command(hide = true)]
    Man {
        /// Folder for the pages; otherwise the page of runt itself is printed
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
        /// Print docs/CLI_REFERENCE.md
        #[arg(long, conflicts_with = "folder")]
        markdown: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print all settings as JSON, defaults included
    #[command(alias = "list")]
    Show,
    /// Print where the file is
    Path,
    /// Print one setting: texts bare, everything else as JSON
    Get {
        /// Such as theme or uv.default_packages
        #[arg(value_name = "SETTING")]
        key: String,
    },
    /// Change one setting
    Set {
        /// Such as theme or uv.default_packages
        #[arg(value_name = "SETTING")]
        key: String,
        /// A text, a number, true or false, a list (a, b or [\"a\", \"b\"]), or JSON
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Take one setting out of the file, so that it is what it is if nobody says
    Unset {
        /// Such as theme or uv.default_packages
        #[arg(value_name = "SETTING")]
        key: String,
    },
    /// Open the file in $VISUAL or $EDITOR, and check what was written
    Edit,
    /// Print a JSON Schema of all settings, those of plugins included
    Schema,
}

#[derive(Subcommand)]
pub(crate) enum TrustCommand {
    /// List what was approved
    List {
        /// Also show what every machine allows
        #[arg(long)]
        all: bool,
        /// Print JSON, always with what every machine allows
        #[arg(long)]
        json: bool,
    },
    /// Allow packages or channels from now on
    Allow {
        /// As a notebook names them: numpy, `cowsay>=6`, a URL
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// What they are: pypi, conda, conda-channel, pixi-channel or a provider's own
        #[arg(long, default_value = "pypi")]
        ecosystem: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back what was allowed; what is installed stays
    #[command(visible_alias = "revoke")]
    Forget {
        /// As in `runt trust list`
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// What they are: pypi, conda, conda-channel, pixi-channel or a provider's own
        #[arg(long, default_value = "pypi")]
        ecosystem: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
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

/// Options of `runt mcp`.
#[derive(clap::Args)]
pub(crate) struct McpOptions {
    /// Where the daemon listens, if not where it does for all commands
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Accepted because other servers have it: this one shows no windows
    #[arg(long, hide = true)]
    pub(crate) no_show: bool,
}

/// Options of `runt recover`.
#[derive(clap::Args)]
pub(crate) struct RecoverOptions {
    /// Id of the notebook, or path of a journal, as in the list
    #[arg(value_name = "ID", required_unless_present = "list", conflicts_with = "list", requires = "output")]
    pub(crate) notebook: Option<String>,
    /// List what there is
    #[arg(long)]
    pub(crate) list: bool,
    /// Write here; a file that is there is left alone
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON
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
    /// Have the daemon started at login, and again if it falls
    Install {
        /// The daemon; otherwise runtimed beside runt
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
    },
    /// Stop the daemon and remove the service; settings, caches and logs stay
    Uninstall,
    /// Start the daemon and wait until it answers
    Start {
        /// Stay in this terminal until Ctrl-C
        #[arg(long)]
        foreground: bool,
        /// Print JSON
        #[arg(long, conflicts_with = "foreground")]
        json: bool,
    },
    /// Stop the daemon and its kernels
    Stop {
        /// Also if it refuses or takes long; what it could not save may be lost
        #[arg(long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Put another daemon in the place of this one, or start one; kernels go on
    Restart {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the end of the daemon's log
    Logs {
        /// Go on with what is added, until Ctrl-C
        #[arg(long, short)]
        follow: bool,
        /// How many lines
        #[arg(long, short = 'n', default_value = "50", value_name = "N")]
        lines: usize,
    },
    /// Look for what keeps the daemon from working, and say what to do
    Doctor {
        /// Repair what can be repaired without ending anything: install, update and start the daemon
        #[arg(long)]
        fix: bool,
        /// With --fix: do not start it
        #[arg(long, requires = "fix")]
        no_start: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build the environments of the pools anew
    Flush,
    /// Ask the daemon to stop and do not wait
    Shutdown,
    /// Ask the daemon whether it is there
    Ping {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum EnvCommand {
    /// List environments: whose they are, whether they are in use, what they take
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What all of them take, and how much they may
    Stats {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete what nobody uses and is old or too much
    Clean {
        /// Only say what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// However new it is; pools keep theirs
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Build anew what the pools keep ready, or one environment that is not in use
    Rebuild {
        /// Kind of a pool, or an environment's path; all pools otherwise
        #[arg(value_name = "KIND|PATH")]
        what: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum JupyterCommand {
    /// Start a kernel that goes on by itself
    Start {
        /// Name of its kernelspec, such as python3
        kernel: String,
        /// What to call it; otherwise two words
        #[arg(long)]
        name: Option<String>,
    },
    /// Stop a kernel
    Stop {
        /// Its id, as in `runt ps`, or the beginning of it, or its connection file
        #[arg(conflicts_with = "all")]
        id: Option<String>,
        /// Every kernel that was started with `runt jupyter start`
        #[arg(long)]
        all: bool,
    },
    /// Interrupt what a kernel runs
    Interrupt {
        /// Its id, as in `runt ps`, or the beginning of it, or its connection file
        id: String,
    },
    /// Run code in a kernel
    Exec {
        /// Its id, as in `runt ps`, or the beginning of it, or its connection file
        id: String,
        /// The code; otherwise it is read from the standard input
        code: Option<String>,
    },
    /// Talk to a kernel line by line
    Console(ConsoleOptions),
    /// Remove connection files of kernels that are gone
    Clean {
        /// How long a kernel may take to react, in seconds
        #[arg(long, default_value = "2", value_parser = seconds)]
        timeout: Duration,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// Same as `runt ps`
    #[command(visible_alias = "list")]
    Ps {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// Also show where kernels listen
        #[arg(long, short)]
        verbose: bool,
    },
}

/// Options of `runt jupyter console`.
#[derive(clap::Args)]
pub(crate) struct ConsoleOptions {
    /// Name of the kernelspec to start, such as python3; the kernel ends with the console
    pub(crate) kernel: Option<String>,
    /// Start this command instead; {connection_file} stands for that path
    #[arg(long, conflicts_with = "kernel")]
    pub(crate) cmd: Option<String>,
    /// Use a kernel that is there: its id, connection file or pid, or the path or id of an open notebook
    #[arg(long, value_name = "KERNEL", conflicts_with_all = ["kernel", "cmd"])]
    pub(crate) existing: Option<String>,
    /// Say on stderr what the kernel says
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// Seconds, whole or not.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(Subcommand)]
pub(crate) enum PluginsCommand {
    /// List plugins: from the daemon, or from their manifests while it is down
    List {
        /// Print JSON; shadowed plugins are always in it
        #[arg(long)]
        json: bool,
        /// Also show plugins that another one with the same id shadows
        #[arg(long)]
        all: bool,
    },
    /// Show everything about a plugin
    Show {
        /// Its id, as in `runt plugins list`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a plugin, or another version of it, to your own folder
    Add(AddOptions),
    /// Remove a plugin from your own folder
    Remove {
        /// Its id, as in `runt plugins list`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Switch a plugin on, and forgive it what it was skipped for
    Enable {
        /// Its id, as in `runt plugins list`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Switch a plugin off
    Disable {
        /// Its id, as in `runt plugins list`
        id: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Try out whether a plugin keeps the contract
    Check(CheckOptions),
    /// Write a plugin to start from
    New(NewOptions),
    /// Look for everything that keeps plugins from working, and say what to do
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Options of `runt plugins add`.
#[derive(clap::Args)]
pub(crate) struct AddOptions {
    /// A plugin's folder, its cargo project (built), or a .tar.gz of at most 512 MiB unpacked
    pub(crate) path: PathBuf,
    /// Allow a plugin to run inside the daemon, where it can do what the daemon can
    #[arg(long)]
    pub(crate) trust_in_process: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `runt plugins check`; those that it does not use itself go to `runtimed plugins-check`.
#[derive(clap::Args)]
pub(crate) struct CheckOptions {
    /// A plugin's folder, its cargo project (built), or a .tar.gz
    pub(crate) path: PathBuf,
    /// Check only what takes a moment
    #[arg(long)]
    pub(crate) quick: bool,
    /// How to print what was found
    #[arg(long, value_parser = ["text", "json", "junit"], default_value = "text")]
    pub(crate) format: String,
    /// Same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// In which process the plugin runs
    #[arg(long, value_parser = ["in-process", "child", "both"], default_value = "both")]
    pub(crate) carrier: String,
    /// Run this suite and no other; may be given more than once
    #[arg(long, value_name = "SUITE")]
    pub(crate) only: Vec<String>,
    /// Run this case of those suites and no other; may be given more than once
    #[arg(long, value_name = "CASE")]
    pub(crate) case: Vec<String>,
    /// Give up a call after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Package to install where any will do
    #[arg(long, value_name = "NAME")]
    pub(crate) package: Option<String>,
    /// Take what the plugin needs from the plugin in this folder; may be given more than once
    #[arg(long, value_name = "FOLDER")]
    pub(crate) with: Vec<PathBuf>,
}

/// Options of `runt plugins new`.
#[derive(clap::Args)]
pub(crate) struct NewOptions {
    /// A folder that is empty or does not exist; names follow from its name
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// What the plugin provides
    #[arg(long, value_parser = ["env-provider"], default_value = "env-provider")]
    pub(crate) capability: String,
    /// The plugin's id, such as your domain backwards and a name; otherwise `local.` and the folder's name
    #[arg(long)]
    pub(crate) id: Option<String>,
    /// The provider's name in settings and notebooks; otherwise the folder's name
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
