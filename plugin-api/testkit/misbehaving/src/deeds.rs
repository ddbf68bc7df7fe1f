//! The deeds that any method can do.

use std::hint::black_box;
use std::io::{Write, stderr, stdout};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use runtimed_plugin_api::{PluginError, Result};
use serde_json::json;

use crate::orders::Orders;

/// How long `slow` blocks: longer than a synchronous method may take by any measure.
const SLOW: Duration = Duration::from_secs(3);
/// Threads that each call of `threads` leaves.
const THREADS: usize = 64;
/// Bytes that `memory` takes at once.
const CHUNK: usize = 64 << 20;
/// Bytes at which `memory` gives up: more would hurt the machine and not only the process.
const CEILING: usize = 1 << 30;
/// Bytes in each part of the error of `error`.
const LONG: usize = 8 << 20;
/// Bytes of the document of `huge`.
const HUGE: usize = 100_000_000;
/// Repetitions of a storm between two looks at the orders.
const BURST: usize = 1000;

/// Does `deed`. Those that go on beside the call last as long as the orders say `mode`.
pub(crate) fn commit(deed: &str, mode: &str, orders: &Orders) -> Result<()> {
    match deed {
        "panic" => panic!("{mode}, as the test asked"),
        "error" => {
            let long = "error ".repeat(LONG / 6);
            return Err(PluginError::internal(long.clone())
                .help(long.clone())
                .detail(json!({ "all": long })));
        }
        "block" => sleep_for_ever(),
        "slow" => thread::sleep(SLOW),
        #[expect(clippy::disallowed_methods, reason = "skipping everything is the point")]
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        // Rust's own handler lets the first one pass: it expects the fault to happen again.
        "segfault" => while raise(Signal::SIGSEGV).is_ok() {},
        "overflow" => {
            black_box(overflow(0));
        }
        "threads" => {
            for _ in 0..THREADS {
                thread::spawn(sleep_for_ever);
            }
        }
        "memory" => {
            for _ in 0..CEILING / CHUNK {
                // Touched, so that it is real memory; an allocation that is refused ends the process.
                black_box(vec![1_u8; CHUNK].leak());
            }
            return Err(PluginError::internal("nothing stopped the plugin from taking 1 GiB"));
        }
        "print" => {
            while_it_lasts(mode, orders, || {
                let _ = stdout().write_all(b"a plugin that prints for ever\n");
            });
            while_it_lasts(mode, orders, || {
                let _ = stderr().write_all(b"a plugin that complains for ever\n");
            });
        }
        "log" => while_it_lasts(mode, orders, || {
            tracing::error!(deed = "log", "a plugin that logs for ever");
            tracing::warn!(deed = "log", "a plugin that logs for ever");
            tracing::info!(deed = "log", "a plugin that logs for ever");
            tracing::debug!(deed = "log", "a plugin that logs for ever");
            tracing::trace!(deed = "log", "a plugin that logs for ever");
        }),
        "spin" => {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..cores {
                while_it_lasts(mode, orders, || {
                    black_box((0..1000_u64).fold(0, |sum: u64, n| black_box(sum ^ n)));
                });
            }
        }
        "orphan" => return orphan(orders),
        // Each method does these itself.
        "hang" | "destructor" | "huge" | "lie" | "random-key" | "bad-key" | "progress" | "half"
        | "outside" | "late" | "no-program" => {}
        _ => return Err(PluginError::invalid(format!("there is no deed `{deed}`"))),
    }
    Ok(())
}

/// The document of `huge`.
pub(crate) fn huge() -> String {
    "x".repeat(HUGE)
}

fn sleep_for_ever() {
    loop {
        thread::park();
    }
}

/// Repeats `act` on a thread of its own as long as the orders say `mode`.
fn while_it_lasts(mode: &str, orders: &Orders, mut act: impl FnMut() + Send + 'static) {
    let (mode, orders) = (mode.to_owned(), orders.clone());
    thread::spawn(move || {
        while orders.mode() == mode {
            (0..BURST).for_each(|_| act());
        }
    });
}

/// Calls itself until the stack is used up.
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 256]);
    match depth {
        u64::MAX => 0,
        _ => overflow(depth + 1) + frame.iter().sum::<u64>(),
    }
}

/// Leaves a process behind in a session of its own, whose parent is gone: no group holds it any more.
fn orphan(orders: &Orders) -> Result<()> {
    let script = "setsid sh -c 'echo $$ >> orphans; exec sleep 86400' &";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(&orders.folder);
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().map_err(|error| PluginError::internal(format!("no orphan could be left: {error}")))?;
    Ok(())
}
