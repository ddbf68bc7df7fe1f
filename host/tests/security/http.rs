//! Who may read over HTTP, and what it costs to keep a connection. Plain cases are in `host/tests/daemon/http.rs`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::{Daemon, PATIENCE};

/// Sends `request` as it is. Returns all that is answered until the daemon closes.
pub(crate) fn say(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have closed before it has read everything.
    if let Err(error) = stream.write_all(request) {
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no answer: {error}"),
        _ => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// Status of an answer; none if there was none.
pub(crate) fn status(answer: &str) -> Option<u16> {
    answer.split(' ').nth(1)?.parse().ok()
}

fn ask(port: u16, method: &str, path: &str, headers: &str) -> String {
    say(port, format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes())
}

#[test]
fn no_name_but_loopback_names_leads_here() {
    let daemon = Daemon::start();
    let port = crate::port(&daemon);
    let hosts = [
        "rebind.evil.example",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "evil.example#localhost",
        "evil@localhost",
        "localhost@evil",
        "localhost.",
        "localhost ",
        "0.0.0.0",
        "127.1",
        "127.0.0.2",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::1%25lo]",
        "::1",
        "%6cocalhost",
        "localhost\t",
        "lоcalhost", // the second letter is Cyrillic
    ];
    for host in hosts.map(|name| format!("{name}:{port}")).iter().map(String::as_str).chain(["", " "]) {
        let answer = ask(port, "GET", "/health", &format!("Host: {host}\r\n"));
        assert!(matches!(status(&answer), Some(403 | 400)), "{host}: {answer}");
        assert!(!answer.ends_with("OK"), "{host}: {answer}");
    }
    let ours = format!("localhost:{port}");
    for headers in [
        String::new(),
        format!("Host: {ours}\r\nHost: {ours}\r\n"),
        format!("Host: evil.example\r\nX-Forwarded-Host: {ours}\r\nForwarded: host={ours}\r\n"),
    ] {
        let answer = ask(port, "GET", "/health", &headers);
        assert!(matches!(status(&answer), Some(403 | 400)), "{headers}: {answer}");
    }
    crate::stop(daemon);
}

#[test]
fn pages_of_any_origin_may_read_and_none_may_do_more() {
    let daemon = Daemon::start();
    let port = crate::port(&daemon);
    for origin in ["https://evil.example", "null", "file://", &format!("http://localhost:{port}")] {
        let headers = format!("Host: localhost:{port}\r\nOrigin: {origin}\r\nCookie: a=b\r\n");
        let answer = ask(port, "GET", "/health", &headers).to_lowercase();
        assert_eq!(status(&answer), Some(200), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *\r\n"), "{answer}");
        // With `*` and without this, a browser sends no credentials; and there are none.
        assert!(!answer.contains("access-control-allow-credentials") && !answer.contains("set-cookie"));
        let asks = format!(
            "{headers}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a\r\n\
             Access-Control-Request-Private-Network: true\r\n"
        );
        for path in ["/health", "/blob/x", "/"] {
            let answer = ask(port, "OPTIONS", path, &asks).to_lowercase();
            assert!(matches!(status(&answer), Some(404 | 405)), "{answer}");
            for granted in ["allow-methods", "allow-headers", "allow-private-network"] {
                assert!(!answer.contains(granted), "{answer}");
            }
        }
    }
    let host = format!("Host: localhost:{port}\r\n");
    for method in ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "BREW", "get"] {
        for path in ["/health", "/blob/x"] {
            let answer = ask(port, method, path, &format!("{host}Content-Length: 0\r\n"));
            assert!(matches!(status(&answer), Some(405 | 400)), "{method} {path}: {answer}");
        }
    }
    for upgrade in ["websocket", "h2c"] {
        let headers = format!("{host}Upgrade: {upgrade}\r\nConnection: Upgrade\r\n");
        assert_eq!(status(&ask(port, "GET", "/health", &headers)), Some(200), "served as if not asked");
    }
    let tunnel = ask(port, "CONNECT", "evil.example:443", &host);
    assert!(status(&tunnel).is_none_or(|status| status >= 400), "{tunnel}");
    crate::stop(daemon);
}

/// Other users of the machine can connect; so can a page, some times.
#[test]
fn connections_that_say_nothing_leave_room_for_everybody_else() {
    let daemon = Daemon::start_with(|_, command| crate::behind(command, "ulimit -n 192"));
    let port = crate::port(&daemon);
    let silent: Vec<_> = (0..240)
        .map(|number: usize| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Some never finish what they begin to say.
            if number.is_multiple_of(2) {
                stream.write_all(b"GET /health HTTP/1.1\r\nHost: ").unwrap();
            }
            stream
        })
        .collect();
    crate::is_well(&daemon, "240 silent connections");
    drop(silent);
    let answer = ask(port, "GET", "/health", &format!("Host: localhost:{port}\r\n"));
    assert!(answer.ends_with("OK"), "{answer}");
    crate::stop(daemon);
}
