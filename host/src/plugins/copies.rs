//! Private copies of libraries, named by their content.
//!
//! For: loading the very bytes that were checked, whatever happens to the original meanwhile: an update that
//! rewrites it in place cannot pull the pages from under a running plugin, and a new version has a new name,
//! which the dynamic loader does not take for the old one.
//! Promises: a copy is used only after every byte of it was compared with the original as that was hashed, so
//! a copy that a power cut left incomplete is noticed and written anew, and nothing needs to be synced.
//! Never: decides whether a hash is the right one. All of it blocks on the file system.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::permissions::check_permissions;
use super::row::Problem;

/// Folder of the copies below the daemon's base.
const FOLDER: &str = "plugin-copies";
/// The folder is the user's alone.
const FOLDER_MODE: u32 = 0o700;
/// A copy is read and mapped, never written.
const COPY_MODE: u32 = 0o500;
/// Bytes read at a time: large enough that system calls do not count, small enough for the processor's cache.
const CHUNK: usize = 128 << 10;

/// The copies of one daemon.
pub(super) struct Copies {
    folder: PathBuf,
    /// What this life has used, by hash: mapped libraries, and files that children will be started from.
    used: Mutex<BTreeSet<String>>,
    /// Held for reading while a copy is made, so that sweeping takes nothing half-made away.
    sweeping: RwLock<()>,
}

/// A file that was read to its end.
pub(super) struct Taken {
    /// SHA-256 of the original in lower-case hex.
    pub(super) sha256: String,
    /// The copy that has this content, or why there is none.
    pub(super) copy: Result<PathBuf, Problem>,
}

impl Copies {
    /// The copies below `base`; touches nothing yet.
    pub(super) fn new(base: &Path) -> Self {
        Self { folder: base.join(FOLDER), used: Mutex::default(), sweeping: RwLock::default() }
    }

    /// Hashes `original` from its beginning, and finds or makes a copy of it. `expected` is the hash it should
    /// have, which spares writing the copy again.
    ///
    /// # Errors
    /// When the original cannot be read. That it was not copied is no error here: it could not be, or it has
    /// another hash than `expected`.
    pub(super) fn take(&self, original: &mut File, expected: Option<&str>) -> io::Result<Taken> {
        let _kept = self.sweeping.read().unwrap_or_else(PoisonError::into_inner);
        let unexpected = |sha256: &str| expected.is_some_and(|expected| expected != sha256);
        if let Some(expected) = expected
            && let Ok(copy) = File::open(self.path(expected))
        {
            let mut same = Comparison { copy, chunk: Vec::new() };
            let (sha256, compared) = pass(original, |chunk| same.goes_on(chunk))?;
            if unexpected(&sha256) {
                return Ok(Taken { sha256, copy: Err(other_content()) });
            }
            if compared.and_then(|()| same.ends()).is_ok() && self.prepare_folder().is_ok() {
                let copy = Ok(self.use_copy(&sha256));
                return Ok(Taken { sha256, copy });
            }
            original.rewind()?;
        }
        let mut new = self.new_file();
        let (sha256, written) = pass(original, |chunk| match &mut new {
            Ok(new) => new.write_all(chunk),
            Err(_) => Ok(()),
        })?;
        let copy = match (new, written) {
            _ if unexpected(&sha256) => Err(other_content()),
            (Err(problem), _) => Err(problem),
            (Ok(_), Err(error)) => Err(self.impossible(&error)),
            (Ok(new), Ok(())) => self.keep(new, &sha256).map_err(|error| self.impossible(&error)),
        };
        Ok(Taken { sha256, copy })
    }

