//! Real environments, built by a real uv.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::{Bench, Recorder, Server, request};
use runtimed_plugin_api::{EnvPlan, EnvProvider, EnvRequest, ErrorCode, Health, Task};
use serde_json::json;

/// How long a process that was killed may take to be gone, on a machine that is very busy.
const ENDING: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_environment_from_creation_to_its_end() {
    let Some(bench) = Bench::new() else { return };
    let provider = bench.provider();
    let recorder = Arc::new(Recorder::default());
    let env = bench.create(&provider, "a", &["ipykernel"], Task::new(recorder.clone())).await.unwrap();
    assert_eq!(env.prefix, bench.path("a"));
    assert!(env.python_version.as_deref().unwrap().starts_with("3."), "{env:?}");
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    let phases = recorder.phases();
    assert_eq!(phases.first().unwrap(), "starting");
    assert_eq!(phases.last().unwrap(), "ready");
    for phase in ["creating_venv", "installing_packages", "solve_complete", "install_complete"] {
        assert!(phases.iter().any(|one| one == phase), "{phase} is missing in {phases:?}");
    }

    // Its launch command starts a Python that has the kernel.
    let launch = provider.launch(&env).await.unwrap();
    assert_eq!(launch.env["VIRTUAL_ENV"], env.prefix.display().to_string());
    assert_eq!(launch.path, [env.prefix.join("bin")]);
    let python = |code: &str| Command::new(&launch.argv[0]).args(["-c", code]).output().unwrap();
    assert!(python("import ipykernel").status.success());

    // Packages can be added, and byte code follows.
    assert!(!python("import six").status.success());
    provider.install(&env, &["six".to_owned()], Task::silent()).await.unwrap();
    assert!(python("import six").status.success());
    let unused =
        "import importlib.util as u, pathlib; s = u.find_spec('jedi.plugins.flask'); print(s.cached)";
    let cached = String::from_utf8(python(unused).stdout).unwrap();
    assert!(!fs::exists(cached.trim()).unwrap(), "compiled before it was asked for: {cached}");
    provider.optimize(&env).await.unwrap();
    assert!(fs::exists(cached.trim()).unwrap(), "not compiled: {cached}");

    // What breaks it is seen.
    let kernel = String::from_utf8(python("import ipykernel; print(ipykernel.__file__)").stdout).unwrap();
    fs::remove_file(kernel.trim()).unwrap();
    assert!(
        matches!(provider.verify(&env).await.unwrap(), Health::Broken { reason } if reason.contains("ipykernel"))
    );
    fs::remove_file(&env.python).unwrap();
    assert!(
        matches!(provider.verify(&env).await.unwrap(), Health::Broken { reason } if reason.contains("interpreter"))
    );
}

