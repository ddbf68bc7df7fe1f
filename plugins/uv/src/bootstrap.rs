//! Brings uv to a machine that has none.
//!
//! For: a fresh machine with nothing but our own binaries.
//! Promises: what ends up in `<tools>/uv-<12 hex>/bin/uv` had the pinned SHA-256, is complete and is
//! installed once, however many processes try. A failure leaves nothing and is not remembered.
//! Never: runs on an async thread; it reads, writes and waits.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use runtimed_plugin_api::{ErrorCode, PluginError, Task};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::index::{Index, IndexError};
use crate::key::hex_digits;
use crate::wheel::{PinnedWheel, UV_VERSION, unpack_uv};

/// Longest wheel. The pinned ones have 14 to 19 MiB.
const WHEEL_BYTES: u64 = 200 << 20;

/// How long another process may take to install the same uv.
const LOCK_WAIT: Duration = Duration::from_secs(300);

/// How often a lock held by another process, and our own cancellation, are looked at.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// How often the download's progress is shown. Source: the wire contract.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// Why there is still no uv.
#[derive(Debug, thiserror::Error)]
enum BootstrapError {
    #[error("there is no uv for {} on {}", std::env::consts::ARCH, std::env::consts::OS)]
    NoWheel,
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the download of {file} broke off: {source}")]
    BrokeOff { file: &'static str, source: io::Error },
    #[error("Checksum mismatch: expected {expected}, got {got} ({file} from {from})")]
    Checksum { expected: &'static str, got: String, file: &'static str, from: String },
    #[error("could not write `{}`: {source}", path.display())]
    Disk { path: PathBuf, source: io::Error },
    #[error("another process has been installing uv for {} seconds", LOCK_WAIT.as_secs())]
    Locked,
    #[error("cancelled")]
    Cancelled,
}

impl From<BootstrapError> for PluginError {
    fn from(error: BootstrapError) -> Self {
        let message = format!("uv is not installed and could not be fetched: {error}");
        let network = matches!(error, BootstrapError::Index(_) | BootstrapError::BrokeOff { .. });
        let error = match error {
            BootstrapError::NoWheel => Self::unsupported(message),
            BootstrapError::Cancelled => Self::new(ErrorCode::Cancelled, message),
            BootstrapError::Checksum { .. } => Self::new(ErrorCode::Denied, message),
            BootstrapError::Disk { .. } => Self::internal(message),
            BootstrapError::Index(_) | BootstrapError::BrokeOff { .. } | BootstrapError::Locked => {
                Self::unavailable(message)
            }
        };
        error
            .help(
                "Install uv so that it is on PATH, or name a reachable package index in UV_DEFAULT_INDEX \
                 (and, where a proxy has a certificate of its own, its issuer in SSL_CERT_FILE). \
                 Nothing was left behind; the next attempt starts over.",
            )
            .detail(json!({ "error_kind": "setup_failed", "network": network }))
    }
}

/// The uv under `tools`, fetched from `index` if it is not there yet.
/// Dropping the future stops the download.
pub(crate) async fn ensure(tools: PathBuf, index: String, task: Task) -> Result<PathBuf, PluginError> {
    let stop = CancellationToken::new();
    let _stops_when_dropped = stop.clone().drop_guard();
    let installation = Installation { tools, stop, task };
    tokio::task::spawn_blocking(move || installation.run(&index))
        .await
        .map_err(|_| BootstrapError::Cancelled)?
        .map_err(PluginError::from)
}

/// `uv-<12 hex>`, keyed by release and machine so that releases live side by side.
fn folder_name(tool: &str, version: &str, os: &str, arch: &str) -> String {
    format!("{tool}-{}", hex_digits(&format!("{tool}={version}{arch}-{os}"), 12))
}

struct Installation {
    tools: PathBuf,
    stop: CancellationToken,
    task: Task,
}

impl Installation {
    fn run(&self, index: &str) -> Result<PathBuf, BootstrapError> {
        let name = folder_name("uv", UV_VERSION, std::env::consts::OS, std::env::consts::ARCH);
        let folder = self.tools.join(&name);
        let program = folder.join("bin/uv");
        if program.is_file() {
            return Ok(program);
        }
        let wheel = PinnedWheel::for_this_machine().ok_or(BootstrapError::NoWheel)?;
        let _lock = self.lock(&self.tools.join(".locks").join(format!("{name}.lock")))?;
        if program.is_file() {
            return Ok(program);
        }
        // Under the lock, a staging folder of this name belongs to a process that died.
        let staging = self.tools.join(format!(".staging-{name}"));
        remove(&staging)?;
        let done = self.stage(index, wheel, &staging).and_then(|()| {
            remove(&folder)?;
            disk(&folder, fs::rename(&staging, &folder))
        });
        if done.is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
        done.map(|()| program)
    }

