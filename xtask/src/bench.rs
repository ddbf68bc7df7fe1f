//! Measures a release build: criterion for the inner loops, the real client end to end.
//!
//! Promises: the bare kernel is measured in the same run, so that ratios mean something.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::Daemon;
use crate::tools::Tools;
use crate::{stage, tools, workspace};

/// The case that has a daemon of its own, with a plugin that no other case should suffer from.
const MISBEHAVING: &str = "misbehaving";
/// The case that our own client measures.
const OWN: &str = "own";
/// The case that starts a daemon in a home with a past.
const FULL: &str = "full";
/// What is in it: notebooks that the daemon keeps, and environments in the pool.
const NOTEBOOKS: &str = "1000";
const ENVIRONMENTS: &str = "50";
/// How long its pool may take to fill: 50 copies.
const FILL_LIMIT: Duration = Duration::from_secs(300);
/// Cells for each deed while the plugin behaves, and as many while it does not.
const MISBEHAVING_RUNS: &str = "60";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// End-to-end cases, comma separated; see xtask/bench/end_to_end.py. One more is `misbehaving`: executions
    /// while a plugin does all that it must not do, see host/tests/real_client/misbehaving.py. And `own`: opening,
    /// editing and executing with our own client, see runt/client/examples. And `full`: `startup` where 1,000 notebooks and 50
    /// pooled environments are kept
    #[arg(long, default_value = "startup,ping,create,first,raw,exec,edit,open,own")]
    only: String,
    /// How often each end-to-end case is repeated
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Python kernels that are up before anybody wants them; the case `warm` measures one
    #[arg(long, default_value_t = 0)]
    warm: u32,
    /// Leave out the inner loops
    #[arg(long)]
    no_criterion: bool,
    /// Also write the end-to-end figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

/// Builds a release, measures, prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let dist = stage::build(true)?;
    let tools = tools::prepare()?.context("nothing to measure with: the package index cannot be reached")?;
    let client = tools.client_python.as_ref().context("the PyPI client runs on Linux only")?;
    if !options.no_criterion {
        workspace::run(workspace::cargo().args(["bench", "--workspace", "--exclude", "xtask", "--benches"]))?;
    }
    let mut cases: Vec<&str> = options.only.split(',').collect();
    if cases.contains(&MISBEHAVING) {
        misbehaving(&dist, &tools, client)?;
        cases.retain(|case| *case != MISBEHAVING);
    }
    if cases.contains(&OWN) {
        own_client(&dist, &tools)?;
        cases.retain(|case| *case != OWN);
    }
    if cases.contains(&FULL) {
        full(&dist, &tools, client)?;
        cases.retain(|case| *case != FULL);
    }
    if cases.is_empty() {
        return Ok(());
    }
    let home = workspace::target().join("bench-home");
    let settings = serde_json::json!({
        "install_default_data_packages": false,
        "uv_pool_size": 2,
        "kernels": { "warm": options.warm },
    });
    let daemon = Daemon::start_with(&dist, &home, &settings, |command| {
        // The case `pool` reads there how long environments took.
        command.env("RUST_LOG", "warn,runtimed_host::pools=info");
        tools.apply(command)
    })?;
    // Starts are measured with pools off and a home of their own.
    let start = format!(
        "exec env HOME={{dir}} XDG_CACHE_HOME={{dir}}/c XDG_CONFIG_HOME={{dir}}/f XDG_RUNTIME_DIR={{dir}} {} run --socket {{sock}} \
         --cache-dir {{dir}} --uv-pool-size 0 --conda-pool-size 0 --pixi-pool-size 0",
        dist.join("bin/runtimed").display()
    );
    let mut bench = workspace::command(client);
    bench.arg("xtask/bench/end_to_end.py").arg("--socket").arg(&daemon.socket);
    bench.arg("--start").arg(start).arg("--raw-python").arg(&tools.kernel_python);
    bench.args(["--only", &cases.join(","), "--runs", &options.runs.to_string()]);
    bench.arg("--pid").arg(daemon.pid().to_string()).arg("--log").arg(daemon.log());
    if let Some(json) = &options.json {
        bench.arg("--json").arg(json);
    }
    tools.apply(&mut bench)?;
    workspace::run(&mut bench)?;
    daemon.stop()
}

