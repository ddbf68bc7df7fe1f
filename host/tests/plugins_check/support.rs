//! The command, and what its report says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;

/// Where and how something was found out.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) case: String,
    pub(crate) carrier: String,
    pub(crate) sentence: String,
    pub(crate) remedy: String,
}

/// The command with a home of its own.
fn runtimed(home: &Path, arguments: &[&str]) -> Output {
    let dist = env::var_os("RUNTIMED_TEST_DIST").map(|dist| PathBuf::from(dist).join("bin/runtimed"));
    let program = dist.unwrap_or_else(|| env!("CARGO_BIN_EXE_runtimed").into());
    Command::new(program).arg("plugins-check").args(arguments).env("HOME", home).output().unwrap()
}

/// The report on the plugin in `folder`; the exit code agrees with it.
pub(crate) fn check(folder: &Path, arguments: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let folder = folder.to_str().unwrap();
    let output = runtimed(home.path(), &[&[folder, "--format", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(output.status.success(), faults(&report).is_empty(), "{report}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0, "something was written to the user's home");
    report
}

/// Every failure of a report.
pub(crate) fn faults(report: &Value) -> Vec<Fault> {
    let cases = report["cases"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    cases
        .filter(|case| case["outcome"]["outcome"] == "failed")
        .map(|case| Fault {
            case: format!("{}/{}", text(&case["suite"]), text(&case["case"])),
            carrier: text(&case["carrier"]),
            sentence: text(&case["outcome"]["sentence"]),
            remedy: text(&case["outcome"]["remedy"]),
        })
        .collect()
}

/// A manifest that is right about everything, for the library `lib.so` beside it.
pub(crate) fn manifest(id: &str, version: &str) -> String {
    format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"{id}\"\nversion = \"{version}\"\nlicense = \"MIT\"\n\
         abi = {{ major = 1 }}\n[library]\n{}-{} = {{ path = \"lib.so\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"{id}\"\n",
        env::consts::OS,
        env::consts::ARCH,
    )
}
