//! A kernel that waited is as one that was started: compared by what code in a notebook can see.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use super::{add, open, start, stop, value, warm};

/// Looks, in whatever way; imported from the notebook's own folder.
const LOOK: &str = include_str!("look.py");

#[tokio::test(flavor = "multi_thread")]
async fn code_sees_the_same_in_a_kernel_that_waited_and_in_one_that_was_started() {
    let Some(daemon) = start() else { return };
    let folder = daemon.home.path().canonicalize().unwrap().join("work");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("look.py"), LOOK).unwrap();
    // Nothing waits before somebody has opened a notebook.
    let launched = look(&daemon, &folder, "launched").await;
    let waits = warm(&daemon, 1);
    let adopted = look(&daemon, &folder, "adopted").await;
    assert_eq!((launched.0 == waits, adopted.0), (false, waits));
    for (launched, adopted) in launched.1.iter().zip(&adopted.1) {
        assert!(launched.len() > 40, "{launched:?}");
        for key in launched.keys().chain(adopted.keys()) {
            assert_eq!(adopted.get(key), launched.get(key), "{key}");
        }
    }
    stop(daemon);
}

/// The process of a notebook's kernel, and what its first and its third cell see.
async fn look(daemon: &super::Daemon, folder: &Path, name: &str) -> (u32, [Map<String, Value>; 2]) {
    let (session, _) = open(daemon, name).await;
    for (cell, source) in [("1", "import look; look.around()"), ("2", "6 * 7"), ("3", "look.around()")] {
        add(&session, cell, source);
    }
    for (cell, expected) in [("1", "'seen'"), ("2", "42"), ("3", "'seen'")] {
        assert_eq!(value(&session, cell).await, expected);
    }
    add(&session, "4", "look.os.getpid()");
    let pid = value(&session, "4").await.parse().unwrap();
    let seen = [1, 3].map(|count| {
        let file = folder.join(format!("seen-{pid}-{count}.json"));
        serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
    });
    (pid, seen)
}
