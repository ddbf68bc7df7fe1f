//! Every carrier against a real library: the example `fixture_plugin`, which cargo builds with the tests.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "support/fixture.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use runtimed_plugin_api::adapter::Panicked;
use runtimed_plugin_api::{
    Attached, Bytes, Channel, Credit, Digest, EnvPlan, EnvRequest, Environment, ErrorCode, ExitReport, Join,
    JoinTarget, KernelEvents, LaunchCommand, LaunchSpec, LiveSet, PeerLink, Progress, ProgressSink,
    RoomReply, RoomRequest, RoomSession, Task,
};
use support::{Carrier, Fixture, fixture_library};
use tokio::sync::{mpsc, watch};

/// Runs each test through each carrier.
macro_rules! through_every_carrier {
    ($($test:ident,)*) => {
        mod in_process {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Carrier::InProcess).await;
            })*
        }

        mod child {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Carrier::Child).await;
            })*
        }
    };
}

through_every_carrier! {
    a_loaded_plugin_answers_like_a_local_object,
    every_part_of_an_error_crosses,
    dropping_a_call_cancels_its_body,
    a_panic_in_an_asynchronous_body_is_an_error_and_is_reported,
    the_log_bridge_follows_the_hosts_level,
    frames_go_there_and_back_and_panics_stay_there,
    credit_stops_each_side_and_lets_it_go_on,
    blobs_of_every_size_arrive_whole,
    a_kernel_is_a_pipe_of_messages,
    settings_and_the_end_of_the_host_are_followed,
    capabilities_of_the_host_can_be_used,
    a_process_runs_in_the_host_and_its_lines_come_before_its_end,
}

fn environment() -> Environment {
    Environment {
        kind: "fixture".to_owned(),
        prefix: "/envs/a".into(),
        python: "/envs/a/bin/python".into(),
        python_version: None,
        packages: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

async fn a_loaded_plugin_answers_like_a_local_object(carrier: Carrier) {
    let fixture = Fixture::load(carrier).await;
    fixture.plugin.start().await.unwrap();
    let provider = fixture.provider();
    assert_eq!((provider.info().kind.as_str(), provider.info().label.as_str()), ("fixture", "Fixture"));
    assert!(fixture.plugin.blob_store().is_none());

    let folder = tempfile::tempdir().unwrap();
    assert_eq!(provider.detect(folder.path()).await.unwrap(), None);
    std::fs::write(folder.path().join("fixture.toml"), "").unwrap();
    assert_eq!(provider.detect(folder.path()).await.unwrap().unwrap().kind, "fixture_toml");

    struct Seen(mpsc::UnboundedSender<Progress>);
    impl ProgressSink for Seen {
        fn progress(&self, progress: Progress) {
            let _ = self.0.send(progress);
        }
    }
    let (seen, mut progress) = mpsc::unbounded_channel();
    let request = EnvRequest { packages: vec!["numpy".to_owned()], ..EnvRequest::default() };
    let plan: EnvPlan = provider.plan(request).await.unwrap();
    let env = provider.create(plan, "/envs/b".as_ref(), Task::new(Arc::new(Seen(seen)))).await.unwrap();
    assert_eq!(env.packages, ["numpy"]);
    let step = progress.recv().await.unwrap();
    assert_eq!(
        (step.phase.as_str(), step.fields["packages"][0].as_str()),
        ("installing_packages", Some("numpy"))
    );
    fixture.plugin.stop(Duration::from_secs(1)).await.unwrap();
}

async fn every_part_of_an_error_crosses(carrier: Carrier) {
    let error = Fixture::load(carrier).await.provider().identities(&EnvRequest::default()).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Unavailable, "no network"));
    assert_eq!((error.help.as_deref(), error.retryable), (Some("plug it in"), true));
    assert_eq!(error.detail["failed_package"], "numpyy");
}

async fn dropping_a_call_cancels_its_body(carrier: Carrier) {
    let mut fixture = Fixture::load(carrier).await;
    let provider = fixture.provider();
    let call = tokio::spawn(async move { provider.optimize(&environment()).await });
    fixture.wait_for_log("waiting").await;
    call.abort();
    fixture.wait_for_log("cancelled").await;
}

