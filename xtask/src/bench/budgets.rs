//! What everything may cost: the one place where budgets are kept.
//!
//! Promises: pure. A figure is judged by what it is compared with in the same run, and by nothing else.
//!
//! Figures are named by who measures them: `own_` through our own client, `raw_` without a daemon, `abi_` at the plugin
//! boundary, and without any of these through the PyPI client.

use crate::bench::figures::{Figure, Figures};

/// One thing that has a budget.
pub(super) struct Row {
    /// The measure, in words.
    pub(super) what: &'static str,
    /// The figure that measures it.
    figure: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// Which number of it counts.
    counts: fn(&Figure) -> f64,
    /// What it may be.
    pub(super) budget: Budget,
}

/// What a figure may be, in its own unit.
#[derive(Clone, Copy)]
pub(super) enum Budget {
    /// At most so much.
    AtMost(f64),
    /// At most so many times the figure of this name, and so much more.
    Above(&'static str, f64, f64),
    /// At least so many times the figure of this name.
    AtLeast(&'static str, f64),
}

/// How a row came out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// It is within its budget.
    Met,
    /// It is not.
    Missed,
    /// This run lacks the figure, or what it is compared with.
    NotMeasured,
}

/// A row with this run's numbers; those that are missing were not measured.
#[derive(Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) figure: Option<f64>,
    /// What it is compared with.
    pub(super) bare: Option<f64>,
    /// The figure over its budget.
    pub(super) ratio: Option<f64>,
    pub(super) verdict: Verdict,
}

const MEDIAN: fn(&Figure) -> f64 = |figure| figure.p50;
/// For what must never be late.
const WORST: fn(&Figure) -> f64 = |figure| figure.max;

const fn row(what: &'static str, figure: &'static str, unit: &'static str, budget: Budget) -> Row {
    Row { what, figure, unit, counts: MEDIAN, budget }
}

use Budget::{Above, AtLeast, AtMost};

/// Every budget there is.
pub(super) const ROWS: &[Row] = &[
    row("start to the first answered ping", "startup_to_ping", "ms", AtMost(20.0)),
    row("idle memory of the process tree, all plugins, pools 0", "idle_pss_tree", "MiB", AtMost(15.0)),
    row("expression", "exec_expr_total", "ms", Above("raw_expr", 1.0, 5.0)),
    row("expression, own client, 1 to 100", "own_expression_first", "ms", Above("raw_expr", 1.0, 5.0)),
    row("expression, own client, 900 to 1,000", "own_expression_last", "ms", Above("raw_expr", 1.0, 5.0)),
    row("silent statement", "exec_silent_total", "ms", Above("raw_silent", 1.0, 5.0)),
    row("silent statement, own client, 1 to 100", "own_silent_first", "ms", Above("raw_silent", 1.0, 5.0)),
    row("silent statement, own client, 900 to 1,000", "own_silent_last", "ms", Above("raw_silent", 1.0, 5.0)),
    // 100 ms are the PyPI client's own wait.
    row("print", "exec_print_total", "ms", Above("raw_print", 1.0, 105.0)),
    row("print, own client, 1 to 100", "own_print_first", "ms", Above("raw_print", 1.0, 5.0)),
    row("print, own client, 900 to 1,000", "own_print_last", "ms", Above("raw_print", 1.0, 5.0)),
    row("51 queued cells", "queue_all_51_cells", "ms", Above("raw_51_silent", 1.5, 0.0)),
    row("51 queued cells, own client", "own_queue_51", "ms", Above("raw_51_silent", 1.5, 0.0)),
    row("create to the first result, warm kernel", "create_to_first_result_warm", "ms", AtMost(150.0)),
    row(
        "create to the first result, warm environment",
        "create_to_first_result",
        "ms",
        Above("raw_cold_start", 1.0, 150.0),
    ),
    row("an edit until another window has it", "edit_A_to_B", "ms", AtMost(1.5)),
    row("the same, own client", "own_edit", "ms", AtMost(0.4)),
    row("the same, own client, from change 100,000 on", "own_edit_late", "ms", AtMost(0.4)),
    row("open 100 cells", "open_100_cells", "ms", AtMost(50.0)),
    row("open 100 cells, own client", "own_open_100", "ms", AtMost(15.0)),
    row("open 1,000 cells", "open_1000_cells", "ms", AtMost(250.0)),
    row("open 1,000 cells, own client", "own_open_1000", "ms", AtMost(80.0)),
    row("open 5,000 cells", "open_5000_cells", "ms", AtMost(1500.0)),
    row("open 5,000 cells, own client", "own_open_5000", "ms", AtMost(500.0)),
    // The PyPI client waits 500 ms for blobs of a stream.
    row(
        "200,000 printed lines, every byte there",
        "flood_200k_lines",
        "ms",
        Above("raw_flood_200k", 1.2, 500.0),
    ),
    Row {
        counts: WORST,
        ..row("an interrupt until it is answered", "interrupt_request", "ms", AtMost(100.0))
    },
    row("1,000 displays", "display_1000", "ms", Above("raw_display_1000", 1.5, 0.0)),
    row("1,000 displays, own client", "own_displays", "ms", Above("raw_display_1000", 1.5, 0.0)),
    row("memory of a kernel's shim", "shim_pss", "MiB", AtMost(4.0)),
    row("memory of 1,000 open rooms of 100 cells", "own_rooms_pss", "MiB", AtMost(1024.0)),
    row("processor they take while nobody does anything", "own_rooms_cpu", "% of a core", AtMost(0.0)),
    row("a frame of 64 KiB across the plugin boundary and back", "abi_frame", "µs", AtMost(1.0)),
    row("a call into a plugin's child", "abi_child_call", "µs", AtMost(60.0)),
    row(
        "put 1 MiB into the blob store, beside SHA-256",
        "blob_put_rate",
        "MB/s",
        AtLeast("raw_sha256_rate", 0.45),
    ),
    row("get 1 MiB, beside a static file server", "blob_get_rate", "MB/s", AtLeast("raw_static_rate", 0.8)),
    row("a pooled environment by copying", "pool_refill_by_copy", "ms", AtMost(500.0)),
    row(
        "the same, beside installing",
        "pool_refill_by_copy",
        "ms",
        Above("pool_refill_by_install", 0.1, 0.0),
    ),
];

