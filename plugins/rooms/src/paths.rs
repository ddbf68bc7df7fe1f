//! From what a client calls a notebook to the one path its room is known by.
//!
//! For: two clients that name the same file differently must meet in one room.
//! Promises: looks at the file system and changes nothing.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::disk::access::{cannot_access, not_a_file, step_for_reading};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An existing file, by its canonical path.
    File(PathBuf),
    /// No file yet; it will be written here.
    Missing(PathBuf),
    /// A directory to work in.
    Directory(PathBuf),
}

/// Finds out what `path` leads to. Blocks on the file system.
///
/// # Errors
/// A sentence for the client: a UUID instead of a path, a relative path, a directory that cannot be
/// written to, or what the system said.
pub(crate) fn resolve(path: &Path) -> Result<Place, String> {
    if let Some(text) = path.to_str()
        && Uuid::parse_str(text).is_ok()
    {
        return Err(format!(
            "Refusing to open bare UUID '{text}' as a file path. Join the notebook by its id instead, or give the path of its file."
        ));
    }
    let cannot = |error: io::Error| cannot_access(path, &error, step_for_reading(error.kind()));
    if !path.is_absolute() {
        return Err(cannot_access(path, &"relative paths are not supported", "give an absolute path."));
    }
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            let directory = path.canonicalize().map_err(cannot)?;
            if !is_writable(&directory) {
                let next = "name a notebook file in it, or a directory you may write to.";
                return Err(cannot_access(path, &"the directory is not writable", next));
            }
            Ok(Place::Directory(directory))
        }
        Ok(found) if found.is_file() => path.canonicalize().map(Place::File).map_err(cannot),
        Ok(_) => Err(not_a_file(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = with_notebook_extension(path);
            // `demo` may mean an existing `demo.ipynb`.
            if path.is_file() {
                return path.canonicalize().map(Place::File).map_err(cannot);
            }
            Ok(Place::Missing(canonical_as_far_as_it_exists(&path)))
        }
        Err(error) => Err(cannot(error)),
    }
}

/// The path a save to `path` ends at. Blocks on the file system.
pub(crate) fn save_target(path: &Path) -> PathBuf {
    let path = with_notebook_extension(path);
    path.canonicalize().unwrap_or_else(|_| canonical_as_far_as_it_exists(&path))
}

/// Whether this process may write to an existing file or directory. Blocks on the file system.
pub(crate) fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

fn with_notebook_extension(path: &Path) -> PathBuf {
    if path.extension() == Some(OsStr::new("ipynb")) {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".ipynb");
    name.into()
}

/// Resolves links in the part of the path that exists; a link to what does not exist is followed.
fn canonical_as_far_as_it_exists(path: &Path) -> PathBuf {
    if let (Ok(target), Some(folder)) = (path.read_link(), path.parent()) {
        // One step: a chain of links that ends nowhere is somebody's mistake.
        let target = folder.join(target);
        return canonical_folder(&target);
    }
    canonical_folder(path)
}

fn canonical_folder(path: &Path) -> PathBuf {
    for ancestor in path.ancestors().skip(1) {
        if let (Ok(found), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return found.join(rest);
        }
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_one_file_lead_to_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let file = root.join("a.ipynb");
        std::fs::write(&file, "{}").unwrap();
        std::os::unix::fs::symlink(&file, root.join("link.ipynb")).unwrap();
        for name in ["a.ipynb", "a", "link.ipynb", "../a.ipynb"] {
            let path = match name {
                "../a.ipynb" => root.join("..").join(root.file_name().unwrap()).join("a.ipynb"),
                _ => root.join(name),
            };
            assert_eq!(resolve(&path), Ok(Place::File(file.clone())), "{name}");
        }
    }

    #[test]
    fn what_does_not_exist_gets_its_extension_and_a_directory_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        assert_eq!(resolve(&root.join("new")), Ok(Place::Missing(root.join("new.ipynb"))));
        assert_eq!(resolve(&root.join("x/y.ipynb")), Ok(Place::Missing(root.join("x/y.ipynb"))));
        assert_eq!(resolve(&root), Ok(Place::Directory(root.clone())));
        assert_eq!(save_target(&root.join("out")), root.join("out.ipynb"));
        std::os::unix::fs::symlink("x/y.ipynb", root.join("to.ipynb")).unwrap();
        assert_eq!(resolve(&root.join("to.ipynb")), Ok(Place::Missing(root.join("x/y.ipynb"))));
    }

    #[test]
    fn a_uuid_and_a_relative_path_are_refused() {
        let uuid = "00000000-0000-4000-8000-000000000000";
        let refusal = resolve(Path::new(uuid)).unwrap_err();
        assert!(refusal.starts_with("Refusing to open bare UUID '00000000-"), "{refusal}");
        assert!(resolve(Path::new("a.ipynb")).unwrap_err().starts_with("Cannot access notebook 'a.ipynb':"));
    }
}
