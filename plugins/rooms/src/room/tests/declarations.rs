//! What a notebook declares, and what comes of it.

use std::time::Duration;

use runtimed_plugin_api::{Drift, EnvNeed, ErrorCode, PluginError, TrustVerdict};
use runtimed_protocol::documents::Document;
use runtimed_protocol::documents::notebook::DependencyKind;
use runtimed_protocol::documents::runtime_state::{Activity, KernelState};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::json;

use super::super::event::Event;
use super::world::World;
use crate::ids::PeerId;

/// Longer than the room waits for more edits.
const SOON: Duration = Duration::from_secs(1);

fn world(seed: u64) -> (World, PeerId) {
    let mut world = World::create(seed);
    let ana = world.join("ana");
    world.pass(SOON);
    (world, ana)
}

/// Ana declares packages.
fn declare(world: &mut World, ana: PeerId, packages: &[&str]) {
    let packages: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
    let client = world.client(ana);
    client.notebook.set_dependencies("uv", DependencyKind::Packages, &packages).unwrap();
    client.notebook.commit();
    let frame = client.sync_frame(FrameType::NOTEBOOK_SYNC);
    world.send(ana, frame);
    world.pass(SOON);
}

fn drift(added: &[&str], removed: &[&str]) -> TrustVerdict {
    let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
    let drift = Drift { added: list(added), removed: list(removed), ..Drift::default() };
    TrustVerdict { status: "trusted".to_owned(), drift: Some(drift), ..TrustVerdict::default() }
}

fn sync(world: &mut World, ana: PeerId) -> Response {
    world.ask(ana, json!({"action": "sync_environment"}))
}

fn failed(error: &str, needs_restart: bool) -> Response {
    Response::SyncEnvironmentFailed { error: error.to_owned(), needs_restart }
}

#[test]
fn the_host_is_asked_once_for_each_change_of_what_is_declared() {
    let (mut world, ana) = world(70);
    let asked = world.asked.len();
    assert!(world.asked[asked - 1].0.running.is_some(), "a kernel runs");
    for source in ["x", "value 2", "# /// script"] {
        let frame = world.client(ana).add_cell(&format!("cell {source}"), source);
        world.send(ana, frame);
        world.pass(SOON);
    }
    assert_eq!(world.asked.len(), asked, "none of that declares anything");
    let frame = world.client(ana).add_cell("block", "# /// script\n# dependencies = ['six']\n# ///");
    world.send(ana, frame);
    world.pass(SOON);
    assert_eq!(world.asked.len(), asked + 1);
    let need = &world.asked[asked].0;
    assert_eq!(need.script_blocks[0].text, "dependencies = ['six']");

    world.verdict = TrustVerdict { needs_approval: true, ..drift(&["numpy"], &[]) };
    declare(&mut world, ana, &["numpy"]);
    let shown = world.client(ana).runtime.to_json();
    assert_eq!((&shown["env"]["added"], &shown["env"]["in_sync"]), (&json!(["numpy"]), &json!(false)));
    assert_eq!(shown["trust"]["needs_approval"], true);
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Running(Activity::Idle), "it goes on");
}

#[test]
fn what_was_declared_since_the_launch_is_installed_and_then_there() {
    let (mut world, ana) = world(71);
    world.verdict = drift(&[], &[]);
    assert_eq!(sync(&mut world, ana), Response::SyncEnvironmentComplete { synced_packages: Vec::new() });
    world.verdict = drift(&["six"], &[]);
    declare(&mut world, ana, &["six"]);
    let done = Response::SyncEnvironmentComplete { synced_packages: vec!["six".to_owned()] };
    assert_eq!(sync(&mut world, ana), done);
    let running = world.asked.last().unwrap().0.running.clone().unwrap();
    assert_eq!(running.launched_config["uv_deps"], json!(["six"]), "it counts as launched with that");
    let launched = world.kernels_started;
    world.ask(ana, json!({"action": "shutdown_kernel"}));
    let launch =
        json!({"action": "launch_kernel", "kernel_type": "", "env_source": "", "notebook_path": null});
    world.ask(ana, launch);
    assert_eq!((world.kernels_started, world.acquired), (launched + 1, 1), "a restart keeps the environment");

    // The journal knows it too.
    let mut world = world.outlived();
    world.pass(SOON);
    let running = world.asked.last().unwrap().0.running.clone().unwrap();
    assert_eq!(running.launched_config["uv_deps"], json!(["six"]));
}