async fn a_panic_in_an_asynchronous_body_is_an_error_and_is_reported(carrier: Carrier) {
    // A copy of its own: panic hook and log bridge are one per loaded library.
    let mut fixture = Fixture::load_copy(carrier, &fixture_library()).await;
    let error = fixture.provider().verify(&environment()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Panicked);
    assert_eq!(error.message, "the plugin panicked: verify panics, as the test asked");
    assert!(error.detail["location"].as_str().unwrap().contains("fixture_plugin.rs"));
    let Panicked { message, location } = fixture.panics.recv().await.unwrap();
    assert_eq!(message, "verify panics, as the test asked");
    assert!(location.contains("fixture_plugin.rs"));
    assert_eq!(fixture.wait_for_log("verify panics, as the test asked").await.level, 1);
    // Poisoned is not dead: the daemon decides.
    fixture.provider().launch(&environment()).await.unwrap();
}

/// The client's end of a connection.
struct Link {
    frames: mpsc::UnboundedSender<(u8, Bytes)>,
    /// What it says is left.
    credit: AtomicI64,
    granted: watch::Sender<u64>,
    closed: watch::Sender<bool>,
}

impl Link {
    fn new(credit: Credit) -> (Arc<Self>, mpsc::UnboundedReceiver<(u8, Bytes)>) {
        let (frames, received) = mpsc::unbounded_channel();
        let (granted, closed) = (watch::Sender::default(), watch::Sender::default());
        (Arc::new(Self { frames, credit: AtomicI64::new(credit), granted, closed }), received)
    }
}

impl PeerLink for Link {
    fn send(&self, frame_type: u8, payload: Bytes) -> Credit {
        let _ = self.frames.send((frame_type, payload));
        self.credit.load(Ordering::SeqCst)
    }
    fn grant(&self, bytes: u64) {
        self.granted.send_modify(|granted| *granted += bytes);
    }
    fn close(&self) {
        self.closed.send_replace(true);
    }
}

async fn attach(fixture: &Fixture, link: &Arc<Link>) -> Box<dyn RoomSession> {
    let join = Join {
        target: JoinTarget::Open { path: "/a.ipynb".into(), working_dir: None },
        principal: "local:ana".to_owned(),
        operator: "desktop:1".to_owned(),
    };
    let Attached { info, session } =
        fixture.plugin.rooms().unwrap().attach(join, link.clone()).await.unwrap();
    assert_eq!(info.actor_label, "desktop:1");
    session
}

async fn frames_go_there_and_back_and_panics_stay_there(carrier: Carrier) {
    let mut fixture = Fixture::load(carrier).await;
    let (link, mut frames) = Link::new(17);
    let session = attach(&fixture, &link).await;
    let payload = Bytes::from(vec![1; 65536]);
    let start = payload.as_ptr();
    let credit = session.receive(3, payload.clone());
    let (frame_type, echoed) = frames.recv().await.unwrap();
    assert_eq!((frame_type, &echoed), (3, &payload));
    if carrier == Carrier::InProcess {
        assert_eq!((credit, echoed.as_ptr()), (17, start), "moved, not copied");
        assert_eq!(session.receive(0xff, Bytes::new()), 0, "a panic grants nothing");
    } else {
        session.receive(0xff, Bytes::new());
    }
    assert!(fixture.panics.recv().await.unwrap().message.contains("receive panics"));
    session.detach().await;
    drop(session);
    assert_eq!(fixture.panics.recv().await.unwrap().message, "a destructor that panics");
}

/// The next frame of a type.
async fn next(frames: &mut mpsc::UnboundedReceiver<(u8, Bytes)>, wanted: u8) -> Bytes {
    loop {
        let (frame_type, payload) = frames.recv().await.unwrap();
        if frame_type == wanted {
            return payload;
        }
    }
}

