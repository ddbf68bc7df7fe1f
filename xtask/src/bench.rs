//! Measures a release build: criterion for the inner loops, the real client end to end.
//!
//! Promises: the bare kernel is measured in the same run, so that ratios mean something. Idle memory is measured alone.

mod budgets;
mod figures;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use self::figures::Figures;
use crate::daemon::Daemon;
use crate::tools::Tools;
use crate::{stage, tools, workspace};

/// The case that has a daemon of its own, with a plugin that no other case should suffer from.
const MISBEHAVING: &str = "misbehaving";
/// The case that needs a kernel that waits.
const WARM: &str = "warm";
/// What is in the home of the case `full`: notebooks that the daemon keeps, and environments in the pool.
const NOTEBOOKS: &str = "1000";
const ENVIRONMENTS: &str = "50";
/// How long its pool may take to fill: 50 copies.
const FILL_LIMIT: Duration = Duration::from_secs(300);
/// Cells for each deed while the plugin behaves, and as many while it does not.
const MISBEHAVING_RUNS: &str = "60";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// End-to-end cases, comma separated; see xtask/bench/end_to_end.py. More are `own`: opening, editing and executing with
    /// our own client, and `rooms`: 1,000 open notebooks, see runt/client/examples. `full`: `startup` where 1,000 notebooks
    /// and 50 pooled environments are kept. And `misbehaving`: executions while a plugin does all that it must not do, see
    /// host/tests/real_client/misbehaving.py
    #[arg(
        long,
        default_value = "startup,ping,create,first,warm,raw,exec,edit,open,interrupt,flood,blob,own,rooms"
    )]
    only: String,
    /// How often each end-to-end case is repeated
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Leave out the inner loops
    #[arg(long)]
    no_criterion: bool,
    /// Also keep the figures in this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail if a budget is missed
    #[arg(long)]
    strict: bool,
}

/// Builds a release, measures, prints every budget and how it came out.
pub(crate) fn run(options: &Options) -> Result<()> {
    let dist = stage::build(true)?;
    let tools = tools::prepare()?.context("nothing to measure with: the package index cannot be reached")?;
    let client = tools.client_python.as_ref().context("the PyPI client runs on Linux only")?;
    let folder = tempfile::tempdir()?;
    let file = std::path::absolute(options.json.clone().unwrap_or_else(|| folder.path().join("figures")))?;
    fs::write(&file, "").with_context(|| format!("could not write {}", file.display()))?;
    let bench = Bench { dist: &dist, tools: &tools, client, runs: options.runs, figures: &file };
    let since = SystemTime::now();
    let failed = bench.all(options);
    let mut figures = Figures::parse(&fs::read_to_string(&file)?)?;
    figures.add_criterion(&workspace::target().join("criterion"), since);
    let (table, missed) = table::table(&figures);
    println!("\n{table}");
    ensure!(failed == 0, "{failed} parts of the bench failed");
    ensure!(!options.strict || missed == 0, "{missed} budgets are missed");
    Ok(())
}

/// What every part of a run needs.
struct Bench<'run> {
    dist: &'run Path,
    tools: &'run Tools,
    client: &'run Path,
    runs: u32,
    /// Where the parts write what they measured.
    figures: &'run Path,
}

