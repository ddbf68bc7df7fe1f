//! What went wrong, as errors a user can act on.
//!
//! For: pools, which back off by kind, and people, who want to know which package is to blame.
//! Promises: pure; `detail` holds `error_kind` (`timeout`, `invalid_package`, `import_error`, `setup_failed`), `network`,
//! and `failed_package` where one is to blame.

use runtimed_conda_builder::{Failure, Stage};
use runtimed_plugin_api::{ErrorCode, PluginError, ProcessExit};
use serde_json::json;

/// Longest quotation of an interpreter's complaint. Source: the wire contract.
const QUOTE_CHARS: usize = 200;

/// The program that solves and installs says why it failed.
pub(crate) fn not_built(failure: Failure) -> PluginError {
    let Failure { stage, message, package, network } = failure;
    let kind = match stage {
        Stage::Request | Stage::Solve => "invalid_package",
        Stage::Metadata | Stage::Install => "setup_failed",
    };
    let error = match (network, stage) {
        (true, _) => PluginError::unavailable(message),
        (false, Stage::Install) => PluginError::internal(message),
        (false, _) => PluginError::invalid(message),
    };
    let mut detail = json!({ "error_kind": kind, "network": network });
    if let Some(package) = &package {
        detail["failed_package"] = json!(package);
    }
    error.detail(detail).help(help(stage, package.as_deref(), network))
}

fn help(stage: Stage, package: Option<&str>, network: bool) -> String {
    match (stage, package) {
        _ if network => "A channel could not be reached. Check network and proxy, or choose other channels in the \
                         notebook or in the setting `conda.channels`. What was downloaded before works offline."
            .to_owned(),
        (_, Some("python")) => {
            "Choose another Python in the notebook's metadata or in the setting `conda.python`.".to_owned()
        }
        (_, Some(package)) => format!(
            "Check the name and the version of `{package}` in the notebook's dependencies or in the setting \
             `conda.default_packages`, and the channels. Nothing was installed."
        ),
        (Stage::Install, None) => {
            "The unfinished environment is not used. Make room on the disk if it is full, and try again.".to_owned()
        }
        (_, None) => "Check the packages and the channels of the notebook, and those of the settings \
                      `conda.default_packages` and `conda.channels`. Nothing was installed."
            .to_owned(),
    }
}

/// The program ended without a word.
pub(crate) fn silent(exit: &ProcessExit) -> PluginError {
    let ended = exit.code.map_or("was ended by a signal".to_owned(), |code| format!("ended with {code}"));
    let said = exit.complaint();
    let message = format!("The program that builds conda environments {ended}: {said}");
    PluginError::internal(message)
        .retryable()
        .help("The unfinished environment is not used. If memory is short, close something and try again.")
        .detail(json!({ "error_kind": "setup_failed", "network": false }))
}

/// The finished environment cannot import what a kernel needs.
pub(crate) fn validation_failed(exit: &ProcessExit) -> PluginError {
    let quote: String = exit.stderr.trim().chars().take(QUOTE_CHARS).collect();
    PluginError::internal(format!("Conda runtime validation failed: {quote}"))
        .help(
            "A package pinned by the notebook may be too old for this Python. The unfinished environment is not used; \
             loosen the pin and try again.",
        )
        .detail(json!({ "error_kind": "import_error", "network": false }))
}

/// pip could not install what an environment file lists for it.
pub(crate) fn pip_failed(exit: &ProcessExit) -> PluginError {
    PluginError::internal(format!("pip could not install the packages of its section: {}", exit.complaint()))
        .help("Check the pip section of the environment file. Conda's packages are installed.")
        .detail(json!({ "error_kind": "invalid_package", "network": false }))
}

/// Turns a time limit of one step into a sentence about that step; other errors pass.
pub(crate) fn step_failed(error: PluginError, step: &str, limit_secs: u64) -> PluginError {
    if error.code != ErrorCode::Timeout {
        return error;
    }
    PluginError::new(ErrorCode::Timeout, format!("{step} timed out after {limit_secs} seconds"))
        .retryable()
        .help("Nothing of it is left running. What was downloaded is kept, so another try gets further.")
        .detail(json!({ "error_kind": "timeout", "network": false }))
}

/// A file or folder could not be written.
pub(crate) fn not_written(path: &std::path::Path, error: &std::io::Error) -> PluginError {
    PluginError::internal(format!("could not write `{}`: {error}", path.display()))
        .help("Make the folder writable or free some space, and try again.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: Stage, package: Option<&str>, network: bool) -> Failure {
        let package = package.map(str::to_owned);
        Failure { stage, message: "it failed".to_owned(), package, network }
    }

    #[test]
    fn who_is_to_blame_is_named_with_the_setting_it_may_come_from() {
        let error = not_built(failure(Stage::Solve, Some("nump"), false));
        assert_eq!((error.code, error.retryable), (ErrorCode::Invalid, false));
        assert_eq!(error.detail["failed_package"], "nump");
        assert_eq!(error.detail["error_kind"], "invalid_package");
        assert!(error.help.unwrap().contains("`nump`"));
        let error = not_built(failure(Stage::Solve, Some("python"), false));
        assert!(error.help.unwrap().contains("`conda.python`"));
    }

    #[test]
    fn a_channel_out_of_reach_is_worth_another_try() {
        let error = not_built(failure(Stage::Metadata, None, true));
        assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
        assert_eq!(error.detail, json!({ "error_kind": "setup_failed", "network": true }));
        assert!(error.help.unwrap().contains("`conda.channels`"));
    }
}