#[tokio::test]
async fn a_copy_is_an_environment_of_its_own() {
    let Some(bench) = Bench::new() else { return };
    let provider = bench.provider();
    let template = bench.create(&provider, "template", &["ipykernel", "uv"], Task::silent()).await.unwrap();
    provider.optimize(&template).await.unwrap();
    let copy = provider.clone_env(&template, &bench.path("copy"), Task::silent()).await.unwrap();
    assert_eq!((&copy.prefix, &copy.python_version), (&bench.path("copy"), &template.python_version));
    assert_eq!(provider.verify(&copy).await.unwrap(), Health::Usable);
    // Scripts and programs work, uv among them, and the byte code is good: nothing is compiled again.
    let jupyter = Command::new(copy.prefix.join("bin/jupyter")).arg("--paths").output().unwrap();
    assert!(String::from_utf8(jupyter.stdout).unwrap().contains(copy.prefix.to_str().unwrap()));
    assert!(Command::new(copy.prefix.join("bin/uv")).arg("--version").status().unwrap().success());
    let verbose =
        Command::new(&copy.python).args(["-v", "-c", "import ipykernel.kernelapp"]).output().unwrap();
    let trace = String::from_utf8(verbose.stderr).unwrap();
    let here = format!("{}/", copy.prefix.display());
    let compiled = |line: &&str| line.contains("wrote") && line.contains(&here);
    assert!(trace.contains("matches") && trace.lines().find(compiled).is_none(), "{trace}");

    // What is installed into one, or removed from it, the other has not, or keeps.
    provider.install(&copy, &["six".to_owned()], Task::silent()).await.unwrap();
    let removed = Command::new(copy.prefix.join("bin/uv"))
        .args(["pip", "uninstall", "ipykernel", "--python"])
        .arg(&copy.python)
        .env("UV_CACHE_DIR", common::test_tools().join("uv-cache"))
        .output()
        .unwrap();
    assert!(removed.status.success(), "{}", String::from_utf8_lossy(&removed.stderr));
    let imports = |name: &str| {
        Command::new(&template.python)
            .args(["-c", &format!("import {name}")])
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(imports("ipykernel") && !imports("six"));

    let project = json!({ "project_file": "/lab/pyproject.toml" });
    let project = project.as_object().unwrap().clone();
    let project = runtimed_plugin_api::Environment { extra: project, ..template };
    let error = provider.clone_env(&project, &bench.path("p"), Task::silent()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
}

#[tokio::test]
async fn without_a_network_the_cache_is_enough() {
    let Some(mut bench) = Bench::new() else { return };
    bench.create(&bench.provider(), "online", &["ipykernel"], Task::silent()).await.unwrap();
    let nowhere = bench.index.url("/nothing");
    bench.host(|host| {
        host.with_env("UV_OFFLINE", "1").with_env("UV_HTTP_TIMEOUT", "1").with_env("ALL_PROXY", &nowhere)
    });
    let recorder = Arc::new(Recorder::default());
    bench.create(&bench.provider(), "offline", &["ipykernel"], Task::new(recorder.clone())).await.unwrap();
    assert!(recorder.phases().iter().any(|phase| phase == "offline_hit"), "{:?}", recorder.phases());
}

#[tokio::test]
async fn an_unknown_package_is_named() {
    let Some(mut bench) = Bench::new() else { return };
    // Answers 404 to every project, as an index does for one it does not know.
    let index = bench.index.url("/simple");
    bench.host(|host| host.with_env("UV_DEFAULT_INDEX", &index));
    let provider = bench.provider();
    let error = bench.create(&provider, "a", &["no-such-package-zzz9"], Task::silent()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Invalid);
    assert!(!error.retryable);
    assert!(error.message.starts_with("Failed to install dependencies: error:"), "{}", error.message);
    assert_eq!(error.detail["failed_package"], "no-such-package-zzz9");
    assert_eq!(error.detail["error_kind"], "invalid_package");
    assert!(error.help.unwrap().contains("no-such-package-zzz9"));
}

#[tokio::test]
async fn an_environment_without_a_kernel_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let error = bench.create(&bench.provider(), "a", &["six"], Task::silent()).await.unwrap_err();
    assert_eq!(error.detail["error_kind"], "import_error");
    assert!(error.message.starts_with("UV runtime validation failed: "), "{}", error.message);
}

#[tokio::test]
async fn a_python_that_cannot_be_had_is_explained() {
    let Some(mut bench) = Bench::new() else { return };
    bench.host(|host| host.with_settings(json!({ "uv": { "python": "3.99" } })));
    let error = bench.create(&bench.provider(), "a", &["six"], Task::silent()).await.unwrap_err();
    assert!(error.message.starts_with("Failed to create virtual environment: "), "{}", error.message);
    let help = error.help.unwrap();
    assert!(help.contains("`3.99`") && help.contains("installed here: 3."), "{help}");
    assert!(!bench.path("a").exists());
}

#[tokio::test]
async fn cancelling_leaves_nothing_running() {
    let Some(mut bench) = Bench::new() else { return };
    let silent = Server::start(|_| common::Reply::Silence);
    let index = silent.url("/simple");
    bench.host(|host| host.with_env("UV_DEFAULT_INDEX", &index).with_env("UV_HTTP_TIMEOUT", "600"));
    let provider = bench.provider();
    let creation = bench.create(&provider, "a", &["some-package"], Task::silent());
    tokio::select! {
        done = creation => panic!("uv cannot have finished: {done:?}"),
        path = tokio::task::spawn_blocking(move || silent.next_request()) => {
            assert_eq!(path.unwrap(), "/simple/some-package/");
        }
    }
    assert_eq!(bench.host.all_ended(ENDING).await, []);
}

#[tokio::test]
async fn a_project_runs_with_its_own_packages() {
    let Some(bench) = Bench::new() else { return };
    let folder = bench.path("lab");
    fs::create_dir(&folder).unwrap();
    let text = "[project]\nname = 'lab'\nversion = '0'\nrequires-python = '>=3.10'\ndependencies = ['six']\n";
    fs::write(folder.join("pyproject.toml"), text).unwrap();
    let provider = bench.provider();
    assert_eq!(provider.detect(bench.folder.path()).await.unwrap(), None);
    let project = provider.detect(&folder).await.unwrap();
    assert_eq!(project.as_ref().unwrap().dependencies, ["six"]);

    // What a notebook adds goes into the file first.
    let plan = provider.plan(EnvRequest { project, ..request(&["cowsay"]) }).await.unwrap();
    let env = provider.create(plan, &bench.path("p"), Task::silent()).await.unwrap();
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    let declared = provider.detect(&folder).await.unwrap().unwrap().dependencies;
    assert!(declared.len() == 2 && declared.iter().any(|one| one.starts_with("cowsay")), "{declared:?}");
    let unknown = ["this-package-does-not-exist-zzz9".to_owned()];
    let error = provider.install(&env, &unknown, Task::silent()).await.unwrap_err();
    assert_eq!(error.detail["failed_package"], unknown[0]);
    assert_eq!(provider.detect(&folder).await.unwrap().unwrap().dependencies, declared);
    let launch = provider.launch(&env).await.unwrap();
    let run = Command::new(&launch.argv[0])
        .args(&launch.argv[1..])
        .args(["-c", "import ipykernel, six, cowsay"])
        .env("HOME", bench.path("home"))
        .env("UV_CACHE_DIR", common::test_tools().join("uv-cache"))
        .current_dir("/")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    fs::remove_file(folder.join("pyproject.toml")).unwrap();
    assert!(matches!(provider.verify(&env).await.unwrap(), Health::Broken { .. }));
}

#[tokio::test]
async fn trust_is_asked_about_what_the_notebook_declares() {
    let bench_free = tempfile::tempdir().unwrap();
    let host = Arc::new(common::TestHost::new(bench_free.path()));
    let surroundings = runtimed_plugin_uv::Surroundings { path: "".into(), index: String::new() };
    let provider = runtimed_plugin_uv::UvProvider::new(host, surroundings);
    let packages = ["ipykernel", "uv", "Cow_Say[x]>=1", "cowsay @ https://h/c.whl", "cow.say"];
    let identities = provider.identities(&request(&packages)).await.unwrap();
    let identities: Vec<_> = identities.iter().map(|one| (&*one.ecosystem, &*one.name)).collect();
    assert_eq!(identities, [("pypi", "cow-say"), ("pypi-url", "https://h/c.whl")]);
    let option = EnvPlan { key: String::new(), request: request(&["--index-url=http://evil"]) };
    assert_eq!(provider.plan(option.request).await.unwrap_err().code, ErrorCode::Invalid);
}
