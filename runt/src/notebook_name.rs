//! What people call a notebook.
//!
//! Promises: pure but for asking the file system where a path leads.

use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The notebook that an argument means, as the daemon names it: a UUID, or the canonical path of its file. None for a
/// word that is neither, such as a kernel's name.
pub(crate) fn notebook(argument: &str) -> Option<String> {
    if let Ok(id) = Uuid::try_parse(argument) {
        return Some(id.to_string());
    }
    let path = Path::new(argument);
    let looks_like_one = argument.contains('/') || path.extension().is_some_and(|it| it == "ipynb");
    let canonical = match path.canonicalize() {
        Ok(path) => path,
        // Its file may be gone; the folder tells where it was.
        Err(_) if looks_like_one => in_its_folder(path)?,
        Err(_) => return None,
    };
    Some(canonical.to_string_lossy().into_owned())
}

fn in_its_folder(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let folder = path.parent()?.canonicalize();
    Some(folder.map_or_else(|_| path.clone(), |folder| folder.join(path.file_name().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths_are_notebooks_and_other_words_are_not() {
        let id = "639b6fa5-4a2c-4c3e-9d7f-0123456789ab";
        assert_eq!(notebook(&id.to_uppercase()).as_deref(), Some(id));
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.ipynb"), folder.path().join("link.ipynb"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let canonical = file.canonicalize().unwrap().to_string_lossy().into_owned();
        assert_eq!(notebook(link.to_str().unwrap()).as_deref(), Some(&*canonical));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(notebook(file.to_str().unwrap()), Some(canonical), "its file is gone");
        assert_eq!(notebook("brave-otter"), None);
        assert!(notebook("gone.ipynb").is_some_and(|path| path.starts_with('/')));
    }
}