    /// Removes the copies that nothing in this life has used and that are not `wanted` later, by their hash.
    /// Does nothing while a copy is being made; the next life sweeps, too.
    pub(super) fn sweep(&self, wanted: &BTreeSet<String>) {
        let Ok(_alone) = self.sweeping.try_write() else { return };
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            if !used.contains(&name)
                && !wanted.contains(&name)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::debug!("an old copy stays at `{}`: {error}", path.display());
            }
        }
    }

    fn path(&self, sha256: &str) -> PathBuf {
        self.folder.join(format!("{sha256}{}", std::env::consts::DLL_SUFFIX))
    }

    fn new_file(&self) -> Result<NamedTempFile, Problem> {
        self.prepare_folder()?;
        let new = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder);
        new.map_err(|error| self.impossible(&error))
    }

    fn keep(&self, new: NamedTempFile, sha256: &str) -> io::Result<PathBuf> {
        new.as_file().set_permissions(Permissions::from_mode(COPY_MODE))?;
        new.persist(self.path(sha256)).map_err(|error| error.error)?;
        Ok(self.use_copy(sha256))
    }

    fn use_copy(&self, sha256: &str) -> PathBuf {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(sha256.to_owned());
        self.path(sha256)
    }

    /// Makes the folder, and makes sure that nobody else can write to it and that libraries may be loaded
    /// from it.
    fn prepare_folder(&self) -> Result<(), Problem> {
        let made = match DirBuilder::new().mode(FOLDER_MODE).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.folder.canonicalize(),
        };
        let folder = made.map_err(|error| self.impossible(&error))?;
        check_permissions(&folder)?;
        // macOS does not tell.
        #[cfg(target_os = "linux")]
        if rustix::fs::statvfs(&folder)
            .is_ok_and(|mount| mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
        {
            return Err(Problem::refused(
                format!("nothing can be loaded from `{}`: it is mounted with noexec", folder.display()),
                "name a place on another file system with XDG_CACHE_HOME, then restart the daemon",
            ));
        }
        Ok(())
    }

    /// Why there is no copy, with what to do about it.
    fn impossible(&self, error: &io::Error) -> Problem {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, then restart the daemon".to_owned()
            }
            _ => format!("make `{}` writable for your user, then restart the daemon", self.folder.display()),
        };
        // Only its kind: the whole error may name a file that was never there.
        let why = error.kind();
        Problem::refused(format!("no copy could be made in `{}`: {why}", self.folder.display()), remedy)
    }
}

/// Never shown: who says which hash is expected refuses the original for having another one.
fn other_content() -> Problem {
    Problem::refused("it has other content than expected", "reinstall the plugin")
}

/// Reads `file` to its end and hashes it; `sink` sees every byte in order until it fails once.
pub(super) fn pass(
    file: &mut File,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(String, io::Result<()>)> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    let mut outcome = Ok(());
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => return Ok((hex::encode(digest.finalize()), outcome)),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let chunk = buffer.get(..length).unwrap_or_default();
        digest.update(chunk);
        if outcome.is_ok() {
            outcome = sink(chunk);
        }
    }
}

/// A copy that is read beside its original.
struct Comparison {
    copy: File,
    chunk: Vec<u8>,
}

impl Comparison {
    fn goes_on(&mut self, original: &[u8]) -> io::Result<()> {
        self.chunk.resize(original.len(), 0);
        self.copy.read_exact(&mut self.chunk)?;
        if self.chunk == original { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn ends(&mut self) -> io::Result<()> {
        match self.copy.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(copies: &Copies, original: &Path, expected: Option<&str>) -> Taken {
        copies.take(&mut File::open(original).unwrap(), expected).unwrap()
    }

    #[test]
    fn a_copy_is_used_again_only_if_it_is_the_same_to_the_last_byte() {
        let base = tempfile::tempdir().unwrap();
        let original = base.path().join("lib.so");
        let content = b"library ".repeat(CHUNK / 4);
        fs::write(&original, &content).unwrap();
        let copies = Copies::new(base.path());
        let first = take(&copies, &original, None);
        let path = first.copy.unwrap();
        assert_eq!(fs::read(&path).unwrap(), content);
        assert_eq!(path, copies.path(&first.sha256));
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
        let kept = inode();
        assert_eq!(take(&copies, &original, Some(&first.sha256)).copy.unwrap(), path);
        assert_eq!(inode(), kept, "nothing was written");
        let longer = [&content[..], b"!"].concat();
        let mut other = content.clone();
        other[CHUNK] ^= 1;
        for broken in [&content[..content.len() - 1], &longer, &other, b""] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, broken).unwrap();
            assert_eq!(take(&copies, &original, Some(&first.sha256)).copy.unwrap(), path);
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn what_has_another_hash_than_expected_is_not_kept() {
        let base = tempfile::tempdir().unwrap();
        let original = base.path().join("lib.so");
        fs::write(&original, "swapped").unwrap();
        let copies = Copies::new(base.path());
        let taken = take(&copies, &original, Some(&"0".repeat(64)));
        assert!(taken.copy.is_err());
        assert_eq!(taken.sha256, hex::encode(Sha256::digest("swapped")));
        assert_eq!(fs::read_dir(base.path().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let (original, folder) = (base.path().join("lib.so"), base.path().join(FOLDER));
        fs::write(&original, "library").unwrap();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let problem = take(&Copies::new(base.path()), &original, None).copy.unwrap_err();
        assert!(problem.reason.starts_with("everybody can write to"), "{problem:?}");
    }
}
