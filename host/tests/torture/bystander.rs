//! Who changes settings and stores blobs, and knows which of that was acknowledged.
//!
//! For: everything that is durable and is no notebook.
//! Promises: an error of the connection is returned, never a failed test; what is wrong with what is kept fails it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use runtimed_protocol::documents::automerge::sync::{Message, State, SyncDoc as _};
use runtimed_protocol::documents::automerge::transaction::Transactable as _;
use runtimed_protocol::documents::automerge::{AutoCommit, ROOT};
use runtimed_protocol::documents::json::read;
use runtimed_protocol::frame::{FrameType, typed_header};
use runtimed_protocol::put_blob::{PutBlob, PutBlobHeader};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::random::Random;
use crate::support::{Daemon, PATIENCE, PREAMBLE};

/// What a window changes, and what the command line does.
const KEYS: [&str; 2] = ["bystander", "editor.code_font_family"];
/// Largest blob in bytes: some are the reason for a record of their own, all are fast.
const BLOB: usize = 100_000;
/// Bytes of a part of those that come in parts.
const PART: usize = 30_000;

/// How many different things there are to do.
pub(crate) const DEEDS: usize = 4;

/// What is known of one setting.
#[derive(Default)]
struct Setting {
    acknowledged: Option<String>,
    /// What was asked for since, and may be there or not.
    begun: Vec<String>,
}

/// Changes settings and stores blobs.
#[derive(Default)]
pub(crate) struct Bystander {
    random: Random,
    settings: BTreeMap<&'static str, Setting>,
    /// Hashes of blobs that were stored.
    pub(crate) blobs: Vec<String>,
    /// Changes of settings that were acknowledged.
    pub(crate) changes: u64,
}

impl Bystander {
    pub(crate) fn new(seed: u64) -> Self {
        let settings = KEYS.map(|key| (key, Setting::default())).into();
        Self { random: Random(seed), settings, blobs: Vec::new(), changes: 0 }
    }

    /// Does any one thing and waits until the daemon has it.
    pub(crate) fn act_somehow(&mut self, daemon: &Place, notebook: &str) -> io::Result<()> {
        let deed = self.random.below(DEEDS);
        self.act(deed, daemon, notebook)
    }

    /// The same with one of [`DEEDS`].
    pub(crate) fn act(&mut self, deed: usize, daemon: &Place, notebook: &str) -> io::Result<()> {
        match deed {
            0 => self.change(KEYS[0], |value| Window::open(daemon)?.set(KEYS[0], value)),
            1 => self.change(KEYS[1], |value| daemon.config(KEYS[1], value)),
            2 => self.store(daemon, notebook, Peer::put),
            _ => self.store(daemon, notebook, Peer::put_in_parts),
        }
    }

    fn change(&mut self, key: &'static str, change: impl FnOnce(&str) -> io::Result<()>) -> io::Result<()> {
        let (value, setting) = (format!("{:x}", self.random.next()), self.settings.entry(key).or_default());
        setting.begun.push(value.clone());
        change(&value)?;
        *setting = Setting { acknowledged: Some(value), begun: Vec::new() };
        self.changes += 1;
        Ok(())
    }

