//! Unpacks a `.tar.gz` somebody else made.
//!
//! Promises: writes only below the folder it is given, and only regular files and folders; gives up on an
//! archive that unpacks to more than [`MAX_BYTES`] or has more than [`MAX_ENTRIES`].
//! Never: follows a link, or keeps a permission but that to be run.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use flate2::read::MultiGzDecoder;
use tar::EntryType;

/// Most that an archive may unpack to. Debug builds of a large plugin for four machines have half of that.
pub(crate) const MAX_BYTES: u64 = 512 * 1024 * 1024;
/// Most files and folders in an archive. A plugin has a handful; this keeps a bomb from eating inodes.
pub(crate) const MAX_ENTRIES: usize = 4096;

/// Whether a path names an archive this module reads.
pub(crate) fn is_archive(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.ends_with(".tar.gz") || name.ends_with(".tgz")
}

/// Unpacks `archive` into the empty folder `into`, and returns the folder of the one plugin in it.
///
/// # Errors
/// For an archive that breaks a rule above, or does not hold exactly one plugin; `into` may then hold a part.
pub(crate) fn unpack(archive: &Path, into: &Path) -> anyhow::Result<PathBuf> {
    unpack_within(MAX_BYTES, archive, into)
}

fn unpack_within(max_bytes: u64, archive: &Path, into: &Path) -> anyhow::Result<PathBuf> {
    let file = File::open(archive).with_context(|| format!("`{}` could not be read", archive.display()))?;
    let limited = MultiGzDecoder::new(io::BufReader::new(file)).take(max_bytes);
    let mut tar = tar::Archive::new(limited);
    let unpacked = write_entries(&mut tar, into, max_bytes);
    // The limit looks like an early end from within.
    if tar.into_inner().limit() == 0 {
        bail!("`{}` unpacks to more than {} MiB", archive.display(), max_bytes / 1024 / 1024);
    }
    let mut manifests = unpacked.with_context(|| format!("`{}` cannot be unpacked", archive.display()))?;
    match (manifests.pop(), manifests.pop()) {
        (Some(manifest), None) => Ok(manifest.parent().unwrap_or(into).to_path_buf()),
        (None, _) => bail!("`{}` has no plugin.toml in it", archive.display()),
        (Some(one), Some(other)) => {
            let inside = |path: &Path| path.strip_prefix(into).unwrap_or(path).display().to_string();
            bail!(
                "`{}` holds more than one plugin: {} and {}",
                archive.display(),
                inside(&other),
                inside(&one)
            )
        }
    }
}

/// Writes what is in the archive and returns the manifests among it.
fn write_entries(
    tar: &mut tar::Archive<impl Read>,
    into: &Path,
    max_bytes: u64,
) -> anyhow::Result<Vec<PathBuf>> {
    let mut manifests = Vec::new();
    for (number, entry) in tar.entries()?.enumerate() {
        if number == MAX_ENTRIES {
            bail!("it has more than {MAX_ENTRIES} entries");
        }
        let mut entry = entry?;
        let named = entry.path()?.into_owned();
        let path = into.join(inside(&named)?);
        if entry.size() > max_bytes {
            bail!("`{}` alone has more than {} MiB", named.display(), max_bytes / 1024 / 1024);
        }
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&path)?,
            EntryType::Regular | EntryType::Continuous => {
                if let Some(folder) = path.parent() {
                    fs::create_dir_all(folder)?;
                }
                // A file that is there already was named twice.
                let file = OpenOptions::new().write(true).create_new(true).open(&path);
                let mut file = file.map_err(|error| anyhow!("`{}`: {error}", named.display()))?;
                io::copy(&mut entry, &mut file)?;
                let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
                file.set_permissions(Permissions::from_mode(if executable { 0o700 } else { 0o600 }))?;
                if path.file_name().is_some_and(|name| name == runtimed_plugin_api::manifest::FILE_NAME) {
                    manifests.push(path);
                }
            }
            // A comment on the whole archive, as `git archive` writes.
            EntryType::XGlobalHeader => {}
            other => bail!("`{}` is no regular file or folder ({other:?})", named.display()),
        }
    }
    Ok(manifests)
}

