//! The unmodified PyPI client runs cells while the plugin does each of its deeds.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::world::Tools;

/// Cells for each deed while the plugin behaves, and as many while it does not.
const RUNS: &str = "3";

#[test]
fn a_real_client_keeps_executing() {
    let Some(tools) = Tools::find() else { return };
    let Some(python) = env::var_os("RUNTIMED_TEST_CLIENT_PYTHON") else {
        eprintln!("skipped: no PyPI client here. `cargo xtask test` installs it (needs the package index).");
        return;
    };
    let mut daemon = tools.daemon("child", "memory", |_, command| {
        // It hangs, too, and that is waited for.
        command.env("RUNTIMED_WARM_ENV_TIMEOUT_SECS", "5");
    });
    let output = Command::new(python)
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_client/misbehaving.py"))
        .arg(daemon.home.path().join("plugins/misbehaving"))
        .arg(RUNS)
        .env("HOME", daemon.home.path())
        .env("RUNTIMED_SOCKET_PATH", &daemon.socket)
        .output()
        .unwrap();
    let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{table}");
    assert!(output.status.success(), "{table}{errors}");
    daemon.signal("TERM");
    assert!(daemon.ended().success());
}