    fn store(
        &mut self,
        daemon: &Place,
        notebook: &str,
        put: impl FnOnce(&mut Peer, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let length = self.random.below(BLOB) + 1;
        let bytes = self.random.bytes(length);
        put(&mut Peer::join(daemon, notebook)?, &bytes)?;
        self.blobs.push(hash(&bytes));
        Ok(())
    }

    /// Fails unless settings and blobs are as they were acknowledged; `blobs` says which of them to look at. What the
    /// settings are now is what is known from now on.
    pub(crate) fn check(&mut self, daemon: &Place, blobs: std::ops::RangeFrom<usize>) {
        let end = Instant::now() + PATIENCE;
        for (key, setting) in &mut self.settings {
            let pointer = format!("/{}", key.replace('.', "/"));
            // What was written into the file is read after it was quiet for a moment.
            let (kept, shown) = loop {
                let file = fs::read(daemon.home.join(".config/nteract/settings.json")).unwrap();
                let file: Value = serde_json::from_slice(&file).expect("the settings are whole");
                let document = Window::open(daemon).unwrap().settings();
                let [kept, shown] = [&file, &document]
                    .map(|it| it.pointer(&pointer).and_then(Value::as_str).map(ToOwned::to_owned));
                if kept == shown || Instant::now() > end {
                    break (kept, shown);
                }
                sleep(Duration::from_millis(20));
            };
            let known = setting.acknowledged.iter().chain(&setting.begun);
            let allowed = |it: &Option<String>| {
                known.clone().any(|known| Some(known) == it.as_ref())
                    || setting.acknowledged.is_none() && it.as_ref().is_none_or(String::is_empty)
            };
            let expected = (&setting.acknowledged, &setting.begun);
            assert!(
                kept == shown && allowed(&kept),
                "{key}: {expected:?}, but {kept:?} in the file, {shown:?} shown"
            );
            *setting = Setting { acknowledged: shown, begun: Vec::new() };
        }
        for hash in &self.blobs[blobs] {
            assert_eq!(daemon.blob_hash(hash), *hash, "a blob that was stored");
        }
    }
}

/// Where a daemon is, for a thread of its own.
#[derive(Clone)]
pub(crate) struct Place {
    home: PathBuf,
    socket: PathBuf,
}

impl Place {
    pub(crate) fn of(daemon: &Daemon) -> Self {
        Self { home: daemon.home.path().to_owned(), socket: daemon.socket.clone() }
    }

    /// Changes a setting by the command line.
    fn config(&self, key: &str, value: &str) -> io::Result<()> {
        let dist = PathBuf::from(env::var_os("RUNTIMED_TEST_DIST").unwrap());
        let mut runt = Command::new(dist.join("bin/runt"));
        let done = runt.args(["config", "set", key, value]).env_clear().env("HOME", &self.home).output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        done.status.success().then_some(()).ok_or_else(|| io::Error::other(said))
    }

    /// The hash of what HTTP gives for a blob.
    fn blob_hash(&self, hash: &str) -> String {
        let mut wire = Wire::dial(&self.socket, &json!({"channel": "pool"})).unwrap();
        wire.send(json!({"type": "get_daemon_info"}).to_string().as_bytes()).unwrap();
        let info: Value = serde_json::from_slice(&wire.receive().unwrap()).unwrap();
        let address = format!("127.0.0.1:{}", info["blob_port"]);
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let request = format!("GET /blob/{hash} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        self::hash(&reply[end + 4..])
    }
}

/// A connection whose errors are returned.
struct Wire(UnixStream);

impl Wire {
    fn dial(socket: &PathBuf, handshake: &Value) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut wire = Self(stream);
        wire.0.write_all(&PREAMBLE)?;
        wire.send(handshake.to_string().as_bytes())?;
        Ok(wire)
    }

    fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length, body].concat())
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }
}

/// A window with settings.
struct Window {
    wire: Wire,
    document: AutoCommit,
    state: State,
}

impl Window {
    /// Stays until it has the settings.
    fn open(daemon: &Place) -> io::Result<Self> {
        let wire = Wire::dial(&daemon.socket, &json!({"channel": "settings_sync"}))?;
        let mut window = Self { wire, document: AutoCommit::new(), state: State::new() };
        while !window.settings()["theme"].is_string() {
            window.listen()?;
        }
        Ok(window)
    }

    fn settings(&self) -> Value {
        read(&self.document, &ROOT)
    }

    /// Stays until the daemon has it.
    fn set(&mut self, key: &str, value: &str) -> io::Result<()> {
        self.document.put(ROOT, key, value).unwrap();
        self.say()?;
        while self.state.their_heads != Some(self.document.get_heads()) {
            self.listen()?;
        }
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        let message = Message::decode(&self.wire.receive()?).unwrap();
        self.document.sync().receive_sync_message(&mut self.state, message).unwrap();
        self.say()
    }

