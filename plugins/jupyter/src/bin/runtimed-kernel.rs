//! The program that keeps a kernel; all of it is in the crate `runtimed-kernel-shim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtimed_kernel_shim::run()
}
