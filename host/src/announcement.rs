//! `daemon.json` in the base: where this daemon is, for tools that look for the file.
//!
//! For: tools of the first generation; ours ask the socket.
//! Promises: whole at every moment, for the user alone; gone after a clean end.
//! Never: proof that a daemon runs. One that was killed leaves it; whoever reads it must ping.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::cli::VERSION;

/// Name of the file, below the base.
const NAME: &str = "daemon.json";

/// The file. Removed when it is dropped.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
}

impl Announcement {
    /// Says in `base` that this process listens at `socket` since `started_at` (RFC 3339), and where it serves blobs.
    ///
    /// # Errors
    /// When the file cannot be written; nobody is told then.
    pub fn write(base: &Path, socket: &Path, started_at: &str, blob_port: Option<u16>) -> io::Result<Self> {
        let mut said = json!({
            "endpoint": socket,
            "pid": std::process::id(),
            "version": VERSION,
            "started_at": started_at,
        });
        if let Some(port) = blob_port {
            said["blob_port"] = port.into();
        }
        // Made for the user alone.
        let mut file = tempfile::NamedTempFile::new_in(base)?;
        writeln!(file, "{said:#}")?;
        let path = base.join(NAME);
        file.persist(&path).map_err(|error| error.error)?;
        Ok(Self { path })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // The next daemon replaces what stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_replaces_what_another_daemon_left_and_goes_with_its_own() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join(NAME);
        std::fs::write(&path, "half a fi").unwrap();
        let said =
            Announcement::write(base.path(), Path::new("/s.sock"), "2026-11-22T13:16:51Z", Some(47820))
                .unwrap();
        let read: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let wanted = json!({"endpoint": "/s.sock", "pid": std::process::id(), "version": VERSION,
            "started_at": "2026-11-22T13:16:51Z", "blob_port": 47820});
        assert_eq!(read, wanted);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(said);
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}
