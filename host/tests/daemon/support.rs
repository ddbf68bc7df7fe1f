//! A daemon to test, and a client that can say anything.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

/// What a client of today sends first.
pub(crate) const PREAMBLE: [u8; 5] = [0xC0, 0xDE, 0x01, 0xAC, 4];
/// Longest wait for anything; only a test that fails takes so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon without plugins. Ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) home: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    /// Reads the daemon's stderr to its end, so that it never waits for us.
    draining: Option<JoinHandle<()>>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// Starts a daemon after `prepare` had a look at its home and its command.
    pub(crate) fn start_with(prepare: impl FnOnce(&Path, &mut Command)) -> Self {
        Self::start_in(tempfile::Builder::new().prefix("rt").tempdir().unwrap(), prepare)
    }

    /// The same, in a home that is there.
    fn start_in(home: tempfile::TempDir, prepare: impl FnOnce(&Path, &mut Command)) -> Self {
        let mut command = command(home.path());
        prepare(home.path(), &mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.by_ref().find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        let draining = Some(std::thread::spawn(move || lines.for_each(drop)));
        let socket = PathBuf::from(told.expect("the daemon said where it listens"));
        Self { child, home, socket, draining }
    }

    /// Starts a daemon in the home of one that has ended.
    pub(crate) fn start_again(self) -> Self {
        self.start_again_with(|_, _| {})
    }

    /// The same, after `prepare` had a look.
    pub(crate) fn start_again_with(mut self, prepare: impl FnOnce(&Path, &mut Command)) -> Self {
        assert!(self.draining.is_none(), "it has not ended");
        // A child that it was just starting holds the lock until it has begun its own program.
        std::fs::File::open(self.base().join("daemon.lock")).unwrap().lock().unwrap();
        let home = std::mem::replace(&mut self.home, tempfile::tempdir().unwrap());
        Self::start_in(home, prepare)
    }

    /// Connects and says who is there.
    pub(crate) fn connect(&self, handshake: Value) -> Client {
        let mut client = self.dial();
        client.write(&PREAMBLE);
        client.send(handshake.to_string().as_bytes());
        client
    }

    /// Connects and says nothing.
    pub(crate) fn dial(&self) -> Client {
        let stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(stream)
    }

    /// One question on a connection of its own.
    pub(crate) fn ask(&self, request: Value) -> Value {
        self.connect(json!({"channel": "pool"})).ask(request)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.home.path().join(".cache/runt")
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Ends the kernels that outlived it, as the end of the machine would.
    pub(crate) fn end_kernels(&self) {
        let below = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
        let bases = below(self.home.path().join("run/runt"));
        for kernel in bases.flat_map(|base| below(base.path().join("kernels"))) {
            let record = std::fs::read(kernel.path().join("record.json")).unwrap_or_default();
            let Ok(record) = serde_json::from_slice::<Value>(&record) else { continue };
            for pid in ["shim", "process"].map(|name| record[name]["pid"].to_string()) {
                Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status().unwrap();
                let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                // A zombie waits for whoever adopted it.
                while stat().rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    /// Waits until it has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.draining.take().unwrap().join().unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.draining.is_some() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        self.end_kernels();
    }
}

/// The command that starts a daemon in `home` with no plugin in reach.
pub(crate) fn command(home: &Path) -> Command {
    let plugins = home.join("plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_runtimed"));
    command
        .args(["--log-level", "info", "run", "--plugin-dir"])
        .arg(plugins)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("USER", "tester")
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// A connection on which anything can be said.
pub(crate) struct Client(pub(crate) UnixStream);

impl Client {
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Sends a length-prefixed frame.
    pub(crate) fn send(&mut self, body: &[u8]) {
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        self.write(&frame);
    }

    /// Reads a length-prefixed frame.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        self.next().expect("the daemon goes on")
    }

    /// The next length-prefixed frame; none once the daemon has closed.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        match self.0.read_exact(&mut length) {
            // Reset: closed while we were still talking.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            read => read.unwrap(),
        }
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        Some(body)
    }

    pub(crate) fn ask(&mut self, request: Value) -> Value {
        self.send(request.to_string().as_bytes());
        serde_json::from_slice(&self.receive()).unwrap()
    }

    /// Everything the daemon still says until it closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            // Closed while we were still talking.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the daemon did not close: {error}"),
        }
    }
}
