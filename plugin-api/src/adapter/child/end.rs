//! How a child ended, and why one did not begin.

use std::fmt::{self, Write};
use std::process::ExitStatus;

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;

/// Signals that end processes, by the names people know.
const SIGNALS: [(Signal, &str); 13] = [
    (Signal::HUP, "SIGHUP"),
    (Signal::INT, "SIGINT"),
    (Signal::QUIT, "SIGQUIT"),
    (Signal::ILL, "SIGILL"),
    (Signal::TRAP, "SIGTRAP"),
    (Signal::ABORT, "SIGABRT"),
    (Signal::BUS, "SIGBUS"),
    (Signal::FPE, "SIGFPE"),
    (Signal::KILL, "SIGKILL"),
    (Signal::SEGV, "SIGSEGV"),
    (Signal::PIPE, "SIGPIPE"),
    (Signal::TERM, "SIGTERM"),
    (Signal::XCPU, "SIGXCPU"),
];

/// How a child ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildEnd {
    /// Exit code, if it exited.
    pub code: Option<i32>,
    /// Signal number, if one ended it.
    pub signal: Option<i32>,
    /// Why the daemon ended it, if it did.
    pub reason: Option<String>,
    /// The last it wrote to stdout and stderr: at most 100 lines and 64 KiB.
    pub stderr: String,
}

impl ChildEnd {
    pub(super) fn new(status: Option<ExitStatus>, reason: Option<String>, stderr: String) -> Self {
        let code = status.and_then(|status| status.code());
        let signal = status.and_then(|status| status.signal());
        Self { code, signal, reason, stderr }
    }

    /// The rest of a sentence that begins with the plugin's name: `was ended by signal 11 (SIGSEGV)`,
    /// `exited with code 3`.
    pub fn describe(&self) -> String {
        match (&self.reason, self.signal, self.code) {
            (Some(reason), _, _) => format!("was ended by the daemon: {reason}"),
            (None, Some(number), _) => {
                let name = SIGNALS.iter().find(|(signal, _)| signal.as_raw() == number);
                let name = name.map(|(_, name)| format!(" ({name})")).unwrap_or_default();
                format!("was ended by signal {number}{name}")
            }
            (None, None, Some(code)) => format!("exited with code {code}"),
            (None, None, None) => "was lost".to_owned(),
        }
    }

    /// [`ChildEnd::describe`] with the last line it wrote.
    pub(super) fn describe_with_last_words(&self) -> String {
        let mut text = self.describe();
        if let Some(line) = self.stderr.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
            // Writing to a string cannot fail.
            let _ = write!(text, "; its last words were: {line}");
        }
        text
    }
}

/// Why a child did not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildFailure {
    /// One sentence that names the plugin.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
    /// Everything there is to know, often long; for a file, not for a terminal.
    pub report: Option<String>,
    /// Whether the library does not fit and never will; otherwise it may work another time.
    pub refused: bool,
}

impl fmt::Display for ChildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ChildFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_reads_like_a_sentence() {
        let end =
            |status| ChildEnd::new(Some(ExitStatus::from_raw(status)), None, "one\ntwo\n \n".to_owned());
        assert_eq!(end(3 << 8).describe(), "exited with code 3");
        assert_eq!(end(11).describe(), "was ended by signal 11 (SIGSEGV)");
        assert_eq!(end(64).describe(), "was ended by signal 64");
        assert_eq!(
            end(9).describe_with_last_words(),
            "was ended by signal 9 (SIGKILL); its last words were: two"
        );
        let reason = Some("it sent text that is not UTF-8".to_owned());
        let ended = ChildEnd { reason, ..ChildEnd::default() };
        assert_eq!(ended.describe(), "was ended by the daemon: it sent text that is not UTF-8");
    }
}
