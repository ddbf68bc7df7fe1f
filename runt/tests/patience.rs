//! What somebody sees on a terminal while the daemon takes its time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a step that fails is a failed test"
)]

use std::process::Command;

/// A daemon that answers `runt verify` once its waiting was told on a terminal. Arguments: socket, runt and its own.
/// Prints what was on the terminal.
const TERMINAL: &str = r#"
import json, os, pty, re, socket, struct, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
client, _ = listener.accept()
seen = b''
def look():
    global seen
    try:
        more = os.read(terminal, 4096)
    except OSError:
        more = b''
    seen += more
    return more
while not re.search(rb'\.\.\. \d+ s', seen):
    assert look(), seen
reply = json.dumps({'type': 'notebooks_verified', 'notebooks': []}).encode()
client.sendall(struct.pack('>I', len(reply)) + reply)
while look():
    pass
os.waitpid(pid, 0)
sys.stdout.buffer.write(seen)
"#;

#[test]
fn what_takes_long_says_so_and_the_line_is_gone_afterwards() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("s.sock");
    let output = Command::new("python3")
        .args(["-c", TERMINAL])
        .arg(&socket)
        .args([env!("CARGO_BIN_EXE_runt"), "verify"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("RUNTIMED_SOCKET_PATH", &socket)
        .output()
        .unwrap();
    let seen = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{seen}{}", String::from_utf8_lossy(&output.stderr));
    let (told, after) = seen.split_once("Nothing is kept of any notebook.").expect(&seen);
    assert!(told.starts_with("\r\x1b[KReading what is kept ... "), "{seen:?}");
    assert!(told.ends_with("\r\x1b[K") && after.trim().is_empty(), "{seen:?}");
}
