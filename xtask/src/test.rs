//! Runs every test against a staged build, with the tools the tests need.

use std::env;

use anyhow::Result;

use crate::{fixtures, stage, third_party, tools, workspace};

/// Builds, stages, prepares the tools and runs all tests; `arguments` go to the test runner.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let dist = stage::build(false)?;
    let fixtures = fixtures::build()?;
    let tools = tools::prepare()?;
    let third_party = third_party::stage()?;
    let mut tests = workspace::cargo();
    if has_nextest() {
        tests.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
        if env::var_os("CI").is_some() {
            // What a CI shows of its log is a part, and it should be of what failed.
            tests.args(["--status-level", "fail", "--final-status-level", "slow"]);
        }
    } else {
        tests.args(["test", "--workspace", "--all-targets", "--no-fail-fast"]);
    }
    if let Some(tools) = &tools {
        tools.apply(&mut tests)?;
    }
    tests
        .env("RUNTIMED_TEST_DIST", &dist)
        .env("RUNTIMED_TEST_ABI_FIXTURES", &fixtures)
        .env("RUNTIMED_TEST_THIRD_PARTY", &third_party)
        .args(arguments);
    workspace::run(&mut tests)?;
    if arguments.is_empty() {
        workspace::run(workspace::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
        third_party::test(&dist, tools.as_ref())?;
    }
    Ok(())
}

fn has_nextest() -> bool {
    workspace::output(workspace::cargo().args(["nextest", "--version"])).is_ok()
}
