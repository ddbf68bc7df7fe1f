//! Deleting environments in the background.
//!
//! For: pools, which must not wait for a tree of thousands of files.
//! Promises: what was put here is not found again as an environment, even if the daemon dies before it
//! is gone; nothing outside the given folder is ever touched.

use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::template;
use crate::disk;

/// Folders that are on their way out start with this.
pub(super) const START: &str = ".trash-";

/// Takes folders to delete. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Trash(mpsc::UnboundedSender<PathBuf>);

impl Trash {
    /// A bin for folders directly inside `within`, and the work of emptying it, to be run once.
    pub(super) fn new(within: PathBuf) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut folders) = mpsc::unbounded_channel::<PathBuf>();
        let work = async move {
            while let Some(folder) = folders.recv().await {
                let within = within.clone();
                let deleted = tokio::task::spawn_blocking(move || delete(&folder, &within)).await;
                if let Err(error) = deleted {
                    tracing::error!("deleting an environment failed: {error}");
                }
            }
        };
        (Self(sender), work)
    }

    /// Deletes `folder` soon.
    pub(super) fn put(&self, folder: PathBuf) {
        if let Err(folder) = self.0.send(folder) {
            tracing::debug!("`{}` is deleted at the next start", folder.0.display());
        }
    }
}

/// Deletes what a former daemon had no time for.
pub(super) fn empty_at_start(within: &Path) {
    for entry in std::fs::read_dir(within).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(START) {
            disk::remove_tree(&entry.path(), within).ok();
        }
    }
}

/// Deletes `folder`, which lies directly inside `within`, at once.
pub(super) fn delete(folder: &Path, within: &Path) {
    let inside = folder.parent() == Some(within) && folder.file_name().is_some();
    if inside {
        template::forget(folder);
    }
    // Renamed first: half an environment must not be mistaken for one.
    let doomed = within.join(format!("{START}{}", uuid::Uuid::new_v4()));
    let target = if inside && std::fs::rename(folder, &doomed).is_ok() { &doomed } else { folder };
    if let Err(error) = disk::remove_tree(target, within) {
        tracing::warn!("could not delete `{}`: {error}", target.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_folders_inside_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (envs, other) = (dir.path().join("envs"), dir.path().join("other"));
        for folder in [envs.join("a/b"), other.clone(), envs.join(".trash-x")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let (trash, work) = Trash::new(envs.clone());
        trash.put(envs.join("a"));
        trash.put(other.clone());
        trash.put(envs.join(".."));
        drop(trash);
        work.await;
        assert!(other.exists());
        empty_at_start(&envs);
        assert_eq!(std::fs::read_dir(&envs).unwrap().count(), 0);
    }
}
