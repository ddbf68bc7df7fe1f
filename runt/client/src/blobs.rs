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
    /// `Protocol` if it is not there or cannot be read.
    pub async fn read(&self, hash: &str) -> Result<Vec<u8>> {
        let address = self.address(hash);
        let fetched = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder().timeout_global(Some(BLOB_LIMIT)).proxy(None).build();
            let mut response = ureq::Agent::new_with_config(config).get(&address).call()?;
            response.body_mut().with_config().limit(BLOB_MAX).read_to_vec()
        });
        fetched
            .await
            .map_err(ClientError::protocol)?
            .map_err(|error| ClientError::Protocol(format!("blob {hash} could not be read: {error}")))
    }
}
