//! Which files are let near the loader, and what the others are told.

use std::process::Command;

use runtimed_plugin_api::adapter::Library;
use runtimed_plugin_api::lock_file::{LockFile, Pin};
use runtimed_plugin_api::manifest::Manifest;

use super::super::checks::check_sanity;
use super::*;

/// Folder of the user's plugins in a [`World`].
const USER: &str = "user";

fn sha256(file: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(file).unwrap()))
}

/// What `runt plugins add` leaves: the plugin and its pins.
fn add(world: &World, id: &str) -> PathBuf {
    let folder = world.install_in(USER, id);
    let files = ["plugin.toml", "lib.so"].map(|name| (PathBuf::from(name), sha256(&folder.join(name))));
    let pin = Pin {
        version: Manifest::read(&folder).unwrap().version,
        from: "/home/ana/my plugin".to_owned(),
        added: "2026-11-22T10:00:00Z".to_owned(),
        files: files.into(),
    };
    let mut lock = LockFile::default();
    lock.plugins.insert(id.to_owned(), pin);
    lock.write(&world.plugins(USER)).unwrap();
    folder
}

async fn only_row(world: &World) -> Row {
    let mut rows = world.load().await.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

const ADD_AGAIN: &str = "if you know why, add it again: runt plugins add '/home/ana/my plugin'; if not, remove it: \
                         runt plugins remove fixture";

#[tokio::test]
async fn what_the_user_added_is_loaded_and_nothing_else() {
    let world = World::new();
    let folder = world.install_in(USER, "fixture");
    let row = refusal(&world).await;
    let named = folder.display();
    assert_eq!(row.reason, format!("`{named}` was not added with `runt plugins add`, so it was not run"));
    assert_eq!(row.remedy, format!("if you trust it: runt plugins add '{named}'"));
    add(&world, "fixture");
    fs::write(folder.join("notes.txt"), "nobody looks at this").unwrap();
    let row = only_row(&world).await;
    assert_eq!((row.status, row.reason.as_str(), row.source), (Status::Ok, "", Source::User));
}

#[tokio::test]
async fn bytes_that_were_swapped_after_adding_are_refused_with_both_hashes() {
    let world = World::new();
    let folder = add(&world, "fixture");
    let library = folder.join("lib.so");
    let added = sha256(&library);
    let mut bytes = fs::read(&library).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&library, bytes).unwrap();
    let row = refusal(&world).await;
    assert_eq!(
        row.reason,
        format!(
            "`{}` is not the file that was added: its SHA-256 is {}, plugins.lock has {added}; nothing of it was run",
            library.display(),
            sha256(&library)
        )
    );
    assert_eq!(row.remedy, ADD_AGAIN);
    // The manifest, too.
    let folder = add(&world, "fixture");
    edit(&folder, "Fixture", "Other name");
    let row = refusal(&world).await;
    assert!(row.reason.contains("plugin.toml` is not the file that was added"), "{}", row.reason);
}

#[tokio::test]
async fn a_file_that_is_named_but_was_not_added_is_refused() {
    let world = World::new();
    let folder = add(&world, "fixture");
    let mut lock = LockFile::read(&world.plugins(USER)).unwrap();
    lock.plugins.get_mut("fixture").unwrap().files.remove(Path::new("lib.so"));
    lock.write(&world.plugins(USER)).unwrap();
    let row = refusal(&world).await;
    assert_eq!(
        row.reason,
        format!(
            "`{}` was not there when the plugin was added: plugins.lock does not list it; nothing of it was run",
            folder.join("lib.so").display()
        )
    );
    assert_eq!(row.remedy, ADD_AGAIN);
}

#[tokio::test]
async fn a_lock_file_that_is_no_use_refuses_its_folder_and_shadows_nobody() {
    let world = World::new();
    add(&world, "fixture");
    world.install_in("system", "fixture");
    let lock = world.plugins(USER).join("plugins.lock");
    fs::write(&lock, "version = 1\n[[[").unwrap();
    let rows = world.load().await.rows();
    assert_eq!((rows[0].source, rows[0].status), (Source::System, Status::Ok));
    assert_eq!((rows[1].source, rows[1].status), (Source::User, Status::Refused));
    let named = lock.display();
    assert!(rows[1].reason.starts_with(&format!("`{named}` is damaged: ")), "{}", rows[1].reason);
    assert!(
        rows[1]
            .reason
            .ends_with("; without it no plugin of that folder can be trusted, and none of them was run"),
        "{}",
        rows[1].reason
    );
    assert_eq!(
        rows[1].remedy,
        format!("move `{named}` away and add the plugins again: runt plugins add <folder>")
    );
    // One that others can write is worth nothing either.
    add(&world, "fixture");
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o646)).unwrap();
    let rows = world.load().await.rows();
    assert_eq!(rows[1].reason, format!("everybody can write to `{named}`"));
    assert_eq!(rows[1].remedy, format!("chmod o-w '{named}'"));
}

