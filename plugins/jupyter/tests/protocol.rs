//! The protocol between daemon and shim as it was on its first day. The transcripts are frozen: a daemon of any later
//! version must get along with a shim that speaks so, and a shim with a daemon. docs/KERNEL_SHIM.md explains them.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that fails fails its test"
)]

mod support;

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use runtimed_plugin_api::{Bytes, Channel, JupyterMessage};
use serde_json::{Value, json};
use support::shim::{born, read, until, write};
use support::{Recorder, World, kernel_python, request};

const KERNEL: &str = "0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01";
/// Of the file: a test that changes it proves nothing.
const RECORD: &str = r#"{
  "protocol": 1,
  "version": "0.1.0",
  "kernel": "0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01",
  "shim": {"pid": 4194304, "started": 1},
  "process": {"pid": 4194305, "started": 2},
  "label": {"spec": {"kernel": "0b0e1c5e-7f3a-4f0e-9d55-1f5f5d0c6a01", "kind": "python", "room": "r",
    "command": {"argv": ["python"]}, "cwd": "/"}}
}"#;

/// One frame of a transcript.
struct Line {
    daemon: bool,
    kind: u8,
    body: Vec<u8>,
}

/// The frames of a transcript. A character of a body is a byte.
fn transcript(text: &str) -> Vec<Line> {
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        Line {
            daemon: line["from"] == "daemon",
            kind: u8::try_from(line["kind"].as_u64().unwrap()).unwrap(),
            body: line["body"]
                .as_str()
                .unwrap()
                .chars()
                .map(|it| u8::try_from(u32::from(it)).unwrap())
                .collect(),
        }
    });
    lines.collect()
}

/// Whether a newer document still says what the frozen one does.
fn says(new: &Value, old: &Value) -> bool {
    match old {
        Value::Object(old) => old.iter().all(|(name, old)| says(&new[name], old)),
        old => new == old,
    }
}

/// Plays a shim of the first day in `folder`, to the end of the transcript.
fn old_shim(listener: &UnixListener, lines: Vec<Line>) {
    let mut stream = loop {
        let mut stream = listener.accept().unwrap().0;
        // Who only asks who we are is answered, too.
        let (kind, _) = read(&mut stream).unwrap();
        assert_eq!((kind, lines[1].kind), (0x01, 0x81));
        write(&mut stream, 0x81, &lines[1].body);
        if let Some((kind, body)) = read(&mut stream) {
            assert_eq!((kind, body), (lines[2].kind, lines[2].body.clone()));
            break stream;
        }
    };
    for line in &lines[3..] {
        if !line.daemon {
            write(&mut stream, line.kind, &line.body);
            continue;
        }
        let (mut kind, mut body) = read(&mut stream).unwrap();
        // Whoever attaches again, to skip what there is, is told so; the first daemons did not.
        while (kind, line.kind) == (0x04, 0x08) {
            let attached = lines.iter().find(|line| line.kind == 0x84).unwrap();
            write(&mut stream, attached.kind, &attached.body);
            (kind, body) = read(&mut stream).unwrap();
        }
        assert_eq!(kind, line.kind);
        match serde_json::from_slice::<Value>(&line.body) {
            Ok(old) => assert!(says(&serde_json::from_slice(&body).unwrap(), &old)),
            Err(_) => assert_eq!(body, line.body),
        }
    }
}

#[tokio::test]
async fn todays_daemon_drives_the_first_shim() {
    let world = World::new().await;
    let folder = world.base.path().join("run/kernels/abcdefgh");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("record.json"), RECORD).unwrap();
    let listener = UnixListener::bind(folder.join("shim")).unwrap();
    let lines = transcript(include_str!("fixtures/shim-protocol-1.jsonl"));
    let shim = tokio::task::spawn_blocking(move || old_shim(&listener, lines));

    let found = world.backend.running().await.unwrap();
    assert_eq!((found.len(), found[0].pid, found[0].spec.room.as_str()), (1, Some(4_194_305), "r"));
    let (mut recorder, events) = Recorder::after(2);
    let kernel = world.backend.attach(KERNEL, 2, events).await.unwrap();
    assert_eq!(kernel.info().pid, Some(4_194_304));
    assert_eq!(kernel.info().reply["language_info"]["name"], "python");
    let status = recorder.next().await.unwrap();
    assert_eq!(
        (status.channel, status.kind.as_str(), status.parent.as_str()),
        (Channel::Iopub, "status", "cell")
    );
    let gap = recorder.next().await.unwrap();
    assert_eq!((gap.kind.as_str(), gap.parent.as_str()), ("stream", "cell"));
    assert!(gap.content["text"].as_str().unwrap().contains("7 message(s)"), "{gap:?}");
    kernel.acknowledge(4);
    let part = Bytes::from_static;
    let message = JupyterMessage {
        header: part(b"{\"msg_id\":\"m\",\"msg_type\":\"execute_request\"}"),
        parent_header: part(b"{}"),
        metadata: part(b"{}"),
        content: part(b"{\"code\":\"1\"}"),
        buffers: Vec::new(),
    };
    kernel.send(Channel::Shell, message.encode()).unwrap();
    kernel.interrupt().await.unwrap();
    let report = kernel.shutdown(Duration::from_secs(5)).await.unwrap();
    assert_eq!((report.code, report.stderr_tail.as_str(), report.requested), (Some(0), "bye", true));
    assert_eq!(recorder.exit().await, report);
    shim.await.unwrap();
    // The old shim has not cleaned up, as if it had been killed.
    world.end().await;
}

