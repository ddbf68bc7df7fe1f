//! A `.tar.gz` of texts.
//!
//! Promises: for the user alone; a file that is there is not replaced.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Writes `files`, names and texts, into the folder `folder` of a new archive.
///
/// # Errors
/// The system's; what was begun is removed.
pub(super) fn write(path: &Path, folder: &str, files: &[(String, String)]) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let packed = pack(file, folder, files);
    if packed.is_err() {
        // The first error says what is wrong.
        let _ = std::fs::remove_file(path);
    }
    packed
}

fn pack(into: impl Write, folder: &str, files: &[(String, String)]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(into, Compression::default()));
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, format!("{folder}/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}
