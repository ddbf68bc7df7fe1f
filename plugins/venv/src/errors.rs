//! What went wrong, as errors a user can act on.
//!
//! For: pools, which back off by kind, and people, who want to know which package is to blame.
//! Promises: pure; `detail` holds `error_kind` (`timeout`, `invalid_package`, `import_error`,
//! `setup_failed`), `network`, and `failed_package` where pip names one.

use runtimed_plugin_api::{ErrorCode, PluginError, ProcessExit};
use serde_json::json;

/// Lower-case phrases that only a failed connection leaves in pip's words, from pip 21 to 26. A retry that
/// helped leaves none of them: pip counts down and gives up at `total=0`.
const NETWORK_PHRASES: [&str; 10] = [
    "retry(total=0",
    "max retries exceeded",
    "could not fetch url",
    "connection refused",
    "connection reset",
    "connection timed out",
    "read timed out",
    "name resolution",
    "name or service not known",
    "network is unreachable",
];

/// Longest quotation of a tool, in characters. A build that fails may print megabytes.
const QUOTE: usize = 4000;

/// Longest quotation of an interpreter's complaint. Source: the wire contract.
const VALIDATION_QUOTE: usize = 200;

/// `python -m venv` failed.
pub(crate) fn venv_failed(exit: &ProcessExit) -> PluginError {
    let said = exit.complaint();
    let error = failed(&format!("Failed to create virtual environment: {said}"), "setup_failed");
    match disk_full(said) {
        Some(help) => error.help(help),
        None => error.help("Try another interpreter in the setting `venv.python`."),
    }
}

/// `pip install` failed.
pub(crate) fn install_failed(exit: &ProcessExit) -> PluginError {
    let said = complaint(&exit.stderr);
    let message = |what: &str| format!("Failed to install dependencies: {what}");
    if is_network(&exit.stderr) {
        let reason = exit.stderr.lines().rfind(|line| is_network(line)).unwrap_or(&said);
        // The words the daemon knows a network failure by come first; it tries again sooner then.
        let what = format!("could not resolve or reach the package index: {reason}");
        let help = match reason.to_lowercase().contains("certificate") {
            true => {
                "The index showed a certificate that is not trusted here. Name a bundle with its issuer in \
                 pip.conf (`cert`) or in PIP_CERT where the daemon is started."
            }
            false => {
                "Check the network, and the proxy and index in pip.conf or in the daemon's variables. It \
                 is tried again by itself; what was downloaded is kept."
            }
        };
        let error = PluginError::unavailable(message(&quoted(&what, QUOTE))).help(help);
        return error.detail(json!({ "error_kind": "setup_failed", "network": true }));
    }
    if let Some(help) = disk_full(&exit.stderr) {
        return failed(&message(&said), "setup_failed").help(help);
    }
    let Some(package) = failed_package(exit) else {
        return failed(&message(&said), "setup_failed")
            .help("The daemon's log has all that pip said, at level debug.");
    };
    let help = if exit.stderr.contains("subprocess-exited-with-error") {
        format!(
            "`{package}` has no ready-made package for this Python and could not be built from source. \
             Choose another version of it, or install the compilers and libraries it needs."
        )
    } else {
        format!(
            "Check the name and the version of `{package}` in the notebook's dependencies or in the \
             setting `venv.default_packages`, and whether it is made for this Python."
        )
    };
    let detail = json!({
        "error_kind": "invalid_package", "network": false, "failed_package": package,
    });
    PluginError::invalid(message(&said)).help(help).detail(detail)
}

/// The finished environment cannot import what a kernel needs.
pub(crate) fn validation_failed(exit: &ProcessExit) -> PluginError {
    let quote = quoted(exit.complaint(), VALIDATION_QUOTE);
    failed(&format!("venv runtime validation failed: {quote}"), "import_error").help(
        "A package pinned by the notebook may be too old for this Python. The unfinished environment is \
         not used; loosen the pin and try again.",
    )
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

fn failed(message: &str, kind: &str) -> PluginError {
    PluginError::internal(message).detail(json!({ "error_kind": kind, "network": false }))
}

fn disk_full(text: &str) -> Option<&'static str> {
    text.contains("No space left on device")
        .then_some("Free some space and try again; the unfinished environment is removed.")
}

/// Whether `text` tells of a failed connection. One that lists versions has reached the index.
fn is_network(text: &str) -> bool {
    let text = text.to_lowercase();
    let reached = text.contains("(from versions: ") && !text.contains("(from versions: none)");
    !reached && NETWORK_PHRASES.iter().any(|phrase| text.contains(phrase))
}

/// What pip said from its first error on; the lines before are warnings.
fn complaint(stderr: &str) -> String {
    let is_error = |line: &str| {
        let line = line.trim_start();
        line.starts_with("ERROR:") || line.starts_with("error:")
    };
    let lines: Vec<&str> = stderr.lines().skip_while(|line| !is_error(line)).collect();
    let text = lines.join("\n");
    quoted(if text.is_empty() { stderr.trim() } else { text.trim() }, QUOTE)
}

