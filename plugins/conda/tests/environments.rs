//! Real environments, from a channel on disk.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Recorder, printed, python, request};
use runtimed_plugin_api::{EnvProvider, EnvRequest, ErrorCode, Health, Task};

/// How long a process that was killed may take to be gone, on a machine that is very busy.
const ENDING: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_environment_from_creation_to_its_end() {
    let Some(bench) = Bench::new() else { return };
    let provider = bench.provider();
    let recorder = Arc::new(Recorder::default());
    let env = bench.create("a", request(&["six=1.16"]), Task::new(recorder.clone())).await.unwrap();
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    let phases = recorder.phases();
    assert_eq!((phases.first().unwrap().as_str(), phases.last().unwrap().as_str()), ("starting", "ready"));
    for phase in
        ["fetching_repodata", "repodata_complete", "solving", "solve_complete", "installing", "link_progress"]
    {
        assert!(phases.iter().any(|one| one == phase), "{phase} is missing in {phases:?}");
    }
    let linked = recorder.last("link_progress");
    assert_eq!(linked["completed"], linked["total"]);
    assert!(linked["total"].as_u64().unwrap() > 30, "{linked}");

    // A real interpreter in a real prefix, with what packages wrote into it.
    let launch = provider.launch(&env).await.unwrap();
    let prefix = env.prefix.display().to_string();
    assert_eq!(printed(&python(&launch, "import sys; print(sys.prefix)")), prefix);
    assert_eq!(launch.env["CONDA_PREFIX"], prefix);
    assert_eq!(launch.path, [env.prefix.join("bin")]);
    assert_eq!(printed(&python(&launch, "import six, pyarrow; print(six.__version__)")), "1.16.0");
    let of_file = "import sysconfig; print(sysconfig.get_config_var('prefix'))";
    assert_eq!(printed(&python(&launch, of_file)), prefix);
    let script = fs::read_to_string(env.prefix.join("bin/jupyter")).unwrap();
    assert!(script.starts_with(&format!("#!{prefix}/bin/python")), "{script}");
    assert_eq!(
        env.python_version.as_deref(),
        Some(&*printed(&python(&launch, "import platform; print(platform.python_version())")))
    );

    // Packages are added, and nothing else changes.
    provider.install(&env, &["cowsay".to_owned()], Task::silent()).await.unwrap();
    provider.install(&env, &["attrs".to_owned()], Task::silent()).await.unwrap();
    let all = "import six, cowsay, attrs, pyarrow; print(six.__version__)";
    assert_eq!(printed(&python(&launch, all)), "1.16.0");
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);

    // What breaks it is seen.
    let six = fs::read_dir(env.prefix.join("conda-meta")).unwrap().map(|entry| entry.unwrap().path());
    let six =
        six.into_iter().find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("six-")).unwrap();
    fs::remove_file(six).unwrap();
    let Health::Broken { reason } = provider.verify(&env).await.unwrap() else { panic!("a package is gone") };
    assert!(reason.contains("`six-1.16.0-0`"), "{reason}");
    fs::remove_file(&env.python).unwrap();
    let Health::Broken { reason } = provider.verify(&env).await.unwrap() else { panic!("python is gone") };
    assert!(reason.contains("interpreter"), "{reason}");
}

#[tokio::test]
async fn a_copy_is_an_environment_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let provider = bench.provider();
    let template = bench.create("a", request(&["six"]), Task::silent()).await.unwrap();
    provider.optimize(&template).await.unwrap();
    let copy = provider.clone_env(&template, &bench.path("b"), Task::silent()).await.unwrap();
    fs::remove_dir_all(&template.prefix).unwrap();
    assert_eq!(provider.verify(&copy).await.unwrap(), Health::Usable);
    let launch = provider.launch(&copy).await.unwrap();
    let prefix = copy.prefix.display().to_string();
    assert_eq!(printed(&python(&launch, "import ipykernel, sys; print(sys.prefix)")), prefix);
    let script = fs::read_to_string(copy.prefix.join("bin/jupyter")).unwrap();
    assert!(script.starts_with(&format!("#!{prefix}/bin/python")), "{script}");
    let compiled = "import importlib.util as u; s = u.find_spec('jedi.plugins.flask'); print(s.cached)";
    assert!(fs::exists(printed(&python(&launch, compiled))).unwrap(), "compiled modules are shared");
    provider.install(&copy, &["cowsay".to_owned()], Task::silent()).await.unwrap();
    assert_eq!(printed(&python(&launch, "import six, cowsay; print(1)")), "1");
}

#[tokio::test]
async fn what_cannot_be_had_is_explained() {
    let Some(bench) = Bench::new() else { return };
    let failed = async |request: EnvRequest| {
        let error = bench.create("a", request, Task::silent()).await.unwrap_err();
        assert!(!bench.path("a").join("bin").exists());
        error
    };
    let error = failed(request(&["no-such-package"])).await;
    assert_eq!((error.code, error.retryable), (ErrorCode::Invalid, false));
    assert_eq!(error.message, "Failed to solve dependencies: no channel has a package `no-such-package`");
    assert_eq!(error.detail["failed_package"], "no-such-package");
    assert_eq!(error.detail["error_kind"], "invalid_package");

    let error = failed(request(&["six>=99"])).await;
    let said = "Failed to solve dependencies: no `six` is what `six >=99` asks for; there are 1.17.0, 1.16.0";
    assert_eq!(error.message, said);

    let error = failed(EnvRequest { python: Some("3.99".to_owned()), ..request(&[]) }).await;
    assert!(error.message.contains("no `python` is what `python 3.99.*` asks for; there are 3."), "{error}");
    assert!(error.help.unwrap().contains("`conda.python`"));

    // Each of them is there, but not together.
    let error = failed(request(&["six=1.16", "six>=1.17"])).await;
    assert_eq!(error.detail["failed_package"], "six", "{error}");
    assert!(error.message.starts_with("Failed to solve dependencies: "), "{error}");

    let channels = vec![format!("file://{}", bench.path("nowhere").display())];
    let error = failed(EnvRequest { channels, ..request(&[]) }).await;
    assert_eq!((error.code, error.detail["network"].as_bool()), (ErrorCode::Invalid, Some(false)), "{error}");
    assert!(
        error.message.starts_with("Failed to fetch package metadata: ") && error.message.contains("nowhere")
    );
}

#[tokio::test]
async fn a_channel_out_of_reach_is_worth_another_try() {
    // Port 9 discards; nobody listens there.
    let Some(bench) = Bench::with(|host| host.with_env("ALL_PROXY", "http://127.0.0.1:9")) else { return };
    let channels = vec!["https://conda.invalid/channel".to_owned()];
    let error = bench.create("a", EnvRequest { channels, ..request(&[]) }, Task::silent()).await.unwrap_err();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true), "{error}");
    assert!(error.message.starts_with("Failed to fetch package metadata"), "{error}");
    assert_eq!(error.detail["network"], true);
    assert!(error.help.unwrap().contains("`conda.channels`"));
}

#[tokio::test]
async fn cancelling_leaves_nothing_running() {
    let Some(bench) = Bench::new() else { return };
    let recorder = Arc::new(Recorder::default());
    let provider = bench.provider();
    let plan = provider.plan(request(&[])).await.unwrap();
    {
        let prefix = bench.path("a");
        let mut creation = provider.create(plan, &prefix, Task::new(recorder.clone()));
        tokio::select! {
            done = &mut creation => panic!("it cannot have finished: {done:?}"),
            () = bench.host.wait_for_process(1) => {}
        }
    }
    assert_eq!(bench.host.all_ended(ENDING).await, []);
}
