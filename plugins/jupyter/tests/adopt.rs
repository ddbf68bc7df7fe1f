//! Kernels that are started before anybody wants them.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtimed_plugin_api::{ErrorCode, Kernel, LaunchSpec};
use serde_json::{Value, json};
use support::{Recorder, World, folders, is_running, kernel_python, result, stream, until_gone};

const WARM: &str = "aaaaaaaa-7f3a-4f0e-9d55-1f5f5d0c6a01";

/// Everything a user can see of how and where a kernel began.
const STATE: &str = "import json, os, sys, multiprocessing.process as mp; shell = get_ipython(); print(json.dumps([
    os.getcwd(), sys.path, [str(it) for it in _dh], type(_dh[0]).__name__, shell.starting_dir, mp.ORIGINAL_DIR,
    sorted(globals()), len(In), Out, list(shell.history_manager.get_range(0)),
    {name: value for name, value in os.environ.items() if name != 'JPY_PARENT_PID'}]))";

/// The warm kernel before anybody wants it.
fn warm(world: &World, python: PathBuf) -> LaunchSpec {
    LaunchSpec { kernel: WARM.into(), room: String::new(), cwd: "/".into(), ..world.spec(python) }
}

async fn state(kernel: &dyn Kernel, recorder: &mut Recorder) -> Value {
    let (messages, reply) = recorder.run(kernel, STATE).await;
    assert_eq!(reply["execution_count"], 1);
    serde_json::from_str(&stream(&messages, "stdout")).unwrap()
}

#[tokio::test]
async fn an_adopted_kernel_is_as_one_that_was_launched() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let folder = world.base.path().join("it's \"ünusual\"");
    std::fs::create_dir(&folder).unwrap();
    let spec = LaunchSpec { cwd: folder.clone(), ..world.spec(python.clone()) };

    let (mut recorder, events) = Recorder::new();
    let launched = world.backend.launch(spec.clone(), events).await.unwrap();
    let expected = state(&*launched, &mut recorder).await;
    launched.shutdown(Duration::ZERO).await.unwrap();

    let (mut nobody, events) = Recorder::new();
    let started = world.backend.launch(warm(&world, python), events).await.unwrap();
    assert!(world.backend.running().await.unwrap().is_empty(), "it is nobody's yet");
    let (mut recorder, events) = Recorder::anywhere();
    let kernel = world.backend.adopt(WARM, spec.clone(), events).await.unwrap();
    assert!(nobody.is_closed().await, "whoever started it hears nothing more");
    assert_eq!((kernel.info().kernel, kernel.info().pid), (spec.kernel.clone(), started.info().pid));
    drop(started);
    assert_eq!(state(&*kernel, &mut recorder).await, expected);

    // The next daemon finds it, and hears nothing of the time before.
    let found = world.backend.running().await.unwrap();
    assert_eq!((found.len(), &found[0].spec), (1, &spec));
    let last = recorder.last();
    drop((kernel, recorder));
    let (mut recorder, events) = Recorder::anywhere();
    let kernel = world.backend.attach(&spec.kernel, 0, events).await.unwrap();
    while recorder.last() < last {
        let message = recorder.next().await.unwrap();
        assert!(message.parent.starts_with("test-"), "{message:?}");
    }
    let (messages, reply) = recorder.run(&*kernel, "%cd -q /\n%cd -q -\nimport os; os.getcwd()").await;
    assert!(result(&messages).unwrap().contains("ünusual"), "{messages:?}");
    assert_eq!(reply["execution_count"], 2);
    drop(kernel);
    world.end().await;
}

#[tokio::test]
async fn a_kernel_that_was_adopted_and_not_used_ends_with_its_daemon() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let warm = warm(&world, python.clone());
    let started = world.backend.launch(warm, Recorder::new().1).await.unwrap();
    let kernel = world.backend.adopt(WARM, world.spec(python), Recorder::anywhere().1).await.unwrap();
    let pid = kernel.info().pid.unwrap();
    drop(started);
    drop(kernel);
    until_gone(|| is_running(pid) || world.folders() > 0).await;
    world.end().await;
}

