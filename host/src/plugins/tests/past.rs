//! What an earlier life of the daemon died of decides about this one.

use super::*;

/// Leaves what the signal handler of a life that died of the fixture would have left.
fn died_of_the_fixture(world: &World, cause: &str) {
    let hash = hex::encode(Sha256::digest(fs::read(library()).unwrap()));
    fs::write(world.plugins("base").join("plugin-crash"), format!("{cause} 1795375990 fixture {hash}\n"))
        .unwrap();
}

#[tokio::test]
async fn whoever_took_the_daemon_down_is_kept_out_until_forgiven() {
    let world = World::new();
    world.install("fixture");
    died_of_the_fixture(&world, "SIGSEGV");
    for life in 0..3 {
        let row = refusal(&world).await;
        assert_eq!(
            row.reason,
            "the daemon crashed with SIGSEGV in plugin `fixture`, on 2026-11-22 19:33:10 UTC; it was not loaded \
             again",
            "life {life}"
        );
        assert_eq!(row.remedy, "update the plugin, or give it another try: runt plugins enable fixture");
    }
    assert!(world.load().await.forgive("fixture"));
    let registry = world.load().await;
    assert_eq!((registry.rows()[0].status, registry.rows()[0].reason.as_str()), (Status::Ok, ""));
    assert!(!registry.forgive("fixture"));
}

#[tokio::test]
async fn another_build_is_another_chance() {
    let world = World::new();
    let folder = world.install("fixture");
    died_of_the_fixture(&world, "exit");
    let reason = refusal(&world).await.reason;
    assert_eq!(
        reason,
        "plugin `fixture` ended the daemon by calling exit, on 2026-11-22 19:33:10 UTC; it was not loaded again"
    );
    let mut rebuilt = fs::read(library()).unwrap();
    rebuilt.push(0);
    fs::write(folder.join("lib.so"), rebuilt).unwrap();
    assert_eq!(world.load().await.rows()[0].status, Status::Ok);
}

#[tokio::test]
async fn what_came_with_the_system_is_only_named() {
    let world = World::new();
    world.install_in("system", "fixture");
    died_of_the_fixture(&world, "SIGABRT");
    let row = world.load().await.rows().remove(0);
    assert_eq!(row.status, Status::Ok);
    assert_eq!(row.reason, "the daemon crashed with SIGABRT in plugin `fixture`, on 2026-11-22 19:33:10 UTC");
    assert_eq!(row.remedy, "if it happens again, report it with the daemon's log");
    assert_eq!(world.load().await.rows()[0].reason, "", "one life later it is over");
}
