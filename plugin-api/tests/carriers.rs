//! Every carrier against a real library: the example `fixture_plugin`, which cargo builds with the tests.
//! The child carrier is there with the feature `host`.
#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

#[path = "support/fixture.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtimed_plugin_api::adapter::Panicked;
use runtimed_plugin_api::{
    Attached, Bytes, Credit, EnvPlan, EnvRequest, Environment, ErrorCode, Join, JoinTarget, PeerLink,
    Progress, ProgressSink, Task,
};
use support::{Carrier, Fixture};
use tokio::sync::mpsc;

/// Runs each test through each carrier.
macro_rules! through_every_carrier {
    ($($test:ident,)*) => {
        mod in_process {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Carrier::InProcess).await;
            })*
        }

        #[cfg(feature = "host")]
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
    let mut fixture = Fixture::load_copy(carrier).await;
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

#[tokio::test]
async fn frames_go_there_and_back_and_panics_stay_there() {
    let carrier = Carrier::InProcess;
    struct Link(Mutex<Vec<(u8, Bytes)>>);
    impl PeerLink for Link {
        fn send(&self, frame_type: u8, payload: Bytes) -> Credit {
            self.0.lock().unwrap().push((frame_type, payload));
            17
        }
        fn grant(&self, _: u64) {}
        fn close(&self) {}
    }
    let mut fixture = Fixture::load(carrier).await;
    let link = Arc::new(Link(Mutex::default()));
    let join = Join {
        target: JoinTarget::Open { path: "/a.ipynb".into(), working_dir: None },
        principal: "local:ana".to_owned(),
        operator: "desktop:1".to_owned(),
    };
    let rooms = fixture.plugin.rooms().unwrap();
    let Attached { info, session } = rooms.attach(join, link.clone()).await.unwrap();
    assert_eq!(info.actor_label, "desktop:1");
    let payload = Bytes::from(vec![1; 65536]);
    let start = payload.as_ptr();
    assert_eq!(session.receive(3, payload), 17);
    {
        let sent = link.0.lock().unwrap();
        assert_eq!((sent[0].0, sent[0].1.len(), sent[0].1.as_ptr()), (3, 65536, start), "moved, not copied");
    }
    assert_eq!(session.receive(0xff, Bytes::new()), 0, "a panic grants nothing");
    assert!(fixture.panics.recv().await.unwrap().message.contains("receive panics"));
    session.detach().await;
    drop(session);
    assert_eq!(fixture.panics.recv().await.unwrap().message, "a destructor that panics");
}

async fn the_log_bridge_follows_the_hosts_level(carrier: Carrier) {
    let mut fixture = Fixture::load_copy(carrier).await;
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
