//! The plugin's own objects in the conformance kit; the daemon's tests run the kit on its library, in process and in a
//! child.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait};
use runtimed_plugin_conda::{CondaProvider, Surroundings};
use runtimed_plugin_testkit::{Check, Subject, Suite};

/// The plugin of a user whose channel is on disk.
struct Conda(Arc<CondaProvider>);

#[async_trait]
impl Plugin for Conda {
    fn create(host: Host) -> Result<Self> {
        let channels = common::channel().into_iter().collect();
        let surroundings =
            Surroundings { channels, python: Some(">=3.9".to_owned()), ..Surroundings::default() };
        Ok(Self(Arc::new(CondaProvider::new(host, surroundings))))
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.0.clone()]
    }
}

#[test]
fn it_does_what_the_daemon_relies_on() {
    if common::channel().is_none() {
        return;
    }
    // A plugin's folder as it is staged: manifest and program side by side.
    let folder = tempfile::tempdir_in(common::test_tools()).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin.toml"), folder.path().join("plugin.toml"))
        .unwrap();
    fs::copy(env!("CARGO_BIN_EXE_runtimed-conda"), folder.path().join("runtimed-conda")).unwrap();
    Check::new(Subject::of::<Conda>(folder.path())).only(Suite::EnvProvider).run().assert_passed();
}
