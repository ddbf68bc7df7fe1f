//! Garbage costs the connection it comes on, and nobody else's.

use serde_json::json;

use crate::support::{Daemon, PREAMBLE};

/// `bytes` after the preamble.
fn after_preamble(bytes: &[u8]) -> Vec<u8> {
    [&PREAMBLE, bytes].concat()
}

/// A handshake frame after the preamble.
fn handshake(json: &str) -> Vec<u8> {
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    after_preamble(&[&length, json.as_bytes()].concat())
}

#[test]
fn every_kind_of_garbage_is_closed_in_silence_while_others_are_served() {
    let daemon = Daemon::start();
    let mut healthy = daemon.connect(json!({"channel": "pool"}));
    let pool = handshake(r#"{"channel":"pool"}"#);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("the first wrong byte", b"x".to_vec()),
        ("a handshake of 4 GiB", after_preamble(&[0xff; 4])),
        ("a handshake just over its limit", after_preamble(&65_537_u32.to_be_bytes())),
        ("no JSON", handshake("nonsense")),
        ("half of a JSON object", handshake(r#"{"channel":"#)),
        ("an unknown channel", handshake(r#"{"channel":"blob"}"#)),
        ("no channel", handshake("{}")),
        ("a missing key", handshake(r#"{"channel":"open_notebook"}"#)),
        ("a wrong type", handshake(r#"{"channel":"create_notebook","runtime":3}"#)),
        (
            "an unknown environment mode",
            handshake(r#"{"channel":"create_notebook","runtime":"python","environment_mode":"x"}"#),
        ),
        ("another daemon's private channel", handshake(r#"{"channel":"runtime_agent","notebook_id":"x"}"#)),
        ("a request of 4 GiB", [&pool[..], &[0xff; 4]].concat()),
        ("a request just over its limit", [&pool[..], &65_537_u32.to_be_bytes()].concat()),
        ("a request that is no JSON", [&pool[..], b"\0\0\0\x04ping"].concat()),
        ("an empty request", [&pool[..], &[0; 4]].concat()),
        (
            "settings that are no sync message",
            [&handshake(r#"{"channel":"settings_sync"}"#)[..], b"\0\0\0\x03abc"].concat(),
        ),
    ];
    for (what, bytes) in cases {
        let mut client = daemon.dial();
        client.write(&bytes);
        let rest = client.rest();
        // The settings channel has spoken first, as it should.
        assert!(rest.is_empty() || what.starts_with("settings"), "{what} got {rest:?}");
        assert_eq!(healthy.ask(json!({"type": "ping"}))["type"], "pong", "after {what}");
    }
}

#[test]
fn versions_are_judged_by_channel() {
    let daemon = Daemon::start();
    let open = |version: u8, channel: &str| {
        let mut client = daemon.dial();
        client.write(&[&PREAMBLE[..4], &[version]].concat());
        client.send(channel.as_bytes());
        client
    };
    for version in [0, 3, 99, 255] {
        assert_eq!(open(version, r#"{"channel":"pool"}"#).ask(json!({"type": "ping"}))["type"], "pong");
        let create = open(version, r#"{"channel":"create_notebook","runtime":"python"}"#);
        assert!(create.rest().is_empty());
    }
    assert!(open(5, r#"{"channel":"settings_sync"}"#).rest().is_empty());
    assert!(!open(1, r#"{"channel":"settings_sync"}"#).receive().is_empty());
}

#[test]
fn half_a_handshake_and_silence_is_closed_after_its_time() {
    let daemon = Daemon::start();
    let mut clients = Vec::new();
    for bytes in [&[][..], &PREAMBLE[..3], &after_preamble(&[0, 0]), &after_preamble(b"\0\0\0\x20{\"chan")] {
        let mut client = daemon.dial();
        client.write(bytes);
        clients.push(client);
    }
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    for client in clients {
        assert!(client.rest().is_empty());
    }
}

#[test]
fn a_peer_that_stops_in_the_middle_of_a_request_keeps_nobody_waiting() {
    let daemon = Daemon::start();
    let mut stuck = daemon.connect(json!({"channel": "pool"}));
    stuck.write(b"\0\0\x10\0{\"type\":");
    assert_eq!(daemon.ask(json!({"type": "ping"}))["type"], "pong");
    stuck.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(stuck.rest().is_empty());
}
