//! Deleting environments in the background.
//!
//! For: pools, which must not wait for a tree of thousands of files.
//! Promises: what was put here is not found again as an environment, even if the daemon dies before it
//! is gone; nothing outside the given folder is ever touched.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use super::template;
use crate::disk;

/// Folders that are on their way out start with this.
pub(super) const START: &str = ".trash-";

/// Takes folders to delete. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Trash {
    /// What it takes lies directly inside this.
    within: PathBuf,
    /// What is no environment any more, for the work.
    doomed: mpsc::UnboundedSender<PathBuf>,
}

impl Trash {
    /// A bin for folders directly inside `within`, and the work of emptying it, to be run once.
    pub(super) fn new(within: PathBuf) -> (Self, impl Future<Output = ()> + Send) {
        let (sender, mut doomed) = mpsc::unbounded_channel::<PathBuf>();
        let inside = within.clone();
        let work = async move {
            while let Some(folder) = doomed.recv().await {
                let (within, path) = (inside.clone(), folder.clone());
                match tokio::task::spawn_blocking(move || disk::remove_tree(&folder, &within)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!("could not delete `{}`: {error}", path.display()),
                    Err(error) => tracing::error!("deleting `{}` failed: {error}", path.display()),
                }
            }
        };
        (Self { within, doomed: sender }, work)
    }

    /// Deletes `folder`, which nobody finds from now on, soon.
    pub(super) fn put(&self, folder: &Path) {
        if let Err(doomed) = self.doomed.send(doom(folder, &self.within)) {
            tracing::debug!("`{}` is deleted at the next start", doomed.0.display());
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
///
/// # Errors
/// When it lies elsewhere, or the file system refuses.
pub(super) fn delete(folder: &Path, within: &Path) -> io::Result<()> {
    disk::remove_tree(&doom(folder, within), within)
}

/// Gives `folder` a name by which it is not mistaken for an environment, if it lies directly inside `within`; returns
/// where it is now.
fn doom(folder: &Path, within: &Path) -> PathBuf {
    if folder.parent() == Some(within) && folder.file_name().is_some() {
        template::forget(folder);
        let doomed = within.join(format!("{START}{}", uuid::Uuid::new_v4()));
        if std::fs::rename(folder, &doomed).is_ok() {
            return doomed;
        }
    }
    folder.to_owned()
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
        trash.put(&envs.join("a"));
        assert!(!envs.join("a").exists(), "at once, however much there is to delete");
        trash.put(&other);
        trash.put(&envs.join(".."));
        drop(trash);
        work.await;
        assert!(other.exists());
        empty_at_start(&envs);
        assert_eq!(std::fs::read_dir(&envs).unwrap().count(), 0);
    }
}
