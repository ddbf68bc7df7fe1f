//! What the suites found out.
//!
//! For: people (text), programs (JSON) and CI systems (JUnit XML).
//! Promises: every failure has one sentence and a remedy; nothing that was not run is silent.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::suites::Suite;

/// The outcome of one check of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Id of the plugin, or what stands for it while that is unknown.
    pub plugin: String,
    /// Every case, in the order they were run.
    pub cases: Vec<CaseReport>,
}

/// What became of one case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    /// Name of the suite, such as `env-provider`.
    pub suite: String,
    /// Name of the case, such as `cancel-half-way`.
    pub case: String,
    /// What it shows when it passes, one sentence.
    pub shows: String,
    /// `static`, `in-process` or `child`; `files` for what is seen without running the plugin.
    pub carrier: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How long it took.
    pub seconds: f64,
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The plugin does it right.
    Passed,
    /// It does not.
    Failed(Fault),
    /// It could not be found out.
    Skipped {
        /// One sentence.
        why: String,
    },
}

/// What a plugin does wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What happened, one sentence.
    pub sentence: String,
    /// What its author can do about it.
    pub remedy: String,
    /// Everything else there is to know; may have many lines.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Fault {
    /// A fault without further detail.
    pub fn new(sentence: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { sentence: sentence.into(), remedy: remedy.into(), detail: String::new() }
    }

    /// Adds what else there is to know.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