/// Opening and editing without a kernel, then executing, with little work for the client.
fn own_client(dist: &Path, tools: &Tools) -> Result<()> {
    let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
    let daemon = Daemon::start(dist, home.path(), &serde_json::json!({ "uv_pool_size": 0 }))?;
    workspace::run(example("figures").arg(&daemon.socket).arg(home.path()))?;
    daemon.stop()?;
    let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
    let settings = serde_json::json!({ "install_default_data_packages": false, "uv_pool_size": 1 });
    let daemon = Daemon::start_with(dist, home.path(), &settings, |command| tools.apply(command))?;
    workspace::run(example("executions").arg(&daemon.socket))?;
    daemon.stop()?;
    workspace::run(workspace::command(&tools.kernel_python).args([
        "xtask/bench/raw_kernel.py",
        "--runs",
        "5",
    ]))
}

/// Starts of a daemon that keeps much.
fn full(dist: &Path, tools: &Tools, client: &Path) -> Result<()> {
    let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
    let pools = ["--uv-pool-size", ENVIRONMENTS, "--conda-pool-size", "0", "--pixi-pool-size", "0"];
    let settings = serde_json::json!({ "install_default_data_packages": false, "kernels": { "warm": 0 } });
    let daemon = Daemon::start_with(dist, home.path(), &settings, |command| {
        command.args(pools);
        tools.apply(command)
    })?;
    workspace::run(example("fill").arg(&daemon.socket).arg(NOTEBOOKS))?;
    let start = Instant::now();
    while pooled(&daemon)? != ENVIRONMENTS {
        ensure!(start.elapsed() < FILL_LIMIT, "the pool does not fill; see {}", daemon.log().display());
        std::thread::sleep(Duration::from_secs(1));
    }
    daemon.stop()?;
    let start = format!(
        "exec env XDG_CACHE_HOME={0}/cache XDG_CONFIG_HOME={0}/config XDG_DATA_HOME={0}/data {1} run --socket {{sock}} {2}",
        home.path().display(),
        dist.join("bin/runtimed").display(),
        pools.join(" "),
    );
    let mut bench = workspace::command(client);
    bench.args(["xtask/bench/end_to_end.py", "--only", "startup", "--start", &start]);
    tools.apply(&mut bench)?;
    workspace::run(&mut bench)
}

/// How many environments the pool has.
fn pooled(daemon: &Daemon) -> Result<String> {
    let status = daemon.runt().args(["daemon", "status", "--json"]).output()?.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    Ok(status["pool_stats"]["uv"]["available"].to_string())
}

/// One of our client's examples.
fn example(name: &str) -> Command {
    let mut example = workspace::cargo();
    example.args(["run", "--release", "--quiet", "-p", "runtimed-client", "--example", name, "--"]);
    example
}

/// Executions of a real client while the misbehaving plugin does one deed after the other.
fn misbehaving(dist: &Path, tools: &Tools, client: &Path) -> Result<()> {
    let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
    let plugins = home.path().join("plugins");
    let source = workspace::root().join("plugin-api/testkit/misbehaving");
    stage::stage_plugin(&source, &workspace::target().join("release"), &plugins)?;
    let settings = serde_json::json!({
        "default_python_env": MISBEHAVING,
        "install_default_data_packages": false,
        "uv_pool_size": 0,
        "misbehaving_pool_size": 1,
    });
    let daemon = Daemon::start_with(dist, home.path(), &settings, |command| {
        command.arg("--plugin-dir").arg(&plugins);
        // A build that hangs is given up early, so that the next deed can begin.
        command.env("RUNTIMED_WARM_ENV_TIMEOUT_SECS", "2");
        tools.apply(command)
    })?;
    let mut script = workspace::command(client);
    script.arg("host/tests/real_client/misbehaving.py").arg(plugins.join(MISBEHAVING)).arg(MISBEHAVING_RUNS);
    script.env("RUNTIMED_SOCKET_PATH", &daemon.socket);
    workspace::run(&mut script)?;
    daemon.stop()
}
