//! `runt trust` without a daemon; the daemon's own tests have that it obeys.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn runt(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_runt"));
    command.arg("trust").args(arguments).env_clear().env("HOME", home).output().unwrap()
}

fn said(home: &Path, arguments: &[&str]) -> String {
    let output = runt(home, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn listed(home: &Path) -> Vec<Value> {
    let rows: Vec<Value> = serde_json::from_str(&said(home, &["list", "--json"])).unwrap();
    assert_eq!(rows.iter().filter(|row| row["source"] == "daemon-default").count(), 36);
    rows.into_iter().filter(|row| row["source"] != "daemon-default").collect()
}

#[test]
fn what_is_allowed_is_listed_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    assert!(said(home, &["list"]).starts_with("Nothing was approved."));
    assert!(said(home, &["list", "--all"]).contains("conda-forge"));
    let allow = ["allow", "Cow_Say[x]>=6", "pandas", "numpy @ https://h/n.whl"];
    let expected =
        "cow-say (pypi): allowed.\npandas (pypi): allowed already.\nhttps://h/n.whl (pypi-url): allowed.\n";
    assert_eq!(said(home, &allow), expected);
    said(home, &["allow", "--ecosystem", "conda-channel", "bioconda"]);
    let rows = listed(home);
    let names: Vec<_> = rows.iter().map(|row| (&row["ecosystem"], &row["name"])).collect();
    let pair = |ecosystem: &str, name: &str| (json!(ecosystem), json!(name));
    let wanted =
        [pair("conda-channel", "bioconda"), pair("pypi", "cow-say"), pair("pypi-url", "https://h/n.whl")];
    assert_eq!(names, wanted.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row["source"] == "command_line" && row["approved_at"].is_string()));

    let forgotten: Value =
        serde_json::from_str(&said(home, &["revoke", "cow.say", "six", "--json"])).unwrap();
    assert_eq!((&forgotten[0]["changed"], &forgotten[1]["changed"]), (&json!(true), &json!(false)));
    assert_eq!(listed(home).len(), 2);
    let always = runt(home, &["forget", "numpy"]);
    assert_eq!(always.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&always.stderr).contains("allowed on every machine"));
}

#[test]
fn a_damaged_file_is_said_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cache = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let base = dir.path().join(cache).join("runt");
    fs::create_dir_all(&base).unwrap();
    let file = base.join("trusted-packages.json");
    fs::write(&file, "not json").unwrap();
    for arguments in [&["list"][..], &["allow", "six"], &["forget", "six"]] {
        let output = runt(dir.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && error.contains("could not be used"), "{error}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "not json");
}