    /// Waits for the only right to install; it ends with the returned file.
    fn lock(&self, path: &Path) -> Result<File, BootstrapError> {
        if let Some(folder) = path.parent() {
            disk(folder, fs::create_dir_all(folder))?;
        }
        let file = disk(path, File::create(path))?;
        let waiting_since = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(source)) => {
                    return Err(BootstrapError::Disk { path: path.to_owned(), source });
                }
                Err(TryLockError::WouldBlock) if self.stop.is_cancelled() => {
                    return Err(BootstrapError::Cancelled);
                }
                Err(TryLockError::WouldBlock) if waiting_since.elapsed() > LOCK_WAIT => {
                    return Err(BootstrapError::Locked);
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
            }
        }
    }

    /// Fills `staging` with what becomes the tool's folder.
    fn stage(&self, index: &str, wheel: PinnedWheel, staging: &Path) -> Result<(), BootstrapError> {
        let bin = staging.join("bin");
        disk(&bin, fs::create_dir_all(&bin))?;
        let archive = staging.join("uv.whl");
        self.download(&Index::new(index)?, wheel, &archive)?;
        disk(&bin, unpack_uv(&archive, &bin.join("uv")))?;
        disk(&archive, fs::remove_file(&archive))
    }

    /// Writes the wheel to `path` and compares its checksum.
    fn download(&self, index: &Index, wheel: PinnedWheel, path: &Path) -> Result<(), BootstrapError> {
        let url = index.locate(wheel.file)?;
        let from = url.host_str().unwrap_or_default().to_owned();
        tracing::info!(version = UV_VERSION, %from, "uv is not installed; fetching it");
        let mut content = index.fetch(&url, WHEEL_BYTES)?;
        let mut file = disk(path, File::create(path))?;
        let mut sha256 = Sha256::new();
        let mut buffer = vec![0u8; 64 << 10];
        let started = Instant::now();
        let (mut bytes, mut shown) = (0u64, started);
        loop {
            if self.stop.is_cancelled() {
                return Err(BootstrapError::Cancelled);
            }
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(BootstrapError::BrokeOff { file: wheel.file, source }),
            };
            let chunk = buffer.get(..count).unwrap_or_default();
            sha256.update(chunk);
            disk(path, file.write_all(chunk))?;
            bytes += count as u64;
            if shown.elapsed() >= PROGRESS_EVERY {
                shown = Instant::now();
                self.report(bytes, started.elapsed());
            }
        }
        self.report(bytes, started.elapsed());
        let got = hex::encode(sha256.finalize());
        match got == wheel.sha256 {
            true => Ok(()),
            false => Err(BootstrapError::Checksum { expected: wheel.sha256, got, file: wheel.file, from }),
        }
    }

    fn report(&self, bytes: u64, elapsed: Duration) {
        let fields = json!({
            "completed": 0,
            "total": 1,
            "current_package": "uv",
            "bytes_downloaded": bytes,
            "bytes_total": null,
            "bytes_per_second": bytes as f64 / elapsed.as_secs_f64().max(f64::EPSILON),
        });
        self.task.report("download_progress", fields);
    }
}

fn remove(folder: &Path) -> Result<(), BootstrapError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => disk(folder, Err(error)),
        _ => Ok(()),
    }
}

fn disk<T>(path: &Path, result: io::Result<T>) -> Result<T, BootstrapError> {
    result.map_err(|source| BootstrapError::Disk { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Observed on the reference daemon, so that its downloads are found and ours by it.
    #[test]
    fn folder_names_are_shared() {
        assert_eq!(folder_name("pixi", "0.67.1", "linux", "x86_64"), "pixi-ba1210b826dd");
    }
}
