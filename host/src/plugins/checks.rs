//! What can be known about a plugin's files without running a line of them.
//!
//! For: never handing the dynamic loader something that somebody else could have put there, or that would
//! take the daemon down. Cheap checks first.
//! Never: loads anything. All of it blocks on the file system.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object::{Architecture, Object, ObjectKind, ObjectSection, ObjectSegment, ReadCache};
use runtimed_plugin_api::adapter::{ABI_MAJOR, ABI_MINOR};
use runtimed_plugin_api::manifest::{self, FILE_NAME, Manifest, this_target};

use super::copies::{Copies, pass};
use super::permissions::check_permissions;
use super::row::Problem;
use super::search::{Found, Source};

/// A library that passed every check.
#[derive(Debug)]
pub(super) struct Checked {
    /// What to load, absolute and without links: a copy of what was checked.
    pub(super) path: PathBuf,
    /// SHA-256 of its content in lower-case hex.
    pub(super) sha256: String,
    /// The file in the plugin's folder, which is what users know.
    original: PathBuf,
}

impl Checked {
    /// A sentence about the library, with the name that users know.
    pub(super) fn in_users_words(&self, sentence: &str) -> String {
        sentence.replace(&*self.path.to_string_lossy(), &self.original.to_string_lossy())
    }
}

/// Runs every check on the files of the plugin that was `found`, and copies its library.
pub(super) fn check(manifest: &Manifest, found: &Found, copies: &Copies) -> Result<Checked, Problem> {
    check_abi(manifest)?;
    let library = manifest.library_for_this_target().ok_or_else(|| {
        Problem::refused(
            format!("plugin `{}` has no library for {}", manifest.id, this_target()),
            "install a build of the plugin for this machine",
        )
    })?;
    check_manifest(manifest, found)?;
    let unhashed = |path: &Path| manifest::File { path: path.to_owned(), sha256: None };
    let schema = manifest.settings.iter().map(|settings| unhashed(&settings.schema));
    for file in manifest.files.iter().cloned().chain(schema) {
        let mut opened = Opened::new(&file.path, found)?;
        if expected(&file, found).is_some() {
            let (sha256, _) =
                pass(&mut opened.file, |_| Ok(())).map_err(|error| opened.unreadable(&error))?;
            check_hash(&file, found, &sha256)?;
        }
    }
    check_library(library, manifest, found, copies)
}

/// What the manifest said when it was read is what it says, and what the user accepted.
fn check_manifest(manifest: &Manifest, found: &Found) -> Result<(), Problem> {
    let mut opened = Opened::new(Path::new(FILE_NAME), found)?;
    let mut text = String::new();
    let read = opened.file.read_to_string(&mut text).and_then(|_| opened.file.rewind());
    read.map_err(|error| opened.unreadable(&error))?;
    let (sha256, _) = pass(&mut opened.file, |_| Ok(())).map_err(|error| opened.unreadable(&error))?;
    check_hash(&manifest::File { path: FILE_NAME.into(), sha256: None }, found, &sha256)?;
    match Manifest::parse(&text, &opened.path) {
        Ok(now) if now == *manifest => Ok(()),
        _ => Err(changed(&opened.path)),
    }
}

/// Copies the library while hashing it, and looks into the copy.
fn check_library(
    library: &manifest::File,
    manifest: &Manifest,
    found: &Found,
    copies: &Copies,
) -> Result<Checked, Problem> {
    let mut opened = Opened::new(&library.path, found)?;
    let taken =
        copies.take(&mut opened.file, expected(library, found)).map_err(|error| opened.unreadable(&error))?;
    check_hash(library, found, &taken.sha256)?;
    match taken.copy {
        Ok(path) => {
            let copy = File::open(&path).map_err(|error| opened.unreadable(&error))?;
            check_sanity(&opened.path, &copy)?;
            Ok(Checked { path, sha256: taken.sha256, original: opened.path })
        }
        // What came with the daemon or the system is replaced by installers, which do not rewrite in place;
        // running it from there beats not running at all.
        Err(problem) if matches!(found.source, Source::Bundled | Source::System) => {
            tracing::warn!(
                "`{}` is loaded from where it is, and must not be rewritten while the daemon runs: {}; {}",
                opened.path.display(),
                problem.reason,
                problem.remedy
            );
            check_sanity(&opened.path, &opened.file)?;
            check_unchanged(&opened.path, &opened.metadata)?;
            Ok(Checked { path: opened.path.clone(), sha256: taken.sha256, original: opened.path })
        }
        Err(problem) => Err(Problem {
            reason: format!(
                "plugin `{}` is loaded from a private copy, and {}; nothing of it was run",
                manifest.id, problem.reason
            ),
            ..problem
        }),
    }
}

/// The hash that a file of the plugin must have: that of the user's lock file, else that of the manifest.
fn expected<'a>(file: &'a manifest::File, found: &'a Found) -> Option<&'a str> {
    let pinned = found.pin.as_ref().and_then(|pin| pin.files.get(&file.path));
    pinned.or(file.sha256.as_ref()).map(String::as_str)
}

/// The hash of the library that will be loaded for a plugin, if it is known without reading the library.
pub(super) fn expected_library<'a>(manifest: &'a Manifest, found: &'a Found) -> Option<&'a str> {
    expected(manifest.library_for_this_target()?, found)
}

