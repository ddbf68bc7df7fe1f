//! Noticing what happens to notebook files.
//!
//! For: rooms that follow their files, with one watch per folder.
//! Promises: a room hears of everything that may have changed its file, perhaps once too often; where the
//! system reports nothing, as for folders of other machines, it says so, and [`changed()`] looks itself.
//! Never: reads a file; reports that somebody read one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// How often a file is looked at that the system does not watch. Source: what a person hardly notices, and
/// what costs nothing for a few files.
const POLL: Duration = Duration::from_secs(2);

/// Every watch of the daemon. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct FileWatch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    listeners: Arc<Mutex<Listeners>>,
    /// Apart from the listeners: changing a watch waits for the thread that tells them.
    folders: Mutex<Folders>,
}

type Listener = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Listeners {
    next: u64,
    /// Shape: file -> number of the watch -> whom to tell.
    files: BTreeMap<PathBuf, BTreeMap<u64, Listener>>,
}

#[derive(Default)]
struct Folders {
    watcher: Option<RecommendedWatcher>,
    /// Shape: folder -> for how many files it is watched.
    watched: BTreeMap<PathBuf, usize>,
}

/// A file that is watched, until this is dropped.
pub(crate) struct Watched {
    path: PathBuf,
    number: u64,
    watch: FileWatch,
}

impl FileWatch {
    /// Tells `listener` whenever something happens to the file at `path`, which need not be there; its
    /// folder must. Blocks on the file system.
    ///
    /// # Errors
    /// The system cannot: it has too many watches, or another machine has the files.
    pub(crate) fn watch(&self, path: &Path, listener: impl Fn() + Send + 'static) -> notify::Result<Watched> {
        let folder = path.parent().ok_or_else(|| notify::Error::generic("a file has no folder"))?;
        self.watch_folder(folder)?;
        let mut listeners = lock(&self.0.listeners);
        let number = listeners.next;
        listeners.next += 1;
        listeners.files.entry(path.to_owned()).or_default().insert(number, Box::new(listener));
        Ok(Watched { path: path.to_owned(), number, watch: self.clone() })
    }

    fn watch_folder(&self, folder: &Path) -> notify::Result<()> {
        let mut folders = lock(&self.0.folders);
        if let Some(files) = folders.watched.get_mut(folder) {
            *files += 1;
            return Ok(());
        }
        if !is_local(folder) {
            return Err(notify::Error::generic("its files may be written by other machines"));
        }
        let mut watcher = match folders.watcher.take() {
            Some(watcher) => watcher,
            None => notify::recommended_watcher(self.teller())?,
        };
        let result = watcher.watch(folder, RecursiveMode::NonRecursive);
        folders.watcher = Some(watcher);
        result?;
        folders.watched.insert(folder.to_owned(), 1);
        Ok(())
    }

    fn teller(&self) -> impl FnMut(notify::Result<notify::Event>) + Send + use<> {
        // Not the watchers themselves: their threads end with the last of us.
        let listeners = self.0.listeners.clone();
        move |event| {
            let listeners = lock(&listeners);
            let tell = |files: &BTreeMap<u64, Listener>| files.values().for_each(|listener| listener());
            match event {
                // Reading is no change, and we do it ourselves.
                Ok(event) if event.kind.is_access() => {}
                Ok(event) if event.need_rescan() => listeners.files.values().for_each(tell),
                Ok(event) => event.paths.iter().filter_map(|path| listeners.files.get(path)).for_each(tell),
                Err(error) => tracing::warn!(%error, "watching notebook files"),
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut listeners = lock(&self.watch.0.listeners);
        if let Some(files) = listeners.files.get_mut(&self.path) {
            files.remove(&self.number);
            if files.is_empty() {
                listeners.files.remove(&self.path);
            }
        }
        drop(listeners);
        let Some(folder) = self.path.parent() else { return };
        let mut folders = lock(&self.watch.0.folders);
        let Some(files) = folders.watched.get_mut(folder) else { return };
        *files -= 1;
        if *files > 0 {
            return;
        }
        folders.watched.remove(folder);
        // A folder that is gone is not watched any more.
        if let Some(Err(error)) = folders.watcher.as_mut().map(|watcher| watcher.unwatch(folder)) {
            tracing::debug!(%error, "a folder was not watched any more");
        }
    }
}

/// Ends when the file at `path`, which need not be there, is another than `last` time. Says which it is now.
/// Cancel-safe.
pub(crate) async fn changed(path: PathBuf, last: Option<Stamp>) -> Option<Stamp> {
    loop {
        let path = path.clone();
        // A file system that does not answer holds this up and nothing else.
        let now = tokio::task::spawn_blocking(move || stamp(&path)).await.unwrap_or(last);
        if now != last {
            return now;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What tells two states of a file apart: inode, bytes, seconds and nanoseconds of its last change.
pub(crate) type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
}

/// Whether the system reports what happens in a folder: not if another machine does it.
fn is_local(folder: &Path) -> bool {
    /// Magic numbers of file systems whose files other machines write. Source: statfs(2), linux/magic.h.
    #[cfg(target_os = "linux")]
    const REMOTE: [i64; 8] = [
        0x6969,      // NFS
        0x517B,      // SMB
        0xFE53_4D42, // SMB 2
        0xFF53_4D42, // CIFS
        0x6573_5546, // FUSE: sshfs and others
        0x0102_1997, // 9P: folders of the host of a virtual machine
        0x00C3_6400, // Ceph
        0x5346_414F, // AFS
    ];
    #[cfg(target_os = "linux")]
    // Its type is not the same on every machine.
    return rustix::fs::statfs(folder)
        .is_ok_and(|found| !REMOTE.iter().any(|magic| i128::from(found.f_type) == i128::from(*magic)));
    #[cfg(not(target_os = "linux"))]
    folder.exists()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change leaves the maps usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use super::*;

    /// Waits until something was heard, however often.
    fn heard(receiver: &mpsc::Receiver<()>) {
        receiver.recv_timeout(Duration::from_secs(60)).expect("a change was noticed");
    }

    #[test]
    fn a_file_is_noticed_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().canonicalize().unwrap().join("a.ipynb");
        let (watch, (sender, receiver)) = (FileWatch::default(), mpsc::channel());
        let watched = watch.watch(&file, move || sender.send(()).unwrap_or_default()).unwrap();
        fs::write(&file, "1").unwrap();
        heard(&receiver);
        let other = file.with_file_name("b");
        fs::write(&other, "2").unwrap();
        fs::rename(&other, &file).unwrap();
        heard(&receiver);
        fs::remove_file(&file).unwrap();
        heard(&receiver);
        drop(watched);
        assert!(lock(&watch.0.folders).watched.is_empty());
        assert!(lock(&watch.0.listeners).files.is_empty());
        // The listener is gone, and with it the sender.
        receiver.iter().for_each(drop);
    }

    #[tokio::test]
    async fn where_the_system_reports_nothing_files_are_compared() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.ipynb");
        fs::write(&file, "1").unwrap();
        let first = changed(file.clone(), None).await;
        assert!(first.is_some());
        fs::write(&file, "22").unwrap();
        let second = changed(file.clone(), first).await;
        assert_ne!(second, first);
        fs::remove_file(&file).unwrap();
        assert_eq!(changed(file, second).await, None);
    }
}
