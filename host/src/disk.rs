//! Files that are never half written.
//!
//! For: settings, trust, environment records.
//! Promises: after a crash or a power cut the old content is there, or the new one.
//! Blocks: call it from the blocking pool.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Replaces the content of `path`. A link is followed; an existing file keeps its mode, a new one gets
/// `mode`.
///
/// # Errors
/// Those of the file system; the old content is untouched then.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let directory = path.parent().unwrap_or(Path::new("."));
    let mode = std::fs::metadata(path).map_or(mode, |old| old.permissions().mode() & 0o7777);
    let mut file = tempfile::Builder::new().prefix(".runtimed-").tempfile_in(directory)?;
    file.write_all(content)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

/// Deletes `path` with everything below it, provided it lies directly inside `within`.
///
/// # Errors
/// When it lies elsewhere, or the file system refuses. A path that is gone already is fine.
pub fn remove_tree(path: &Path, within: &Path) -> io::Result<()> {
    if path.parent() != Some(within) {
        let text = format!("`{}` is not inside `{}` and was kept", path.display(), within.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        replace(&target, b"one", 0o640).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, b"two", 0o600).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn nothing_outside_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("pool/env"), dir.path().join("home"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        let pool = dir.path().join("pool");
        assert!(remove_tree(&outside, &pool).is_err());
        assert!(remove_tree(&pool.join("../home"), &pool).is_err());
        assert!(outside.exists());
        remove_tree(&inside, &pool).unwrap();
        remove_tree(&inside, &pool).unwrap();
        assert!(!inside.exists());
    }
}
