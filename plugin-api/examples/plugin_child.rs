//! What `runtimed plugin-child` does, for tests of this crate.
use std::process::ExitCode;

fn main() -> ExitCode {
    runtimed_plugin_api::adapter::child::serve()
}
