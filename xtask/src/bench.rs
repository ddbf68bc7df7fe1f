//! Measures a release build: criterion for the inner loops, the real client end to end.
//!
//! Promises: the bare kernel is measured in the same run, so that ratios mean something.

use anyhow::{Context, Result};

use crate::daemon::Daemon;
use crate::{stage, tools, workspace};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// End-to-end cases, comma separated; see xtask/bench/end_to_end.py
    #[arg(long, default_value = "startup,ping,create,first,raw,exec,edit,open")]
    only: String,
    /// How often each end-to-end case is repeated
    #[arg(long, default_value_t = 1)]
    runs: u32,
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
    let home = workspace::target().join("bench-home");
    let settings = serde_json::json!({ "install_default_data_packages": false, "uv_pool_size": 2 });
    let daemon = Daemon::start_with(&dist, &home, &settings, |command| tools.apply(command))?;
    // Starts are measured with pools off and a home of their own.
    let start = format!(
        "exec env HOME={{dir}} XDG_CACHE_HOME={{dir}}/c XDG_CONFIG_HOME={{dir}}/f XDG_RUNTIME_DIR={{dir}} {} run --socket {{sock}} \
         --cache-dir {{dir}} --uv-pool-size 0 --conda-pool-size 0 --pixi-pool-size 0",
        dist.join("bin/runtimed").display()
    );
    let mut bench = workspace::command(client);
    bench.arg("xtask/bench/end_to_end.py").arg("--socket").arg(&daemon.socket);
    bench.arg("--start").arg(start).arg("--raw-python").arg(&tools.kernel_python);
    bench.args(["--only", &options.only, "--runs", &options.runs.to_string()]);
    bench.arg("--pid").arg(daemon.pid().to_string());
    if let Some(json) = &options.json {
        bench.arg("--json").arg(json);
    }
    tools.apply(&mut bench)?;
    workspace::run(&mut bench)?;
    daemon.stop()
}
