//! What is done to the daemon, and what must be true then, whatever the carrier.

use runtimed_client::protocol::pool::PoolStatus;

use crate::processes;
use crate::world::{BAD, Tools, World};

/// KiB by which the daemon may grow while a plugin misbehaves in a process of its own.
const GROWTH: u64 = 32 << 10;
/// The same at the peak, when an error of 24 MiB or a document of 100 MB is on its way.
const PEAK: u64 = 256 << 10;

/// One test for each mode.
macro_rules! each {
    ($carrier:literal $check:ident: $($name:ident $mode:literal),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(tools) = $crate::world::Tools::find() else { return };
                $crate::scenarios::$check(&tools, $carrier, $mode).await;
            }
        )+
    };
}
pub(crate) use each;

/// A deed in what building an environment calls is that pool's error.
pub(crate) async fn no_build(tools: &Tools, carrier: &str, mode: &str) {
    let mut world = tools.world(carrier, mode).await;
    let bounded = Bounded::new(&world);
    world.misbehave(mode).await;
    world.done(mode, 1).await;
    world.others_are_untouched().await;
    let pool = world.pool_until(BAD, |pool| pool.error.is_some()).await;
    explains(mode, &pool);
    is_named(&world, carrier, mode).await;
    world.others_are_untouched().await;
    world.recovers().await;
    bounded.check(&world, carrier, mode);
    world.ends_well().await;
}

/// A deed that no build fails of: the pool fills, the plugin may be named.
pub(crate) async fn builds(tools: &Tools, carrier: &str, mode: &str) {
    let mut world = tools.world(carrier, mode).await;
    let bounded = Bounded::new(&world);
    world.misbehave(mode).await;
    world.done(mode, 1).await;
    world.others_are_untouched().await;
    world.pool_until(BAD, |pool| pool.available == 1 && pool.error.is_none()).await;
    is_named(&world, carrier, mode).await;
    world.others_are_untouched().await;
    world.recovers().await;
    bounded.check(&world, carrier, mode);
    world.ends_well().await;
}

/// A deed in what opening a notebook calls is that notebook's error.
pub(crate) async fn no_notebook(tools: &Tools, carrier: &str, mode: &str) {
    let mut world = tools.world(carrier, mode).await;
    let bounded = Bounded::new(&world);
    world.misbehave(mode).await;
    world.pool_until(BAD, |pool| pool.available == 1).await;
    let error = world.kernel_of(BAD).await.unwrap_err();
    world.done(mode, 1).await;
    assert!(!error.is_empty());
    world.others_are_untouched().await;
    world.misbehave("").await;
    assert_eq!(world.kernel_of(BAD).await, Ok(()));
    bounded.check(&world, carrier, mode);
    world.ends_well().await;
}

/// A deed while it is being loaded leaves a plugin that is not used, and says why.
pub(crate) async fn no_plugin(tools: &Tools, carrier: &str, mode: &str) {
    let daemon = tools.daemon(carrier, mode, |home, _| {
        std::fs::write(home.join("plugins").join(BAD).join("misbehave"), mode).unwrap();
    });
    let mut world = World::open(daemon).await;
    world.done(mode, 1).await;
    let row = world.row_until(|row| row.status == "failed").await;
    assert!(row.reason.is_some_and(|reason| !reason.is_empty()));
    world.others_are_untouched().await;
    world.ends_well().await;
}

/// Whatever it does at the end, the daemon ends well.
pub(crate) async fn no_end(tools: &Tools, carrier: &str, mode: &str) {
    let mut world = tools.world(carrier, mode).await;
    world.misbehave(mode).await;
    world.others_are_untouched().await;
    world.ends_well().await;
    world.done(mode, 1).await;
}

/// What the user reads about a pool that cannot build.
fn explains(mode: &str, pool: &PoolStatus) {
    let words = match deed(mode) {
        "panic" | "destructor" => "the plugin panicked: ",
        "error" => "error error ",
        "half" => "half of the environment is there",
        "huge" => "the plugin returned a document of 100000",
        "hang" | "block" | "progress" => "took longer than 5 s",
        dies => death(dies),
    };
    assert!(pool.error.as_ref().is_some_and(|error| error.contains(words) && error.len() < 5000), "{pool:?}");
}

/// What `list_plugins` says about the plugin.
async fn is_named(world: &World, carrier: &str, mode: &str) {
    let (status, words) = match (carrier, deed(mode)) {
        (_, "panic" | "destructor") => ("poisoned", "it panicked at plugin-api/testkit/misbehaving/"),
        ("child", "block") => ("ok", "answered nothing any more after a call was cancelled"),
        ("child", dies @ ("exit" | "abort" | "segfault" | "overflow" | "memory")) => ("ok", death(dies)),
        _ => ("ok", ""),
    };
    let named = |reason: &Option<String>| reason.as_ref().map_or(words.is_empty(), |it| it.contains(words));
    let row = world.row_until(|row| row.status == status && named(&row.reason)).await;
    assert_eq!(row.reason.is_some(), !words.is_empty(), "{row:?}");
}

/// How a process ends of a deed.
fn death(deed: &str) -> &'static str {
    match deed {
        "exit" => "exited with code 7",
        "abort" | "memory" => "was ended by signal 6 (SIGABRT)",
        _ => "was ended by signal 11 (SIGSEGV)",
    }
}

fn deed(mode: &str) -> &str {
    mode.split(':').next().unwrap_or_default()
}

/// The daemon's memory before.
struct Bounded(u64);

impl Bounded {
    fn new(world: &World) -> Self {
        processes::forget_peak(world.daemon.pid());
        Self(processes::memory(world.daemon.pid()).0)
    }

    /// In the daemon's own process nothing bounds a plugin.
    fn check(&self, world: &World, carrier: &str, mode: &str) {
        let (now, peak) = processes::memory(world.daemon.pid());
        let most = if matches!(deed(mode), "huge" | "error") { PEAK } else { GROWTH };
        if carrier == "child" {
            assert!(
                now < self.0 + GROWTH && peak < self.0 + most,
                "{} KiB, then {now}, at most {peak}",
                self.0
            );
        }
    }
}
