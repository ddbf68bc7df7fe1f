//! A shim without the product's own code, which may change, on this side of the connection.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A shim for `folder`, and the connection that it is born with.
pub(crate) fn born(folder: &Path) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    // Only a test that fails waits so long.
    ours.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let shim = Command::new(env!("CARGO_BIN_EXE_runtimed-kernel"))
        .arg(folder)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    (shim, ours)
}

pub(crate) fn write(stream: &mut UnixStream, kind: u8, body: &[u8]) {
    let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &[kind], body].concat()).unwrap();
}

pub(crate) fn read(stream: &mut UnixStream) -> Option<(u8, Vec<u8>)> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut rest = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut rest).ok()?;
    let body = rest.split_off(1);
    Some((rest[0], body))
}

/// Reads up to a frame with `text` in it; its type.
pub(crate) fn until(stream: &mut UnixStream, text: &str) -> u8 {
    loop {
        let (kind, body) = read(stream).expect("the shim goes on");
        if String::from_utf8_lossy(&body).contains(text) {
            return kind;
        }
    }
}
