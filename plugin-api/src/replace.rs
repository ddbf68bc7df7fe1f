//! Files that are never half written.
//!
//! For: what the daemon and the command line both write.
//! Promises: after a crash or a power cut the old content is there, or the new one; whoever else wrote at the same time
//! is not overwritten without the caller getting to know what they wrote.
//! Blocks: call it where that may be.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Start of the name of a file that is not in place yet.
const UNFINISHED: &str = ".runtimed-";

/// Deletes what writers left in `folder` that were killed. To be called while nobody writes there.
///
/// # Errors
/// Those of the file system.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Replaces the content of `path`. A link is followed; an existing file keeps its mode, a new one gets
/// `mode`. Returns what was there at the very moment of the replacement, none if nothing was.
///
/// # Errors
/// Those of the file system; the old content is untouched then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<Option<Vec<u8>>> {
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let directory = path.parent().unwrap_or(Path::new("."));
    let mode = std::fs::metadata(path).map_or(mode, |old| old.permissions().mode() & 0o7777);
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    let old = match renameat_with(CWD, file.path(), CWD, path, RenameFlags::EXCHANGE) {
        // What was there is in the temp file now, and goes with it.
        Ok(()) => Some(std::fs::read(file.path())?),
        Err(Errno::NOENT) => match file.persist_noclobber(path) {
            Ok(_) => None,
            // Somebody was faster.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                return replace(path, content, mode);
            }
            Err(error) => return Err(error.error),
        },
        // A file system that cannot exchange: look, then replace.
        Err(_) => {
            let old = std::fs::read(path).ok();
            file.persist(path).map_err(|error| error.error)?;
            old
        }
    };
    std::fs::File::open(directory)?.sync_all()?;
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        assert_eq!(replace(&target, b"one", 0o640).unwrap(), None);
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert_eq!(replace(&link, b"two", 0o600).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);

        std::fs::write(dir.path().join(".runtimed-killed"), "half").unwrap();
        remove_unfinished(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
