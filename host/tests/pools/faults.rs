//! What can go wrong with pools: what is said, what is kept, and how it ends.
//!
//! Shown elsewhere: a clock that jumps (`host/src/pools/{state,template}.rs`: pools count with a clock that does not).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtimed_client::protocol::documents::runtime_state::KernelState;
use runtimed_client::{Documents, NotebookSession};
use serde_json::json;

use crate::support::Daemon;
use crate::world::{
    change_settings, log, notebook, pause, pooled, prefix, settings, settled, start, stop, templates, until,
    value,
};

/// Why the notebook has no kernel, once it has none.
async fn failure(session: &NotebookSession) -> String {
    let failed = |it: &Documents| match it.runtime_state.kernel_state() {
        KernelState::Error { details, .. } => Some(details),
        _ => None,
    };
    session.wait_for(failed).await.unwrap()
}

/// The environments that the pool would hand out.
fn ready(daemon: &Daemon) -> Vec<PathBuf> {
    let whole =
        |prefix: &PathBuf| prefix.join("environment.json").exists() && !prefix.join("lease.json").exists();
    pooled(daemon).into_iter().filter(whole).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_does_not_exist_is_named_with_its_setting() {
    let mut wanted = settings(1);
    wanted["uv"]["default_packages"] = json!(["six", "no-such-package-zzz9"]);
    let Some(daemon) = start(&wanted, |_| {}) else { return };
    let pool = until(&daemon, |pool| pool["consecutive_failures"] == 1);
    assert_eq!(
        (&pool["error_kind"], &pool["failed_package"]),
        (&json!("invalid_package"), &json!("no-such-package-zzz9"))
    );
    let error = pool["error"].as_str().unwrap();
    assert!(error.contains("`no-such-package-zzz9`") && error.contains("`uv.default_packages`"), "{error}");
    assert_eq!((&pool["available"], pool["retry_in_secs"].as_u64() > Some(0)), (&json!(0), true), "{pool}");
    assert!(ready(&daemon).is_empty());
    // A notebook is told the same.
    let told = failure(&notebook(&daemon).await).await;
    assert!(told.contains("no-such-package-zzz9"), "{told}");

    change_settings(&daemon, |settings| settings["uv"]["default_packages"] = json!(["six"]));
    until(&daemon, |pool| {
        pool["available"] == 1 && pool["consecutive_failures"] == 0 && pool["error"].is_null()
    });
    assert_eq!(value(&notebook(&daemon).await, "six", "import six; six.__name__").await, "six");
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_killed_half_way_costs_one_attempt() {
    let Some(daemon) = start(&settings(1), |_| {}) else { return };
    // While it builds the first one.
    let building = || pooled(&daemon).into_iter().find(|prefix| prefix.join("pyvenv.cfg").exists());
    let torn = loop {
        if let Some(torn) = building() {
            break torn;
        }
        pause();
    };
    let plugins = daemon.ask(json!({ "type": "list_plugins" }))["plugins"].clone();
    let uv = plugins.as_array().unwrap().iter().find(|plugin| plugin["id"] == "uv").unwrap();
    let killed = Command::new("kill").args(["-KILL", &uv["process"].to_string()]).status().unwrap();
    assert!(killed.success(), "{uv}");
    let pool = until(&daemon, |pool| pool["consecutive_failures"] == 1);
    assert!(pool["error"].as_str().unwrap().contains("SIGKILL"), "{pool}");
    // The user need not wait for the next attempt.
    let got = prefix(&notebook(&daemon).await).await;
    assert_ne!(got, torn);
    until(&daemon, |pool| pool["consecutive_failures"] == 0 && !torn.exists());
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_that_are_deleted_or_lose_their_python_are_replaced() {
    let Some(daemon) = start(&settings(2), |_| {}) else { return };
    settled(&daemon, 2);
    for prefix in ready(&daemon) {
        fs::remove_dir_all(prefix).unwrap();
    }
    let gone = ready(&daemon);
    assert!(gone.is_empty());
    assert_eq!(value(&notebook(&daemon).await, "one", "1 + 1").await, "2");
    assert!(log(&daemon).contains("is broken and is rebuilt"), "{}", log(&daemon));
    settled(&daemon, 2);

    // Their Python is uninstalled: links lead nowhere, in the template as well.
    let (template, _) = templates(&daemon).remove(0);
    let broken: Vec<_> = ready(&daemon).into_iter().chain([template.clone()]).collect();
    for prefix in &broken {
        let python = prefix.join("bin/python");
        fs::remove_file(&python).unwrap();
        std::os::unix::fs::symlink("/nowhere/python3", python).unwrap();
    }
    let got = prefix(&notebook(&daemon).await).await;
    assert!(!broken.contains(&got));
    until(&daemon, |_| broken.iter().all(|prefix| !prefix.exists()));
    assert!(log(&daemon).contains("is made anew"), "{}", log(&daemon));
    settled(&daemon, 2);

    // And there is none any more.
    change_settings(&daemon, |settings| {
        settings["uv"]["python"] = json!("/nowhere/python3");
        settings["uv_pool_size"] = json!(1);
    });
    // They are in force.
    until(&daemon, |pool| pool["pool_size"] == 1);
    daemon.ask(json!({ "type": "flush_pool" }));
    let pool = until(&daemon, |pool| pool["consecutive_failures"].as_u64() > Some(0));
    let error = pool["error"].as_str().unwrap();
    assert!(error.contains("/nowhere/python3") && error.contains("`uv.python`"), "{error}");
    assert!(ready(&daemon).is_empty());
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_is_told_and_hands_out_nothing() {
    if !Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|done| done.status.success()) {
        eprintln!("skipped: mounting needs root.");
        return;
    }
    // The mount is the daemon's alone, and goes with it.
    let mount = "mkdir -p \"$HOME/small\" && mount -t tmpfs -o size=4m small \"$HOME/small\" && exec \"$@\"";
    let Some(daemon) = start(&settings(1), |command| {
        let home = command.get_envs().find(|(name, _)| *name == "HOME").unwrap().1.unwrap().to_owned();
        let mut inside = Command::new("unshare");
        inside.args(["-m", "sh", "-c", mount, "sh"]).arg(command.get_program()).args(command.get_args());
        inside.arg("--cache-dir").arg(Path::new(&home).join("small")).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = inside;
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    }) else {
        return;
    };
    let pool = until(&daemon, |pool| pool["consecutive_failures"] == 1);
    let error = pool["error"].as_str().unwrap();
    assert!(error.contains("No space left on device") || error.contains("os error 28"), "{error}");
    assert!(error.contains("`runt env clean`"), "{error}");
    assert_eq!((&pool["available"], &pool["error_kind"]), (&json!(0), &json!("setup_failed")), "{pool}");
    let told = failure(&notebook(&daemon).await).await;
    assert!(told.contains("os error 28"), "{told}");
    let below = PathBuf::from(format!("/proc/{}/root{}/small", daemon.pid(), daemon.home.path().display()));
    let torn =
        || fs::read_dir(&below).unwrap().flatten().find(|it| it.path().join("environment.json").exists());
    assert!(torn().is_none());

    // There is room, and somebody waits.
    let pid = daemon.pid().to_string();
    let small = daemon.home.path().join("small");
    let grown = Command::new("nsenter")
        .args(["-t", &pid, "-m", "mount", "-o", "remount,size=2g"])
        .arg(small)
        .status();
    assert!(grown.unwrap().success());
    assert_eq!(value(&notebook(&daemon).await, "one", "1 + 1").await, "2");
    until(&daemon, |pool| pool["consecutive_failures"] == 0 && pool["available"] == 1);
    stop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_fill_their_pools_from_one_cache() {
    let (Some(one), Some(two)) = (start(&settings(1), |_| {}), start(&settings(1), |_| {})) else { return };
    for daemon in [&one, &two] {
        let pool =
            until(daemon, |pool| pool["available"] == 1 || pool["consecutive_failures"].as_u64() > Some(0));
        assert_eq!(pool["consecutive_failures"], 0, "{pool}");
    }
    assert!(prefix(&notebook(&one).await).await.starts_with(one.base()));
    stop(one);
    settled(&two, 1);
    assert!(prefix(&notebook(&two).await).await.starts_with(two.base()));
    stop(two);
}
