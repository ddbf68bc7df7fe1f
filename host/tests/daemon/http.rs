//! The HTTP server of a daemon without plugins.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::support::{Daemon, PATIENCE};

/// Status line and everything after it.
fn ask(port: u16, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, answer)
}

#[test]
fn only_loopback_names_are_served_and_only_to_read() {
    let daemon = Daemon::start();
    let info = daemon.ask(json!({"type": "get_daemon_info"}));
    let port = u16::try_from(info["blob_port"].as_u64().unwrap()).unwrap();
    let ours = format!("localhost:{port}");
    let blob = format!("/blob/{}", "a".repeat(64));

    for host in [&ours, &format!("127.0.0.1:{port}"), &format!("[::1]:{port}")] {
        let (status, answer) = ask(port, "GET", "/health", host);
        assert!(status == 200 && answer.ends_with("\r\n\r\nOK"), "{answer}");
    }
    for host in ["evil.example", &format!("evil.example:{port}"), "localhost", "127.0.0.1:1", ""] {
        assert_eq!(ask(port, "GET", "/health", host).0, 403, "{host}");
    }
    for (method, path, status) in [
        ("POST", "/health", 405),
        ("OPTIONS", blob.as_str(), 405),
        ("DELETE", &blob, 405),
        ("GET", "/nothing", 404),
        ("GET", "/blob/short", 404),
        ("GET", &blob.to_uppercase().replace("BLOB", "blob"), 404),
        ("GET", "/blob/..%2f..%2fetc%2fpasswd", 404),
        ("GET", &blob, 503),
    ] {
        let (answered, answer) = ask(port, method, path, &ours);
        assert_eq!(answered, status, "{method} {path}");
        assert!(answer.contains("access-control-allow-origin: *"), "{answer}");
    }
}
