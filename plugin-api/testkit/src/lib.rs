//! Is this plugin good? Conformance suites for plugins of runtimed, and a host to test them with.
//!
//! For: authors, whose `cargo test` runs them on the plugin itself; `runt plugins check`, which runs them on a
//! library; this project, which runs them on its own plugins.
//!
//! A plugin's own test is three lines:
//!
//! ```
//! # mod my_plugin {
//! #     use runtimed_plugin_api::{Host, Plugin, Result, async_trait};
//! #     pub struct MyPlugin;
//! #     #[async_trait]
//! #     impl Plugin for MyPlugin {
//! #         fn create(_: Host) -> Result<Self> { Ok(Self) }
//! #     }
//! # }
//! use my_plugin::MyPlugin;
//! use runtimed_plugin_testkit::{Check, Subject, Suite};
//!
//! // #[test]
//! fn conforms() {
//!     let subject = Subject::of::<MyPlugin>(env!("CARGO_MANIFEST_DIR"));
//!     Check::new(subject).only(Suite::EnvProvider).run().assert_passed();
//! }
//! ```
//!
//! A test that needs a host of its own takes [`TestHost`]: real processes, folders below one of the test's.
//!
//! Map: `suites` holds the tables of cases, one file each; `bench` is what a case works with; `check` runs them;
//! `report` is what comes out.

mod bench;
mod case;
mod check;
mod companions;
mod host;
mod hostile;
pub mod isolated;
mod leftovers;
mod library_file;
mod report;
mod subject;
mod suites;
mod usage;

pub use check::{Check, Choice};
pub use companions::Companion;
pub use host::{Capabilities, LogLine, TestHost, cargo_output};
pub use leftovers::Leftover;
pub use report::{CaseReport, Fault, Outcome, Report, Tally};
pub use subject::{Carrier, Subject};
pub use suites::Suite;
