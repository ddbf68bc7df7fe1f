//! Blobs, whole and in parts.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use runtimed_protocol::put_blob::{Durability, PutBlobHeader};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::peer::Peer;
use crate::support::Daemon;

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn failed(kind: &str) -> Value {
    json!({"result": "blob_upload_error", "reason": {"kind": kind}})
}

fn part(upload: &Value, part_number: u32, body: &[u8]) -> PutBlobHeader {
    PutBlobHeader::Part {
        id: format!("part {part_number}"),
        upload_id: upload["upload_id"].as_str().unwrap().to_owned(),
        part_number,
        size: body.len() as u64,
        sha256: hash(body),
    }
}

/// What HTTP gives for a blob: its head and its bytes.
fn get(daemon: &Daemon, hash: &str) -> (String, Vec<u8>) {
    let port = daemon.ask(json!({"type": "get_daemon_info"}))["blob_port"].as_u64().unwrap();
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    let request = format!("GET /blob/{hash} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(reply[..end].to_vec()).unwrap(), reply[end + 4..].to_vec())
}

/// Bytes of the daemon's memory.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The client's files that the daemon has open and that have no name.
fn staged(daemon: &Daemon) -> usize {
    let open = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let base = daemon.base().canonicalize().unwrap();
    targets
        .filter(|target| target.starts_with(&base) && target.to_string_lossy().ends_with(" (deleted)"))
        .count()
}

#[test]
fn a_large_blob_comes_in_parts_and_is_read_over_http() {
    const PART: usize = 8 * 1024 * 1024;
    let Some(daemon) = crate::start() else { return };
    let mut ana = Peer::create(&daemon);
    assert_eq!(ana.info["put_blob"]["multipart"], true);
    let whole: Vec<u8> = (0..5 * PART + 1000).map(|n| (n % 251) as u8).collect();
    let create = json!({
        "action": "create_blob_upload", "media_type": "video/mp4", "size": whole.len(),
        "sha256": hash(&whole), "purpose": "attachment",
    });
    let upload = ana.ask(create);
    assert_eq!((&upload["result"], &upload["part_size"]), (&json!("blob_upload_created"), &json!(PART)));
    let expires: jiff::Timestamp = upload["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires > jiff::Timestamp::now());
    assert_eq!(staged(&daemon), 1);

    let before = resident(&daemon);
    let mut parts = Vec::new();
    // In any order: here from the end.
    for (number, body) in whole.chunks(PART).enumerate().collect::<Vec<_>>().into_iter().rev() {
        let number = number as u32;
        let stored = ana.put(part(&upload, number, body), body);
        assert_eq!((&stored["result"], &stored["sha256"]), (&json!("blob_part_stored"), &json!(hash(body))));
        parts.insert(0, json!({"part_number": number, "sha256": hash(body), "size": body.len()}));
    }
    let grown = resident(&daemon).saturating_sub(before);
    assert!(grown < 4 * PART as u64, "memory holds a part, not the {} bytes staged: {grown}", whole.len());
    let complete =
        json!({"action": "complete_blob_upload", "upload_id": upload["upload_id"], "parts": parts});
    let stored = ana.ask(complete.clone());
    let expected = json!({
        "result": "blob_stored", "hash": hash(&whole), "size": whole.len(), "media_type": "video/mp4",
    });
    assert_eq!(stored, expected);
    let (head, body) = get(&daemon, &hash(&whole));
    assert!(head.to_ascii_lowercase().contains("\r\nx-content-type-options: nosniff"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: video/mp4"), "{head}");
    assert!(body == whole);
    assert_eq!(ana.ask(complete), failed("unknown_upload"));
    assert_eq!(staged(&daemon), 0);
    crate::stop(daemon);
}

#[test]
fn what_cannot_be_stored_is_refused_by_name() {
    let Some(daemon) = crate::start() else { return };
    let mut ana = Peer::create(&daemon);
    let put = |size: u64, sha256: &str| PutBlobHeader::Put {
        id: "b1".into(),
        media_type: "text/plain".into(),
        size,
        sha256: sha256.into(),
        durability: Some(Durability::Ephemeral),
        purpose: None,
    };
    assert_eq!(ana.put(put(2, &hash(b"abc")), b"abc"), failed("size_mismatch"));
    assert_eq!(ana.put(put(3, &hash(b"abd")), b"abc"), failed("hash_mismatch"));
    assert_eq!(ana.put(put(3, &hash(b"abc")), b"abc")["result"], "blob_stored");

    let create = |fields: Value| {
        let mut request = json!({"action": "create_blob_upload", "media_type": "a/b", "size": 6});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request
    };
    for (fields, kind) in [
        (json!({"part_size": 0}), "over_cap"),
        (json!({"part_size": 33_554_433}), "over_cap"),
        (json!({"size": 268_435_457_u64}), "over_peer_budget"),
        (json!({"sha256": "short"}), "final_hash_mismatch"),
    ] {
        assert_eq!(ana.ask(create(fields)), failed(kind));
    }
    let upload = ana.ask(create(json!({"part_size": 3, "sha256": hash(b"abcdef")})));
    assert_eq!(ana.ask(create(json!({}))), failed("over_peer_budget"), "one at a time");
    let lie = PutBlobHeader::Part {
        id: "lie".into(),
        upload_id: upload["upload_id"].as_str().unwrap().into(),
        part_number: 1,
        size: 3,
        sha256: hash(b"xyz"),
    };
    assert_eq!(ana.put(lie, b"abc"), failed("part_hash_mismatch"));
    assert_eq!(ana.put(part(&upload, 1, b"abcd"), b"abcd"), failed("part_size_mismatch"));
    for (number, body) in [(1, b"abc"), (2, b"def"), (1, b"abc")] {
        assert_eq!(ana.put(part(&upload, number, body), body)["result"], "blob_part_stored");
    }
    assert_eq!(ana.put(part(&upload, 1, b"xyz"), b"xyz"), failed("duplicate_part_conflict"));
    let listed =
        |number: u32, body: &[u8]| json!({"part_number": number, "sha256": hash(body), "size": body.len()});
    let complete = |parts: Vec<Value>| json!({"action": "complete_blob_upload", "upload_id": upload["upload_id"], "parts": parts});
    assert_eq!(ana.ask(complete(vec![listed(1, b"abc")])), failed("manifest_mismatch"));
    let reversed = vec![listed(2, b"def"), listed(1, b"abc")];
    assert_eq!(ana.ask(complete(reversed)), failed("final_hash_mismatch"));
    let abort = json!({"action": "abort_blob_upload", "upload_id": upload["upload_id"]});
    let aborted = json!({"result": "blob_upload_aborted", "upload_id": upload["upload_id"]});
    assert_eq!(ana.ask(abort.clone()), aborted);
    assert_eq!(ana.ask(abort), failed("unknown_upload"));
    assert_eq!(ana.put(part(&upload, 3, b"ghi"), b"ghi"), failed("unknown_upload"));
    crate::stop(daemon);
}

#[test]
fn an_upload_ends_with_its_connection() {
    let Some(daemon) = crate::start() else { return };
    let mut ana = Peer::create(&daemon);
    let id = ana.info["notebook_id"].clone();
    let mut bob = Peer::connect(&daemon, json!({"channel": "notebook_sync", "notebook_id": id}));
    let create = json!({"action": "create_blob_upload", "media_type": "a/b", "size": 3});
    let upload = bob.ask(create);
    assert_eq!(bob.put(part(&upload, 1, b"abc"), b"abc")["result"], "blob_part_stored");
    assert_eq!(ana.put(part(&upload, 1, b"abc"), b"abc"), failed("unknown_upload"), "another's upload");
    assert_eq!(staged(&daemon), 1);
    drop(bob);
    // The room hears of it in its own time; what it hears from Ana comes in between.
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    while staged(&daemon) > 0 {
        assert!(std::time::Instant::now() < end, "the file is still open");
        ana.ask(json!({"action": "acknowledge_notebook_sync"}));
    }
    crate::stop(daemon);
}
