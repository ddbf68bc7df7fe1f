//! An HTTP server on loopback that plays a package index. Ends with its value.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use runtimed_plugin_uv::PinnedWheel;

/// What the server does with a request.
pub(crate) enum Reply {
    Content(&'static str, Vec<u8>),
    Missing,
    /// Nothing, with the connection kept open.
    Silence,
}

pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Paths asked for, as they come.
    asked: Mutex<Receiver<String>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&str) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, asked) = channel();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let Some(path) = path_of(&stream) else { continue };
                let reply = answer(&path);
                let _ = sender.send(path);
                match reply {
                    Reply::Content(kind, body) => respond(stream, "200 OK", kind, &body),
                    Reply::Missing => respond(stream, "404 Not Found", "text/plain", b"no"),
                    Reply::Silence => silent.push(stream),
                }
            }
        });
        Self { address, stop, thread: Some(thread), asked: Mutex::new(asked) }
    }

    /// An index of the project `uv` with the pinned wheel, whose bytes are `wheel`.
    pub(crate) fn with_wheel(wheel: Vec<u8>) -> Self {
        let file = PinnedWheel::for_this_machine().unwrap().file;
        Self::start(move |path| match path {
            "/simple/uv/" => {
                let page = serde_json::json!({
                    "meta": { "api-version": "1.0" },
                    "files": [{ "filename": file, "url": format!("../../files/{file}"), "hashes": {} }],
                });
                Reply::Content("application/vnd.pypi.simple.v1+json", page.to_string().into_bytes())
            }
            _ if path == format!("/files/{file}") => Reply::Content("application/zip", wheel.clone()),
            _ => Reply::Missing,
        })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits for the next request and returns its path.
    pub(crate) fn next_request(&self) -> String {
        self.asked.lock().unwrap().recv().unwrap()
    }

    /// Paths asked for since the last look.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap().try_iter().collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn path_of(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    while !lines.next()?.ok()?.is_empty() {}
    Some(path)
}

fn respond(mut stream: TcpStream, status: &str, kind: &str, body: &[u8]) {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}
