//! A plugin that does everything a plugin must not do, when a test asks for it.
//!
//! For: proving that a bad plugin never hurts the daemon, and that the conformance suite finds it.
//! Promises: without the file `misbehave` in the plugin's folder it is a good environment provider of the
//! kind `misbehaving`. The file is read at each call, so a test switches a living plugin. Each deed adds its
//! mode as a line to the file `done` beside it, so that a test can wait for it.
//! Never: ships.
//!
//! The file holds one mode, `DEED:METHOD`. A method is one of `new`, `start`, `stop`, `info`, `detect`, `plan`,
//! `create`, `clone`, `install`, `optimize`, `verify`, `launch`, `identities`, `drop` (the provider's
//! destructor).
//!
//! | Deed | What METHOD does |
//! |---|---|
//! | `panic` | panics |
//! | `destructor` | panics in a destructor when the call ends or is dropped |
//! | `error` | fails with 8 MiB of message, help and detail (methods that can fail) |
//! | `hang` | waits for ever; a dropped call ends (asynchronous methods) |
//! | `block` | blocks its thread for ever, deaf to being dropped |
//! | `slow` | blocks its thread for 3 s, then goes on |
//! | `exit` | ends the process with code 7 |
//! | `abort` | aborts the process |
//! | `segfault` | raises SIGSEGV on its thread |
//! | `overflow` | overflows the stack |
//! | `threads` | starts 64 threads that never end, then goes on |
//! | `memory` | takes memory until the process is refused more, 1 GiB at most, then fails |
//! | `print` | writes to stdout and stderr as long as the mode lasts, beside the call |
//! | `log` | logs at every level as long as the mode lasts, beside the call |
//! | `spin` | burns every core as long as the mode lasts, beside the call |
//! | `orphan` | leaves a process that fled into a session of its own; its number goes to the file `orphans` |
//! | `huge` | returns 100 MB in a document (`info`, `plan`, `create`, `launch`) |
//! | `lie:info` | says that it is the provider of `uv` |
//! | `random-key:plan` | plans another key each time |
//! | `bad-key:plan` | plans a key that leads out of the folder |
//! | `progress:create` | reports progress as long as the mode lasts, then goes on |
//! | `half:create` | leaves half an environment and fails |
//! | `outside:create` | also writes beside its prefix |
//! | `late:create` | waits for ever; once dropped, it goes on from a thread of its own and finishes the environment |
//! | `no-program:launch` | names a program that does not exist |
#![expect(clippy::panic, reason = "misbehaving is its purpose")]

mod deeds;
mod late;
mod orders;
mod provider;

use std::sync::Arc;
use std::time::Duration;

use runtimed_plugin_api::{EnvProvider, Host, Plugin, Result, async_trait};

use orders::Orders;
use provider::Provider;

struct Misbehaving {
    orders: Orders,
    provider: Arc<Provider>,
}

#[async_trait]
impl Plugin for Misbehaving {
    fn create(host: Host) -> Result<Self> {
        let orders = Orders::of(&host);
        let _order = orders.obey_at_once("new")?;
        Ok(Self { provider: Arc::new(Provider { host, orders: orders.clone() }), orders })
    }

    async fn start(&self) -> Result<()> {
        self.orders.obey("start").await.map(drop)
    }

    async fn stop(&self, _: Duration) -> Result<()> {
        self.orders.obey("stop").await.map(drop)
    }

    fn env_providers(&self) -> Vec<Arc<dyn EnvProvider>> {
        vec![self.provider.clone()]
    }
}

runtimed_plugin_api::export_plugin!(Misbehaving, id = "misbehaving");
