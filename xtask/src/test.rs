//! Runs every test against a staged build, with the tools the tests need.

use anyhow::Result;

use crate::{fixtures, stage, tools, workspace};

/// Builds, stages, prepares the tools and runs all tests; `arguments` go to the test runner.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let dist = stage::build(false)?;
    let fixtures = fixtures::build()?;
    let tools = tools::prepare()?;
    let mut tests = workspace::cargo();
    if has_nextest() {
        tests.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        tests.args(["test", "--workspace", "--all-targets", "--no-fail-fast"]);
    }
    if let Some(tools) = &tools {
        tools.apply(&mut tests)?;
    }
    tests.env("RUNTIMED_TEST_DIST", &dist).env("RUNTIMED_TEST_ABI_FIXTURES", &fixtures).args(arguments);
    workspace::run(&mut tests)?;
    if arguments.is_empty() {
        workspace::run(workspace::cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
        template(tools.as_ref())?;
    }
    Ok(())
}

/// The template is not a member of the workspace, as a third party's plugin is not.
fn template(tools: Option<&tools::Tools>) -> Result<()> {
    let mut test = workspace::cargo();
    test.arg("test").current_dir(workspace::root().join("plugin-template"));
    test.env("CARGO_TARGET_DIR", workspace::target().join("plugin-template"));
    if let Some(tools) = tools {
        tools.apply(&mut test)?;
    }
    workspace::run(&mut test)
}

fn has_nextest() -> bool {
    workspace::output(workspace::cargo().args(["nextest", "--version"])).is_ok()
}