async fn credit_stops_each_side_and_lets_it_go_on(carrier: Carrier) {
    let fixture = Fixture::load_echo(carrier).await;
    let (link, mut frames) = Link::new(1);
    let session = attach(&fixture, &link).await;
    assert_eq!(frames.recv().await.unwrap(), (1, Bytes::from_static(b"welcome")));

    // The room takes 100,000 bytes; whoever carries them may take a little more ahead of it.
    let frame = Bytes::from(vec![7; 30_000]);
    let mut sent = 0;
    while session.receive(5, frame.clone()) > 0 {
        sent += 1;
        assert!(sent < 1000, "the credit never ends");
    }
    for _ in 0..=sent {
        assert_eq!(next(&mut frames, 5).await, frame);
    }
    // The room says so with a grant, which arrives as at least what it takes to go on.
    session.receive(9, Bytes::from("10000000"));
    link.granted.subscribe().wait_for(|granted| *granted > 0).await.unwrap();
    assert!(session.receive(5, frame.clone()) > 0);
    next(&mut frames, 5).await;

    // A link that takes nothing stops the room, and hears from it once it takes frames again.
    link.credit.store(-1, Ordering::SeqCst);
    session.receive(10, Bytes::new());
    session.receive(5, Bytes::from_static(b"after"));
    assert_eq!(next(&mut frames, 5).await, "after", "the room stops");
    session.writable();
    assert_eq!(frames.recv().await.unwrap(), (3, Bytes::from_static(b"writable")));
    session.detach().await;
    link.closed.subscribe().wait_for(|closed| *closed).await.unwrap();
    assert_eq!(fixture.plugin.rooms().unwrap().ask(RoomRequest::List).await.unwrap(), RoomReply::Closed);
}

async fn blobs_of_every_size_arrive_whole(carrier: Carrier) {
    let blobs = Fixture::load_echo(carrier).await;
    let blobs = blobs.plugin.blob_store().unwrap();
    for size in [0, 1, 100_000, 20_000_000] {
        let content: Bytes = (0..size).map(|at: u32| at as u8).collect();
        let digest = blobs.put(content.clone(), "image/png").await.unwrap();
        let blob = blobs.get(digest).await.unwrap().unwrap();
        assert!(blob.bytes == content && blob.media_type == "image/png", "{size} bytes");
    }
    let unknown = Digest([0; 32]);
    assert_eq!((blobs.get(unknown).await.unwrap(), blobs.locate(unknown).await.unwrap()), (None, None));
    let swept = blobs.sweep(LiveSet::default()).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (4, 0));
    blobs.flush().await.unwrap();
}

async fn a_kernel_is_a_pipe_of_messages(carrier: Carrier) {
    struct Events(mpsc::UnboundedSender<(u64, Channel, Bytes)>, watch::Sender<Option<ExitReport>>);
    impl KernelEvents for Events {
        fn message(&self, sequence: u64, channel: Channel, message: Bytes) {
            let _ = self.0.send((sequence, channel, message));
        }
        fn exited(&self, report: ExitReport) {
            self.1.send_replace(Some(report));
        }
    }
    let mut fixture = Fixture::load_echo(carrier).await;
    let backend = fixture.plugin.kernel_backends().remove(0);
    assert_eq!(backend.kinds().await.unwrap()[0].name, "echo");
    let (messages, mut received) = mpsc::unbounded_channel();
    let events = Arc::new(Events(messages, watch::Sender::default()));
    let kernel = backend.launch(launch(), events.clone()).await.unwrap();
    assert_eq!((kernel.info().kernel.as_str(), &kernel.info().reply["status"]), ("k1", &"ok".into()));
    for sequence in 1..=1000 {
        kernel.send(Channel::Shell, Bytes::from(sequence.to_string())).unwrap();
    }
    for sequence in 1..=1000 {
        let expected = (sequence, Channel::Shell, Bytes::from(sequence.to_string()));
        assert_eq!(received.recv().await.unwrap(), expected);
    }
    kernel.acknowledge(1000);
    fixture.wait_for_log("acknowledged 1000").await;
    assert_eq!(kernel.interrupt().await.unwrap_err().code, ErrorCode::Unsupported);
    assert_eq!(backend.running().await.unwrap(), []);
    assert_eq!(
        backend.attach("k2", 7, events.clone()).await.err().unwrap().message,
        "kernel k2 is not running"
    );
    if let Some(child) = &fixture.child {
        assert_eq!(*child.in_flight().borrow(), 1, "a live kernel keeps its process");
    }
    let report = kernel.shutdown(Duration::from_secs(1)).await.unwrap();
    assert!(report.requested);
    events.1.subscribe().wait_for(|told| told.as_ref() == Some(&report)).await.unwrap();
    drop(kernel);
    fixture.wait_for_log("the kernel was dropped").await;
    if let Some(child) = &fixture.child {
        child.in_flight().wait_for(|calls| *calls == 0).await.unwrap();
    }
}