/// The other way round, with a real kernel. Frames of the shim are told apart by their type only.
#[test]
fn todays_shim_serves_the_first_daemon() {
    let Some(python) = kernel_python() else { return };
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("kernel");
    std::fs::create_dir(&folder).unwrap();
    let (mut shim, mut ours) = born(&folder);
    let text = include_str!("fixtures/daemon-protocol-1.jsonl");
    let text = text.replace("@PYTHON@", python.to_str().unwrap());
    let text = text.replace("@FOLDER@", base.path().to_str().unwrap());
    let mut printed = String::new();
    for line in transcript(&text) {
        if line.daemon {
            write(&mut ours, line.kind, &line.body);
            continue;
        }
        loop {
            let (kind, body) = read(&mut ours).expect("the shim goes on");
            printed += &String::from_utf8_lossy(&body);
            let reply = printed.contains("execute_reply");
            if kind == line.kind && (kind != 0x85 || reply) {
                assert!(line.body.is_empty() || body == line.body);
                break;
            }
            assert_eq!(kind, 0x85, "only messages come in between");
        }
        if line.kind == 0x82 {
            assert_eq!(mode(&folder.join("shim")), 0o600);
        }
    }
    assert!(printed.contains("42\\n"), "{printed}");
    assert!(read(&mut ours).is_none());
    assert!(shim.wait().unwrap().success() && !folder.exists());
}

/// A shim in `folder` with a kernel that is up, and the connection that has accepted it.
fn up(folder: &Path, interrupt: &str) -> Option<(Child, UnixStream)> {
    let (python, base) = (kernel_python()?, folder.parent().unwrap());
    std::fs::create_dir(folder).unwrap();
    let (shim, mut ours) = born(folder);
    let launch = json!({
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "cwd": base,
        "env": { "IPYTHONDIR": base }, "interrupt": interrupt,
    });
    write(&mut ours, 0x02, launch.to_string().as_bytes());
    until(&mut ours, "language_info");
    write(&mut ours, 0x03, &[]);
    Some((shim, ours))
}

#[test]
fn a_kernel_can_be_interrupted_by_message_and_ended_at_once() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("kernel");
    let Some((mut shim, mut ours)) = up(&folder, "message") else { return };
    // Without `preparation` this kernel overlooks an interrupt that comes right before it waits for long.
    let code = json!({ "code": "import time\nprint('run' + 'ning')\nwhile True: time.sleep(0.01)" });
    write(&mut ours, 0x06, &[&[0], &request("id", "execute_request", &code)[..]].concat());
    // In what it prints, not in what was asked.
    until(&mut ours, "running");
    write(&mut ours, 0x07, &[]);
    until(&mut ours, "KeyboardInterrupt");
    write(&mut ours, 0x0a, &[]);
    while read(&mut ours).is_some() {}
    assert!(shim.wait().unwrap().success() && !folder.exists());
}

#[test]
fn a_report_is_collected_by_who_attaches_once_more() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("kernel");
    let Some((mut shim, mut ours)) = up(&folder, "signal") else { return };
    write(&mut ours, 0x08, br#"{"grace_ms": 0}"#);
    while read(&mut ours).expect("the shim goes on").0 != 0x87 {}
    // Both at once: the report that is collected is the one that came before.
    let frame = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
        [&length[..], &[kind], body].concat()
    };
    let both = [frame(0x04, br#"{"after": 18446744073709551615}"#), frame(0x09, &[])].concat();
    ours.write_all(&both).unwrap();
    while read(&mut ours).is_some() {}
    assert!(shim.wait().unwrap().success() && !folder.exists());
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}