/// The path, if it leads nowhere but down.
fn inside(path: &Path) -> anyhow::Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            _ => bail!("`{}` leads out of the archive", path.display()),
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::Header;

    use super::*;

    /// An archive of entries, with names that a careful writer would refuse.
    fn archive(folder: &Path, entries: &[(&str, EntryType, &[u8])]) -> PathBuf {
        let file = folder.join("x.tar.gz");
        let mut tar = tar::Builder::new(GzEncoder::new(File::create(&file).unwrap(), Compression::fast()));
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o4777);
            header.set_size(content.len() as u64);
            if *kind == EntryType::Symlink || *kind == EntryType::Link {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap();
        file
    }

    fn refusal(entries: &[(&str, EntryType, &[u8])]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        fs::create_dir(&into).unwrap();
        let error = unpack(&archive(folder.path(), entries), &into).unwrap_err();
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "nothing was written outside: {left:?}");
        format!("{error:#}")
    }

    #[test]
    fn a_plugin_may_lie_in_a_folder_and_keeps_no_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("into");
        let entries: [(&str, EntryType, &[u8]); 4] = [
            ("pax_global_header", EntryType::XGlobalHeader, b"20 comment=abcdefg\n"),
            ("./my-env-1.0/", EntryType::Directory, b""),
            ("./my-env-1.0/plugin.toml", EntryType::Regular, b"id"),
            ("./my-env-1.0/deep/er/libx.so", EntryType::Regular, b"x"),
        ];
        fs::create_dir(&into).unwrap();
        let plugin = unpack(&archive(folder.path(), &entries), &into).unwrap();
        assert_eq!(plugin, into.join("my-env-1.0"));
        let mode = fs::metadata(plugin.join("deep/er/libx.so")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "neither setuid nor for others");
    }

    #[test]
    fn what_leads_out_or_is_no_file_is_refused() {
        let file = EntryType::Regular;
        assert!(refusal(&[("../plugin.toml", file, b"")]).contains("leads out of the archive"));
        assert!(refusal(&[("a/../../plugin.toml", file, b"")]).contains("leads out of the archive"));
        assert!(refusal(&[("/tmp/plugin.toml", file, b"")]).contains("leads out of the archive"));
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Fifo, EntryType::Char] {
            assert!(refusal(&[("libx.so", kind, b"")]).contains("no regular file or folder"));
        }
        assert!(refusal(&[("a", file, b""), ("a", file, b"")]).contains("`a`: File exists"));
        assert!(refusal(&[("a", file, b""), ("a/plugin.toml", file, b"")]).contains("cannot be unpacked"));
    }

    #[test]
    fn one_plugin_and_no_more() {
        let file = EntryType::Regular;
        assert!(refusal(&[("README.md", file, b"")]).contains("no plugin.toml"));
        let two = refusal(&[("a/plugin.toml", file, b""), ("b/plugin.toml", file, b"")]);
        assert!(two.contains("more than one plugin: a/plugin.toml and b/plugin.toml"), "{two}");
    }

    #[test]
    fn bombs_are_given_up_on() {
        let many: Vec<_> = (0..=MAX_ENTRIES).map(|_| ("d", EntryType::Directory, &b""[..])).collect();
        assert!(refusal(&many).contains("more than 4096 entries"));

        let folder = tempfile::tempdir().unwrap();
        let limited = |entries: &[(&str, EntryType, &[u8])]| {
            let into = tempfile::tempdir_in(folder.path()).unwrap();
            let error = unpack_within(1 << 20, &archive(folder.path(), entries), into.path()).unwrap_err();
            format!("{error:#}")
        };
        let (half, whole) = (vec![0; 600 << 10], vec![0; (1 << 20) + 1]);
        let alone = limited(&[("a", EntryType::Regular, &whole)]);
        assert!(alone.contains("`a` alone has more than 1 MiB"), "{alone}");
        let together = limited(&[("a", EntryType::Regular, &half), ("b", EntryType::Regular, &half)]);
        assert!(together.contains("x.tar.gz` unpacks to more than 1 MiB"), "{together}");
    }

    #[test]
    fn noise_is_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.tgz");
        fs::write(&file, "not gzip").unwrap();
        assert!(is_archive(&file) && !is_archive(folder.path()));
        assert!(unpack(&file, folder.path()).unwrap_err().to_string().contains("cannot be unpacked"));
    }
}
