//! `plugins.lock`: which files a user accepted when adding a plugin.
//!
//! For: `runt plugins add`, which writes it, and the daemon, which loads nothing from the user's folder that is
//! not in it. A manifest beside a library proves that the two belong together; this proves where they came from.
//! Promises: written by rename, so a reader sees the old or the new one; keys it does not know are refused
//! rather than dropped, because what is dropped here is no longer checked.
//! Never: decides whether a plugin is good.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Name of the file; it lies in the user's plugin folder, beside the plugins' own folders.
pub const FILE_NAME: &str = "plugins.lock";
/// The only version there is.
const VERSION: u32 = 1;
/// What a person who opens the file should know.
const HEADER: &str = "# Written by `runt plugins add` and `runt plugins remove`. The daemon loads from this folder only\n\
                      # what is listed here, byte for byte.\n";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    version: u32,
    /// One entry for each plugin, by id.
    #[serde(default)]
    pub plugins: BTreeMap<String, Pin>,
}

/// One plugin as it was when it was added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Version of the plugin.
    pub version: semver::Version,
    /// Where it was added from, for the user to remember.
    pub from: String,
    /// When it was added, RFC 3339, UTC.
    pub added: String,
    /// SHA-256 in lower-case hex of every file of the plugin, by path below its folder, the manifest included.
    pub files: BTreeMap<PathBuf, String>,
}

/// A lock file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    /// It could not be read or written.
    #[error("`{}`: {error}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is not what it should be.
    #[error("`{}` is damaged: {problem}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// One sentence.
        problem: String,
    },
}

impl Default for LockFile {
    fn default() -> Self {
        Self { version: VERSION, plugins: BTreeMap::new() }
    }
}

impl LockFile {
    /// Reads the lock file of a plugin folder; one that does not exist is empty. Blocks on the file system.
    ///
    /// # Errors
    /// [`LockFileError`] for one that cannot be read or understood.
    pub fn read(plugins: &Path) -> Result<Self, LockFileError> {
        let file = plugins.join(FILE_NAME);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(LockFileError::Io { file, error }),
        };
        let damaged = |problem: String| LockFileError::Damaged { file: file.clone(), problem };
        let lock: Self =
            toml::from_str(&text).map_err(|error| damaged(error.message().replace('\n', " ")))?;
        if lock.version != VERSION {
            return Err(damaged(format!("it has version {}, this program knows {VERSION}", lock.version)));
        }
        Ok(lock)
    }

    /// Writes the lock file of a plugin folder, which must exist. Blocks on the file system.
    ///
    /// # Errors
    /// [`LockFileError::Io`]; the old file is then still there.
    pub fn write(&self, plugins: &Path) -> Result<(), LockFileError> {
        let file = plugins.join(FILE_NAME);
        let new = plugins.join(format!(".{FILE_NAME}.{}", std::process::id()));
        let written = toml::to_string(self).map_err(io::Error::other).and_then(|text| {
            let mut out = fs::File::create(&new)?;
            // Whatever the umask says: the daemon trusts no lock file that others can write.
            out.set_permissions(fs::Permissions::from_mode(0o600))?;
            out.write_all(HEADER.as_bytes())?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            fs::rename(&new, &file)
        });
        written.map_err(|error| {
            // Best effort: what matters is that the old file is whole.
            let _ = fs::remove_file(&new);
            LockFileError::Io { file, error }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(LockFile::read(folder.path()).unwrap(), LockFile::default());
        let pin = Pin {
            version: semver::Version::new(1, 2, 3),
            from: "/home/ana/my-env".to_owned(),
            added: "2026-11-22T10:00:00Z".to_owned(),
            files: [(PathBuf::from("plugin.toml"), "00".repeat(32))].into(),
        };
        let lock = LockFile { plugins: [("org.example.env".to_owned(), pin)].into(), ..LockFile::default() };
        lock.write(folder.path()).unwrap();
        assert_eq!(LockFile::read(folder.path()).unwrap(), lock);
        let file = folder.path().join(FILE_NAME);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        for broken in ["version = 2\n", "version = 1\nnew_kind_of_pin = true\n", "= ", ""] {
            fs::write(&file, broken).unwrap();
            let error = LockFile::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("plugins.lock` is damaged"), "{error}");
        }
    }
}
