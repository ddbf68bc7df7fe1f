//! The error that crosses.

use abi_stable::StableAbi;
use abi_stable::std_types::RString;

/// A failed call. `runtimed-plugin-api` gives the numbers their names.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct Failure {
    /// The kind of failure; a number that the reader does not know counts as internal.
    pub code: u32,
    /// What happened.
    pub message: RString,
    /// What the user can do; empty for nothing.
    pub help: RString,
    /// Facts for programs as JSON; empty for none.
    pub detail: RString,
    /// Whether the same call may succeed later.
    pub retryable: bool,
}
