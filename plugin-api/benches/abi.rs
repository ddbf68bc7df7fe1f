//! What crossing the boundary costs, against a library that is really loaded, in this process and in a child.
//! Budget: a synchronous call or frame below 1 µs a crossing whatever its size, a call into a child below 60 µs, a
//! plugin below 1.2 MiB of memory.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

#[path = "../tests/support/fixture.rs"]
mod support;

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use runtimed_plugin_api::{
    Bytes, Credit, EnvProvider, EnvRequest, Join, JoinTarget, PeerLink, Plugin, RoomSession,
};
use support::{Carrier, Fixture};
use tokio::runtime::Runtime;

/// Takes frames and drops them.
struct Sink;

impl PeerLink for Sink {
    fn send(&self, _: u8, payload: Bytes) -> Credit {
        black_box(payload).len() as Credit
    }
    fn grant(&self, _: u64) {}
    fn close(&self) {}
}

async fn session(plugin: &Arc<dyn Plugin>) -> Box<dyn RoomSession> {
    let join = Join {
        target: JoinTarget::Open { path: "/a.ipynb".into(), working_dir: None },
        principal: "local:ana".to_owned(),
        operator: "desktop:1".to_owned(),
    };
    plugin.rooms().unwrap().attach(join, Arc::new(Sink)).await.unwrap().session
}

/// One call after the other from a task of the runtime, as the daemon makes them.
async fn calls(provider: Arc<dyn EnvProvider>, count: u64) -> Duration {
    let since = Instant::now();
    for _ in 0..count {
        black_box(provider.plan(EnvRequest::default()).await.unwrap());
    }
    since.elapsed()
}

fn abi(criterion: &mut Criterion) {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let build = ["build", "-p", env!("CARGO_PKG_NAME"), "--examples", "--profile", profile];
    assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());

    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let here = runtime.block_on(Fixture::load(Carrier::InProcess));
    let here_session = runtime.block_on(session(&here.plugin));
    criterion.bench_function("synchronous call", |bench| bench.iter(|| here_session.writable()));
    for (name, length) in [("100 B", 100), ("64 KiB", 65536)] {
        let frame = Bytes::from(vec![0; length]);
        criterion.bench_function(&format!("frame of {name}, there and back"), |bench| {
            bench.iter(|| here_session.receive(0, black_box(frame.clone())));
        });
    }
    let child = runtime.block_on(Fixture::load(Carrier::Child));
    for (name, fixture) in [("in process", &here), ("into a child", &child)] {
        criterion.bench_function(&format!("asynchronous call with a small document, {name}"), |bench| {
            bench.iter_custom(|count| {
                let provider = fixture.provider();
                runtime.block_on(async move { tokio::spawn(calls(provider, count)).await.unwrap() })
            });
        });
    }
    if cfg!(target_os = "linux") {
        memory(&runtime);
    }
}

/// Prints what a further plugin adds: distinct copies of the template's library, each made, started and asked.
fn memory(runtime: &Runtime) {
    const COPIES: u64 = 8;
    let library = template();
    let load = || {
        let fixture = runtime.block_on(Fixture::load_copy(Carrier::InProcess, &library));
        runtime.block_on(async {
            fixture.plugin.start().await.unwrap();
            // Whether it can plan that does not matter.
            let _ = fixture.provider().plan(EnvRequest::default()).await;
        });
        fixture
    };
    // The first brings what all of them share.
    let mut loaded = vec![load()];
    let own = |field| memory_of("self", field);
    let before = (own("Rss:"), own("Anonymous:"));
    loaded.extend((0..COPIES).map(|_| load()));
    let (all, anonymous) = ((own("Rss:") - before.0) / COPIES, (own("Anonymous:") - before.1) / COPIES);
    println!("a plugin adds {all} KiB in process, {anonymous} of them not pages of its file");
    let child = runtime.block_on(Fixture::load(Carrier::Child));
    runtime.block_on(child.plugin.start()).unwrap();
    let pid = child.child.as_ref().unwrap().pid();
    println!("a plugin's process has {} KiB", memory_of(&pid.to_string(), "Rss:"));
}

/// The library that a third party gets from the template, in release.
fn template() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("plugin-template");
    let target = folder.with_file_name("target").join("template");
    let build = ["build", "--release", "--locked", "--target-dir"];
    let status = Command::new(env!("CARGO")).args(build).arg(&target).current_dir(&folder).status();
    assert!(status.unwrap().success());
    target.join("release/libvenv_environments.so")
}

/// A sum over a process's mappings, in KiB.
fn memory_of(process: &str, field: &str) -> u64 {
    let facts = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = facts.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = abi
}
criterion_main!(benches);