/// How many cases ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl Report {
    /// Whether no case failed.
    pub fn passed(&self) -> bool {
        self.tally().failed == 0
    }

    /// How many cases ended in which way.
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for case in &self.cases {
            match case.outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::Skipped { .. } => tally.skipped += 1,
            }
        }
        tally
    }

    /// The faults that were found, with the case each was found in.
    pub fn faults(&self) -> impl Iterator<Item = (&CaseReport, &Fault)> {
        self.cases.iter().filter_map(|case| match &case.outcome {
            Outcome::Failed(fault) => Some((case, fault)),
            _ => None,
        })
    }

    /// Fails a test, with the text of the report, unless every case passed or was skipped.
    ///
    /// # Panics
    /// That is its purpose.
    #[expect(clippy::panic, reason = "this is what an assertion does")]
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(!self.cases.is_empty(), "no case was run");
        if !self.passed() {
            panic!("{}", self.text());
        }
    }

    /// For a terminal: one line a case, failures with sentence and remedy, and a summary.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for case in &self.cases {
            text.push_str(&case.text());
        }
        text + &self.summary()
    }

    /// The last lines of [`Report::text`].
    pub fn summary(&self) -> String {
        let Tally { passed, failed, skipped } = self.tally();
        let verdict = if failed == 0 { "good" } else { "not good" };
        format!("\n`{}` is {verdict}: {passed} passed, {failed} failed, {skipped} skipped\n", self.plugin)
    }

    /// For programs: this value as a JSON document.
    ///
    /// # Errors
    /// None in practice; serialization of plain data.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// For CI systems: JUnit XML, one test suite for each suite and carrier.
    pub fn junit(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let Tally { passed, failed, skipped } = self.tally();
        let total = passed + failed + skipped;
        let name = escape(&self.plugin);
        // Writing to a string cannot fail.
        let _ = writeln!(
            xml,
            "<testsuites name=\"{name}\" tests=\"{total}\" failures=\"{failed}\" skipped=\"{skipped}\">"
        );
        for cases in self.cases.chunk_by(|a, b| (&a.suite, &a.carrier) == (&b.suite, &b.carrier)) {
            let Some(first) = cases.first() else { continue };
            let suite = Self { plugin: self.plugin.clone(), cases: cases.to_vec() };
            let Tally { failed, skipped, .. } = suite.tally();
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{name}.{}.{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\">",
                escape(&first.suite),
                escape(&first.carrier),
                cases.len(),
            );
            for case in cases {
                xml.push_str(&case.junit(&name));
            }
            xml.push_str("  </testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

impl CaseReport {
    /// Whether it is about this case.
    pub(crate) fn is(&self, suite: Suite, case: &str) -> bool {
        self.suite == suite.name() && self.case == case
    }

    /// Its line in [`Report::text`], and what belongs below.
    pub fn text(&self) -> String {
        let word = match &self.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed(_) => "FAILED",
            Outcome::Skipped { .. } => "skipped",
        };
        let took = Duration::from_secs_f64(self.seconds.max(0.0));
        let Self { suite, case, carrier, shows, .. } = self;
        let mut text = format!("{word:<7} {carrier:<10} {suite}/{case}: {shows} ({took:.1?})\n");
        // Writing to a string cannot fail.
        let _ = match &self.outcome {
            Outcome::Passed => Ok(()),
            Outcome::Skipped { why } => writeln!(text, "        because {why}"),
            Outcome::Failed(fault) => {
                let mut written =
                    writeln!(text, "        {}\n        To do: {}", fault.sentence, fault.remedy);
                for line in fault.detail.lines() {
                    written = written.and_then(|()| writeln!(text, "        | {line}"));
                }
                written
            }
        };
        text
    }

    fn junit(&self, plugin: &str) -> String {
        let body = match &self.outcome {
            Outcome::Passed => String::new(),
            Outcome::Skipped { why } => format!("<skipped message=\"{}\"/>", escape(why)),
            Outcome::Failed(Fault { sentence, remedy, detail }) => format!(
                "<failure message=\"{}\">{}</failure>",
                escape(sentence),
                escape(&format!("{remedy}\n{detail}"))
            ),
        };
        format!(
            "    <testcase classname=\"{plugin}.{}.{}\" name=\"{}\" time=\"{:.3}\">{body}</testcase>\n",
            escape(&self.suite),
            escape(&self.carrier),
            escape(&self.case),
            self.seconds,
        )
    }
}

/// Text as it may stand in XML: no markup, and none of the control characters that XML cannot hold.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            '\t' => safe.push(c),
            c if c.is_control() || c == '\u{fffe}' || c == '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let case = |suite: &str, case: &str, outcome| CaseReport {
            suite: suite.to_owned(),
            case: case.to_owned(),
            shows: "it works".to_owned(),
            carrier: "child".to_owned(),
            outcome,
            seconds: 0.25,
        };
        let fault = Fault::new("`plan` said \"<no>\"", "say & mean yes").detail("one\n\u{1b}[31mtwo");
        let cases = vec![
            case("life", "cycles", Outcome::Passed),
            case("calls", "panics", Outcome::Failed(fault)),
            case("calls", "orphans", Outcome::Skipped { why: "there is no /proc".to_owned() }),
        ];
        Report { plugin: "org.example.x".to_owned(), cases }
    }

    #[test]
    fn text_has_a_line_for_each_case_and_the_remedy() {
        assert_eq!(
            report().text(),
            "ok      child      life/cycles: it works (250.0ms)\n\
             FAILED  child      calls/panics: it works (250.0ms)\n        `plan` said \"<no>\"\n        \
             To do: say & mean yes\n        | one\n        | \u{1b}[31mtwo\n\
             skipped child      calls/orphans: it works (250.0ms)\n        because there is no /proc\n\
             \n`org.example.x` is not good: 1 passed, 1 failed, 1 skipped\n"
        );
    }

    #[test]
    fn json_can_be_read_back() {
        let report = report();
        assert_eq!(serde_json::from_str::<Report>(&report.json().unwrap()).unwrap(), report);
    }

    #[test]
    fn junit_counts_and_escapes() {
        let xml = report().junit();
        assert!(xml.contains("<testsuites name=\"org.example.x\" tests=\"3\" failures=\"1\" skipped=\"1\">"));
        assert!(xml.contains("<testsuite name=\"org.example.x.calls.child\" tests=\"2\" failures=\"1\""));
        assert!(xml.contains("message=\"`plan` said &quot;&lt;no&gt;&quot;\""));
        assert!(xml.contains("say &amp; mean yes&#10;one&#10;\u{fffd}[31mtwo</failure>"));
        assert!(xml.contains("<skipped message=\"there is no /proc\"/>"));
        assert_eq!(xml.matches("<testcase ").count(), 3);
    }

    #[test]
    fn nothing_run_is_nothing_shown() {
        assert!(Report::default().passed());
        assert!(std::panic::catch_unwind(|| Report::default().assert_passed()).is_err());
    }
}
