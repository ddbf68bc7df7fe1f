//! One case: a name, what it shows, and the function that finds out.

use std::fmt::Write;
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use runtimed_plugin_api::{ErrorCode, PluginError};

use crate::bench::Bench;
use crate::report::Fault;

/// Longest sentence in a report, in characters.
const SENTENCE: usize = 400;
/// Longest detail in a report, in characters.
const DETAIL: usize = 8000;

/// One entry of a suite's table.
pub(crate) struct Case {
    /// `kebab-case`, unique in its suite.
    pub(crate) name: &'static str,
    /// What is known when it passes, one sentence.
    pub(crate) shows: &'static str,
    /// Whether it is part of a quick check.
    pub(crate) quick: bool,
    /// Finds out.
    pub(crate) run: fn(Arc<Bench>) -> LocalBoxFuture<'static, Verdict>,
}

/// Passed, or why not.
pub(crate) type Verdict = Result<(), Stop>;

/// Why a case ended before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Fault),
    /// One half of a sentence, after "because".
    Skipped(String),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl Stop {
    pub(crate) fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }
}

/// A row of a suite's table from an `async fn(&Bench) -> Verdict`.
macro_rules! case {
    ($name:literal, $shows:literal, $function:expr) => {
        $crate::case::case!(@ $name, $shows, $function, false)
    };
    (quick $name:literal, $shows:literal, $function:expr) => {
        $crate::case::case!(@ $name, $shows, $function, true)
    };
    (@ $name:literal, $shows:literal, $function:expr, $quick:literal) => {
        $crate::case::Case {
            name: $name,
            shows: $shows,
            quick: $quick,
            run: |bench| Box::pin(async move { $function(&bench).await }),
        }
    };
}
pub(crate) use case;

/// Ends a case with a fault unless `condition` holds.
pub(crate) fn require(condition: bool, fault: impl FnOnce() -> Fault) -> Verdict {
    if condition { Ok(()) } else { Err(fault().into()) }
}

impl Fault {
    /// `method` failed although it had no reason to.
    pub(crate) fn of_error(method: &str, error: &PluginError, remedy: &str) -> Self {
        if error.code == ErrorCode::Panicked {
            return Self::of_panic(
                method,
                &error.message,
                error.detail["location"].as_str().unwrap_or_default(),
            );
        }
        let (first, rest) = error.message.trim().split_once('\n').unwrap_or((error.message.trim(), ""));
        let mut detail = rest.to_owned();
        if let Some(help) = &error.help {
            // Writing to a string cannot fail.
            let _ = write!(detail, "\nhelp: {help}");
        }
        Self::new(format!("`{method}` failed: {first}"), remedy).detail(detail.trim())
    }

    /// `method` panicked.
    pub(crate) fn of_panic(method: &str, message: &str, location: &str) -> Self {
        let place = if location.is_empty() { String::new() } else { format!(" at {location}") };
        let message = message.trim_start_matches("the plugin panicked: ");
        Self::new(format!("`{method}` panicked{place}: {message}"), "return an error instead of panicking")
    }

    /// This fault with nothing in it that floods a terminal or gives it orders.
    pub(crate) fn tamed(self) -> Self {
        Self {
            sentence: tame(&self.sentence.replace('\n', " "), SENTENCE),
            remedy: tame(&self.remedy.replace('\n', " "), SENTENCE),
            detail: tame(&self.detail, DETAIL),
        }
    }
}

/// The start of a text, without control characters other than line ends.
pub(crate) fn tame(text: &str, longest: usize) -> String {
    let plain = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
    let mut tamed: String = text.chars().take(longest).map(plain).collect();
    if tamed.len() < text.len() && text.chars().nth(longest).is_some() {
        tamed.push('…');
    }
    tamed
}
