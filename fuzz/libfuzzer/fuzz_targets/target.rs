//! One of the targets under libFuzzer; `RUNTIMED_FUZZ_TARGET` says which. `cargo xtask fuzz` runs it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use runtimed_fuzz::Target;

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("RUNTIMED_FUZZ_TARGET").expect("RUNTIMED_FUZZ_TARGET names a target");
    Target::named(&name).expect("a target of that name")
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
