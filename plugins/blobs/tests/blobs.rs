//! The blob store through its capability, on real files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtimed_plugin_api::{BlobStore, Bytes, Digest, ErrorCode, LiveSet, Plugin};
use runtimed_plugin_blobs::BlobsPlugin;
use runtimed_plugin_testkit::TestHost;
use sha2::Digest as _;
use tokio::task::JoinSet;

/// A started plugin and the folder it works in.
struct World {
    plugin: BlobsPlugin,
    blobs: Arc<dyn BlobStore>,
    base: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    async fn at(base: tempfile::TempDir) -> Self {
        let plugin = BlobsPlugin::create(Arc::new(TestHost::new(base.path()))).unwrap();
        plugin.start().await.unwrap();
        let blobs = plugin.blob_store().unwrap();
        Self { plugin, blobs, base }
    }

    fn root(&self) -> PathBuf {
        self.base.path().join("blobs")
    }

    async fn put(&self, content: &'static [u8], media_type: &str) -> Digest {
        self.blobs.put(Bytes::from_static(content), media_type).await.unwrap()
    }

    fn meta(&self, digest: Digest) -> serde_json::Value {
        let data = path_of(&self.root(), digest);
        serde_json::from_slice(&fs::read(format!("{}.meta", data.display())).unwrap()).unwrap()
    }
}

fn path_of(root: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string();
    root.join(&name[..2]).join(&name[2..])
}

/// Every file below `root` that is neither a blob nor its sidecar.
fn strangers(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.is_dir()).collect()
}

#[tokio::test]
async fn what_goes_in_comes_out_under_its_sha256() {
    let world = World::new().await;
    for content in [&b""[..], b"abc", &[0, 255, 10]] {
        let digest = world.put(content, "text/plain").await;
        assert_eq!(digest, Digest(sha2::Sha256::digest(content).into()));
        let blob = world.blobs.get(digest).await.unwrap().unwrap();
        assert_eq!((&blob.bytes[..], blob.media_type.as_str()), (content, "text/plain"));
        let file = world.blobs.locate(digest).await.unwrap().unwrap();
        assert_eq!(file.path, path_of(&world.root(), digest));
        assert_eq!((file.size, file.media_type.as_str()), (content.len() as u64, "text/plain"));
    }
    assert!(strangers(&world.root()).is_empty());
    let mode = fs::metadata(world.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "outputs are private");
}

#[tokio::test]
async fn an_unknown_digest_is_none_even_before_the_first_put() {
    let world = World::new().await;
    let digest = Digest([7; 32]);
    assert_eq!(world.blobs.get(digest).await.unwrap(), None);
    assert_eq!(world.blobs.locate(digest).await.unwrap(), None);
    assert_eq!(world.blobs.sweep(LiveSet::default()).await.unwrap().deleted, 0);
    world.blobs.flush().await.unwrap();
}

#[tokio::test]
async fn storing_again_updates_the_media_type_and_nothing_else() {
    let world = World::new().await;
    let digest = world.put(b"same", "text/plain").await;
    let first = world.meta(digest);
    assert_eq!(first["durability"], "durable");
    assert_eq!(world.put(b"same", "text/html").await, digest);
    let second = world.meta(digest);
    assert_eq!(world.blobs.get(digest).await.unwrap().unwrap().media_type, "text/html");
    assert_eq!((&first["created_at"], &first["size"]), (&second["created_at"], &second["size"]));
}

#[tokio::test]
async fn durable_wins_over_ephemeral() {
    let world = World::new().await;
    let digest = world.put(b"x", "text/plain").await;
    let meta = format!("{}.meta", path_of(&world.root(), digest).display());
    let ephemeral = fs::read_to_string(&meta).unwrap().replace("durable", "ephemeral");
    fs::write(&meta, ephemeral).unwrap();
    world.put(b"x", "text/plain").await;
    assert_eq!(world.meta(digest)["durability"], "durable");
}

