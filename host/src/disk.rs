//! Files that are never half written, and trees that are deleted.
//!
//! For: settings, trust, environments and their records.
//! Blocks: call it from the blocking pool.

use std::io;
use std::path::Path;

pub use runtimed_plugin_api::replace::replace;

/// Deletes `path` with everything below it, provided it lies directly inside `within`.
///
/// # Errors
/// When it lies elsewhere, or the file system refuses. A path that is gone already is fine.
pub fn remove_tree(path: &Path, within: &Path) -> io::Result<()> {
    // The name is none where a path ends with `..`, which leads out again.
    if path.parent() != Some(within) || path.file_name().is_none() {
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
    fn nothing_outside_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("pool/env"), dir.path().join("home"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        let pool = dir.path().join("pool");
        assert!(remove_tree(&outside, &pool).is_err());
        assert!(remove_tree(&pool.join("../home"), &pool).is_err());
        assert!(remove_tree(&pool.join(".."), &pool).is_err());
        assert!(outside.exists());
        remove_tree(&inside, &pool).unwrap();
        remove_tree(&inside, &pool).unwrap();
        assert!(!inside.exists());
    }
}
