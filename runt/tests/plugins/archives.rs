//! Plugins in archives, good and bad.

use std::fs::{self, File};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use crate::world::{World, library_name};

/// An entry of an archive, whatever it says about itself.
struct Entry<'a> {
    name: &'a str,
    kind: EntryType,
    content: &'a [u8],
    size: u64,
}

fn file<'a>(name: &'a str, content: &'a [u8]) -> Entry<'a> {
    Entry { name, kind: EntryType::Regular, content, size: content.len() as u64 }
}

fn pack(archive: &Path, entries: &[Entry<'_>]) {
    let mut tar = tar::Builder::new(GzEncoder::new(File::create(archive).unwrap(), Compression::fast()));
    for entry in entries {
        let mut header = Header::new_gnu();
        // The builder would refuse some of the names.
        header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(0o755);
        header.set_size(entry.size);
        header.set_cksum();
        tar.append(&header, entry.content).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
}

#[test]
fn an_archive_is_added() {
    let world = World::new();
    let plugin = world.plugin("child", "0.1.0");
    let archive = world.home().join("plugin.tar.gz");
    let library = fs::read(plugin.join(library_name())).unwrap();
    let manifest = fs::read(plugin.join("plugin.toml")).unwrap();
    let library_path = format!("some/{}", library_name());
    pack(
        &archive,
        &[file("some/plugin.toml", &manifest), file(&library_path, &library), file("some/README", b"")],
    );
    world.plugins_command(&["add", archive.to_str().unwrap()]).good();
    assert_eq!(world.status("misbehaving").0, "not_loaded");
    let shown = world.plugins_command(&["show", "misbehaving", "--json"]).json();
    assert_eq!(shown["pin"]["from"], archive.canonicalize().unwrap().to_str().unwrap());
    assert!(!world.plugins().join("misbehaving/README").exists(), "the manifest does not name it");
}

#[test]
fn bad_archives_are_refused_and_leave_nothing() {
    let world = World::new();
    let plugin = world.plugin("child", "0.1.0");
    let manifest = fs::read(plugin.join("plugin.toml")).unwrap();
    let archive = world.home().join("bad.tar.gz");
    let refusal = |entries: &[Entry<'_>]| {
        pack(&archive, entries);
        refused(&world, &archive)
    };
    let good = || file("plugin.toml", &manifest);
    let two = refusal(&[file("a/plugin.toml", &manifest), file("b/plugin.toml", &manifest)]);
    assert!(two.contains("more than one plugin: a/plugin.toml and b/plugin.toml"), "{two}");
    for outside in ["../plugin.toml", "a/../../plugin.toml", "/tmp/plugin.toml"] {
        assert!(refusal(&[file(outside, &manifest)]).contains("leads out of the archive"));
    }
    let link = Entry { name: "link", kind: EntryType::Symlink, content: b"", size: 0 };
    assert!(refusal(&[good(), link]).contains("no regular file or folder"));
    let bomb = Entry { name: "bomb", kind: EntryType::Regular, content: b"", size: 1 << 40 };
    assert!(refusal(&[good(), bomb]).contains("`bomb` alone has more than 512 MiB"));
    assert!(refusal(&[file("README", b"")]).contains("no plugin.toml"));
    assert!(refusal(&[good()]).contains("which the manifest names, is not there"));
    // Cargo is not run on what a stranger sent.
    let project = refusal(&[good(), file("Cargo.toml", b"[package]")]);
    assert!(project.contains("is not in the archive"), "{project}");
    for noise in ["not an archive", ""] {
        fs::write(&archive, noise).unwrap();
        assert!(refused(&world, &archive).contains("bad.tar.gz`"));
    }
}

/// What is said about an archive that is not added.
fn refused(world: &World, archive: &Path) -> String {
    let error = world.plugins_command(&["add", archive.to_str().unwrap()]).bad();
    assert!(error.contains("Nothing was installed"), "{error}");
    assert_eq!(fs::read_dir(world.plugins()).unwrap().count(), 0);
    error
}