#[tokio::test]
async fn a_hundred_megabytes_survive() {
    let world = World::new().await;
    let content: Bytes = (0..100_000_000u32).map(|at| (at >> 8) as u8).collect();
    let digest = world.blobs.put(content.clone(), "application/octet-stream").await.unwrap();
    assert!(world.blobs.get(digest).await.unwrap().unwrap().bytes == content);
    world.blobs.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_puts_at_once_and_no_reader_sees_a_blob_without_its_type() {
    let world = World::new().await;
    let done = Arc::new(AtomicBool::new(false));
    let same = Digest(sha2::Sha256::digest(vec![b's'; 300_000]).into());
    let reader = tokio::task::spawn_blocking({
        let (root, done, blobs) = (world.root(), done.clone(), world.blobs.clone());
        move || {
            let handle = tokio::runtime::Handle::current();
            while !done.load(Ordering::Acquire) {
                let data = path_of(&root, same);
                if data.exists() {
                    let meta =
                        fs::read(format!("{}.meta", data.display())).expect("bytes before their sidecar");
                    serde_json::from_slice::<serde_json::Value>(&meta).expect("half a sidecar");
                    assert_eq!(fs::metadata(&data).unwrap().len(), 300_000, "half a blob");
                    assert!(handle.block_on(blobs.get(same)).unwrap().is_some());
                }
            }
        }
    });
    let mut puts = JoinSet::new();
    for number in 0..64u32 {
        let blobs = world.blobs.clone();
        puts.spawn(async move {
            let same_digest = blobs.put(vec![b's'; 300_000].into(), "text/plain").await.unwrap();
            let own = blobs.put(number.to_string().repeat(1000).into(), "text/html").await.unwrap();
            (number, same_digest, own)
        });
    }
    for (number, same_digest, own) in puts.join_all().await {
        assert_eq!(same_digest, same);
        let blob = world.blobs.get(own).await.unwrap().unwrap();
        assert_eq!(blob.bytes, number.to_string().repeat(1000));
    }
    done.store(true, Ordering::Release);
    reader.await.unwrap();
    assert!(strangers(&world.root()).is_empty());
}

#[tokio::test]
async fn damaged_blobs_are_missing_until_they_are_stored_again() {
    let world = World::new().await;
    let cut = world.put(b"will be cut", "text/plain").await;
    fs::write(path_of(&world.root(), cut), b"will").unwrap();
    let flipped = world.put(b"will be flipped", "text/plain").await;
    fs::write(path_of(&world.root(), flipped), b"will be FLIPPED").unwrap();
    let untyped = world.put(b"loses its sidecar", "text/plain").await;
    fs::write(format!("{}.meta", path_of(&world.root(), untyped).display()), b"").unwrap();
    for digest in [cut, flipped, untyped] {
        assert_eq!(world.blobs.get(digest).await.unwrap(), None);
        assert_eq!(world.blobs.locate(digest).await.unwrap(), None);
    }
    for (digest, content) in [(cut, "will"), (flipped, "will be FLIPPED")] {
        let aside = world.root().join("quarantine").join(digest.to_string());
        assert_eq!(fs::read_to_string(aside).unwrap(), content, "moved out of everybody's way");
        assert!(!path_of(&world.root(), digest).exists());
    }
    world.put(b"will be cut", "text/plain").await;
    world.put(b"loses its sidecar", "text/plain").await;
    assert_eq!(world.blobs.get(cut).await.unwrap().unwrap().bytes, "will be cut");
    assert_eq!(world.blobs.get(untyped).await.unwrap().unwrap().bytes, "loses its sidecar");
}

#[tokio::test]
async fn a_sweep_spares_the_live_and_the_young() {
    let world = World::new().await;
    let (live, dead) = (world.put(b"live", "text/plain").await, world.put(b"dead", "text/plain").await);
    let set = |grace_secs| LiveSet { digests: [live].into(), grace_secs };
    // What is no blob is none of our business.
    fs::write(world.root().join("notes.txt"), "mine").unwrap();

    let swept = world.blobs.sweep(set(3600)).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (0, 2));
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    for digest in [live, dead] {
        fs::File::open(path_of(&world.root(), digest)).unwrap().set_modified(old).unwrap();
    }
    let swept = world.blobs.sweep(set(3600)).await.unwrap();
    assert_eq!((swept.deleted, swept.bytes, swept.kept), (1, 4, 1));
    // What was needed a moment ago is young, however old it is.
    let swept = world.blobs.sweep(LiveSet { grace_secs: 3600, ..LiveSet::default() }).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (0, 1));
    assert!(world.blobs.get(live).await.unwrap().is_some());
    assert!(world.blobs.get(dead).await.unwrap().is_none());
    assert!(!PathBuf::from(format!("{}.meta", path_of(&world.root(), dead).display())).exists());
    assert!(world.root().join("notes.txt").exists());
    // A flush after a sweep has nothing to say about what is gone.
    world.blobs.flush().await.unwrap();
}

#[tokio::test]
async fn storing_again_makes_a_blob_young() {
    let world = World::new().await;
    let digest = world.put(b"old", "text/plain").await;
    let old = std::time::SystemTime::now() - Duration::from_secs(7200);
    fs::File::open(path_of(&world.root(), digest)).unwrap().set_modified(old).unwrap();
    world.put(b"old", "text/plain").await;
    let swept = world.blobs.sweep(LiveSet { grace_secs: 3600, ..LiveSet::default() }).await.unwrap();
    assert_eq!((swept.deleted, swept.kept), (0, 1));
}

#[tokio::test]
async fn unfinished_files_of_a_killed_daemon_are_gone_after_a_start() {
    let world = World::new().await;
    let digest = world.put(b"kept", "text/plain").await;
    let unfinished = world.root().join(".tmp.0a1b");
    fs::write(&unfinished, "half").unwrap();
    let World { base, plugin, .. } = world;
    plugin.stop(Duration::from_secs(5)).await.unwrap();
    let world = World::at(base).await;
    world.plugin.stop(Duration::from_secs(5)).await.unwrap();
    assert!(!unfinished.exists());
    assert!(world.blobs.get(digest).await.unwrap().is_some());
}

/// Root may write anywhere, so when the tests run as root this one runs itself again as nobody.
#[tokio::test]
async fn a_folder_we_may_not_write_is_named() {
    if rustix::process::geteuid().is_root() {
        // The target folder may be closed to others; the copy is not.
        let folder =
            tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        let copy = folder.path().join("blobs-test");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&copy)
            .args(["--exact", "a_folder_we_may_not_write_is_named"])
            .output()
            .expect("setpriv, of util-linux, is needed to run this test as root");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let world = World::new().await;
    let kept = world.put(b"before", "text/plain").await;
    let closed = fs::Permissions::from_mode(0o500);
    fs::set_permissions(world.root(), closed).unwrap();
    let error = world.blobs.put(Bytes::from_static(b"new"), "text/plain").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Denied);
    assert!(error.message.contains(world.root().to_str().unwrap()), "{error}");
    assert!(error.help.is_some());
    assert!(world.blobs.get(kept).await.unwrap().is_some());
    fs::set_permissions(world.root(), fs::Permissions::from_mode(0o700)).unwrap();
}
