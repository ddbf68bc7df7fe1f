//! Environments that an environment file describes.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Bench, printed, python, request};
use runtimed_plugin_api::{EnvProvider, EnvRequest, Environment, ErrorCode, Health, Project, Result, Task};

/// The project that `text` makes of the folder `lab`.
async fn project(bench: &Bench, text: &str) -> Project {
    let lab = bench.path("lab");
    fs::create_dir_all(&lab).unwrap();
    let text = format!("channels: [\"{}\"]\n{text}", bench.channel);
    fs::write(lab.join("environment.yml"), text).unwrap();
    bench.provider().detect(&lab).await.unwrap().unwrap()
}

async fn prepare(bench: &Bench, stand_in: &str, project: Project) -> Result<Environment> {
    let wanted = EnvRequest { project: Some(project), ..request(&["cowsay"]) };
    bench.create(stand_in, wanted, Task::silent()).await
}

fn place(project: &Project) -> PathBuf {
    project.extra["prefix"].as_str().unwrap().into()
}

fn version(prefix: &Path) -> String {
    fs::read_to_string(prefix.join("version-of-the-test")).unwrap_or_default()
}

#[tokio::test]
async fn an_environment_of_ours_follows_its_file() {
    let Some(bench) = Bench::new() else { return };
    let provider = bench.provider();
    let first = project(&bench, "name: lab\ndependencies: [six=1.16, python>=3.9]\n").await;
    assert_eq!((&first.extra["built"], &first.extra["user_managed"]), (&false.into(), &false.into()));
    let prefix = place(&first);
    assert_eq!(prefix, bench.path("home/.conda/envs/lab"));
    let env = prepare(&bench, "s1", first).await.unwrap();
    assert_eq!((env.prefix.clone(), env.python.clone()), (bench.path("s1"), prefix.join("bin/python")));
    assert_eq!(provider.verify(&env).await.unwrap(), Health::Usable);
    let launch = provider.launch(&env).await.unwrap();
    let code = "import sys, six, cowsay, ipykernel; print(sys.prefix, six.__version__)";
    assert_eq!(printed(&python(&launch, code)), format!("{} 1.16.0", prefix.display()));
    let script = fs::read_to_string(prefix.join("bin/jupyter")).unwrap();
    assert!(
        script.starts_with(&format!("#!{}/bin/python", prefix.display())),
        "made for its place: {script}"
    );
    assert!(!bench.path("s1/made").exists(), "moved, not copied");

    // Found again, still ours; what the file lists anew is added.
    fs::write(prefix.join("version-of-the-test"), "1").unwrap();
    let second = project(&bench, "name: lab\ndependencies: [six, attrs, python>=3.9]\n").await;
    assert_eq!((&second.extra["built"], &second.extra["user_managed"]), (&true.into(), &false.into()));
    let env = prepare(&bench, "s2", second).await.unwrap();
    assert_eq!(printed(&python(&launch, "import attrs, six; print(six.__version__)")), "1.16.0");
    assert_eq!(version(&prefix), "1", "it was not rebuilt");

    // Another Python: ours is rebuilt, and one that cannot be had leaves it as it was.
    let impossible = project(&bench, "name: lab\ndependencies: [six, python=3.99]\n").await;
    let error = prepare(&bench, "s3", impossible).await.unwrap_err();
    let said =
        "Failed to create conda env 'lab' from environment.yml: Failed to solve dependencies: no `python`";
    assert!(error.message.starts_with(said), "{error}");
    assert_eq!((version(&prefix).as_str(), provider.verify(&env).await.unwrap()), ("1", Health::Usable));

    // Where there is none any more, one is made.
    fs::remove_file(&env.python).unwrap();
    assert!(matches!(provider.verify(&env).await.unwrap(), Health::Broken { .. }));
    let again = project(&bench, "name: lab\ndependencies: [six=1.16, python>=3.9]\n").await;
    assert_eq!(again.extra["built"], false);
    prepare(&bench, "s4", again).await.unwrap();
    assert_eq!(version(&prefix), "", "it was rebuilt");

    let error = provider.install(&env, &["attrs".to_owned()], Task::silent()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported);
}

#[tokio::test]
async fn an_environment_of_the_users_is_added_to_and_never_rebuilt() {
    let Some(bench) = Bench::new() else { return };
    let theirs =
        bench.create("home/miniconda3/envs/lab", request(&["six=1.16"]), Task::silent()).await.unwrap();
    let found = project(&bench, "name: lab\ndependencies: [six, attrs]\n").await;
    assert_eq!((&found.extra["built"], &found.extra["user_managed"]), (&true.into(), &true.into()));
    assert_eq!(place(&found), theirs.prefix);
    let env = prepare(&bench, "s1", found).await.unwrap();
    let launch = bench.provider().launch(&env).await.unwrap();
    let code = "import sys, attrs, six, pyarrow; print(sys.prefix, six.__version__)";
    assert_eq!(printed(&python(&launch, code)), format!("{} 1.16.0", theirs.prefix.display()));

    let outdated = project(&bench, "name: lab\ndependencies: [python>=3.98]\n").await;
    let error = prepare(&bench, "s2", outdated).await.unwrap_err();
    let said = format!(
        "Conda env \"{}\" has Python {} but environment.yml requests python>=3.98. This is a user-managed env — rebuild \
         it manually with: conda env remove -n lab && conda env create -f environment.yml",
        theirs.prefix.display(),
        theirs.python_version.unwrap()
    );
    assert_eq!(error.message, said);
    assert!(theirs.python.exists());

    let occupied = bench.path("occupied");
    fs::create_dir(&occupied).unwrap();
    fs::write(occupied.join("thesis.txt"), "").unwrap();
    let there = project(&bench, &format!("prefix: {}\ndependencies: [six]\n", occupied.display())).await;
    let error = prepare(&bench, "s3", there).await.unwrap_err();
    assert!(error.message.contains("is no conda environment"), "{error}");
    assert!(occupied.join("thesis.txt").exists());
}
