//! What cannot be survived in the daemon's own process: the daemon ends, and its next life goes on without the
//! plugin.

use crate::world::{BAD, Tools, World};

/// One test for each mode, with what the next life says of the last.
macro_rules! each {
    ($($name:ident $mode:literal $cause:literal),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let Some(tools) = Tools::find() else { return };
                killed_once(&tools, $mode, $cause).await;
            }
        )+
    };
}

each! {
    a_segfault "segfault:create" "SIGSEGV",
    an_abort "abort:plan" "SIGABRT",
    an_exit "exit:create" "exit",
    a_stack_that_overflows "overflow:create" "SIGSEGV",
    a_segfault_at_the_start "segfault:start" "SIGSEGV",
}

async fn killed_once(tools: &Tools, mode: &str, cause: &str) {
    let daemon = match mode.ends_with(":start") {
        true => tools.daemon("in-process", mode, |home, _| {
            std::fs::write(home.join("plugins").join(BAD).join("misbehave"), mode).unwrap();
        }),
        false => {
            let world = tools.world("in-process", mode).await;
            std::fs::write(world.plugin().join("misbehave"), mode).unwrap();
            // The answer may get lost with the daemon.
            world.client.flush().await.ok();
            world.daemon
        }
    };
    let mut daemon = daemon;
    assert!(!daemon.ended().success(), "{mode}");
    let mut world = World::open(daemon.start_again()).await;
    let row = world.row_until(|row| row.status == "refused").await;
    let reason = row.reason.unwrap_or_default();
    assert!(reason.contains(cause) && reason.contains("it was not loaded again"), "{reason}");
    world.others_are_untouched().await;
    world.ends_well().await;
}
