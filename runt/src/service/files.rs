//! The files of the service: copies of both programs and the bundled plugins, in a folder for each version.
//!
//! Promises: `bin` is a link that is switched by rename, so a daemon starts from one version, never from two; the
//! version before stays, and so does every one that a program still runs from. One command at a time changes them.
//! Never: removes anything but versions and that link.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use jiff::Timestamp;
use runtimed_plugin_api::search::{SearchPath, Source as From};

use super::Layout;

/// Plugins, seen from the folder of a version; where its daemon looks for those that ship with it.
const PLUGINS: &str = "lib/runt/plugins";
/// Programs, seen from there.
const PROGRAMS: &str = "bin";
/// Bytes compared at a time.
const PIECE: usize = 256 * 1024;

/// What is to be installed.
#[derive(Debug)]
pub(crate) struct Source {
    /// `runtimed`.
    pub(crate) daemon: PathBuf,
    /// `runt`.
    runt: PathBuf,
    /// Plugins that ship with that daemon; none if they are the system's.
    plugins: Option<PathBuf>,
}

impl Source {
    /// The programs beside this one, or the daemon at `daemon` and this program.
    ///
    /// # Errors
    /// When there is no such daemon.
    pub(crate) fn find(daemon: Option<&Path>) -> anyhow::Result<Self> {
        let runt = std::env::current_exe()?.canonicalize()?;
        let beside = || runt.with_file_name("runtimed");
        let daemon = daemon.map_or_else(beside, Path::to_owned);
        if !daemon.is_file() {
            bail!(
                "Daemon binary not found at: {}\nPut runtimed beside runt, or name it with --binary PATH.",
                daemon.display()
            );
        }
        let daemon = daemon.canonicalize()?;
        let bundled = SearchPath::new(&[], None, None, Some(&daemon)).0.into_iter();
        let bundled = bundled.filter(|(from, _)| *from == From::Bundled).map(|(_, folder)| folder);
        let plugins = bundled.filter_map(|folder| folder.canonicalize().ok()).find(|folder| folder.is_dir());
        Ok(Self { daemon, runt, plugins })
    }

    /// Every file with its place in a version's folder.
    fn files(&self) -> io::Result<Vec<(PathBuf, PathBuf)>> {
        let program = |name: &str, path: &Path| (path.to_owned(), Path::new(PROGRAMS).join(name));
        let mut files = vec![program("runtimed", &self.daemon), program("runt", &self.runt)];
        if let Some(plugins) = &self.plugins {
            walk(plugins, Path::new(PLUGINS), &mut files)?;
        }
        Ok(files)
    }
}

/// Waits until no other command changes the service. None may while the result is held.
///
/// The folder itself is locked: a file would be left there.
pub(super) fn only_us(layout: &Layout) -> anyhow::Result<fs::File> {
    let data = &layout.data;
    let unusable = || format!("{} cannot be used; nothing was changed", data.display());
    loop {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data).with_context(unusable)?;
        let folder = match fs::File::open(data) {
            // Another command removed it just now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.with_context(unusable)?,
        };
        if folder.try_lock().is_err() {
            anstream::eprintln!("Waiting for another 'runt daemon' command to finish...");
            folder.lock().with_context(unusable)?;
        }
        // Unless the other command has just removed it.
        let locked = folder.metadata()?;
        if fs::metadata(data).is_ok_and(|it| (it.dev(), it.ino()) == (locked.dev(), locked.ino())) {
            return Ok(folder);
        }
    }
}

/// Whether `source` is what is installed, byte by byte.
pub(super) fn are_installed(source: &Source, layout: &Layout) -> bool {
    let Some(version) = current(layout) else { return false };
    let compare = || -> io::Result<bool> {
        let files = source.files()?;
        let mut installed = Vec::new();
        walk(&version, Path::new(""), &mut installed)?;
        if files.len() != installed.len() {
            return Ok(false);
        }
        for (from, place) in files {
            if !same(&from, &version.join(place))? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    compare().unwrap_or(false)
}

/// Copies `source` into a folder of its own, then has `bin` lead there.
pub(super) fn install(source: &Source, layout: &Layout) -> anyhow::Result<()> {
    let (bin, versions) = (layout.bin(), layout.versions());
    if fs::symlink_metadata(&bin).is_ok_and(|metadata| !metadata.is_symlink()) {
        bail!(
            "{} is a folder of another program. It was left as it is, and nothing was installed.\n\
             Uninstall that program, or move the folder away.",
            bin.display()
        );
    }
    let before = current(layout);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&versions)?;
    let copied = tempfile::Builder::new().prefix(".new-").tempdir_in(&versions)?;
    for (from, place) in source.files()? {
        let to = copied.path().join(place);
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(&from, &to).with_context(|| format!("could not copy {}", from.display()))?;
        fs::File::open(&to)?.sync_all()?;
    }
    // Two of one second are told apart by their fraction.
    let name = format!("{}-{}", crate::cli::VERSION, Timestamp::now().strftime("%Y%m%dT%H%M%S%.6fZ"));
    fs::rename(copied.path(), versions.join(&name))?;
    // It is not there any more under that name.
    let _ = copied.keep();
    let link = layout.data.join(".bin.new");
    // Left by one that was ended here.
    fs::remove_file(&link).ok();
    symlink(Path::new("versions").join(&name).join(PROGRAMS), &link)?;
    fs::rename(&link, &bin).with_context(|| format!("could not replace {}", bin.display()))?;
    let mut keep = vec![versions.join(name)];
    keep.extend(before);
    keep.extend(in_use(&versions));
    prune(&versions, &keep);
    Ok(())
}

/// Removes what [`install`] made.
pub(super) fn uninstall(layout: &Layout) -> anyhow::Result<()> {
    let (bin, versions) = (layout.bin(), layout.versions());
    if fs::symlink_metadata(&bin).is_ok_and(|metadata| metadata.is_symlink()) {
        fs::remove_file(&bin).with_context(|| format!("could not remove {}", bin.display()))?;
    }
    match fs::remove_dir_all(&versions) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("could not remove {}", versions.display()));
        }
        _ => {}
    }
    // Unless the user has plugins there.
    fs::remove_dir(&layout.data).ok();
    Ok(())
}