fn launch() -> LaunchSpec {
    LaunchSpec {
        kernel: "k1".to_owned(),
        kind: "echo".to_owned(),
        room: "r1".to_owned(),
        notebook_path: None,
        command: LaunchCommand::default(),
        cwd: "/".into(),
        options: serde_json::Map::new(),
    }
}

async fn settings_and_the_end_of_the_host_are_followed(carrier: Carrier) {
    let mut fixture = Fixture::load(carrier).await;
    assert_eq!(fixture.obey(&["settings"]).await.unwrap(), "null");
    let newer = tokio::spawn({
        let provider = fixture.provider();
        let packages = vec!["new-settings".to_owned()];
        async move { provider.plan(EnvRequest { packages, ..EnvRequest::default() }).await.unwrap().key }
    });
    fixture.wait_for_log("waiting").await;
    fixture.host.set_setting("theme", "dark");
    assert_eq!(newer.await.unwrap(), r#"{"theme":"dark"}"#);
    assert_eq!(fixture.obey(&["settings"]).await.unwrap(), r#"{"theme":"dark"}"#);
    let stopping = tokio::spawn({
        let provider = fixture.provider();
        let packages = vec!["stopping".to_owned()];
        async move { provider.plan(EnvRequest { packages, ..EnvRequest::default() }).await.unwrap().key }
    });
    fixture.wait_for_log("waiting").await;
    fixture.host.stop();
    assert_eq!(stopping.await.unwrap(), "stopping");
}

async fn capabilities_of_the_host_can_be_used(carrier: Carrier) {
    let fixture = Fixture::load(carrier).await;
    assert_eq!(fixture.obey(&["capabilities"]).await.unwrap_err().message, "no blob store");
    let echo = Fixture::load_echo(Carrier::InProcess).await;
    fixture.host.provide(echo.plugin.clone());
    assert_eq!(
        fixture.obey(&["capabilities"]).await.unwrap(),
        "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73 7 1 false false"
    );
}

async fn a_process_runs_in_the_host_and_its_lines_come_before_its_end(carrier: Carrier) {
    let fixture = Fixture::load(carrier).await;
    for _ in 0..20 {
        let answer = fixture.obey(&["run", "/bin/sh", "-c", "seq 1000; exit 3"]).await.unwrap();
        assert_eq!(answer, "Some(3) 1000");
    }
    let missing = fixture.obey(&["run", "/no/such/program"]).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::NotFound);
}

async fn the_log_bridge_follows_the_hosts_level(carrier: Carrier) {
    let mut fixture = Fixture::load_copy(carrier, &fixture_library()).await;
    let provider = fixture.provider();
    provider.launch(&environment()).await.unwrap();
    let fact = fixture.wait_for_log("a fact").await;
    assert_eq!((fact.level, fact.fields.as_str()), (3, r#"{"cell":"c1","step":2}"#));
    fixture.host.set_level(5);
    provider.launch(&environment()).await.unwrap();
    let detail = fixture.logs.recv().await.unwrap();
    assert_eq!((detail.level, detail.message.as_str()), (4, "a detail"), "lowered: details arrive");
    fixture.wait_for_log("a fact").await;
    fixture.host.set_level(2);
    provider.launch(&environment()).await.unwrap();
    fixture.host.set_level(3);
    provider.launch(&environment()).await.unwrap();
    assert_eq!(fixture.logs.recv().await.unwrap().message, "a fact");
    assert!(fixture.logs.try_recv().is_err(), "raised: nothing in between");
}