/// A file's hash is the one the user accepted, and the one its manifest gives.
fn check_hash(file: &manifest::File, found: &Found, sha256: &str) -> Result<(), Problem> {
    let path = found.folder.join(&file.path);
    let path = path.display();
    if let Some(pin) = &found.pin {
        let again = format!(
            "if you know why, add it again: runt plugins add '{}'; if not, remove it: runt plugins remove {}",
            pin.from,
            found.id()
        );
        match pin.files.get(&file.path) {
            Some(pinned) if pinned == sha256 => {}
            Some(pinned) => {
                let reason = format!(
                    "`{path}` is not the file that was added: its SHA-256 is {sha256}, plugins.lock has {pinned}; \
                     nothing of it was run"
                );
                return Err(Problem::refused(reason, again));
            }
            None => {
                let reason = format!(
                    "`{path}` was not there when the plugin was added: plugins.lock does not list it; nothing of it \
                     was run"
                );
                return Err(Problem::refused(reason, again));
            }
        }
    }
    match &file.sha256 {
        Some(named) if named != sha256 => Err(Problem::refused(
            format!(
                "`{path}` is not the file its manifest describes: its SHA-256 is {sha256}, plugin.toml has {named}; \
                 nothing of it was run"
            ),
            "reinstall the plugin; if you built it yourself, correct sha256 in plugin.toml",
        )),
        _ => Ok(()),
    }
}

fn check_abi(manifest: &Manifest) -> Result<(), Problem> {
    let (major, minor) = (manifest.abi.major, manifest.abi.min_minor);
    let newer = (major, minor) > (ABI_MAJOR, ABI_MINOR);
    if major == ABI_MAJOR && !newer {
        return Ok(());
    }
    Err(Problem::refused(
        format!(
            "plugin `{}` needs ABI {major}.{minor}, this daemon has {ABI_MAJOR}.{ABI_MINOR}",
            manifest.id
        ),
        if newer { "update runtimed" } else { "update the plugin" },
    ))
}

/// A file of the plugin that is where it may be and that nobody else could have written.
struct Opened {
    /// Absolute, without links.
    path: PathBuf,
    file: File,
    /// As it was when it was opened.
    metadata: Metadata,
}

impl Opened {
    /// Checks place and permissions of the file at `path` below the plugin's folder, and opens it.
    fn new(path: &Path, found: &Found) -> Result<Self, Problem> {
        let named = found.folder.join(path);
        let unreadable = |error: io::Error| unreadable(&named, &error);
        let path = named.canonicalize().map_err(unreadable)?;
        if !path.starts_with(&found.folder) {
            return Err(Problem::refused(
                format!("`{}` leads out of the plugin's folder, to `{}`", named.display(), path.display()),
                "replace the link by the file itself",
            ));
        }
        check_permissions(&path)?;
        // Asked before it is opened: opening a pipe waits for a writer, for ever.
        if !fs::metadata(&path).map_err(unreadable)?.is_file() {
            return Err(Problem::refused(
                format!("`{}` is not a file", path.display()),
                "reinstall the plugin",
            ));
        }
        let file = File::open(&path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        Ok(Self { path, file, metadata })
    }

    fn unreadable(&self, error: &io::Error) -> Problem {
        unreadable(&self.path, error)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    Problem::refused(format!("`{}` could not be read: {error}", path.display()), "reinstall the plugin")
}

fn changed(path: &Path) -> Problem {
    Problem::refused(
        format!("`{}` changed while it was being checked", path.display()),
        "restart the daemon when the update is done",
    )
}

/// What the loader will open by its name is what was read here: an update that replaced or rewrote the file
/// meanwhile is noticed. Whoever could do so in the moment that is left is us or root, as was checked.
fn check_unchanged(path: &Path, found: &Metadata) -> Result<(), Problem> {
    let identity = |it: &Metadata| (it.dev(), it.ino(), it.size(), it.ctime(), it.ctime_nsec());
    match fs::symlink_metadata(path) {
        Ok(now) if identity(&now) == identity(found) => Ok(()),
        _ => Err(changed(path)),
    }
}

/// A library for this machine, whole: the loader maps segments without asking whether the file has them, and
/// the process dies of SIGBUS when it has not. `path` is for the message.
///
/// Everything the loader follows (dynamic section, symbols, relocations, on macOS the link-edit tables) lies
/// in segments. Sections lie round them: checking those too refuses a file that lost only its end.
pub(super) fn check_sanity(path: &Path, file: &File) -> Result<(), Problem> {
    let length = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    let broken = |what: String| {
        Problem::refused(
            format!("`{}` is not a usable library: {what}", path.display()),
            "reinstall the plugin",
        )
    };
    let content = ReadCache::new(file);
    let library = object::File::parse(&content).map_err(|error| broken(error.to_string()))?;
    if library.kind() != ObjectKind::Dynamic {
        return Err(broken("it is not a dynamic library".to_owned()));
    }
    let expected = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "aarch64" => Architecture::Aarch64,
        other => return Err(broken(format!("plugins for {other} are not supported yet"))),
    };
    if library.architecture() != expected {
        return Err(broken(format!("it is for {:?}, this machine is {expected:?}", library.architecture())));
    }
    let segments = library.segments().map(|segment| segment.file_range());
    let sections = library.sections().filter_map(|section| section.file_range());
    if segments.chain(sections).any(|(start, size)| start.checked_add(size).is_none_or(|end| end > length)) {
        return Err(broken("it is cut short".to_owned()));
    }
    Ok(())
}
