//! Reading blobs over HTTP.
//!
//! For: content of outputs that is too large, or too binary, for a document.
//! Promises: only the daemon's own server on 127.0.0.1 is asked.

use std::time::Duration;

use crate::{Client, ClientError, Result};

/// Longest wait for one blob; the largest has 100 MiB and comes from this machine.
const BLOB_LIMIT: Duration = Duration::from_secs(60);

/// Largest blob there is. Source: the blob store's own limit.
const BLOB_MAX: u64 = 100 * 1024 * 1024;

/// Status of the daemon's answer when it does not have a blob.
const NOT_FOUND: u16 = 404;

/// Reads blobs of one daemon.
#[derive(Debug, Clone)]
pub struct BlobReader {
    port: u16,
}

impl Client {
    /// A reader of the daemon's blobs.
    ///
    /// # Errors
    /// As [`Client::ask`], and `Protocol` if the daemon serves no blobs.
    pub async fn blobs(&self) -> Result<BlobReader> {
        let port = self.daemon_info().await?.blob_port;
        let port = port.ok_or_else(|| ClientError::Protocol("the daemon serves no blobs".into()))?;
        Ok(BlobReader { port })
    }
}

impl BlobReader {
    /// Where a person can look at a blob.
    pub fn address(&self, hash: &str) -> String {
        format!("http://127.0.0.1:{}/blob/{hash}", self.port)
    }

    /// The bytes of a blob.
    ///
    /// # Errors
    /// `NoBlob` if it is not there, `Protocol` if it cannot be read just now.
    pub async fn read(&self, hash: &str) -> Result<Vec<u8>> {
        let address = self.address(hash);
        let fetched = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().timeout_global(Some(BLOB_LIMIT)).proxy(None).build();
            let mut response = ureq::Agent::new_with_config(config).get(&address).call()?;
            response.body_mut().with_config().limit(BLOB_MAX).read_to_vec()
        });
        fetched.await.map_err(ClientError::protocol)?.map_err(|error| match error {
            ureq::Error::StatusCode(NOT_FOUND) => ClientError::NoBlob(hash.to_owned()),
            error => ClientError::Protocol(format!("blob {hash} could not be read: {error}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What becomes of a blob that a server answers with `status`.
    async fn read(status: &str) -> Result<Vec<u8>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let read = BlobReader { port }.read("aa").await;
        server.join().unwrap();
        read
    }

    #[tokio::test]
    async fn what_is_gone_is_told_from_what_cannot_be_read_just_now() {
        assert_eq!(read("200 OK").await.unwrap(), b"hi");
        assert!(matches!(read("404 Not Found").await, Err(ClientError::NoBlob(hash)) if hash == "aa"));
        for trouble in ["500 Internal Server Error", "503 Service Unavailable"] {
            assert!(matches!(read(trouble).await, Err(ClientError::Protocol(_))), "{trouble}");
        }
    }
}
