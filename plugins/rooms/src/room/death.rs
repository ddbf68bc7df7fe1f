//! Why a kernel is gone, in words.
//!
//! For: the running cell, the kernel's state beside the notebook, and `runt ps`, which has a line for it.
//! Promises: pure; one sentence says what happened, what is kept and what to do next; the last words of the kernel follow.

use runtimed_plugin_api::ExitReport;
use rustix::process::Signal;
use serde_json::{Value as Json, json};

/// Name of the error. The Python client gives the same one to an execution whose kernel is gone.
const NAME: &str = "KernelError";
/// Ends the sentence.
const NEXT: &str = "; outputs are kept, variables are gone, and running a cell starts a new kernel.";
/// Begins the part that is the kernel's own words.
const TAIL: &str = "stderr tail:\n";
/// Characters of the last words that a sentence has room for: a line or two of a terminal.
const LAST_WORDS: usize = 160;

/// Why the kernel is gone, with the last it said.
pub(super) fn notice(report: &ExitReport) -> String {
    match report.stderr_tail.is_empty() {
        true => sentence(report),
        false => format!("{}\n{TAIL}{}", sentence(report), report.stderr_tail),
    }
}

/// Content of the `error` message that the kernel could not send.
pub(super) fn error(report: &ExitReport) -> Json {
    let notice = format!("{NAME}: {}", notice(report));
    json!({
        "ename": NAME,
        "evalue": sentence(report),
        "traceback": notice.lines().collect::<Vec<_>>(),
    })
}

fn sentence(report: &ExitReport) -> String {
    let how = match *report {
        ExitReport { unreachable: true, .. } => "had closed its connections and was ended".to_owned(),
        ExitReport { out_of_memory: true, .. } => "ran out of memory and was killed by the system".to_owned(),
        ExitReport { code: Some(code), .. } => format!("exited with code {code}"),
        ExitReport { signal: Some(signal), .. } => match meaning(signal) {
            Some(meaning) => format!("was ended by signal {signal} ({meaning})"),
            None => format!("was ended by signal {signal}"),
        },
        _ => "was lost with the process that kept it".to_owned(),
    };
    format!("The kernel {how}{NEXT}")
}

/// The sentence in what went wrong with a kernel, as [`notice`] or an error told it at length.
pub(super) fn in_a_sentence(details: &str) -> String {
    let (what, tail) = details.split_once(TAIL).unwrap_or((details, ""));
    let what = what.lines().next().unwrap_or_default();
    let what = what.strip_suffix(NEXT).unwrap_or(what).trim_end_matches('.');
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

    fn report(code: Option<i32>, signal: Option<i32>, stderr_tail: &str) -> ExitReport {
        ExitReport { code, signal, stderr_tail: stderr_tail.to_owned(), ..ExitReport::default() }
    }

    #[test]
    fn a_death_is_told_in_a_sentence() {
        let told = |report: ExitReport| in_a_sentence(&notice(&report));
        assert_eq!(told(report(Some(3), None, "")), "The kernel exited with code 3.");
        assert_eq!(
            told(report(Some(1), None, "Traceback\n  x\nImportError: no y\n\n")),
            "The kernel exited with code 1; its last words: ImportError: no y"
        );
        let killed = report(None, Some(Signal::KILL.as_raw()), "");
        assert_eq!(
            told(killed.clone()),
            "The kernel was ended by signal 9 (SIGKILL: somebody killed it, or the system for lack of memory)."
        );
        assert_eq!(
            told(ExitReport { out_of_memory: true, ..killed.clone() }),
            "The kernel ran out of memory and was killed by the system."
        );
        assert_eq!(
            told(ExitReport { unreachable: true, ..killed }),
            "The kernel had closed its connections and was ended."
        );
        assert_eq!(told(report(None, Some(1234), "")), "The kernel was ended by signal 1234.");
        assert_eq!(told(report(None, None, "")), "The kernel was lost with the process that kept it.");
        assert_eq!(in_a_sentence("no network\nGo online."), "no network.");
        assert_eq!(in_a_sentence(""), "It ended, and nobody knows why.");
    }

    #[test]
    fn the_cell_shows_the_sentence_and_then_the_last_words() {
        let report = report(Some(1), None, "a\nb");
        let error = error(&report);
        assert_eq!(error["evalue"], sentence(&report));
        let expected = format!("KernelError: {}\nstderr tail:\na\nb", sentence(&report));
        assert_eq!(error["traceback"], json!(expected.lines().collect::<Vec<_>>()));
    }
}