#[tokio::test]
async fn without_room_for_a_copy_only_what_came_with_the_daemon_or_the_system_is_loaded() {
    let world = World::new();
    let copies = world.plugins("base").join("plugin-copies");
    fs::write(&copies, "in the way").unwrap();
    world.install("fixture");
    let row = refusal(&world).await;
    assert_eq!(
        row.reason,
        format!(
            "plugin `fixture` is loaded from a private copy, and no copy could be made in `{}`: not a directory; \
             nothing of it was run",
            copies.display()
        )
    );
    assert_eq!(
        row.remedy,
        format!("make `{}` writable for your user, then restart the daemon", copies.display())
    );
    fs::remove_dir_all(world.plugins("plugins")).unwrap();
    world.install_in("system", "fixture");
    assert_eq!(only_row(&world).await.status, Status::Ok);
}

#[tokio::test]
async fn a_library_may_be_rewritten_while_it_runs() {
    let world = World::new();
    let folder = world.install("fixture");
    let registry = world.load().await;
    let provider = provider(&registry);
    fs::write(folder.join("lib.so"), "no library any more").unwrap();
    assert_eq!(provider.plan(EnvRequest::default()).await.unwrap().key.len(), 16);
    assert!(refusal(&world).await.reason.contains("lib.so` is not a usable library"));
}

#[tokio::test]
async fn copies_that_nobody_uses_are_removed() {
    let world = World::new();
    world.install("fixture");
    world.load().await;
    let copies = world.plugins("base").join("plugin-copies");
    let names = || {
        let entries = fs::read_dir(&copies).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let used = format!("{}{}", sha256(&library()), env::consts::DLL_SUFFIX);
    fs::write(copies.join(format!("{}{}", "0".repeat(64), env::consts::DLL_SUFFIX)), "old").unwrap();
    fs::write(copies.join(".new-half"), "left behind by a sudden death").unwrap();
    world.load().await;
    assert_eq!(names(), [used]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copies), mode(&copies.join(&names()[0]))), (0o700, 0o500));
}

#[tokio::test]
async fn a_capability_of_a_later_daemon_is_left_out_and_noted() {
    let world = World::new();
    let folder = world.install("fixture");
    edit(
        &folder,
        "[[provides]]",
        "[[provides]]\ncapability = \"time-travel.v1\"\nname = \"tardis\"\n[[provides]]",
    );
    let registry = world.load().await;
    let row = registry.rows().remove(0);
    assert_eq!(row.status, Status::Ok);
    assert_eq!(
        row.reason,
        "it also provides time-travel.v1, which this daemon does not know; everything else is used"
    );
    assert_eq!(row.remedy, "update runtimed to use all of it");
    assert!(registry.rooms().is_some());
}

/// Set in the process that may die.
const CUTTING: &str = "RUNTIMED_TEST_CUTTING";

#[test]
fn a_library_that_was_cut_anywhere_ends_nobody() {
    if env::var_os(CUTTING).is_some() {
        return cut_everywhere();
    }
    let cutting = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "plugins::tests::files::a_library_that_was_cut_anywhere_ends_nobody",
            "--nocapture",
        ])
        .env(CUTTING, "1")
        .output()
        .unwrap();
    assert!(cutting.status.success(), "{cutting:?}");
}

/// Checks, and loads if the check lets it through, the fixture cut at every 64th of its length and round the
/// end of each segment; once whole and once without the section table, which lies at the end and would give
/// every cut away.
fn cut_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(library()).unwrap();
    let mut bare = whole.clone();
    if bare.starts_with(b"\x7fELF") {
        bare[40..48].fill(0);
        bare[58..64].fill(0);
    }
    let needed = end_of_segments(&whole);
    for (name, bytes) in [("whole.so", &whole), ("bare.so", &bare)] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut lengths: Vec<usize> = (0..64).map(|part| bytes.len() * part / 64).collect();
        lengths.extend([needed, needed - 1, bytes.len() - 1]);
        lengths.sort();
        // Downwards, so that one file serves for all.
        for length in lengths.into_iter().rev() {
            file.set_len(length as u64).unwrap();
            match check_sanity(&path, &file) {
                Ok(()) => {
                    assert!(length >= needed, "cut at {length}, segments end at {needed}");
                    // Loaded under a name of its own, as the file under this one is cut again.
                    let loaded = folder.path().join(format!("{length}-{name}"));
                    fs::copy(&path, &loaded).unwrap();
                    Library::open(&loaded).map(drop).unwrap();
                }
                Err(problem) => assert!(problem.reason.contains("is not a usable library"), "{problem:?}"),
            }
        }
    }
}

/// Where the last byte that is mapped ends.
fn end_of_segments(library: &[u8]) -> usize {
    use object::{Object, ObjectSegment};
    let segments = object::File::parse(library).unwrap();
    let ends = segments.segments().map(|segment| segment.file_range()).map(|(start, size)| start + size);
    usize::try_from(ends.max().unwrap()).unwrap()
}
