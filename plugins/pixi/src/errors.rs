//! What went wrong, as errors a user can act on.
//!
//! For: pools, which back off by kind, and people, who want to know which package is to blame.
//! Promises: pure; `detail` holds `error_kind` (`timeout`, `invalid_package`, `import_error`, `setup_failed`), `network`,
//! and `failed_package` where pixi names one.

use std::path::Path;

use runtimed_plugin_api::{ErrorCode, PluginError, ProcessExit};
use serde_json::json;

/// Lower-case phrases that only a failed connection leaves in pixi's words. Source: the protocol's for uv, whose
/// libraries pixi shares, and the system's own.
const NETWORK_PHRASES: [&str; 11] = [
    "failed to fetch",
    "error sending request",
    "client error (connect)",
    "dns error",
    "failed to lookup address",
    "network is unreachable",
    "temporary failure in name resolution",
    "no address associated with hostname",
    "connection refused",
    "connection reset",
    "connection timed out",
];

/// What comes before the name of a package that is to blame.
const BLAME: [&str; 2] = ["No candidates were found for ", "Because "];
/// What follows the name after the second of those.
const NOT_FOUND: &str = " was not found in the package registry";

/// Longest quotation of a tool, in characters. A solve that fails may print megabytes.
const QUOTE: usize = 4000;
/// Longest quotation of an interpreter's complaint. Source: the protocol.
const VALIDATION_QUOTE: usize = 200;

/// Whether `exit` tells of a failed connection.
pub(crate) fn is_network(exit: &ProcessExit) -> bool {
    let text = exit.stderr.to_lowercase();
    NETWORK_PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// A command of pixi failed; `what` says at what.
pub(crate) fn failed(what: &str, exit: &ProcessExit) -> PluginError {
    let said: String = exit.complaint().chars().take(QUOTE).collect();
    let message = format!("{what}: {said}");
    if is_network(exit) {
        // The words the daemon knows a network failure by; it tries again sooner then.
        return PluginError::unavailable(format!("{what}: could not resolve or reach a channel or index: {said}"))
            .help(
                "Check the network, the proxy, and the mirrors in pixi's own configuration. It is tried again by \
                 itself; what was downloaded is kept.",
            )
            .detail(json!({ "error_kind": "setup_failed", "network": true }));
    }
    if said.contains("No space left on device") {
        return setup(message)
            .help("Free some space and try again; the unfinished environment is removed.");
    }
    let Some(package) = blamed(&said) else {
        return setup(message).help("The daemon's log has all that pixi said, at level debug.");
    };
    PluginError::invalid(message)
        .help(format!(
            "Check the name and the version of `{package}` in the notebook's dependencies or in the setting \
             `pixi.default_packages`, and whether the channels have it."
        ))
        .detail(json!({ "error_kind": "invalid_package", "network": false, "failed_package": package }))
}

/// The finished environment cannot import what a kernel needs.
pub(crate) fn validation_failed(exit: &ProcessExit) -> PluginError {
    let said: String = exit.complaint().chars().take(VALIDATION_QUOTE).collect();
    PluginError::internal(format!("Pixi runtime validation failed: {said}"))
        .help(
            "A package pinned by the notebook may be too old for this Python. The unfinished environment is not \
             used; loosen the pin and try again.",
        )
        .detail(json!({ "error_kind": "import_error", "network": false }))
}

/// The project at `manifest` has no kernel.
pub(crate) fn no_kernel(manifest: &Path) -> PluginError {
    let name = manifest.file_name().unwrap_or_default().to_string_lossy();
    PluginError::not_found(format!(
        "ipykernel not found in {name} — run `pixi add ipykernel` in your project directory"
    ))
    .help("Nothing was installed. Start the kernel again after that.")
    .detail(json!({ "error_kind": "setup_failed", "error_reason": "missing_ipykernel", "network": false }))
}

/// A file or folder of ours could not be written.
pub(crate) fn disk(path: &Path, error: &std::io::Error) -> PluginError {
    setup(format!("could not write `{}`: {error}", path.display()))
        .help("Make the folder writable or free some space, and try again.")
}

/// Turns a time limit of one step into a sentence about that step; other errors pass.
pub(crate) fn step_failed(error: PluginError, step: &str) -> PluginError {
    if error.code != ErrorCode::Timeout {
        return error;
    }
    PluginError::new(ErrorCode::Timeout, format!("{step} timed out: {}", error.message))
        .retryable()
        .help(
            "Nothing of it is left running. What was downloaded is kept; another try gets further.",
        )
        .detail(json!({ "error_kind": "timeout", "network": false }))
}

fn setup(message: String) -> PluginError {
    PluginError::internal(message).detail(json!({ "error_kind": "setup_failed", "network": false }))
}

/// The package a solver blames.
fn blamed(said: &str) -> Option<&str> {
    let [conda, pypi] = BLAME.map(|before| said.split_once(before).map(|(_, rest)| rest));
    let of_index = pypi.filter(|rest| rest.contains(NOT_FOUND));
    let name =
        conda.or(of_index)?.split(|c: char| "<>=!~,[".contains(c) || c.is_whitespace()).next()?;
    let name = name.trim_end_matches(['.', ':']);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(stderr: &str) -> ProcessExit {
        ProcessExit { code: Some(1), stderr: stderr.to_owned(), ..ProcessExit::default() }
    }

    #[test]
    fn the_package_to_blame_is_named() {
        for (said, package) in [
            (
                "Error:   × failed to solve requirements of environment 'default' for platform 'linux-64'\n  \
                 ├─▶   × failed to solve the environment\n  ╰─▶ Cannot solve the request because of: No candidates \
                 were found for zzz9 *.",
                "zzz9",
            ),
            (
                "╰─▶ Cannot solve the request because of: No candidates were found for six >=99.",
                "six",
            ),
            (
                "Because cowsayy was not found in the package registry and you require cowsayy",
                "cowsayy",
            ),
        ] {
            let error = failed("Failed to install packages", &exit(said));
            assert_eq!(error.detail["failed_package"], package, "{said}");
            assert_eq!((error.code, error.retryable), (ErrorCode::Invalid, false));
            assert!(error.help.unwrap().contains(&format!("`{package}`")));
        }
        let error = failed("Failed to install packages", &exit("Because of this and that"));
        assert_eq!(
            (error.code, &error.detail["error_kind"]),
            (ErrorCode::Internal, &json!("setup_failed"))
        );
    }

    #[test]
    fn a_failed_connection_is_retryable_and_a_full_disk_is_nobodys_fault() {
        let error = failed("Failed", &exit("error sending request for url (file)\n dns error"));
        assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
        assert_eq!(error.detail["network"], true);
        assert!(error.message.contains("could not resolve"), "{error}");
        let error = failed("Failed", &exit("× No space left on device (os error 28)"));
        assert!(error.help.unwrap().contains("Free some space"));
    }

    #[test]
    fn a_project_without_a_kernel_says_what_to_run() {
        let error = no_kernel(Path::new("/p/pixi.toml"));
        assert_eq!(
            error.message,
            "ipykernel not found in pixi.toml — run `pixi add ipykernel` in your project directory"
        );
        assert_eq!(error.detail["error_reason"], "missing_ipykernel");
    }

    #[test]
    fn only_a_time_limit_becomes_a_timeout() {
        let error =
            step_failed(PluginError::new(ErrorCode::Timeout, "stopped"), "Installing packages");
        assert_eq!(error.message, "Installing packages timed out: stopped");
        assert_eq!(step_failed(PluginError::internal("x"), "y"), PluginError::internal("x"));
    }
}
