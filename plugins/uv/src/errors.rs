//! uv's complaints, as errors a user can act on.
//!
//! For: pools, which back off by kind, and people, who want to know which package is to blame.
//! Promises: pure; `detail` holds `error_kind` (`timeout`, `invalid_package`, `import_error`,
//! `setup_failed`), `network`, and `failed_package` where uv names one.

use std::path::Path;

use runtimed_plugin_api::{ErrorCode, PluginError, ProcessExit};
use serde_json::json;

/// Lower-case phrases that only a failed connection leaves in an error text: those of the wire
/// contract, and those of uv's HTTP library that mean the same.
const NETWORK_PHRASES: [&str; 16] = [
    "connection refused",
    "connection reset",
    "connection timed out",
    "request timed out",
    "connect timed out",
    "dns",
    "network is unreachable",
    "network unreachable",
    "failed to fetch",
    "could not resolve",
    "no cached repodata",
    "error sending request",
    "client error (connect)",
    "failed to lookup address",
    "temporary failure in name resolution",
    "no address associated with hostname",
];

/// What a full disk leaves in an error text, in lower case: uv's own words, and the error number of Linux and macOS.
const FULL_PHRASES: [&str; 2] = ["no space left on device", "os error 28"];

/// Longest quotation of an interpreter's complaint. Source: the wire contract.
const VALIDATION_QUOTE_CHARS: usize = 200;

/// `uv venv` failed. `installed` are the Python versions found on this machine.
pub(crate) fn venv_failed(exit: &ProcessExit, python: &str, installed: &[String]) -> PluginError {
    let text = complaint(exit);
    let found = match installed {
        [] => "no Python 3.10 or newer is installed here".to_owned(),
        versions => format!("installed here: {}", versions.join(", ")),
    };
    failed(&format!("Failed to create virtual environment: {text}"), "setup_failed", &text).help(format!(
        "Python `{python}` was neither found nor could uv download it ({found}). \
         Install it, or choose another one in the notebook's metadata or in the setting `uv.python`."
    ))
}

/// `uv pip install` failed.
pub(crate) fn install_failed(exit: &ProcessExit) -> PluginError {
    let text = complaint(exit);
    let message = format!("Failed to install dependencies: {text}");
    match failed_package(&text) {
        Some(package) => {
            let mut error = failed(&message, "invalid_package", &text);
            if error.code == ErrorCode::Internal {
                error.code = ErrorCode::Invalid;
                error.help = Some(format!(
                    "Check the name and the version of `{package}` in the notebook's dependencies or in the \
                     setting `uv.default_packages`."
                ));
            }
            error.detail["failed_package"] = json!(package);
            error
        }
        None => failed(&message, "setup_failed", &text),
    }
}

/// `uv add` failed for the project in `folder`, and has left its file as it was.
pub(crate) fn add_failed(exit: &ProcessExit, folder: &Path) -> PluginError {
    let text = complaint(exit);
    let file = folder.join(crate::project::MARKER);
    let mut error =
        failed(&format!("uv could not add packages to `{}`: {text}", file.display()), "setup_failed", &text);
    if let Some(package) = failed_package(&text) {
        error.help = Some(format!(
            "Check the name and the version of `{package}` in the notebook's dependencies. The project's file is \
             unchanged."
        ));
        error.detail["failed_package"] = json!(package);
    }
    error
}

/// The finished environment cannot import what a kernel needs.
pub(crate) fn validation_failed(exit: &ProcessExit) -> PluginError {
    let quote: String = exit.stderr.trim().chars().take(VALIDATION_QUOTE_CHARS).collect();
    failed(&format!("UV runtime validation failed: {quote}"), "import_error", "").help(
        "A package pinned by the notebook may be too old for this Python. The unfinished environment is \
         not used; loosen the pin and try again.",
    )
}

