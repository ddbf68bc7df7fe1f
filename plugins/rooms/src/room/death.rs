//! Why a kernel is gone, in words.
//!
//! For: what clients show beside the notebook, and `runt ps`, which has a line for it.
//! Promises: pure; the first line says what happened, the last words of the kernel follow.

use runtimed_plugin_api::ExitReport;
use rustix::process::Signal;

/// Begins the part that is the kernel's own words.
const TAIL: &str = "stderr tail:\n";
/// Characters of the last words that a sentence has room for: a line or two of a terminal.
const LAST_WORDS: usize = 160;

/// Why the kernel is gone, as a sentence with the last it said.
pub(super) fn death_notice(report: &ExitReport) -> String {
    let how = match (report.out_of_memory, report.code, report.signal) {
        (true, ..) => "it ran out of memory".to_owned(),
        (_, Some(code), _) => format!("exit code {code}"),
        (_, _, Some(signal)) => match meaning(signal) {
            Some(meaning) => format!("signal {signal} ({meaning})"),
            None => format!("signal {signal}"),
        },
        _ => "for an unknown reason".to_owned(),
    };
    match report.stderr_tail.is_empty() {
        true => format!("Kernel process exited: {how}"),
        false => format!("Kernel process exited: {how}\n{TAIL}{}", report.stderr_tail),
    }
}

/// The sentence in what went wrong with a kernel, as [`death_notice`] or an error told it at length.
pub(super) fn in_a_sentence(details: &str) -> String {
    let (what, tail) = details.split_once(TAIL).unwrap_or((details, ""));
    let what = what.lines().next().unwrap_or_default().trim_end_matches('.');
    let words = tail.lines().map(str::trim).rfind(|line| !line.is_empty());
    match words.map(|words| words.chars().take(LAST_WORDS).collect::<String>()) {
        Some(words) if !what.is_empty() => format!("{what}; its last words: {words}"),
        Some(words) => format!("Its last words: {words}"),
        None if what.is_empty() => "It ended, and nobody knows why.".to_owned(),
        None => format!("{what}."),
    }
}

/// What a signal that ends a kernel usually tells.
fn meaning(signal: i32) -> Option<&'static str> {
    Some(match Signal::from_named_raw(signal)? {
        Signal::HUP => "SIGHUP: its terminal is gone",
        Signal::INT => "SIGINT: somebody interrupted it while it was not listening",
        Signal::ILL => "SIGILL: native code is broken, or made for another processor",
        Signal::ABORT => "SIGABRT: native code gave up",
        Signal::BUS => "SIGBUS: native code read a file or memory that is not there",
        Signal::FPE => "SIGFPE: native code divided by zero",
        Signal::KILL => "SIGKILL: somebody killed it, or the system for lack of memory",
        Signal::SEGV => "SIGSEGV: native code read or wrote where it must not",
        Signal::TERM => "SIGTERM: somebody asked it to end",
        Signal::XCPU => "SIGXCPU: its processor time was used up",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_told_in_a_sentence() {
        let report = |code, signal, stderr_tail: &str| ExitReport {
            code,
            signal,
            stderr_tail: stderr_tail.to_owned(),
            ..ExitReport::default()
        };
        let told = |report| in_a_sentence(&death_notice(&report));
        assert_eq!(told(report(Some(3), None, "")), "Kernel process exited: exit code 3.");
        assert_eq!(
            told(report(Some(1), None, "Traceback\n  x\nImportError: no y\n\n")),
            "Kernel process exited: exit code 1; its last words: ImportError: no y"
        );
        assert_eq!(
            told(report(None, Some(Signal::KILL.as_raw()), "")),
            "Kernel process exited: signal 9 (SIGKILL: somebody killed it, or the system for lack of memory)."
        );
        assert_eq!(told(report(None, Some(1234), "")), "Kernel process exited: signal 1234.");
        assert_eq!(in_a_sentence("no network\nGo online."), "no network.");
        assert_eq!(in_a_sentence(""), "It ended, and nobody knows why.");
    }
}