impl Bench<'_> {
    /// Runs one part after the other; returns how many failed, which keeps no other from its turn.
    fn all(&self, options: &Options) -> usize {
        let mut cases: Vec<&str> = options.only.split(',').collect();
        let mut wants = |case| {
            let before = cases.len();
            cases.retain(|it| *it != case);
            cases.len() < before
        };
        let mut failed = 0;
        let mut part = |wanted: bool, run: &dyn Fn() -> Result<()>| {
            if let Some(error) = wanted.then(run).and_then(Result::err) {
                println!("FAILED {error:#}");
                failed += 1;
            }
        };
        // Before anything else of ours runs: whoever has the same program mapped would share the memory it is charged with.
        part(wants("startup"), &|| self.startup());
        part(!options.no_criterion, &|| {
            workspace::run(workspace::cargo().args([
                "bench",
                "--workspace",
                "--exclude",
                "xtask",
                "--benches",
            ]))
        });
        part(wants(MISBEHAVING), &|| self.misbehaving());
        part(wants("own"), &|| self.own_client());
        part(wants("rooms"), &|| self.rooms());
        part(wants("full"), &|| self.full());
        part(wants(WARM), &|| self.end_to_end(WARM, 1));
        let others = cases.join(",");
        part(!others.is_empty(), &|| self.end_to_end(&others, 0));
        failed
    }

    /// The PyPI client, beside a daemon that has environments and keeps so many kernels up.
    fn end_to_end(&self, cases: &str, warm: u32) -> Result<()> {
        let home = workspace::target().join("bench-home");
        let settings = serde_json::json!({
            "install_default_data_packages": false,
            "uv_pool_size": 2,
            "kernels": { "warm": warm },
        });
        let daemon = Daemon::start_with(self.dist, &home, &settings, |command| {
            // The case `pool` reads there how long environments took.
            command.env("RUST_LOG", "warn,runtimed_host::pools=info");
            self.tools.apply(command)
        })?;
        let mut script = self.script(cases)?;
        script.arg("--socket").arg(&daemon.socket).arg("--raw-python").arg(&self.tools.kernel_python);
        script.arg("--pid").arg(daemon.pid().to_string()).arg("--log").arg(daemon.log());
        workspace::run(&mut script)?;
        daemon.stop()
    }

    /// Starts, with pools off and a home of their own.
    fn startup(&self) -> Result<()> {
        let start = format!(
            "exec env HOME={{dir}} XDG_CACHE_HOME={{dir}}/c XDG_CONFIG_HOME={{dir}}/f XDG_RUNTIME_DIR={{dir}} {} run --socket {{sock}} \
             --cache-dir {{dir}} --uv-pool-size 0 --conda-pool-size 0 --pixi-pool-size 0",
            self.runtimed().display()
        );
        workspace::run(self.script("startup")?.args(["--start", &start]))
    }

    /// The script that measures with the PyPI client.
    fn script(&self, cases: &str) -> Result<Command> {
        let mut script = self.measuring(workspace::command(self.client));
        script.args(["xtask/bench/end_to_end.py", "--only", cases, "--runs", &self.runs.to_string()]);
        self.tools.apply(&mut script)?;
        Ok(script)
    }

    /// One of our client's examples.
    fn example(&self, name: &str) -> Command {
        let mut example = self.measuring(workspace::cargo());
        example.args(["run", "--release", "--quiet", "-p", "runtimed-client", "--example", name, "--"]);
        example
    }

    /// A command that knows where its figures go.
    fn measuring(&self, mut command: Command) -> Command {
        command.env(figures::VARIABLE, self.figures);
        command
    }

    fn runtimed(&self) -> PathBuf {
        self.dist.join("bin/runtimed")
    }

    /// Opening and editing without a kernel, then executing, with little work for the client.
    fn own_client(&self) -> Result<()> {
        let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
        let daemon = Daemon::start(self.dist, home.path(), &serde_json::json!({ "uv_pool_size": 0 }))?;
        workspace::run(self.example("figures").arg(&daemon.socket).arg(home.path()))?;
        daemon.stop()?;
        let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
        let settings = serde_json::json!({ "install_default_data_packages": false, "uv_pool_size": 1 });
        let daemon =
            Daemon::start_with(self.dist, home.path(), &settings, |command| self.tools.apply(command))?;
        workspace::run(self.example("executions").arg(&daemon.socket))?;
        daemon.stop()?;
        let mut bare = self.measuring(workspace::command(&self.tools.kernel_python));
        workspace::run(bare.args(["xtask/bench/raw_kernel.py", "--runs", "5"]))
    }

    /// Many open notebooks.
    fn rooms(&self) -> Result<()> {
        let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
        let daemon = Daemon::start(self.dist, home.path(), &serde_json::json!({ "uv_pool_size": 0 }))?;
        let mut rooms = self.example("rooms");
        workspace::run(rooms.arg(&daemon.socket).arg(home.path()).arg(daemon.pid().to_string()))?;
        daemon.stop()
    }

    /// Starts of a daemon that keeps much. No budget is for them.
    fn full(&self) -> Result<()> {
        let home = tempfile::Builder::new().prefix("runt-").tempdir()?;
        let pools = ["--uv-pool-size", ENVIRONMENTS, "--conda-pool-size", "0", "--pixi-pool-size", "0"];
        let settings =
            serde_json::json!({ "install_default_data_packages": false, "kernels": { "warm": 0 } });
        let daemon = Daemon::start_with(self.dist, home.path(), &settings, |command| {
            command.args(pools);
            self.tools.apply(command)
        })?;
        workspace::run(self.example("fill").arg(&daemon.socket).arg(NOTEBOOKS))?;
        let start = Instant::now();
        while pooled(&daemon)? != ENVIRONMENTS {
            ensure!(start.elapsed() < FILL_LIMIT, "the pool does not fill; see {}", daemon.log().display());
            std::thread::sleep(Duration::from_secs(1));
        }
        daemon.stop()?;
        let start = format!(
            "exec env XDG_CACHE_HOME={0}/cache XDG_CONFIG_HOME={0}/config XDG_DATA_HOME={0}/data {1} run --socket {{sock}} {2}",
            home.path().display(),
            self.runtimed().display(),
            pools.join(" "),
        );
        workspace::run(self.script("startup")?.args(["--start", &start]).env_remove(figures::VARIABLE))
    }

    /// Executions of a real client while the misbehaving plugin does one deed after the other.
    fn misbehaving(&self) -> Result<()> {
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
        let daemon = Daemon::start_with(self.dist, home.path(), &settings, |command| {
            command.arg("--plugin-dir").arg(&plugins);
            // A build that hangs is given up early, so that the next deed can begin.
            command.env("RUNTIMED_WARM_ENV_TIMEOUT_SECS", "2");
            self.tools.apply(command)
        })?;
        let mut script = workspace::command(self.client);
        script
            .arg("host/tests/real_client/misbehaving.py")
            .arg(plugins.join(MISBEHAVING))
            .arg(MISBEHAVING_RUNS);
        script.env("RUNTIMED_SOCKET_PATH", &daemon.socket);
        workspace::run(&mut script)?;
        daemon.stop()
    }
}

/// How many environments the pool has.
fn pooled(daemon: &Daemon) -> Result<String> {
    let status = daemon.runt().args(["daemon", "status", "--json"]).output()?.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    Ok(status["pool_stats"]["uv"]["available"].to_string())
}
