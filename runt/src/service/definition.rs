//! A file that the service manager reads.
//!
//! Promises: written by rename, so the manager reads the former one or the new one.

use std::path::PathBuf;
use std::{fs, io};

use runtimed_plugin_api::replace::replace;

/// As the manager's own files are.
const FILE_MODE: u32 = 0o644;

/// Where it belongs, and what it should say.
pub(super) struct Definition {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

impl Definition {
    /// What is there now.
    pub(super) fn written(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// Whether that is what it should be.
    pub(super) fn is_written(&self) -> bool {
        self.written().is_some_and(|text| text == self.text)
    }

    /// Replaces the file by rename.
    ///
    /// # Errors
    /// Those of the file system; the former one is there then.
    pub(super) fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(&self.path, self.text.as_bytes(), FILE_MODE).map(drop)
    }
}