/// The folder of the version that counts.
fn current(layout: &Layout) -> Option<PathBuf> {
    let version = layout.bin().canonicalize().ok()?.parent()?.to_owned();
    version.starts_with(layout.versions().canonicalize().ok()?).then_some(version)
}

/// Programs of `versions` that run, where the system says (Linux).
fn in_use(versions: &Path) -> Vec<PathBuf> {
    let Ok(versions) = versions.canonicalize() else { return Vec::new() };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let programs = processes.filter_map(|process| fs::read_link(process.path().join("exe")).ok());
    programs.filter(|program| program.starts_with(&versions)).collect()
}

/// Removes all versions but those with something to `keep`. What cannot be removed is tried again next time.
fn prune(versions: &Path, keep: &[PathBuf]) {
    let keep: Vec<PathBuf> = keep.iter().filter_map(|it| it.canonicalize().ok()).collect();
    for entry in fs::read_dir(versions).into_iter().flatten().flatten() {
        let is_kept = |version: &Path| keep.iter().any(|it| it.starts_with(version));
        if entry.path().canonicalize().is_ok_and(|path| !is_kept(&path)) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Adds every file below `folder`, with its place below `place`.
fn walk(folder: &Path, place: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let place = place.join(entry.file_name());
        match entry.path().is_dir() {
            true => walk(&entry.path(), &place, files)?,
            false => files.push((entry.path(), place)),
        }
    }
    Ok(())
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (fs::File::open(one)?, fs::File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
    loop {
        let read = one.read(&mut left)?;
        let (Some(left), Some(right)) = (left.get(..read), right.get_mut(..read)) else { return Ok(false) };
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(right)?;
        if left != right {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(folder: &Path) -> Layout {
        Layout {
            data: folder.join("data/runt"),
            definitions: folder.join("units"),
            socket: folder.join("s.sock"),
            other_socket: false,
            worktree: None,
            environment: Vec::new(),
        }
    }

    fn source(folder: &Path, text: &str) -> Source {
        let plugins = folder.join("dist/lib/runt/plugins");
        fs::create_dir_all(plugins.join("x/helpers")).unwrap();
        fs::create_dir_all(folder.join("dist/bin")).unwrap();
        fs::write(plugins.join("x/helpers/helper"), text).unwrap();
        let (daemon, runt) = (folder.join("dist/bin/runtimed"), folder.join("dist/bin/runt"));
        fs::write(&daemon, text).unwrap();
        fs::write(&runt, "runt").unwrap();
        Source { daemon, runt, plugins: Some(plugins) }
    }

    #[test]
    fn versions_are_switched_and_the_one_before_stays() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let helper = layout.bin().join("../lib/runt/plugins/x/helpers/helper");
        for text in ["one", "two", "three"] {
            let source = source(folder.path(), text);
            assert!(!are_installed(&source, &layout));
            install(&source, &layout).unwrap();
            assert!(are_installed(&source, &layout));
            assert_eq!(fs::read_to_string(layout.binary()).unwrap(), text);
            assert_eq!(fs::read_to_string(&helper).unwrap(), text);
        }
        assert_eq!(fs::read_dir(layout.versions()).unwrap().count(), 2);
        let oldest = fs::read_dir(layout.versions()).unwrap().map(|it| it.unwrap().path()).min().unwrap();
        let program = oldest.join("bin/runtimed");
        prune(&layout.versions(), &[program]);
        let left: Vec<_> = fs::read_dir(layout.versions()).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(left, [oldest]);
        uninstall(&layout).unwrap();
        assert!(!layout.data.exists());
        uninstall(&layout).unwrap();
    }

    #[test]
    fn one_command_at_a_time_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let first = only_us(&layout).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| only_us(&layout).unwrap());
            // As uninstalling does; the second one shall not hold a lock on what is gone.
            uninstall(&layout).unwrap();
            drop(first);
            second.join().unwrap();
        });
        assert!(layout.data.is_dir());
    }

    #[test]
    fn what_others_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        fs::create_dir_all(layout.bin()).unwrap();
        fs::write(layout.binary(), "of another program").unwrap();
        let error = install(&source(folder.path(), "ours"), &layout).unwrap_err().to_string();
        assert!(error.contains("is a folder of another program"), "{error}");
        uninstall(&layout).unwrap();
        assert_eq!(fs::read_to_string(layout.binary()).unwrap(), "of another program");
    }
}
