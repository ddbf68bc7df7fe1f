//! Kernels that know nothing but TCP, and say no more than they must.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::shim::{born, read, until, write};
use support::{kernel_python, request};

/// What a daemon says to launch the odd kernel.
fn launch(base: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let python = kernel_python()?;
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odd_kernel.py");
    let mut argv = vec![python.to_str()?, program.to_str()?, "{connection_file}"];
    argv.extend(arguments);
    let launch = json!({ "argv": argv, "cwd": base, "transport": "tcp", "interrupt": "message" });
    Some(launch.to_string().into_bytes())
}

#[test]
fn a_kernel_that_says_next_to_nothing_is_used_over_tcp() {
    let base = tempfile::tempdir().unwrap();
    let Some(launch) = launch(base.path(), &[]) else { return };
    let folder = base.path().join("kernel");
    std::fs::create_dir(&folder).unwrap();
    let (mut shim, mut ours) = born(&folder);
    write(&mut ours, 0x02, &launch);
    assert_eq!(until(&mut ours, r#""reply":{}"#), 0x82);
    write(&mut ours, 0x03, &[]);
    let file: Value =
        serde_json::from_slice(&std::fs::read(folder.join("connection.json")).unwrap()).unwrap();
    let ports =
        ["shell", "iopub", "stdin", "control", "hb"].map(|name| file[format!("{name}_port")].as_u64());
    assert!(ports.iter().all(|port| port.is_some_and(|port| port > 1023)), "{file}");
    assert_eq!((&file["ip"], &file["transport"]), (&json!("127.0.0.1"), &json!("tcp")));

    let code = json!({ "code": "1" });
    write(&mut ours, 0x06, &[&[0], &request("id", "execute_request", &code)[..]].concat());
    until(&mut ours, "executed");
    write(&mut ours, 0x07, &[]);
    until(&mut ours, "interrupted");
    write(&mut ours, 0x08, br#"{"grace_ms":5000}"#);
    assert_eq!(until(&mut ours, r#""code":0"#), 0x87);
    write(&mut ours, 0x09, &[]);
    while read(&mut ours).is_some() {}
    assert!(shim.wait().unwrap().success() && !folder.exists());
}

/// The daemon goes by these words when it starts a kernel once more.
#[test]
fn a_kernel_whose_port_is_taken_says_so() {
    let base = tempfile::tempdir().unwrap();
    let Some(launch) = launch(base.path(), &["taken"]) else { return };
    let folder = base.path().join("kernel");
    std::fs::create_dir(&folder).unwrap();
    let (mut shim, mut ours) = born(&folder);
    write(&mut ours, 0x02, &launch);
    assert_eq!(until(&mut ours, "Address already in use"), 0x83);
    assert!(shim.wait().unwrap().success() && !folder.exists());
}