#[tokio::test]
async fn what_cannot_be_adopted_stays_whose_it_was() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let warm = warm(&world, python.clone());
    let (mut recorder, events) = Recorder::new();
    let started = world.backend.launch(warm, events).await.unwrap();
    let adopt = async |warm: &str, spec: LaunchSpec| {
        let adopted = world.backend.adopt(warm, spec, Recorder::anywhere().1).await;
        adopted.err().expect("it must be refused")
    };
    let spec = world.spec(python);
    assert_eq!(adopt("somebody else", spec.clone()).await.code, ErrorCode::NotFound);
    let mut other = spec.clone();
    other.command.env.insert("A".into(), "1".into());
    assert_eq!(adopt(WARM, other).await.code, ErrorCode::Conflict);
    let nowhere = LaunchSpec { cwd: "/no/such/folder".into(), ..spec.clone() };
    let refused = adopt(WARM, nowhere).await;
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("FileNotFoundError"), "{refused}");

    let (messages, reply) = recorder.run(&*started, "import os; os.getcwd()").await;
    assert_eq!((result(&messages), &reply["execution_count"]), (Some("'/'"), &json!(1)));
    assert_eq!(adopt(WARM, spec).await.code, ErrorCode::Conflict, "it is somebody's now");
    drop(started);
    world.end().await;
}

#[tokio::test]
async fn a_kernel_in_which_something_of_the_users_ran_is_not_moved() {
    let world = World::new().await;
    let Some(python) = kernel_python() else { return };
    let startup = world.base.path().join("ipython/profile_default/startup");
    std::fs::create_dir_all(&startup).unwrap();
    std::fs::write(startup.join("00-first.ipy"), "import os; began = os.getcwd()").unwrap();
    let spec = world.spec(python.clone());
    let started = world.backend.launch(warm(&world, python), Recorder::new().1).await.unwrap();
    let refused = world.backend.adopt(WARM, spec.clone(), Recorder::anywhere().1).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("code of the user ran"), "{refused}");
    drop(started);

    let (mut recorder, events) = Recorder::new();
    let launched = world.backend.launch(spec, events).await.unwrap();
    let (messages, _) = recorder.run(&*launched, "began == os.getcwd()").await;
    assert_eq!(result(&messages), Some("True"));
    drop(launched);
    world.end().await;
}

/// Plays a shim that was asked for a kernel: `answer` to whatever comes after the greeting.
fn shim(folder: &Path, answer: &'static [u8]) -> tokio::task::JoinHandle<Vec<u8>> {
    let listener = UnixListener::bind(folder.join("shim")).unwrap();
    tokio::task::spawn_blocking(move || {
        let mut stream = listener.accept().unwrap().0;
        let frame = |stream: &mut UnixStream| {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut frame = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut frame).unwrap();
            frame
        };
        let write = |stream: &mut UnixStream, frame: &[u8]| {
            let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
            stream.write_all(&[&length[..], frame].concat()).unwrap();
        };
        assert_eq!(frame(&mut stream)[0], 0x01);
        write(&mut stream, b"\x81{\"protocol\":1,\"state\":\"starting\"}");
        let asked = frame(&mut stream);
        write(&mut stream, answer);
        // Until the daemon goes.
        let _ = stream.read(&mut [0]);
        asked
    })
}

/// Frozen, as in `protocol.rs`: what a daemon says, and what shims with and without adoption answer.
#[tokio::test]
async fn shims_of_today_and_of_the_first_day_are_understood() {
    let world = World::new().await;
    let spec = world.spec("/usr/bin/python3".into());
    let folder = world.base.path().join("run/kernels/abcdefgh");
    std::fs::create_dir_all(&folder).unwrap();
    let record = json!({
        "protocol": 1, "version": "0.1.0", "kernel": WARM, "label": {"spec": spec},
        "shim": {"pid": std::process::id(), "started": started()}, "process": {"pid": 4194305, "started": 2},
    });
    std::fs::write(folder.join("record.json"), record.to_string()).unwrap();
    for (answer, adopted) in [
        (&b"\x89\x0b"[..], false),
        (b"\x8b{\"message\":\"no\",\"mood\":1}", false),
        (b"\x8a{\"kernel\":\"k\",\"pid\":7,\"reply\":{},\"after\":3,\"last\":3}", true),
    ] {
        let shim = shim(&folder, answer);
        let kernel = world.backend.adopt(WARM, spec.clone(), Recorder::anywhere().1).await;
        assert_eq!(kernel.as_ref().err().map(|error| error.code), (!adopted).then_some(ErrorCode::Conflict));
        drop(kernel);
        let asked = shim.await.unwrap();
        assert_eq!(asked[0], 0x0b);
        let asked: Value = serde_json::from_slice(&asked[1..]).unwrap();
        assert_eq!(
            (&asked["kernel"], &asked["label"]["spec"]["room"]),
            (&json!(spec.kernel), &json!("room"))
        );
        assert!(asked["preparation"].as_str().unwrap().contains("chdir"));
        std::fs::remove_file(folder.join("shim")).unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(folders(world.base.path()).is_empty());
    world.end().await;
}

/// When this process was started.
fn started() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap()
}
