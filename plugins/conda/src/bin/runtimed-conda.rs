//! The program that solves and installs; all of it is in the crate `runtimed-conda-builder`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtimed_conda_builder::run()
}
