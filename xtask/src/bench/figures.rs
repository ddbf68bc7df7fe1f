//! The figures of one run: a JSON object a line, which every part of the bench adds to the file that `BENCH_FIGURES` names.
//!
//! Promises: criterion's medians are among them only if criterion made them in this run.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::Value;

/// The environment variable with the file's name, for the parts in other languages and crates.
pub(super) const VARIABLE: &str = "BENCH_FIGURES";

/// Criterion's measures that have a budget, and what their figures are called.
const CRITERION: &[(&str, &str)] = &[
    ("frame of 64 KiB, there and back", "abi_frame"),
    ("asynchronous call with a small document, into a child", "abi_child_call"),
];

/// One measure: its median and its worst, in its unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) p50: f64,
    pub(super) max: f64,
    pub(super) unit: String,
}

/// All of a run, by name.
#[derive(Debug, Default)]
pub(super) struct Figures(HashMap<String, Figure>);

impl Figures {
    /// Reads what the parts have written; of two with one name, the later counts.
    pub(super) fn parse(lines: &str) -> Result<Self> {
        let mut figures = HashMap::new();
        for line in lines.lines() {
            let (name, figure) = figure(line).with_context(|| format!("not a figure: {line}"))?;
            figures.insert(name, figure);
        }
        Ok(Self(figures))
    }

    /// The figure of this name, in this unit.
    pub(super) fn get(&self, name: &str, unit: &str) -> Option<&Figure> {
        self.0.get(name).filter(|figure| figure.unit == unit)
    }

    /// Adds what criterion has left in `folder` since this time.
    pub(super) fn add_criterion(&mut self, folder: &Path, since: SystemTime) {
        for (measure, name) in CRITERION {
            let file = folder.join(measure).join("new/estimates.json");
            let fresh = fs::metadata(&file).and_then(|it| it.modified()).is_ok_and(|made| made >= since);
            if let Some(median) = fresh.then(|| estimate(&file)).flatten() {
                let figure = Figure { p50: median, max: median, unit: "µs".into() };
                self.0.insert((*name).into(), figure);
            }
        }
    }
}

/// One line.
fn figure(line: &str) -> Result<(String, Figure)> {
    let line: Value = serde_json::from_str(line)?;
    let word = |key: &str| line[key].as_str().map(str::to_owned).with_context(|| format!("no `{key}`"));
    let number = |key: &str| line[key].as_f64().with_context(|| format!("no `{key}`"));
    Ok((word("name")?, Figure { p50: number("p50")?, max: number("max")?, unit: word("unit")? }))
}

/// Criterion's median, which it keeps in nanoseconds, in microseconds.
fn estimate(file: &Path) -> Option<f64> {
    let estimates: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64().map(|ns| ns / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_line_is_a_figure_and_the_later_one_counts() {
        let line =
            |p50| format!("{{\"name\":\"a\",\"unit\":\"ms\",\"p50\":{p50},\"p95\":4,\"max\":5,\"n\":9}}\n");
        let figures = Figures::parse(&(line(1) + &line(2))).unwrap();
        assert_eq!(figures.get("a", "ms"), Some(&Figure { p50: 2.0, max: 5.0, unit: "ms".into() }));
        assert_eq!(figures.get("b", "ms"), None);
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let error = Figures::parse("{\"name\":\"a\",\"unit\":\"ms\",\"max\":1}").unwrap_err();
        assert!(format!("{error:#}").ends_with("no `p50`"), "{error:#}");
    }

    #[test]
    fn only_what_criterion_measured_in_this_run_counts() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("frame of 64 KiB, there and back/new");
        fs::create_dir_all(&made).unwrap();
        fs::write(made.join("estimates.json"), r#"{"median":{"point_estimate":80.0}}"#).unwrap();
        let now = SystemTime::now();
        let mut figures = Figures::default();
        figures.add_criterion(folder.path(), now + Duration::from_secs(60));
        assert_eq!(figures.get("abi_frame", "µs"), None);
        figures.add_criterion(folder.path(), now - Duration::from_secs(60));
        assert_eq!(figures.get("abi_frame", "µs").unwrap().p50, 0.08);
    }
}
