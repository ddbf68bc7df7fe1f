//! The registry against a real library, the example `plugin_fixture`, which cargo builds with the tests.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fs};

use runtimed_plugin_api::manifest::this_target;
use runtimed_plugin_api::{Directories, EnvProvider, EnvRequest, Environment, ErrorCode, SettingsView};
use serde_json::json;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;

mod files;
mod past;

/// The fixture library, seen from the test binary in `target/<profile>/deps`.
fn library() -> PathBuf {
    let name = format!("{}plugin_fixture{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    let binary = env::current_exe().unwrap();
    binary.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// A folder of plugins that nobody else can write to.
struct World {
    folder: TempDir,
    disabled: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("base")).unwrap();
        Self { folder, disabled: BTreeSet::new() }
    }

    fn plugins(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Installs the fixture below `plugins/<id>`; returns its folder.
    fn install(&self, id: &str) -> PathBuf {
        self.install_in("plugins", id)
    }

    fn install_in(&self, plugins: &str, id: &str) -> PathBuf {
        let folder = self.plugins(plugins).join(id);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(library(), folder.join("lib.so")).unwrap();
        fs::write(folder.join("plugin.toml"), manifest(id)).unwrap();
        folder
    }

    async fn load(&self) -> Arc<Registry> {
        let values = json!({"plugins": {"disabled": self.disabled}});
        let (_, settings) = watch::channel(SettingsView { revision: 1, values });
        let base = self.folder.path().join("base");
        let directories = Directories {
            runtime: base.join("run"),
            blobs: base.join("blobs"),
            executions: base.join("executions"),
            tools: base.join("tools"),
            plugin: PathBuf::new(),
            base,
        };
        let context = HostContext {
            directories,
            settings,
            shutdown: CancellationToken::new(),
            environments: OnceLock::new(),
        };
        let path = SearchPath(vec![
            (Source::Argument, self.plugins("plugins")),
            (Source::System, self.plugins("system")),
            (Source::User, self.plugins("user")),
        ]);
        // None of these has a process of its own.
        let registry = Registry::new(Arc::new(context), path, Vec::new());
        let running = Arc::clone(&registry);
        tokio::spawn(async move { running.run().await });
        registry.env_providers().wait_for(Option::is_some).await.unwrap();
        registry
    }
}

/// The provider that the fixture is.
fn provider(registry: &Registry) -> Arc<dyn EnvProvider> {
    Arc::clone(&registry.env_providers().borrow().as_ref().unwrap()["fixture"].provider)
}

fn manifest(id: &str) -> String {
    format!(
        "manifest_version = 1\nid = \"{id}\"\nname = \"Fixture\"\nversion = \"1.2.3\"\n\
         [abi]\nmajor = 1\n\
         [library]\n{target} = {{ path = \"lib.so\" }}\n\
         [[provides]]\ncapability = \"env-provider.v1\"\nname = \"fixture\"\n\
         [[provides]]\ncapability = \"rooms.v1\"\nname = \"echo\"\n",
        target = this_target()
    )
}

fn edit(folder: &Path, from: &str, to: &str) {
    let file = folder.join("plugin.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from));
    fs::write(file, text.replace(from, to)).unwrap();
}

fn environment() -> Environment {
    Environment {
        kind: "fixture".to_owned(),
        prefix: "/envs/a".into(),
        python: "/envs/a/bin/python".into(),
        python_version: None,
        packages: Vec::new(),
        extra: serde_json::Map::new(),
    }
}

/// Loads the one plugin there is, and expects it to be refused.
async fn refusal(world: &World) -> Row {
    let registry = world.load().await;
    assert!(registry.rooms().is_none());
    let mut rows = registry.rows();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = rows.remove(0);
    assert_eq!(row.status, Status::Refused, "{row:?}");
    assert!(!row.remedy.is_empty());
    row
}

#[tokio::test]
async fn a_plugin_is_found_loaded_used_and_stopped() {
    let world = World::new();
    world.install("fixture");
    let registry = world.load().await;
    let rows = registry.rows();
    assert_eq!(
        (rows[0].status, rows[0].reason.as_str(), rows[0].version.as_str()),
        (Status::Ok, "", "1.2.3")
    );
    assert_eq!(rows[0].capabilities, ["env-provider.v1:fixture", "rooms.v1:echo"]);
    assert!(registry.rooms().is_some() && registry.blob_store().is_none());
    assert!(registry.kernel_backend("").is_none());
    let provider = provider(&registry);
    assert_eq!(provider.plan(EnvRequest::default()).await.unwrap().key.len(), 16);
    registry.stop(Duration::from_secs(5)).await;
    assert_eq!(registry.rows()[0].status, Status::Stopped);
    assert!(registry.rooms().is_none());
}

#[tokio::test]
async fn a_panic_poisons_the_row_and_nothing_else() {
    let world = World::new();
    world.install("fixture");
    let registry = world.load().await;
    let provider = provider(&registry);
    assert_eq!(provider.verify(&environment()).await.unwrap_err().code, ErrorCode::Panicked);
    let row = registry.rows().remove(0);
    assert_eq!(row.status, Status::Poisoned);
    assert!(
        row.reason.contains("verify panics") && row.reason.contains("fixture_plugin.rs"),
        "{}",
        row.reason
    );
    assert!(registry.rooms().is_some());
}

#[tokio::test]
async fn a_panic_in_create_is_a_row() {
    let world = World::new();
    let folder = world.install("fixture");
    fs::write(folder.join("panic"), "").unwrap();
    let row = world.load().await.rows().remove(0);
    assert_eq!(row.status, Status::Failed);
    assert_eq!(
        row.reason,
        "plugin `fixture` could not be created: the plugin panicked: create panics, as the test asked"
    );
}

#[tokio::test]
async fn a_plugin_that_provides_more_than_its_manifest_says_is_not_used() {
    let world = World::new();
    let folder = world.install("fixture");
    edit(
        &folder,
        "[[provides]]\ncapability = \"rooms.v1\"\nname = \"echo\"\n",
        "[run]\ncarrier = \"in-process\"\nactivate = \"on-demand\"\n",
    );
    let registry = world.load().await;
    let row = registry.rows().remove(0);
    assert_eq!(row.status, Status::Failed);
    assert_eq!(
        row.reason,
        "plugin `fixture` is not what its manifest says: its manifest does not mention rooms.v1"
    );
    assert!(registry.env_providers().borrow().as_ref().unwrap().is_empty());
}

#[tokio::test]
async fn the_first_id_wins_and_a_disabled_one_rests() {
    let mut world = World::new();
    world.install("fixture");
    world.install_in("system", "fixture");
    let rows = world.load().await.rows();
    assert_eq!((rows[0].status, rows[0].source), (Status::Ok, Source::Argument));
    assert_eq!((rows[1].status, rows[1].source), (Status::Shadowed, Source::System));
    assert!(rows[1].reason.contains("plugins/fixture"));
    world.disabled.insert("fixture".to_owned());
    assert_eq!(world.load().await.rows()[1].status, Status::Disabled);
}

#[tokio::test]
async fn a_missing_need_is_named() {
    let world = World::new();
    let folder = world.install("fixture");
    edit(&folder, "[abi]", "[needs]\ncapabilities = [\"blob-store.v1\"]\n[abi]");
    assert!(refusal(&world).await.reason.contains("needs blob-store.v1"));
}

#[tokio::test]
async fn who_needs_a_plugin_that_cannot_start_is_refused_too() {
    let world = World::new();
    let folder = world.install("fixture");
    edit(&folder, "[abi]", "[needs]\ncapabilities = [\"blob-store.v1\"]\n[abi]");
    let store = world.install("store");
    edit(&store, "env-provider.v1\"\nname = \"fixture\"", "blob-store.v1\"\nname = \"store\"");
    let rows = world.load().await.rows();
    assert_eq!((rows[0].id.as_str(), rows[0].status), ("store", Status::Refused));
    assert!(rows[0].reason.contains("is the plugin `fixture`"), "{}", rows[0].reason);
    assert_eq!((rows[1].id.as_str(), rows[1].status), ("fixture", Status::Refused));
    assert!(rows[1].reason.contains("needs blob-store.v1"), "{}", rows[1].reason);
}

#[tokio::test]
async fn manifests_that_are_no_use_are_refused() {
    let world = World::new();
    let folder = world.install("fixture");
    fs::write(folder.join("plugin.toml"), "manifest_version = 1\nid = 7\n").unwrap();
    assert!(refusal(&world).await.reason.contains("plugin.toml: line 2:"));
    fs::write(folder.join("plugin.toml"), manifest("other")).unwrap();
    assert!(refusal(&world).await.reason.contains("holds a plugin with the id `other`"));
    fs::write(folder.join("plugin.toml"), manifest("fixture").replace(&this_target(), "plan9-mips")).unwrap();
    assert!(refusal(&world).await.reason.contains("no library for"));
    fs::write(folder.join("plugin.toml"), manifest("fixture").replace("major = 1", "major = 2")).unwrap();
    let row = refusal(&world).await;
    assert_eq!((row.reason.contains("needs ABI 2.0"), row.remedy.as_str()), (true, "update runtimed"));
}

#[tokio::test]
async fn files_that_are_no_libraries_are_refused_without_being_opened() {
    let world = World::new();
    let folder = world.install("fixture");
    let whole = fs::read(library()).unwrap();
    // Cut everywhere: in the header, in a segment, in the tables at the end.
    for length in [0, 10, 64, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(folder.join("lib.so"), &whole[..length]).unwrap();
        assert!(refusal(&world).await.reason.contains("is not a usable library"), "cut at {length}");
    }
    fs::write(folder.join("lib.so"), "no library at all\n".repeat(100)).unwrap();
    assert!(refusal(&world).await.reason.contains("is not a usable library"));
    fs::copy(env::current_exe().unwrap(), folder.join("lib.so")).unwrap();
    refusal(&world).await;
    fs::remove_file(folder.join("lib.so")).unwrap();
    assert!(refusal(&world).await.reason.contains("could not be read"));
    // Whoever opens a pipe without a writer waits for ever.
    let pipe = std::process::Command::new("mkfifo").arg(folder.join("lib.so")).status().unwrap();
    assert!(pipe.success() && refusal(&world).await.reason.ends_with("is not a file"));
    fs::remove_file(folder.join("lib.so")).unwrap();
    fs::create_dir(folder.join("lib.so")).unwrap();
    assert!(refusal(&world).await.reason.ends_with("is not a file"));
}

#[tokio::test]
async fn a_segment_beyond_the_end_of_the_file_is_noticed() {
    let world = World::new();
    let folder = world.install("fixture");
    // Grows the first loadable segment of an ELF file, leaving everything else whole.
    let mut bytes = fs::read(library()).unwrap();
    if !bytes.starts_with(b"\x7fELF") {
        return;
    }
    let table = u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize;
    let entry = (0..).map(|at| table + at * 56).find(|at| bytes[*at..*at + 4] == 1u32.to_le_bytes()).unwrap();
    bytes[entry + 32..entry + 40].copy_from_slice(&(1u64 << 40).to_le_bytes());
    fs::write(folder.join("lib.so"), bytes).unwrap();
    assert!(refusal(&world).await.reason.ends_with("it is cut short"));
}

#[tokio::test]
async fn the_hash_must_be_that_of_the_file() {
    let world = World::new();
    let folder = world.install("fixture");
    let hash = hex::encode(Sha256::digest(fs::read(library()).unwrap()));
    edit(&folder, "\"lib.so\"", &format!("\"lib.so\", sha256 = \"{hash}\""));
    assert_eq!(world.load().await.rows()[0].status, Status::Ok);
    edit(&folder, &hash, &"0".repeat(64));
    let row = refusal(&world).await;
    assert!(row.reason.contains("is not the file its manifest describes"));
    assert!(row.reason.contains(&hash) && row.reason.contains(&"0".repeat(64)), "{}", row.reason);
}

#[tokio::test]
async fn what_others_could_have_changed_is_refused() {
    let world = World::new();
    let folder = world.install("fixture");
    let library = folder.join("lib.so");
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&library, 0o757);
    let row = refusal(&world).await;
    assert!(row.reason.starts_with("everybody can write to") && row.remedy.starts_with("chmod o-w"));
    mode(&library, 0o755);
    mode(&folder, 0o777);
    assert!(refusal(&world).await.reason.starts_with("everybody can write to"));
    mode(&folder, 0o755);
    mode(&folder.join("plugin.toml"), 0o646);
    assert!(refusal(&world).await.reason.ends_with("plugin.toml`"));
    mode(&folder.join("plugin.toml"), 0o644);
    fs::rename(&library, world.plugins("elsewhere.so")).unwrap();
    symlink(world.plugins("elsewhere.so"), &library).unwrap();
    assert!(refusal(&world).await.reason.contains("leads out of the plugin's folder"));
}

#[tokio::test]
async fn somebody_elses_library_is_refused() {
    let us = rustix::process::geteuid();
    if !us.is_root() {
        return; // Only root can give a file away.
    }
    let world = World::new();
    let folder = world.install("fixture");
    let nobody = rustix::fs::Uid::from_raw(65534);
    rustix::fs::chown(folder.join("lib.so"), Some(nobody), None).unwrap();
    assert!(refusal(&world).await.reason.contains("belongs to another user (uid 65534)"));
}

#[tokio::test]
async fn descriptors_of_other_versions_are_refused() {
    let world = World::new();
    let folder = world.install("fixture");
    let whole = fs::read(library()).unwrap();
    let magic = b"runtplug";
    // The descriptor is the magic followed by its size, which is below a page.
    let at = whole
        .windows(12)
        .position(|bytes| bytes.starts_with(magic) && bytes[10..12] == [0, 0] && bytes[8] > 0)
        .unwrap();
    let patched = |offset: usize, value: u16| {
        let mut bytes = whole.clone();
        bytes[at + offset..at + offset + 2].copy_from_slice(&value.to_le_bytes());
        fs::write(folder.join("lib.so"), bytes).unwrap();
    };
    let (major, min_host_minor, flags) = (12, 16, 18);
    patched(major, 2);
    let row = refusal(&world).await;
    assert_eq!(row.reason, "plugin `fixture` was built for ABI 2.0, this daemon speaks 1.0");
    assert!(row.remedy.starts_with("update runtimed to a release for ABI 2"), "{}", row.remedy);
    patched(min_host_minor, 9);
    assert!(refusal(&world).await.reason.contains("needs a daemon with ABI 1.9"));
    patched(flags, 0);
    assert!(refusal(&world).await.reason.contains("panic = \"abort\""));
    patched(0, 0);
    assert!(refusal(&world).await.reason.contains("wrong magic"));
}