/// uv could not prepare a project.
pub(crate) fn project_failed(exit: &ProcessExit) -> PluginError {
    let status = exit.code.map_or("a signal".to_owned(), |code| format!("exit status: {code}"));
    let text = if exit.stderr.trim().is_empty() { exit.stdout.trim() } else { exit.stderr.trim() };
    let message = format!("uv project environment preparation failed with {status}: {text}");
    failed(&message, "setup_failed", text)
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

/// Whether `text` tells of a failed connection. An unsatisfiable requirement never does, whatever its name.
pub(crate) fn is_network(text: &str) -> bool {
    let text = text.to_lowercase();
    !text.contains("no solution found") && NETWORK_PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// Whether `text` tells of a full disk.
pub(crate) fn is_full(text: &str) -> bool {
    let text = text.to_lowercase();
    FULL_PHRASES.iter().any(|phrase| text.contains(phrase))
}

fn failed(message: &str, kind: &str, text: &str) -> PluginError {
    let network = is_network(text);
    let error = match network {
        true => PluginError::unavailable(message).help(match text.contains("certificate") {
            true => {
                "The package index showed a certificate that is not trusted here. Set SSL_CERT_FILE to a \
                     bundle with its issuer where the daemon is started."
            }
            false => {
                "The package index could not be reached. Check network and proxy; what is in uv's cache \
                      works offline."
            }
        }),
        false if is_full(text) => PluginError::internal(message).help(
            "The disk is full. The unfinished environment is not used; make room (`runt env clean` deletes \
                 environments that nobody uses), then try again.",
        ),
        false => PluginError::internal(message),
    };
    error.detail(json!({ "error_kind": kind, "network": network }))
}

/// What uv said from its first `error:` on; the lines before only tell how far it came.
fn complaint(exit: &ProcessExit) -> String {
    let text = exit.stderr.trim();
    let start = if text.starts_with("error:") { Some(0) } else { text.find("\nerror:").map(|at| at + 1) };
    start.and_then(|at| text.get(at..)).unwrap_or(text).to_owned()
}

/// The package an error text blames.
fn failed_package(text: &str) -> Option<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let quoted = |start: &str| text.split_once(start)?.1.split_once('`').map(|(inside, _)| inside);
    let blamed = quoted("Failed to build `")
        .or_else(|| quoted("Failed to parse: `"))
        .or_else(|| quoted("Failed to download and build `"))
        .or_else(|| quoted("Failed to download `").filter(|what| !what.contains("://")))
        .or_else(|| unsatisfiable(&text))?;
    let name = blamed.split(|c: char| "@[<>=!~;".contains(c) || c.is_whitespace()).next().unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

/// The subject of "Because foo was not found ..." and of its sisters.
fn unsatisfiable(text: &str) -> Option<&str> {
    let reason = text.split_once("Because ")?.1;
    [" there are no versions of ", "there are no versions of ", "there is no version of ", "only "]
        .iter()
        .find_map(|start| reason.strip_prefix(start))
        .or(Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(stderr: &str) -> ProcessExit {
        ProcessExit { code: Some(1), stderr: stderr.to_owned(), ..ProcessExit::default() }
    }

    /// Texts of uv 0.13.
    #[test]
    fn the_package_to_blame_is_named() {
        for (text, package) in [
            (
                "Using Python 3.11.2 environment at: e1\nerror: No solution found when resolving dependencies\n  \
                 cause: Because dns-zzz9 was not found in the package registry and you require dns-zzz9, we can \
                 conclude that your requirements are unsatisfiable.",
                "dns-zzz9",
            ),
            (
                "error: No solution found when resolving dependencies\n  cause: Because only six<=1.17.0 is \
                 available and you require six>=99, we can conclude ...",
                "six",
            ),
            (
                "error: No solution found\n  cause: Because there is no version of six==99 and you require",
                "six",
            ),
            ("error: Failed to parse: `numpy[x ==`\n  cause: Expected", "numpy"),
            ("Resolved 1 package in 480ms\nerror: Failed to build `numpy==1.9.0`\n  cause: ...", "numpy"),
        ] {
            let error = install_failed(&exit(text));
            assert_eq!(error.detail["failed_package"], package, "{text}");
            assert_eq!(error.detail["error_kind"], "invalid_package");
            assert_eq!(error.detail["network"], false);
            assert_eq!(error.code, ErrorCode::Invalid);
            assert!(error.message.starts_with("Failed to install dependencies: error:"), "{}", error.message);
        }
    }

    #[test]
    fn a_failed_connection_is_retryable() {
        let error = install_failed(&exit(
            "error: Request failed after 3 retries in 8.3s\n  cause: Failed to fetch: http://127.0.0.1:9/simple/\n  \
             cause: tcp connect error\n  cause: Connection refused (os error 111)",
        ));
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.retryable);
        assert_eq!(error.detail, json!({ "error_kind": "setup_failed", "network": true }));
        let error = install_failed(&exit(
            "error: Failed to fetch: https://index/simple/\n  cause: invalid peer certificate: UnknownIssuer",
        ));
        assert!(error.retryable && error.help.unwrap().contains("SSL_CERT_FILE"));
    }

    #[test]
    fn a_missing_python_says_what_is_there() {
        let text = "error: Failed to download `https://host/cpython-3.13.tar.gz`\n  cause: dns error";
        let error = venv_failed(&exit(text), ">=3.13", &["3.11.7".to_owned()]);
        let help = error.help.unwrap();
        assert!(help.contains(">=3.13") && help.contains("installed here: 3.11.7"), "{help}");
        assert_eq!(error.detail["network"], true);
    }

    #[test]
    fn only_a_time_limit_becomes_a_timeout() {
        let error = step_failed(PluginError::new(ErrorCode::Timeout, "killed"), "UV runtime validation", 60);
        assert_eq!(error.message, "UV runtime validation timed out after 60 seconds");
        assert_eq!(error.detail["error_kind"], "timeout");
        assert_eq!(step_failed(PluginError::internal("x"), "y", 1), PluginError::internal("x"));
    }
}