    fn say(&mut self) -> io::Result<()> {
        let message = self.document.sync().generate_sync_message(&mut self.state);
        message.map_or(Ok(()), |message| self.wire.send(&message.encode()))
    }
}

/// A connection to a notebook, for what it stores.
struct Peer {
    wire: Wire,
    requests: u64,
}

impl Peer {
    fn join(daemon: &Place, notebook: &str) -> io::Result<Self> {
        let handshake = json!({"channel": "notebook_sync", "notebook_id": notebook});
        let mut wire = Wire::dial(&daemon.socket, &handshake)?;
        wire.receive()?;
        Ok(Self { wire, requests: 0 })
    }

    /// Stores a blob at once.
    fn put(&mut self, body: &[u8]) -> io::Result<()> {
        let id = self.id();
        let (media_type, size) = ("application/octet-stream".into(), body.len() as u64);
        let header =
            PutBlobHeader::Put { id, media_type, size, sha256: hash(body), durability: None, purpose: None };
        self.send(header, body, "blob_stored")
    }

    /// The same in parts.
    fn put_in_parts(&mut self, body: &[u8]) -> io::Result<()> {
        let request = json!({
            "id": self.id(), "action": "create_blob_upload", "media_type": "application/octet-stream",
            "size": body.len(), "part_size": PART, "sha256": hash(body), "purpose": "attachment",
        });
        let upload = self.ask(&request, "blob_upload_created")?["upload_id"].as_str().unwrap().to_owned();
        let mut parts = Vec::new();
        for (number, part) in (1..).zip(body.chunks(PART)) {
            let (id, upload_id, size, sha256) = (self.id(), upload.clone(), part.len() as u64, hash(part));
            parts.push(json!({"part_number": number, "sha256": sha256, "size": size}));
            let header = PutBlobHeader::Part { id, upload_id, part_number: number, size, sha256 };
            self.send(header, part, "blob_part_stored")?;
        }
        let id = self.id();
        let request =
            json!({"id": id, "action": "complete_blob_upload", "upload_id": upload, "parts": parts});
        self.ask(&request, "blob_stored").map(|_| ())
    }

    fn send(&mut self, header: PutBlobHeader, body: &[u8], result: &str) -> io::Result<()> {
        let (PutBlobHeader::Put { id, .. } | PutBlobHeader::Part { id, .. }) = header.clone();
        let frame = PutBlob { header, body: bytes::Bytes::copy_from_slice(body) }.encode().unwrap();
        self.frame(FrameType::PUT_BLOB, &frame)?;
        self.answer(&id, result).map(|_| ())
    }

    fn ask(&mut self, request: &Value, result: &str) -> io::Result<Value> {
        self.frame(FrameType::REQUEST, request.to_string().as_bytes())?;
        self.answer(request["id"].as_str().unwrap(), result)
    }

    fn id(&mut self) -> String {
        self.requests += 1;
        format!("request {}", self.requests)
    }

    fn frame(&mut self, frame_type: u8, payload: &[u8]) -> io::Result<()> {
        self.wire.0.write_all(&typed_header(frame_type, payload.len()).unwrap())?;
        self.wire.0.write_all(payload)
    }

    /// Reads until the answer with this id. Another one than `result` is an error.
    fn answer(&mut self, id: &str, result: &str) -> io::Result<Value> {
        loop {
            let frame = self.wire.receive()?;
            if frame.first() == Some(&FrameType::RESPONSE) {
                let answer: Value = serde_json::from_slice(&frame[1..]).unwrap();
                if answer["id"] == id {
                    let well = answer["result"] == result;
                    return well
                        .then_some(answer.clone())
                        .ok_or_else(|| io::Error::other(answer.to_string()));
                }
            }
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
