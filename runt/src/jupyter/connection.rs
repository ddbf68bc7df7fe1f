//! Connection files: where a kernel listens, and the key it believes.
//!
//! Promises: the format of jupyter_client, in both directions; a file is made before its kernel, mode 0600.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Longest file that is read, in bytes. Real ones have some hundred.
const LARGEST: u64 = 1 << 16;
/// The one way of signing there is.
const SCHEME: &str = "hmac-sha256";

/// What a connection file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    #[serde(default)]
    pub(crate) transport: Transport,
    /// Address; with [`Transport::Ipc`] a path, which gets `-<port>` behind it.
    pub(crate) ip: String,
    pub(crate) stdin_port: u16,
    pub(crate) control_port: u16,
    pub(crate) hb_port: u16,
    pub(crate) shell_port: u16,
    pub(crate) iopub_port: u16,
    pub(crate) signature_scheme: String,
    pub(crate) key: String,
    /// Name of its kernelspec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_name: Option<String>,
}

/// What a kernel is reached by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    #[default]
    Tcp,
    Ipc,
}

impl Connection {
    /// A connection with a new key and five ports on 127.0.0.1 that were free a moment ago.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn new(kernel_name: Option<&str>) -> io::Result<Self> {
        // All are held until the last is found, so that no two are the same.
        let held: Vec<TcpListener> =
            (0..5).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<io::Result<_>>()?;
        let mut ports = held.iter().map(|listener| Ok(listener.local_addr()?.port()));
        let mut port = || ports.next().unwrap_or_else(|| Err(io::Error::other("no port")));
        Ok(Self {
            transport: Transport::Tcp,
            ip: "127.0.0.1".to_owned(),
            stdin_port: port()?,
            control_port: port()?,
            hb_port: port()?,
            shell_port: port()?,
            iopub_port: port()?,
            signature_scheme: SCHEME.to_owned(),
            key: Uuid::new_v4().to_string(),
            kernel_name: kernel_name.map(str::to_owned),
        })
    }

    /// Writes a file that is not there yet.
    ///
    /// # Errors
    /// `AlreadyExists` if it is; the system's.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is not there, is no connection file, or wants something that is not spoken here.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let length = fs::metadata(path).with_context(|| format!("cannot read {shown}"))?.len();
        if length > LARGEST {
            bail!("{shown} is no connection file");
        }
        let text = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
        let connection: Self =
            serde_json::from_slice(&text).with_context(|| format!("{shown} is no connection file"))?;
        if connection.key.is_empty() || connection.signature_scheme != SCHEME {
            bail!("{shown} is of a kernel whose messages are not signed with {SCHEME}; it is left alone");
        }
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_survives_the_trip_and_is_the_users_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runt-kernel-a.json");
        let connection = Connection::new(Some("python3")).unwrap();
        connection.write(&path).unwrap();
        assert_eq!(Connection::read(&path).unwrap(), connection);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(connection.write(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let it = connection;
        let ports = [it.stdin_port, it.control_port, it.hb_port, it.shell_port, it.iopub_port];
        assert_eq!(BTreeSet::from(ports).len(), 5);
    }

    #[test]
    fn what_is_not_spoken_here_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel-a.json");
        fs::write(&path, "{}").unwrap();
        assert!(Connection::read(&path).unwrap_err().to_string().ends_with("is no connection file"));
        let unsigned = Connection { key: String::new(), ..Connection::new(None).unwrap() };
        fs::write(&path, serde_json::to_vec(&unsigned).unwrap()).unwrap();
        assert!(Connection::read(&path).unwrap_err().to_string().contains("not signed"));
    }
}