/// The first `limit` characters.
fn quoted(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

/// The package pip blames, or was at when a build failed.
fn failed_package(exit: &ProcessExit) -> Option<String> {
    let after = |start: &str| {
        let rest = exit.stderr.split_once(start)?.1;
        rest.trim_start_matches(['\'', '"']).lines().next()
    };
    let blamed = after("No matching distribution found for ")
        .or_else(|| after("satisfies the requirement "))
        .or_else(|| after("Invalid requirement: "))
        .or_else(|| after("Failed building wheel for "))
        .or_else(|| after("Cannot install "))
        .or_else(|| after("ERROR: Package "));
    let building = || {
        let built = exit.stderr.contains("subprocess-exited-with-error");
        let mut lines = exit.stdout.lines().rev();
        lines.find_map(|line| line.trim().strip_prefix("Collecting ")).filter(|_| built)
    };
    let name = blamed.or_else(building)?;
    let name = name
        .split(|c: char| "@[(<>=!~;,'\"".contains(c) || c.is_whitespace())
        .next()
        .unwrap_or_default();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(stdout: &str, stderr: &str) -> ProcessExit {
        ProcessExit { code: Some(1), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    /// Texts of pip 23.2 and 26.3.
    #[test]
    fn the_package_to_blame_is_named() {
        for (stdout, stderr, package) in [
            (
                "",
                "ERROR: Could not find a version that satisfies the requirement dns-zzz9 (from versions: none)\n\
                 ERROR: No matching distribution found for dns-zzz9",
                "dns-zzz9",
            ),
            (
                "",
                "WARNING: Retrying (Retry(total=4)) after connection broken\nERROR: Could not find a version \
                 that satisfies the requirement six>=99 (from versions: 1.16.0, 1.17.0)\nERROR: No matching \
                 distribution found for six>=99",
                "six",
            ),
            ("", "ERROR: Invalid requirement: 'numpy[x =='", "numpy"),
            (
                "",
                "ERROR: Cannot install ipython==7 and ipython==8 because these package versions have \
                 conflicting dependencies.\nERROR: ResolutionImpossible: for help visit",
                "ipython",
            ),
            (
                "Collecting numpy==1.9.0\n  Preparing metadata (pyproject.toml): started",
                "  error: subprocess-exited-with-error\n  \n  x Preparing metadata did not run successfully.",
                "numpy",
            ),
            (
                "Building wheels for collected packages: lxml",
                "  error: subprocess-exited-with-error\n  ERROR: Failed building wheel for lxml\n",
                "lxml",
            ),
        ] {
            let error = install_failed(&exit(stdout, stderr));
            assert_eq!(error.detail["failed_package"], package, "{stderr}");
            assert_eq!(error.detail["error_kind"], "invalid_package");
            assert_eq!((error.code, error.retryable), (ErrorCode::Invalid, false));
            let (_, said) = error.message.split_once("Failed to install dependencies: ").unwrap();
            assert!(said.starts_with("ERROR: ") || said.starts_with("error: "), "{said}");
            assert!(error.help.unwrap().contains(&format!("`{package}`")));
        }
    }

    #[test]
    fn a_failed_connection_is_retryable() {
        let refused = "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by \
            'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f>: Failed to \
            establish a new connection: [Errno 111] Connection refused')': /simple/six/\nERROR: Could not find \
            a version that satisfies the requirement six (from versions: none)\nERROR: No matching \
            distribution found for six";
        let error = install_failed(&exit("", refused));
        assert_eq!((error.code, error.retryable), (ErrorCode::Unavailable, true));
        assert_eq!(error.detail, json!({ "error_kind": "setup_failed", "network": true }));
        assert!(error.message.contains("Connection refused"), "{}", error.message);
        let certificate = "Could not fetch URL https://index/simple/six/: There was a problem confirming the \
            ssl certificate: [SSL: CERTIFICATE_VERIFY_FAILED] - skipping";
        let error = install_failed(&exit("", certificate));
        assert!(error.retryable && error.help.unwrap().contains("PIP_CERT"));
    }

    #[test]
    fn a_full_disk_is_nobodys_fault() {
        let text = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device";
        let error = install_failed(&exit("", text));
        assert_eq!(error.detail["error_kind"], "setup_failed");
        assert!(error.help.unwrap().contains("Free some space"));
    }

    #[test]
    fn only_a_time_limit_becomes_a_timeout() {
        let error =
            step_failed(PluginError::new(ErrorCode::Timeout, "stopped"), "Installing packages");
        assert_eq!(error.message, "Installing packages timed out: stopped");
        assert_eq!(error.detail["error_kind"], "timeout");
        assert_eq!(step_failed(PluginError::internal("x"), "y"), PluginError::internal("x"));
    }
}
