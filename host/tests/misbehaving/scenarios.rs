//! What is done to the daemon, and what must be true then, whatever the carrier.

use runtimed_client::protocol::pool::PoolStatus;

use crate::world::{BAD, Tools, World};

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
    let mut world = tools.world(carrier).await;
    world.misbehave(mode).await;
    world.done(mode, 1).await;
    let pool = world.pool_until(BAD, |pool| pool.error.is_some()).await;
    explains(mode, &pool);
    is_named(&world, mode).await;
    world.others_are_untouched().await;
    world.recovers().await;
    world.ends_well().await;
}

/// A deed that no build fails of: the pool fills, the plugin may be named.
pub(crate) async fn builds(tools: &Tools, carrier: &str, mode: &str) {
    let mut world = tools.world(carrier).await;
    world.misbehave(mode).await;
    world.done(mode, 1).await;
    world.pool_until(BAD, |pool| pool.available == 1 && pool.error.is_none()).await;
    is_named(&world, mode).await;
    world.others_are_untouched().await;
    world.recovers().await;
    world.ends_well().await;
}

/// A deed in what opening a notebook calls is that notebook's error.
pub(crate) async fn no_notebook(tools: &Tools, carrier: &str, mode: &str) {
    let mut world = tools.world(carrier).await;
    world.misbehave(mode).await;
    world.pool_until(BAD, |pool| pool.available == 1).await;
    let error = world.kernel_of(BAD).await.unwrap_err();
    world.done(mode, 1).await;
    assert!(!error.is_empty());
    is_named(&world, mode).await;
    world.others_are_untouched().await;
    world.misbehave("").await;
    assert_eq!(world.kernel_of(BAD).await, Ok(()));
    world.ends_well().await;
}

/// A deed while it is being loaded leaves a plugin that is not used, and says why.
pub(crate) async fn no_plugin(tools: &Tools, carrier: &str, mode: &str) {
    let daemon = tools.daemon(carrier, |home, _| {
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
    let mut world = tools.world(carrier).await;
    world.misbehave(mode).await;
    world.others_are_untouched().await;
    world.ends_well().await;
    world.done(mode, 1).await;
}

/// What the user reads about a pool that cannot build.
fn explains(mode: &str, pool: &PoolStatus) {
    let words = match mode.split(':').next().unwrap_or_default() {
        "panic" | "destructor" => "the plugin panicked: ",
        "error" => "error error ",
        "huge" => "the plugin returned a document of 100000",
        "half" => "half of the environment is there",
        _ => "",
    };
    assert!(pool.error.as_ref().is_some_and(|error| error.contains(words) && error.len() < 5000), "{pool:?}");
}

/// Whether `list_plugins` accuses the plugin, if the mode is worth it.
async fn is_named(world: &World, mode: &str) {
    match mode.split(':').next().unwrap_or_default() {
        "panic" | "destructor" => {
            let row = world.row_until(|row| row.status == "poisoned").await;
            let reason = row.reason.unwrap_or_default();
            assert!(
                reason.contains("panicked at") && reason.contains("as the test asked"),
                "{mode}: {reason}"
            );
        }
        _ => {
            let row = world.row(BAD).await;
            assert_eq!(row.status, "ok", "{row:?}");
        }
    }
}
