//! Jupyter itself has the same folders and the same kernels.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a step that fails is a failed test")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtimed_kernelspecs::{Specs, Surroundings};
use serde_json::Value;

/// What Jupyter answers in these surroundings.
fn jupyter(python: &Path, arguments: &[&str], variables: &[(&str, OsString)]) -> Value {
    let mut command = Command::new(python);
    command.arg("-m").args(arguments).env_clear().envs(variables.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn folders_and_kernels_are_those_of_jupyter() {
    let Some(venv) = std::env::var_os("RUNTIMED_TEST_KERNELS").map(PathBuf::from) else {
        eprintln!("skipped: no Jupyter here. `cargo xtask test` installs it (needs the package index).");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    // Not /tmp by way of a link.
    let home = home.path().canonicalize().unwrap();
    let python = venv.join("bin/python");
    let basis = vec![("PATH", venv.join("bin").into_os_string()), ("HOME", home.clone().into_os_string())];
    let install = ["bash_kernel.install", "--user"];
    let mut install_bash = Command::new(&python);
    install_bash
        .arg("-m")
        .args(install)
        .env_clear()
        .env("HOME", &home)
        .env("JUPYTER_DATA_DIR", home.join("data"));
    assert!(install_bash.output().unwrap().status.success());
    for more in [
        vec![],
        vec![("JUPYTER_PATH", "/one/:/two".into()), ("JUPYTER_PREFER_ENV_PATH", "0".into())],
        vec![("JUPYTER_DATA_DIR", home.join("data").into_os_string())],
        vec![("XDG_DATA_HOME", home.join("xdg").into_os_string()), ("PYTHONUSERBASE", "/base".into())],
    ] {
        let variables = [basis.clone(), more].concat();
        let here = variables.iter().map(|(name, value)| ((*name).into(), value.clone()));
        let here = Surroundings::new(here, Some(home.clone()));
        let told = jupyter(&python, &["jupyter", "--paths", "--json"], &variables);
        let told: Vec<PathBuf> = serde_json::from_value(told["data"].clone()).unwrap();
        // A venv has no packages of the user, for which we look all the same.
        let base = here.variable("PYTHONUSERBASE").map_or_else(|| home.join(".local"), PathBuf::from);
        let ours =
            here.data_dirs().into_iter().filter(|it| told.contains(it) || *it != base.join("share/jupyter"));
        assert_eq!(ours.collect::<Vec<_>>(), told, "{variables:?}");

        let told = jupyter(&python, &["jupyter_client.kernelspecapp", "list", "--json"], &variables);
        let mut told: BTreeMap<String, Value> = serde_json::from_value(told["kernelspecs"].clone()).unwrap();
        // Jupyter adds the one it runs on.
        told.remove("python3");
        let ours = Specs::find(&here).specs;
        let ours = ours.iter().filter(|spec| spec.name != "python3");
        let ours: Vec<_> =
            ours.map(|spec| (&spec.name, spec.folder.to_str(), spec.display_name.as_str())).collect();
        let told = told.iter().map(|(name, it)| {
            (name, it["resource_dir"].as_str(), it["spec"]["display_name"].as_str().unwrap())
        });
        assert_eq!(ours, told.collect::<Vec<_>>(), "{variables:?}");
    }
}
