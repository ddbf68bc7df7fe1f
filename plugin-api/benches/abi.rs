//! What crossing the boundary costs, against a library that is really loaded.
//! Budget: a sync frame there and back below 1 µs a crossing, whatever its size.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

#[path = "../tests/support/fixture.rs"]
mod support;

use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use runtimed_plugin_api::{Bytes, Credit, EnvRequest, Join, JoinTarget, PeerLink};
use support::{Carrier, Fixture};

/// Takes frames and drops them.
struct Sink;

impl PeerLink for Sink {
    fn send(&self, _: u8, payload: Bytes) -> Credit {
        black_box(payload).len() as Credit
    }
    fn grant(&self, _: u64) {}
    fn close(&self) {}
}

fn abi(criterion: &mut Criterion) {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let build = ["build", "-p", env!("CARGO_PKG_NAME"), "--example", "fixture_plugin", "--profile", profile];
    assert!(Command::new(env!("CARGO")).args(build).status().unwrap().success());

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let fixture = runtime.block_on(Fixture::load(Carrier::InProcess));
    let join = Join {
        target: JoinTarget::Open { path: "/a.ipynb".into(), working_dir: None },
        principal: "local:ana".to_owned(),
        operator: "desktop:1".to_owned(),
    };
    let rooms = fixture.plugin.rooms().unwrap();
    let session = runtime.block_on(rooms.attach(join, Arc::new(Sink))).unwrap().session;
    for (name, length) in [("100 B", 100), ("64 KiB", 65536)] {
        let frame = Bytes::from(vec![0; length]);
        criterion.bench_function(&format!("frame of {name}, there and back"), |bench| {
            bench.iter(|| session.receive(0, black_box(frame.clone())));
        });
    }
    let provider = fixture.provider();
    criterion.bench_function("asynchronous call with a small document", |bench| {
        bench.to_async(&runtime).iter(|| provider.plan(EnvRequest::default()));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = abi
}
criterion_main!(benches);
