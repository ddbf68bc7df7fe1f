//! Pool calls against a daemon of a few lines: framing, limits and error texts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use runtimed_client::{Client, ClientError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Reads preamble, handshake and one request; returns the latter two as text.
async fn read_question(stream: &mut UnixStream) -> (String, String) {
    let mut preamble = [0; 5];
    stream.read_exact(&mut preamble).await.unwrap();
    assert_eq!(preamble, [0xC0, 0xDE, 0x01, 0xAC, 4]);
    (read_frame(stream).await, read_frame(stream).await)
}

async fn read_frame(stream: &mut UnixStream) -> String {
    let mut body = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut body).await.unwrap();
    String::from_utf8(body).unwrap()
}

/// Asks for a ping and has it answered with `reply`, in two pieces.
async fn ping_answered_with(reply: Vec<u8>) -> Result<runtimed_client::Pong, ClientError> {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (handshake, request) = read_question(&mut stream).await;
        assert_eq!((&*handshake, &*request), (r#"{"channel":"pool"}"#, r#"{"type":"ping"}"#));
        let (left, right) = reply.split_at(reply.len() / 2);
        stream.write_all(left).await.unwrap();
        tokio::task::yield_now().await;
        // The client may have given up on the first piece.
        let _ = stream.write_all(right).await;
    };
    let client = Client::new(&socket);
    tokio::join!(client.ping(), daemon).0
}

fn frame(json: &str) -> Vec<u8> {
    [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], json.as_bytes()].concat()
}

#[tokio::test]
async fn a_ping_is_answered() {
    let pong = r#"{"type":"pong","protocol_version":4,"daemon_version":"2.8.2+32e010b","zzz":0}"#;
    let pong = ping_answered_with(frame(pong)).await.unwrap();
    assert_eq!(pong.protocol_version, Some(4));
}

/// Linux alone says so at once; elsewhere the system waits or refuses.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_daemon_whose_queue_is_full_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let mut waiting = Vec::new();
    let full = loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error.kind(),
        }
    };
    assert_eq!(full, std::io::ErrorKind::WouldBlock);
    let client = Client::new(&socket);
    let daemon = async {
        tokio::task::yield_now().await;
        for _ in &waiting {
            listener.accept().await.unwrap();
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        read_question(&mut stream).await;
        stream.write_all(&frame(r#"{"type":"pong"}"#)).await.unwrap();
    };
    tokio::join!(client.ping(), daemon).0.unwrap();
}

#[tokio::test]
async fn each_failure_has_the_text_that_users_know() {
    let text = |result: Result<_, ClientError>| result.unwrap_err().to_string();
    let error = ping_answered_with(frame(r#"{"type":"error","message":"no"}"#)).await;
    assert_eq!(text(error), "Daemon returned error: no");
    assert_eq!(text(ping_answered_with(vec![]).await), "Protocol error: connection closed");
    let long = ping_answered_with(vec![0, 1, 0, 1]).await;
    assert_eq!(text(long), "Protocol error: a frame of 65537 bytes is over the limit of 65536");
    let other = ping_answered_with(frame(r#"{"type":"flushed"}"#)).await;
    assert_eq!(text(other), "Protocol error: unexpected reply `flushed`");

    let folder = tempfile::tempdir().unwrap();
    let nobody = Client::new(folder.path().join("s")).ping().await;
    assert_eq!(text(nobody), "Failed to connect to daemon: No such file or directory (os error 2)");
}

#[tokio::test(start_paused = true)]
async fn a_silent_daemon_is_not_waited_for_forever() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let silent = Client::new(&socket).ping().await;
    assert_eq!(silent.unwrap_err().to_string(), "Connection timeout");
}
