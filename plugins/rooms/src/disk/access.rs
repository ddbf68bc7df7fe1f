//! Files as they lie on disk, whatever they turn out to be.
//!
//! For: reading a notebook file without trusting its name, and replacing it.
//! Promises: a pipe or a device is never waited for; a file is replaced whole or not at all, with the
//! permissions it had; every error says what happened, what was kept and what to do next.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::paths;

/// Files from this size on, in bytes, are not opened. Reading takes about five times as much memory, and
/// what makes a notebook so large are outputs nobody can look at.
pub(super) const TOO_LARGE: u64 = 128 * 1024 * 1024;

/// Mode of a new notebook file before the umask. Source: what every editor does.
const NEW_FILE: u32 = 0o666;

/// The bytes of the file at `path`; none if there is nothing.
///
/// # Errors
/// The report for the user.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: &io::Error| cannot_access(path, error, step_for_reading(error.kind()));
    // Without waiting: a pipe nobody writes to would hold the thread for ever.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let found = file.metadata().map_err(|error| failed(&error))?;
    if !found.is_file() {
        return Err(not_a_file(path));
    }
    if found.len() >= TOO_LARGE {
        return Err(cannot_access(
            path,
            &format_args!(
                "it has {} MB, and notebooks have less than {}",
                found.len() >> 20,
                TOO_LARGE >> 20
            ),
            "take outputs out of it, for example with `jupyter nbconvert --clear-output --inplace`, and open it again.",
        ));
    }
    let mut bytes = Vec::with_capacity(found.len() as usize);
    // It may grow while it is read.
    file.take(TOO_LARGE).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    Ok(Some(bytes))
}

/// Where the content with this digest (SHA-256, hex) is written before it replaces the file at `path`. Whoever
/// knows what was being written when a daemon was killed knows what it left behind.
fn beside(path: &Path, digest: &str) -> PathBuf {
    // As many digits as tell two contents of one file apart.
    path.with_file_name(format!(".runtimed-{digest:.16}.tmp"))
}

/// Removes what a daemon left beside the file at `path` that was killed while it wrote the content with this digest.
pub(crate) fn remove_leftover(path: &Path, digest: &str) {
    match fs::remove_file(beside(path, digest)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "what a save left beside a file was not removed");
        }
        _ => {}
    }
}

/// Puts `bytes`, whose digest is given, in place of the file, so that a reader sees the old or the new, and a
/// power cut keeps one.
pub(super) fn replace(path: &Path, bytes: &[u8], digest: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let before = fs::metadata(path).map(|metadata| metadata.permissions()).ok();
    if before.is_some() && !paths::is_writable(path) {
        // Putting another file in its place would get around that.
        return Err(ErrorKind::PermissionDenied.into());
    }
    remove_leftover(path, digest);
    let temporary = beside(path, digest);
    let name = temporary.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(name).rand_bytes(0).permissions(fs::Permissions::from_mode(NEW_FILE));
    let mut file = builder.tempfile_in(folder)?;
    if let Some(before) = before {
        file.as_file().set_permissions(before)?;
    }
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

/// The report about a notebook that cannot be opened. Clients know the first line.
pub(crate) fn cannot_access(path: &Path, what: &dyn Display, next: &str) -> String {
    format!(
        "Cannot access notebook '{}': {what}\nKept: nothing was changed on disk.\nNext: {next}",
        path.display()
    )
}

/// The report about what is neither a file nor a folder.
pub(crate) fn not_a_file(path: &Path) -> String {
    let next = "give the path of a notebook file; a pipe, a socket or a device cannot hold one.";
    cannot_access(path, &"it is neither a file nor a directory", next)
}

/// What helps against an error of the system when a file is opened.
pub(crate) fn step_for_reading(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => {
            "give yourself permission to read the file and its folders, or open a copy."
        }
        ErrorKind::NotADirectory => "correct the path: a part of it is a file and not a folder.",
        ErrorKind::InvalidFilename => "use a shorter name.",
        _ => "check the path and the disk, and open the notebook again.",
    }
}

/// The report about a file that was not written.
pub(super) fn cannot_write(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path);
    let next = match error.kind() {
        ErrorKind::PermissionDenied if path.exists() && !paths::is_writable(path) => {
            "make the file writable, or save the notebook under another name.".to_owned()
        }
        ErrorKind::PermissionDenied => format!(
            "make the folder `{}` writable (a save puts a new file in place of the old one), or save the \
             notebook somewhere else.",
            folder.display()
        ),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room on the disk.".to_owned(),
        ErrorKind::ReadOnlyFilesystem => {
            "save the notebook somewhere else: this disk is read-only.".to_owned()
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "save the notebook somewhere else: a part of the path is a file and not a folder.".to_owned()
        }
        ErrorKind::IsADirectory => "save the notebook under another name: this is a folder.".to_owned(),
        _ => "check the disk, or save the notebook somewhere else.".to_owned(),
    };
    format!(
        "could not replace `{}`: {error}\n\
         Kept: every edit is in the open notebook; what was on disk is as it was.\n\
         Next: {next} A notebook with a file of its own tries again by itself.",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_not_waited_for_and_a_directory_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.ipynb");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
            .unwrap();
        for path in [&pipe, folder.path()] {
            let report = read_if_there(path).unwrap_err();
            assert!(report.contains("neither a file nor a directory\nKept: "), "{report}");
        }
        assert_eq!(read_if_there(&folder.path().join("none")), Ok(None));
    }

    #[test]
    fn a_giant_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let giant = folder.path().join("giant.ipynb");
        File::create(&giant).unwrap().set_len(200 << 20).unwrap();
        let report = read_if_there(&giant).unwrap_err();
        assert!(report.contains("it has 200 MB, and notebooks have less than 128\nKept: "), "{report}");
    }

    #[test]
    fn a_file_that_was_replaced_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/a.ipynb");
        replace(&file, b"1", "d1").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        // As a daemon left it that was killed on the way.
        fs::write(beside(&file, "d2"), b"").unwrap();
        replace(&file, b"2", "d2").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"2");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        fs::write(beside(&file, "d3"), b"").unwrap();
        remove_leftover(&file, "d3");
        assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 1, "no temporary file stays");
    }
}
