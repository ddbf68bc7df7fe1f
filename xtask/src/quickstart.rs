//! The newcomer's command: a real notebook runs in a real daemon, and nothing is left behind.

use std::time::Instant;

use anyhow::Result;

use crate::daemon::Daemon;
use crate::{stage, workspace};

/// Builds, starts a private daemon, runs the example notebook and prints its outputs.
pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    let dist = stage::build(false)?;
    println!("built in {:.0} s; starting a private daemon", start.elapsed().as_secs_f32());
    let home = workspace::target().join("quickstart");
    // The example needs no data packages, and a newcomer should not wait for them.
    let settings = serde_json::json!({ "install_default_data_packages": false, "uv_pool_size": 1 });
    let daemon = Daemon::start(&dist, &home, &settings)?;
    let start = Instant::now();
    let output = home.join("example.ipynb");
    workspace::run(
        daemon
            .runt()
            .arg("run")
            .arg(workspace::root().join("docs/example.ipynb"))
            .arg("--output")
            .arg(&output),
    )?;
    daemon.stop()?;
    println!("the daemon has ended after {:.1} s. Next: README.md", start.elapsed().as_secs_f32());
    Ok(())
}
