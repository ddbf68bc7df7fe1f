//! What a bad plugin is told: which method, what it did, and what to do. docs/PLUGINS.md lists these sentences.

use std::path::{Path, PathBuf};
use std::{env, fs};

use super::support::{check, faults, manifest};

/// The id of the plugin that does what it is told to.
const ID: &str = "misbehaving";

/// The library that cargo builds with the tests, beside the test binary.
fn library() -> Vec<u8> {
    let name = format!("{}runtimed_plugin_misbehaving{}", env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    fs::read(env::current_exe().unwrap().with_file_name(name)).unwrap()
}

/// A plugin in a folder of its own.
fn install(id: &str, version: &str, library: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("lib.so"), library).unwrap();
    fs::write(folder.path().join("plugin.toml"), manifest(id, version)).unwrap();
    folder
}

/// Fails unless `case` fails on `carrier` with a sentence that begins and ends so, and with something to do.
fn is_told(folder: &Path, carrier: &str, case: &str, options: &[&str], begin: &str, end: &str) {
    let (suite, name) = case.split_once('/').unwrap();
    let chosen = ["--carrier", carrier, "--only", suite, "--case", name];
    let report = check(folder, &[&chosen, options].concat());
    let faults = faults(&report);
    let [fault] = faults.as_slice() else { panic!("{report:#}") };
    assert_eq!((fault.case.as_str(), fault.carrier.as_str()), (case, carrier));
    assert!(fault.sentence.starts_with(begin) && fault.sentence.ends_with(end), "{}", fault.sentence);
    assert!(fault.remedy.len() > 10, "{fault:?}");
}

/// One test for each deed, case and carrier.
macro_rules! told {
    ($($name:ident: $mode:literal $carrier:literal $case:literal [$($option:literal),*] $begin:literal .. $end:literal),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                let folder = install(ID, "0.1.0", &library());
                fs::write(folder.path().join("misbehave"), $mode).unwrap();
                is_told(folder.path(), $carrier, $case, &[$($option),*], $begin, $end);
            }
        )+
    };
}

