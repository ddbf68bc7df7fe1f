//! Kernels other than Python: which one it is, and that it needs no environment.

use std::time::Duration;

use runtimed_plugin_api::{KernelKind, PluginError, Release};
use runtimed_protocol::documents::Document;
use runtimed_protocol::documents::runtime_state::{Activity, KernelState};
use runtimed_protocol::frame::FrameType;
use runtimed_protocol::response::NotebookResponse as Response;
use serde_json::{Value as Json, json};

use super::world::World;
use crate::room::core::Content;

/// Longer than the room waits for more edits.
const SOON: Duration = Duration::from_secs(1);

fn bash() -> KernelKind {
    KernelKind { name: "bash".into(), language: "Bash".into(), display_name: "Bash".into() }
}

/// A new notebook for `kernel` where Bash is installed.
fn create(seed: u64, kernel: KernelKind) -> World {
    let content = Content::Seed { kernel, package_manager: "uv".into(), dependencies: Vec::new() };
    let mut world = World::open(seed, None, content);
    world.installed = vec![bash()];
    world
}

fn launch(kernel_type: &str) -> Json {
    json!({"action": "launch_kernel", "kernel_type": kernel_type, "env_source": "auto", "notebook_path": null})
}

#[test]
fn a_notebook_gets_the_kernel_it_names_and_no_environment() {
    let mut world = create(80, bash());
    let ana = world.join("ana");
    world.settle();
    let client = world.client(ana);
    assert_eq!(client.notebook.metadata_value("kernelspec").unwrap()["name"], "bash");
    assert_eq!(client.notebook.metadata_value("runt").unwrap().get("uv"), None);
    let info = client.runtime.kernel_info();
    assert_eq!(
        (info.name.as_str(), info.language.as_str(), info.env_source.as_str()),
        ("bash", "Bash", "bash")
    );
    assert_eq!(client.runtime.kernel_state(), KernelState::Running(Activity::Idle));
    assert_eq!((world.acquired, world.kernels_started), (0, 1));

    // Whoever asks for another one gets that, with an environment.
    assert_eq!(world.ask(ana, json!({"action": "shutdown_kernel"})), Response::KernelShuttingDown);
    let Response::KernelLaunched(facts) = world.ask(ana, launch("python3")) else { panic!("not launched") };
    assert_eq!((facts.kernel_type.as_str(), world.acquired), ("python", 1));
    // And the way back gives the environment away. Clients ask for `python` when they have not been told anything.
    world.ask(ana, json!({"action": "shutdown_kernel"}));
    let Response::KernelLaunched(facts) = world.ask(ana, launch("python")) else { panic!("not launched") };
    assert_eq!(facts.kernel_type, "python", "a client that asked so takes nothing else");
    assert_eq!(world.client(ana).runtime.kernel_info().name, "bash");
    assert_eq!(world.released, [Release::Delete]);
}

#[test]
fn what_is_installed_may_take_its_time_and_may_not_be_known() {
    let mut world = create(81, bash());
    world.hold_jobs = true;
    let ana = world.join("ana");
    world.settle();
    assert_eq!(world.client(ana).runtime.kernel_state(), KernelState::Resolving);
    let id = world.request(ana, launch("bash"));
    world.settle();
    assert_eq!(world.ask(ana, json!({"action": "shutdown_kernel"})), Response::KernelShuttingDown);
    assert_eq!(world.answer(ana, &id), Response::error("Kernel launch was cancelled by shutdown"));
    world.hold_jobs = false;
    world.settle();
    assert_eq!(world.kernels_started, 0);

    world.no_kernels = Some(PluginError::unavailable("No plugin that runs kernels is loaded").help("Look."));
    let text = "No plugin that runs kernels is loaded\nLook.";
    assert_eq!(world.ask(ana, launch("bash")), Response::error(text));
    let failed = KernelState::Error { reason: String::new(), details: text.into() };
    assert_eq!(world.client(ana).runtime.kernel_state(), failed);
}

#[test]
fn what_a_notebook_says_about_deno_is_passed_on_and_a_change_is_shown() {
    let deno = KernelKind { name: "deno".into(), language: "typescript".into(), display_name: "Deno".into() };
    let mut world = create(82, deno.clone());
    world.installed.push(deno);
    let ana = world.join("ana");
    world.pass(SOON);
    assert_eq!(world.options, json!({}));
    let changed = |world: &mut World| world.client(ana).runtime.to_json()["env"]["deno_changed"] == true;
    let say = |world: &mut World, section: Json| {
        let client = world.client(ana);
        client.notebook.set_metadata_value("runt", Some(&json!({ "deno": section }))).unwrap();
        client.notebook.commit();
        let frame = client.sync_frame(FrameType::NOTEBOOK_SYNC);
        world.send(ana, frame);
        world.pass(SOON);
    };
    say(&mut world, json!({"permissions": [], "flexible_npm_imports": true}));
    assert!(!changed(&mut world), "that is what holds anyway");
    say(&mut world, json!({"permissions": ["--allow-net"], "import_map": "map.json"}));
    assert!(changed(&mut world));
    let Response::SyncEnvironmentFailed { needs_restart, .. } =
        world.ask(ana, json!({"action": "sync_environment"}))
    else {
        panic!("a running Deno is told nothing")
    };
    assert!(needs_restart);

    world.ask(ana, json!({"action": "shutdown_kernel"}));
    let Response::KernelLaunched(facts) = world.ask(ana, launch("deno")) else { panic!("not launched") };
    let said =
        json!({"permissions": ["--allow-net"], "import_map": "map.json", "flexible_npm_imports": true});
    assert_eq!((&facts.launched_config["deno_config"], &world.options), (&said, &said));
    world.pass(SOON);
    assert!(!changed(&mut world), "it runs with what it says");
}
