//! The commands, in the order in which somebody new would try them.

use std::fs;

use runtimed_client::protocol::pool::PoolStats;
use serde_json::json;

use crate::paper::Paper;
use crate::world::{World, number};

/// A home whose daemon keeps nothing ready: what it says does not change by itself.
fn still_world() -> Option<World> {
    let world = World::new()?;
    let settings = json!({ "install_default_data_packages": false, "kernels": { "warm": 0 }, "uv_pool_size": 0,
        "conda_pool_size": 0, "pixi_pool_size": 0 });
    fs::write(world.home().join(".config/nteract/settings.json"), format!("{settings:#}\n")).unwrap();
    Some(world)
}

#[test]
fn while_the_daemon_is_down() {
    let Some(world) = still_world() else { return };
    let mut paper = Paper::new(&world);
    for line in [
        "daemon status",
        "daemon status --json",
        "daemon ping",
        "daemon ping --json",
        "daemon flush",
        "daemon shutdown",
        "daemon stop",
        "daemon stop --json",
        "daemon logs",
        "daemon doctor",
        "daemon doctor --json",
        "daemon install",
        "daemon uninstall",
        "notebooks",
        "notebooks --json",
        "ps",
        "ps --json",
        "ps -v",
        "stop a.ipynb",
        "stop 639b6fa5-4a2c-4c3e-9d7f-0123456789ab --json",
        "inspect a.ipynb",
        "run a.ipynb",
        "verify",
        "verify --json",
        "recover --list",
        "env list",
        "env stats",
        "env clean",
        "env rebuild",
    ] {
        paper.runt(line);
    }
    paper.compare("daemon_down");
}

#[test]
fn while_the_daemon_is_up() {
    let Some(world) = still_world() else { return };
    let mut paper = Paper::new(&world);
    for line in [
        "daemon start",
        "daemon start",
        "daemon start --json",
        "daemon status",
        "status --json",
        "daemon ping",
        "daemon ping --json",
        "daemon flush",
        "daemon logs -n 2",
        "daemon doctor",
        "notebooks",
        "notebooks --json",
        "ps",
        "ps --json",
        "ps --verbose",
        "stop gone.ipynb",
        "stop 639b6fa5-4a2c-4c3e-9d7f-0123456789ab",
        "stop 639b6fa5-4a2c-4c3e-9d7f-0123456789ab --json",
        "inspect gone.ipynb",
        "run gone.ipynb",
        "verify",
        "verify --json",
        "recover --list",
        "recover --list --json",
        "recover 639b6fa5-4a2c-4c3e-9d7f-0123456789ab --output out.ipynb",
        "env list",
        "env list --json",
        "env stats",
        "env clean",
        "env clean --dry-run --json",
        "env rebuild nothing",
        "env rebuild uv",
        "daemon restart",
        "daemon restart --json",
        "daemon stop --json",
        "daemon start --json",
        "daemon shutdown",
    ] {
        paper.runt(line);
    }
    paper.compare("daemon_up");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_open_notebook() {
    let Some(world) = World::new() else { return };
    let mut paper = Paper::new(&world);
    world.runt(&["daemon", "start"]).good();
    let ready = |pools: PoolStats| pools.pools().get("uv").is_some_and(|pool| pool.available > 0);
    while !ready(world.client().status().await.unwrap()) {}
    let session = world.notebook("a.ipynb").await;
    assert_eq!(number(&session, "print('hello')\n6 * 7").await, 42);
    for line in [
        "notebooks",
        "notebooks --json",
        "ps",
        "ps --json",
        "inspect a.ipynb",
        "inspect a.ipynb --full-outputs",
    ] {
        paper.runt(line);
    }
    let id = session.notebook_id().unwrap();
    drop(session);
    paper.runt(&format!("inspect {id} --json"));
    while world.client().list_rooms().await.unwrap().rooms[0].active_peers > 0 {}
    paper.runt("stop a.ipynb");
    paper.runt("stop a.ipynb");
    paper.runt("inspect a.ipynb");
    paper.runt("run a.ipynb");
    paper.runt("run a.ipynb --json");
    paper.runt("verify");
    paper.compare("open_notebook");
}

#[test]
fn without_needing_a_daemon() {
    let Some(world) = still_world() else { return };
    let mut paper = Paper::new(&world);
    for line in [
        "config",
        "config path",
        "config get theme",
        "config get uv.default_packages",
        "config get uv_pool_sizes",
        "config get colour_theme",
        "config set theme dark",
        "config set theme pink",
        "config set keep_alive_secs 2",
        "config set uv.default_packages numpy,pandas>=2",
        "config unset theme",
        "config set nothing 1",
        "trust list",
        "trust allow cowsay",
        "trust allow cowsay --json",
        "trust forget cowsay",
        "trust forget numpy",
        "plugins list",
        "plugins show nothing",
        "plugins disable nothing",
        "plugins add nothing",
        "plugins remove org.runtimed.uv",
        "plugins doctor",
    ] {
        paper.runt(line);
    }
    paper.compare("no_daemon_needed");
}

#[test]
fn kernels_with_a_connection_file() {
    let Some(world) = still_world() else { return };
    let mut paper = Paper::new(&world);
    for line in [
        "jupyter start python3 --name otter",
        "jupyter start python3 --name otter",
        "jupyter start pyton3",
        "ps",
        "ps --json",
        "jupyter exec otter 6*7",
        "jupyter exec otter 1/0",
        "jupyter interrupt otter",
        "jupyter stop",
        "jupyter stop walrus",
        "jupyter stop otter",
        "jupyter stop --all",
        "jupyter console",
        "jupyter clean",
        "jupyter clean --dry-run",
    ] {
        paper.runt(line);
    }
    paper.compare("jupyter");
}

#[test]
fn old_words_wrong_words_and_no_words() {
    let Some(world) = still_world() else { return };
    let mut paper = Paper::new(&world);
    for line in [
        "pool status",
        "pool ping",
        "rooms",
        "start pyton3",
        "stop walrus",
        "clean",
        "daemn status",
        "daemon stats",
        "notebooks --jsn",
        "config get",
        "recover --list --output x",
        "run",
        "--quiet config set theme dark",
        "--quiet daemon stop",
        "--quiet daemon ping",
    ] {
        paper.runt(line);
    }
    paper.runt_with("daemon status", "NO_COLOR", "1");
    paper.compare("words");
}
