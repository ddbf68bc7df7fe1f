//! `runtimed plugins-check`: good plugins pass on both carriers, and whatever is wrong with one is said in a sentence.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a step that fails is a failed test"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;

/// A command whose home is `home`.
fn runtimed(home: &Path, arguments: &[&str]) -> Output {
    let dist = env::var_os("RUNTIMED_TEST_DIST").map(|dist| PathBuf::from(dist).join("bin/runtimed"));
    let program = dist.unwrap_or_else(|| env!("CARGO_BIN_EXE_runtimed").into());
    Command::new(program).arg("plugins-check").args(arguments).env("HOME", home).output().unwrap()
}

/// The report on the plugin in `folder`, and whether the exit code agrees with it.
fn check(folder: &Path, arguments: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let folder = folder.to_str().unwrap();
    let output = runtimed(home.path(), &[&[folder, "--format", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.success(), faults(&report).is_empty(), "{report}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "something was written to the user's home");
    report
}

/// `suite/case: sentence` of every failure.
fn faults(report: &Value) -> Vec<String> {
    let cases = report["cases"].as_array().unwrap().iter();
    let failed = cases.filter(|case| case["outcome"]["outcome"] == "failed");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    failed
        .map(|case| {
            format!(
                "{}/{}: {}",
                text(&case["suite"]),
                text(&case["case"]),
                text(&case["outcome"]["sentence"])
            )
        })
        .collect()
}

/// A bundled plugin of the staged build, if there is one.
fn bundled(id: &str) -> Option<PathBuf> {
    let dist = env::var_os("RUNTIMED_TEST_DIST").map(PathBuf::from);
    if dist.is_none() {
        eprintln!("skipped: no staged plugins. `cargo xtask test` stages them.");
    }
    Some(dist?.join("lib/runt/plugins").join(id))
}

fn is_good(id: &str, carriers: &[&str]) {
    let Some(folder) = bundled(id) else { return };
    let which = if carriers.len() == 2 { "both" } else { carriers[0] };
    let report = check(&folder, &["--carrier", which]);
    assert_eq!(faults(&report), [""; 0], "{report:#}");
    assert_eq!(report["plugin"], id);
    let ran =
        |carrier: &str| report["cases"].as_array().unwrap().iter().any(|case| case["carrier"] == carrier);
    assert!(carriers.iter().all(|carrier| ran(carrier)) && ran("files"));
}

const BOTH: &[&str] = &["in-process", "child"];

#[test]
fn uv_is_good() {
    is_good("uv", BOTH);
}

#[test]
fn blobs_are_good() {
    is_good("blobs", BOTH);
}

#[test]
fn jupyter_is_good() {
    is_good("jupyter", BOTH);
}

#[test]
fn rooms_are_good() {
    is_good("rooms", &["in-process"]);
}

#[test]
fn a_library_that_was_cut_short_is_never_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    let library = fs::read(binary.ancestors().nth(2).unwrap().join("examples").join(fixture)).unwrap();
    fs::write(folder.path().join("lib.so"), &library[..library.len() / 2]).unwrap();
    let manifest = format!(
        "manifest_version = 1\nid = \"fixture\"\nname = \"Fixture\"\nversion = \"1.2.3\"\nabi = {{ major = 1 }}\n\
         [library]\n{}-{} = {{ path = \"lib.so\" }}\n",
        env::consts::OS,
        env::consts::ARCH,
    );
    fs::write(folder.path().join("plugin.toml"), manifest).unwrap();
    let report = check(folder.path(), &[]);
    let faults = faults(&report);
    assert!(faults.len() == 1 && faults[0].contains("is not a usable library"), "{faults:?}");
    assert_eq!(report["cases"].as_array().unwrap().len(), 1, "nothing was done with it");
}
