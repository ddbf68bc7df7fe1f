//! Fuzzes everything that reads what it did not write, with libFuzzer.
//!
//! Promises: what was found worth keeping is merged into `fuzz/corpus/<target>.txt`, which the tests replay; an input that
//! breaks something stays in `target/fuzz/broken`, and the command fails. Works with the compiler that builds the rest.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::workspace;

/// What makes the compiler tell libFuzzer which code ran and what was compared; cargo-fuzz has the same.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];

/// Longest input in bytes: every reader has seen all its kinds of content by then.
const MAX_BYTES: &str = "-max_len=16384";
/// Longest time for one input in seconds. Reading 16 KiB takes less than a millisecond.
const TIMEOUT: &str = "-timeout=20";
/// Most memory for one input in MiB: far more than a reader of 16 KiB has reason to take.
const MEMORY: &str = "-rss_limit_mb=1024";

/// What to fuzz, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which readers; all of `fuzz/src/lib.rs` if none is named
    targets: Vec<String>,
    /// For each of them
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    seconds: u32,
}

/// Builds the fuzzer, lets it work on one target after the other, and keeps what it learned.
pub(crate) fn run(options: &Options) -> Result<()> {
    let work = workspace::target().join("fuzz");
    let inputs = work.join("corpus");
    corpus(["unpack".as_ref(), inputs.as_os_str()])?;
    let fuzzer = build(&work)?;
    let mut all: Vec<String> = fs::read_dir(&inputs)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    all.sort();
    let chosen = if options.targets.is_empty() { &all } else { &options.targets };
    let mut broken = Vec::new();
    for target in chosen {
        ensure!(all.contains(target), "there is no target `{target}`; there are {}", all.join(", "));
        let found = work.join("broken").join(target);
        fs::create_dir_all(&found)?;
        let learned = inputs.join(target);
        let mut fuzz = command(&fuzzer, target);
        fuzz.arg(format!("-max_total_time={}", options.seconds)).args([TIMEOUT, MEMORY, MAX_BYTES]);
        fuzz.arg(format!("-artifact_prefix={}/", found.display())).arg(&learned);
        println!("fuzzing {target} for {} s", options.seconds);
        if workspace::run(&mut fuzz).is_err() {
            broken.push(format!("{target} (see {})", found.display()));
        }
        keep(&fuzzer, target, &learned)?;
    }
    ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
    Ok(())
}

/// Keeps the fewest inputs that reach all that those in `learned` reach.
fn keep(fuzzer: &Path, target: &str, learned: &Path) -> Result<()> {
    let fewest = tempfile::tempdir()?;
    let mut merge = command(fuzzer, target);
    // How often a line was reached does not count: a tenth of the inputs reach as many lines.
    merge.args(["-merge=1", "-use_counters=0", "-verbosity=0", MAX_BYTES]).arg(fewest.path()).arg(learned);
    workspace::run(&mut merge)?;
    corpus(["pack".as_ref(), target.as_ref(), fewest.path().as_os_str()])
}

/// Moves inputs between the repository and libFuzzer's folders.
fn corpus<const N: usize>(arguments: [&OsStr; N]) -> Result<()> {
    let mut corpus = workspace::cargo();
    corpus.args(["run", "--quiet", "-p", "runtimed-fuzz", "--example", "corpus", "--"]).args(arguments);
    workspace::run(&mut corpus)
}

/// libFuzzer with all targets in it.
fn build(work: &Path) -> Result<std::path::PathBuf> {
    let host = workspace::host()?;
    let mut build = workspace::cargo();
    build.current_dir(workspace::root().join("fuzz/libfuzzer"));
    // With a target named, what runs while building is not instrumented.
    build.args(["build", "--release", "--locked", "--target", &host]).env("CARGO_TARGET_DIR", work);
    build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    workspace::run(&mut build)?;
    Ok(work.join(host).join("release/target"))
}

fn command(fuzzer: &Path, target: &str) -> Command {
    let mut command = Command::new(fuzzer);
    command.env("RUNTIMED_FUZZ_TARGET", target);
    command
}