#[test]
fn what_a_sync_cannot_do_is_said() {
    let (mut world, ana) = world(72);
    world.verdict = drift(&["six"], &["numpy"]);
    let restart = "Environment changes include removals or config changes that require a kernel restart";
    assert_eq!(sync(&mut world, ana), failed(restart, true));
    world.verdict.needs_approval = true;
    let changed = "Trust changed before the action could run. Review the notebook again.".to_owned();
    assert_eq!(sync(&mut world, ana), Response::GuardRejected { reason: changed });

    world.verdict = drift(&["six"], &[]);
    world.hold_jobs = true;
    let first = world.request(ana, json!({"action": "sync_environment"}));
    let bob = world.join("bob");
    world.settle();
    let second = sync(&mut world, bob);
    assert_eq!(second, failed("Environment sync already in progress", false));
    world.hold_jobs = false;
    world.settle();
    assert!(matches!(world.answer(ana, &first), Response::SyncEnvironmentComplete { .. }));
    world.ask(ana, json!({"action": "shutdown_kernel"}));
    assert_eq!(sync(&mut world, ana), Response::SyncEnvironmentComplete { synced_packages: Vec::new() });
}

#[test]
fn what_is_held_goes_on_once_nothing_needs_to_be_allowed() {
    let (mut world, ana) = world(74);
    world.ask(ana, json!({"action": "shutdown_kernel"}));
    world.verdict = TrustVerdict { needs_approval: true, ..drift(&[], &[]) };
    declare(&mut world, ana, &["evil"]);
    world.no_environment = Some(PluginError::new(ErrorCode::Denied, "not trusted"));
    world.ask(
        ana,
        json!({"action": "launch_kernel", "kernel_type": "", "env_source": "uv:inline", "notebook_path": null}),
    );
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::AwaitingTrust);
    world.acquired_for.clear();
    let started = world.kernels_started;
    declare(&mut world, ana, &["evil", "six"]);
    assert_eq!(
        (world.client(ana).runtime.kernel_state(), world.kernels_started),
        (KernelState::AwaitingTrust, started)
    );
    world.verdict = drift(&[], &[]);
    declare(&mut world, ana, &[]);
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Running(Activity::Idle));
    assert_eq!(world.acquired_for, "uv:inline", "as it was asked for");
}

#[test]
fn the_project_is_shown_and_watched_and_what_the_user_did_not_see_is_not_approved() {
    let mut world = World::open(73, Some("/p/a.ipynb"), super::world::seeded());
    let held = PluginError::new(ErrorCode::Denied, "not built").help("Approve it.");
    let detail = json!({"awaiting": "env_build", "error_reason": "conda_env_yml_missing"});
    world.no_environment = Some(held.detail(detail));
    let file = "/p/environment.yml";
    let context = |at: &str| json!({"state": "detected", "absolute_path": file, "observed_at": at});
    world.verdict.project_context = context("1").as_object().unwrap().clone();
    world.verdict.project_asks = "shown".to_owned();
    world.verdict.project_files = vec![file.into()];
    let ana = world.join("ana");
    world.pass(SOON);
    let waits = KernelState::AwaitingEnvBuild {
        reason: "conda_env_yml_missing".to_owned(),
        details: "not built\nApprove it.".to_owned(),
    };
    assert_eq!(world.client(ana).runtime.kernel_state(), waits);
    world.event(Event::ProjectTouched);
    world.pass(SOON);
    assert_eq!(world.watched, world.verdict.project_files);

    // When it was looked at is no news.
    let frames = world.client(ana).frame_types.len();
    world.verdict.project_context = context("2").as_object().unwrap().clone();
    let asked = world.asked.len();
    world.event(Event::ProjectTouched);
    world.pass(SOON);
    assert_eq!((world.asked.len(), world.client(ana).frame_types.len()), (asked + 1, frames));

    let approve = |file: &str| json!({"action": "approve_project_environment", "project_file_path": file});
    let refused = world.ask(ana, approve("/p/other.yml"));
    assert!(matches!(refused, Response::GuardRejected { .. }), "{refused:?}");
    world.no_verdict = Some(PluginError::new(ErrorCode::Conflict, "it changed"));
    let refused = world.ask(ana, approve(file));
    assert_eq!(refused, Response::GuardRejected { reason: "it changed".to_owned() });
    assert!(matches!(world.client(ana).runtime.kernel_state(), KernelState::AwaitingEnvBuild { .. }));
    assert_eq!(world.ask(ana, approve(file)), Response::Ok);
    let shown = |need: &EnvNeed| need.about_project && need.project_asks == "shown";
    assert_eq!(world.asked.iter().filter(|(need, approve)| shown(need) && *approve).count(), 2);
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Running(Activity::Idle));
}
