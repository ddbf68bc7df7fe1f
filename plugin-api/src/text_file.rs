//! Text that somebody else put where we look for it.
//!
//! For: files beside a notebook and in plugin folders, which come with repositories and archives: these can hold links to
//! devices, and pipes.
//! Promises: a pipe or a device is not opened; memory holds no more than the limit, whatever a file says of its size.
//! Blocks: call it where that may be.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

/// Largest file of a project or a plugin that is read, in bytes (our choice; the longest we have seen have some ten KiB).
pub const TEXT_MAX: u64 = 4 * 1024 * 1024;

/// The text of the file at `path`, links followed.
///
/// # Errors
/// What the file system says; `InvalidInput` for what is not a file, `FileTooLarge` beyond [`TEXT_MAX`], `InvalidData`
/// for what is not UTF-8.
pub fn read_text(path: &Path) -> io::Result<String> {
    // Before it is opened: that alone waits for the other end of a pipe.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut text = String::new();
    let read = File::open(path)?.take(TEXT_MAX + 1).read_to_string(&mut text);
    if text.len() as u64 > TEXT_MAX {
        let text = format!("it is too large: more than {} MiB", TEXT_MAX >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, text));
    }
    read.map(|_| text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_and_what_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("good"), "é").unwrap();
        assert_eq!(read_text(&at("good")).unwrap(), "é");
        std::os::unix::fs::symlink("good", at("link")).unwrap();
        assert_eq!(read_text(&at("link")).unwrap(), "é");

        fs::write(at("binary"), [0xff]).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
        File::create(at("giant")).unwrap().set_len(8 << 30).unwrap();
        fs::write(at("over"), "x".repeat(TEXT_MAX as usize + 1)).unwrap();
        for (name, kind) in [
            ("none", ErrorKind::NotFound),
            ("binary", ErrorKind::InvalidData),
            ("endless", ErrorKind::InvalidInput),
            ("", ErrorKind::InvalidInput),
            ("giant", ErrorKind::FileTooLarge),
            ("over", ErrorKind::FileTooLarge),
        ] {
            assert_eq!(read_text(&at(name)).unwrap_err().kind(), kind, "{name}");
        }
        fs::write(at("full"), "x".repeat(TEXT_MAX as usize)).unwrap();
        assert_eq!(read_text(&at("full")).unwrap().len() as u64, TEXT_MAX);
    }
}