impl Row {
    /// What this run says about it.
    pub(super) fn judge(&self, figures: &Figures) -> Judged {
        let figure = figures.get(self.figure, self.unit).map(self.counts);
        let bare = self.budget.bare().and_then(|name| figures.get(name, self.unit)).map(|bare| bare.p50);
        let limit = self.budget.limit(bare);
        let verdict = figure.zip(limit).map_or(Verdict::NotMeasured, |(figure, limit)| {
            let met = if let AtLeast(..) = self.budget { figure >= limit } else { figure <= limit };
            if met { Verdict::Met } else { Verdict::Missed }
        });
        let ratio = figure.zip(limit).filter(|(_, limit)| *limit > 0.0).map(|(figure, limit)| figure / limit);
        Judged { figure, bare, ratio, verdict }
    }
}

impl Budget {
    /// The name of the figure it follows from.
    fn bare(self) -> Option<&'static str> {
        match self {
            AtMost(_) => None,
            Above(bare, ..) | AtLeast(bare, _) => Some(bare),
        }
    }

    /// The number, once that figure is known.
    fn limit(self, bare: Option<f64>) -> Option<f64> {
        match self {
            AtMost(most) => Some(most),
            Above(_, times, plus) => bare.map(|bare| bare.mul_add(times, plus)),
            AtLeast(_, times) => bare.map(|bare| bare * times),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(lines: &str) -> Figures {
        Figures::parse(lines).unwrap()
    }

    fn line(name: &str, p50: f64) -> String {
        format!(
            "{}\n",
            serde_json::json!({"name": name, "unit": "ms", "p50": p50, "p95": p50, "max": p50 * 2.0, "n": 3})
        )
    }

    fn judge(budget: Budget, lines: &str) -> Judged {
        row("it", "it", "ms", budget).judge(&figures(lines))
    }

    #[test]
    fn a_plain_budget_is_met_up_to_itself_and_missed_above() {
        assert_eq!(judge(AtMost(20.0), &line("it", 20.0)).verdict, Verdict::Met);
        let missed = judge(AtMost(20.0), &line("it", 30.0));
        assert_eq!((missed.verdict, missed.ratio), (Verdict::Missed, Some(1.5)));
    }

    #[test]
    fn a_budget_follows_from_the_bare_figure_of_the_same_run() {
        let budget = Above("bare", 1.2, 500.0);
        let judged = judge(budget, &(line("it", 1700.0) + &line("bare", 1000.0)));
        assert_eq!((judged.verdict, judged.ratio, judged.bare), (Verdict::Met, Some(1.0), Some(1000.0)));
        assert_eq!(judge(budget, &(line("it", 1700.0) + &line("bare", 999.0))).verdict, Verdict::Missed);
    }

    #[test]
    fn a_rate_must_not_be_lower() {
        let budget = AtLeast("bare", 0.5);
        assert_eq!(judge(budget, &(line("it", 50.0) + &line("bare", 100.0))).verdict, Verdict::Met);
        assert_eq!(judge(budget, &(line("it", 49.0) + &line("bare", 100.0))).verdict, Verdict::Missed);
    }

    #[test]
    fn what_lacks_a_figure_or_what_it_is_compared_with_is_not_measured() {
        assert_eq!(judge(AtMost(20.0), "").verdict, Verdict::NotMeasured);
        let judged = judge(Above("bare", 1.0, 5.0), &line("it", 1.0));
        assert_eq!((judged.verdict, judged.figure), (Verdict::NotMeasured, Some(1.0)));
        assert_eq!(judge(AtLeast("bare", 0.5), &line("bare", 1.0)).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn a_figure_in_another_unit_is_another_figure() {
        let figures = figures(&line("it", 1.0));
        assert_eq!(row("it", "it", "s", AtMost(20.0)).judge(&figures).verdict, Verdict::NotMeasured);
    }

    #[test]
    fn nothing_at_all_can_be_a_budget() {
        assert_eq!(judge(AtMost(0.0), &line("it", 0.0)).verdict, Verdict::Met);
        assert_eq!(judge(AtMost(0.0), &line("it", 0.1)).verdict, Verdict::Missed);
    }

    #[test]
    fn what_must_never_be_late_is_judged_by_its_worst() {
        let row = Row { counts: WORST, ..row("it", "it", "ms", AtMost(100.0)) };
        assert_eq!(row.judge(&figures(&line("it", 60.0))).verdict, Verdict::Missed);
    }

    #[test]
    fn no_two_rows_say_the_same() {
        let mut said: Vec<_> = ROWS.iter().map(|row| row.what).collect();
        said.sort_unstable();
        said.dedup();
        assert_eq!(said.len(), ROWS.len());
    }
}