told! {
    panic_when_made: "panic:new" "in-process" "life/loads" []
        "`Plugin::create` panicked at plugin-api/testkit/misbehaving/src/" .. ": panic:new, as the test asked",
    panic_when_made_in_a_child: "panic:new" "child" "life/loads" []
        "`Plugin::create` panicked at plugin-api/testkit/misbehaving/src/" .. ": panic:new, as the test asked",
    panic_in_what_it_provides: "panic:info" "in-process" "life/loads" []
        "`EnvProvider::info` panicked at plugin-api/testkit/misbehaving/src/" .. ": panic:info, as the test asked",
    panic_in_what_it_provides_in_a_child: "panic:info" "child" "life/loads" []
        "`EnvProvider::info` panicked at plugin-api/testkit/misbehaving/src/" .. ": panic:info, as the test asked",
    panic: "panic:plan" "in-process" "calls/cancel" []
        "`EnvProvider::plan` panicked at plugin-api/testkit/misbehaving/src/" .. ": panic:plan, as the test asked",
    panic_in_a_child: "panic:plan" "child" "calls/cancel" []
        "`EnvProvider::plan` panicked at plugin-api/testkit/misbehaving/src/" .. ": panic:plan, as the test asked",
    never_made: "block:new" "in-process" "life/loads" ["--timeout", "2"]
        "`Plugin::create` did not return within 2 s" .. "",
    never_made_in_a_child: "block:new" "child" "life/loads" ["--timeout", "2"]
        "`Plugin::create` did not return within 2 s" .. "",
    made_slowly: "slow:new" "in-process" "calls/at-once" []
        "`Plugin::create` (with what it provides, up to `EnvProvider::info`) took " ..
        "s; what is not asynchronous has 50ms at the most",
    made_slowly_in_a_child: "slow:new" "child" "calls/at-once" []
        "`Plugin::create` (with what it provides, up to `EnvProvider::info`) took " ..
        "s; what is not asynchronous has 1s at the most",
    a_build_without_end: "hang:create" "in-process" "env-provider/create" ["--timeout", "2"]
        "`EnvProvider::create` did not return within 2 s" .. "",
    a_build_without_end_in_a_child: "hang:create" "child" "env-provider/create" ["--timeout", "2"]
        "`EnvProvider::create` did not return within 2 s" .. "",
    threads_in_a_child: "threads:plan" "child" "calls/threads" []
        "20 calls of `EnvProvider::plan` left 12" .. " threads behind",
    threads_of_each_life: "threads:start" "in-process" "life/a-hundred-lives" []
        "100 lives left 6" .. " threads behind",
    prints_for_ever: "print:plan" "in-process" "calls/idle" []
        "the plugin wrote more than 4 MiB to stdout and stderr " .. "`",
    prints_for_ever_in_a_child: "print:plan" "child" "calls/idle" []
        "the plugin had written more than 256 KiB to stdout and stderr when `" .. "` returned",
    logs_for_ever: "log:plan" "in-process" "calls/idle" []
        "the plugin had logged more than 20000 lines when `" ..
        "` was called; one of them, of `runtimed_plugin_misbehaving::deeds`, is \"a plugin that logs for ever\"",
    logs_for_ever_in_a_child: "log:plan" "child" "calls/idle" []
        "the plugin had logged more than 1500 lines when `" ..
        "` was called; one of them, of `runtimed_plugin_misbehaving::deeds`, is \"a plugin that logs for ever\"",
    reports_for_ever: "progress:create" "in-process" "env-provider/create" []
        "`EnvProvider::create` reported progress more than 20000 times" .. "",
    lies: "lie:info" "in-process" "life/provides" []
        "plugin.toml promises env-provider.v1 `misbehaving`, and the plugin does not provide it; " ..
        "it provides env-provider.v1 `uv`",
    lies_in_a_child: "lie:info" "child" "life/provides" []
        "plugin.toml promises env-provider.v1 `misbehaving`, and the plugin does not provide it; " ..
        "it provides env-provider.v1 `uv`",
    segfault: "segfault:plan" "in-process" "calls/cancel" []
        "the plugin ended the process with SIGSEGV during `EnvProvider::plan`" .. "",
    segfault_in_a_child: "segfault:plan" "child" "calls/cancel" []
        "the plugin's process was ended by signal 11 (SIGSEGV) during `EnvProvider::plan`" .. "",
    exit: "exit:plan" "in-process" "calls/cancel" []
        "the plugin ended the process with exit code 7 during `EnvProvider::plan`" .. "",
    exit_in_a_child: "exit:plan" "child" "calls/cancel" []
        "the plugin's process exited with code 7 during `EnvProvider::plan`" .. "",
    exit_when_made_in_a_child: "exit:new" "child" "life/loads" []
        "`Plugin::create` failed: plugin `misbehaving` exited with code 7 while it was loaded" .. "",
}

#[test]
fn wrong_layout() {
    let Some(fixtures) = env::var_os("RUNTIMED_TEST_ABI_FIXTURES").map(PathBuf::from) else {
        eprintln!("skipped: no fixtures of other ABI versions. `cargo xtask test` compiles them.");
        return;
    };
    let library = fs::read(fixtures.join("plugin-changed.so")).unwrap();
    let folder = install("fixture-changed", "0.3.0", &library);
    for carrier in ["in-process", "child"] {
        is_told(
            folder.path(),
            carrier,
            "life/loads",
            &[],
            "plugin `fixture-changed` says ABI 1.0, but its types are not those of ABI 1.0: ",
            "it was built against a modified or unreleased ABI",
        );
    }
}

#[test]
fn a_library_that_was_cut_short_is_never_loaded() {
    let library = library();
    let folder = install(ID, "0.1.0", &library[..library.len() / 2]);
    let report = check(folder.path(), &[]);
    let faults = faults(&report);
    assert!(faults.len() == 1 && faults[0].sentence.contains("is not a usable library"), "{faults:?}");
    assert_eq!(report["cases"].as_array().unwrap().len(), 1, "nothing was done with it");
}
