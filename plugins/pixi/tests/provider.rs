//! The plugin in the conformance kit, and what can be known of it where there is no pixi. With a pixi on PATH the kit builds
//! real environments.

use std::path::Path;
use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, EnvRequest, Environment, ErrorCode, Health, Task};
use runtimed_plugin_testkit::{Check, Subject, TestHost};
use serde_json::json;

use runtimed_pixi::{PixiPlugin, PixiProvider, Surroundings};

#[test]
fn it_does_what_the_daemon_relies_on() {
    Check::new(Subject::of::<PixiPlugin>(env!("CARGO_MANIFEST_DIR"))).run().assert_passed();
}

/// A provider that finds no pixi, and a folder for it.
fn without_pixi() -> (PixiProvider, tempfile::TempDir) {
    let base = tempfile::tempdir().unwrap();
    let host = Arc::new(TestHost::new(base.path()));
    (PixiProvider::new(host, Surroundings::default()), base)
}

fn request(packages: &[&str]) -> EnvRequest {
    let packages = packages.iter().map(|&package| package.to_owned()).collect();
    EnvRequest { packages, ..EnvRequest::default() }
}

#[tokio::test]
async fn without_pixi_nothing_is_made_and_it_is_said_what_to_do() {
    let (provider, base) = without_pixi();
    let plan = provider.plan(request(&["six"])).await.unwrap();
    let error = provider.create(plan, &base.path().join("env"), Task::silent()).await.unwrap_err();
    assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
    assert!(error.message.starts_with("pixi is not installed"), "{error}");
    assert_eq!(error.detail["error_kind"], "setup_failed");
    assert!(error.help.unwrap().contains("default_python_env"));
    assert!(!base.path().join("env").exists(), "something was created");
}

#[tokio::test]
async fn a_plan_has_what_every_notebook_needs_and_a_key_for_what_makes_a_difference() {
    let (provider, _base) = without_pixi();
    let plan = provider.plan(request(&["IPyKernel<7", "six"])).await.unwrap();
    assert_eq!(plan.request.packages, ["ipywidgets", "anywidget", "pip", "IPyKernel<7", "six"]);
    assert_eq!(provider.plan(plan.request.clone()).await.unwrap(), plan, "planned again");
    let with = |name: &str, value| EnvRequest {
        options: [(name.to_owned(), value)].into_iter().collect(),
        ..request(&["IPyKernel<7", "six"])
    };
    let from_index = provider.plan(with("pypi_dependencies", json!(["cowsay"]))).await.unwrap();
    assert_ne!(from_index.key, plan.key);
    let refused =
        provider.plan(with("pypi_dependencies", json!(["six @ ./six"]))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Invalid);
}

#[tokio::test]
async fn pixis_own_manifest_counts_before_a_pyproject() {
    let (provider, base) = without_pixi();
    let write = |name: &str, text: &str| std::fs::write(base.path().join(name), text).unwrap();
    write("pyproject.toml", "[project]\nname = 'a'\n");
    assert_eq!(provider.detect(base.path()).await.unwrap(), None, "that is uv's");
    write("pyproject.toml", "[tool.pixi.dependencies]\nsix = '*'\n");
    let project = provider.detect(base.path()).await.unwrap().unwrap();
    assert_eq!((&*project.kind, &*project.dependencies), ("pixi_toml", &["six".to_owned()][..]));
    write("pixi.toml", "[dependencies]\nattrs = '>=2'\n");
    let project = provider.detect(base.path()).await.unwrap().unwrap();
    assert_eq!(
        (project.file, &*project.dependencies),
        (base.path().join("pixi.toml"), &["attrs>=2".to_owned()][..])
    );

    // Wherever the notebook is and whatever it adds, a project has one place.
    let project = provider.detect(base.path()).await.unwrap();
    let key = async |packages: &[&str]| {
        let asked = EnvRequest { project: project.clone(), ..request(packages) };
        provider.plan(asked).await.unwrap().key
    };
    assert_eq!(key(&["six"]).await, key(&[]).await);
    // What the project's own file names is not asked about.
    let asked = EnvRequest { project: project.clone(), ..request(&[]) };
    assert!(provider.identities(&asked).await.unwrap().is_empty());
}

/// An environment as `create` leaves it, without packages.
fn environment(prefix: &Path) -> Environment {
    let python = prefix.join(".pixi/envs/default/bin/python");
    Environment {
        python,
        python_version: Some("3.13.1".to_owned()),
        ..Environment::at(prefix, "pixi", Vec::new())
    }
}

#[tokio::test]
async fn an_interpreter_is_started_directly() {
    let (provider, base) = without_pixi();
    let env = environment(base.path());
    let launch = provider.launch(&env).await.unwrap();
    let inside = base.path().join(".pixi/envs/default");
    assert_eq!(launch.argv, [env.python.to_str().unwrap()]);
    assert_eq!(
        (&*launch.env["CONDA_PREFIX"], &launch.path),
        (inside.to_str().unwrap(), &vec![inside.join("bin")])
    );

    let mut of_project = env.clone();
    of_project.extra = serde_json::from_value(json!({
        "project_file": "/p/pixi.toml", "prefix": "/p/.pixi/envs/default",
        "variables": {"CONDA_PREFIX": "/p/.pixi/envs/default", "LAB": "1"},
    }))
    .unwrap();
    let launch = provider.launch(&of_project).await.unwrap();
    assert_eq!((launch.cwd.as_deref(), &*launch.env["LAB"]), (Some(Path::new("/p")), "1"));
    assert_eq!(launch.path, [Path::new("/p/.pixi/envs/default/bin")]);
}

#[tokio::test]
async fn what_is_missing_in_an_environment_is_named() {
    let (provider, base) = without_pixi();
    let env = environment(base.path());
    let broken = async |part: &str| match provider.verify(&env).await.unwrap() {
        Health::Broken { reason } => assert!(reason.contains(part), "{reason}"),
        Health::Usable => panic!("it is not usable"),
    };
    broken("bin/python` is gone").await;
    let make = |file: &Path| {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    };
    make(&env.python);
    broken("ipykernel is not installed").await;
    make(
        &base.path().join(".pixi/envs/default/lib/python3.13/site-packages/ipykernel/__init__.py"),
    );
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    let unsupported =
        provider.install(&env, &["six".to_owned()], Task::silent()).await.unwrap_err();
    assert_eq!(unsupported.code, ErrorCode::Unsupported);
}
