//! The plugin in the conformance kit, and what goes wrong in ways the kit knows nothing of. Real processes,
//! real environments.

use std::path::Path;
use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, EnvRequest, Environment, ErrorCode, PluginError, Task};
use runtimed_plugin_testkit::{Check, Subject, TestHost};
use serde_json::json;

use runtimed_venv::{VenvPlugin, VenvProvider};

#[test]
fn it_does_what_the_daemon_relies_on() {
    Check::new(Subject::of::<VenvPlugin>(env!("CARGO_MANIFEST_DIR"))).run().assert_passed();
}

async fn create(host: TestHost, base: &Path, python: &str) -> Result<Environment, PluginError> {
    let provider = VenvProvider::new(Arc::new(host));
    let request = EnvRequest { python: Some(python.to_owned()), ..EnvRequest::default() };
    let plan = provider.plan(request).await?;
    provider.create(plan, &base.join("env"), Task::silent()).await
}

#[tokio::test]
async fn a_python_that_is_not_here_is_named_together_with_what_is() {
    let base = tempfile::tempdir().unwrap();
    let error = create(TestHost::new(base.path()), base.path(), ">=3.99").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    let said = "The notebook asks for Python >=3.99; found were 3.";
    assert!(error.message.starts_with(said), "{error}");
    assert!(error.help.unwrap().contains("`venv.python`"));
    assert!(!base.path().join("env").exists(), "something was created");

    let settings = json!({"venv": {"python": "/nowhere/python"}});
    let host = TestHost::new(base.path()).with_settings(settings);
    let error = create(host, base.path(), "3").await.unwrap_err();
    let said = "There is no `/nowhere/python` to make environments with. Nothing was created.";
    assert_eq!(error.message, said);
    assert!(error.help.unwrap().contains("`venv.python`"));
}

#[tokio::test]
async fn an_index_out_of_reach_is_worth_another_try() {
    let base = tempfile::tempdir().unwrap();
    // Port 9 discards; nobody listens there.
    let host = TestHost::new(base.path())
        .with_env("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        .with_env("PIP_EXTRA_INDEX_URL", "")
        .with_env("PIP_FIND_LINKS", "")
        .with_env("PIP_CONFIG_FILE", "/dev/null")
        .with_env("PIP_RETRIES", "1");
    let error = create(host, base.path(), "3").await.unwrap_err();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true), "{error}");
    assert_eq!(error.detail["network"], true);
    assert!(error.message.contains("could not resolve or reach the package index"), "{error}");
}
