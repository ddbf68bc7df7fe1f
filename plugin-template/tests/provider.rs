//! The plugin in the conformance kit, with real environments and without a daemon.

use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, EnvRequest, ErrorCode, Plugin};
use runtimed_plugin_testkit::{Check, Subject, TestHost};

use venv_environments::Provider;

#[test]
fn it_does_what_the_daemon_relies_on() {
    Check::new(Subject::of::<Provider>(env!("CARGO_MANIFEST_DIR"))).run().assert_passed();
}

/// What only this provider does, with a host that runs real processes.
#[tokio::test]
async fn another_python_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let host = Arc::new(TestHost::new(folder.path()));
    let provider = <Provider as Plugin>::create(host).unwrap();
    let request = EnvRequest { python: Some("3.13".to_owned()), ..EnvRequest::default() };
    let error = provider.plan(request).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
}
