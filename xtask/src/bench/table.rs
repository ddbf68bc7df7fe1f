//! The table at the end of a bench: every budget, and how it came out.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, Table};

use super::budgets::{Budget, Judged, ROWS, Verdict};
use super::figures::Figures;

/// The table as Markdown, and how many budgets are missed.
pub(super) fn table(figures: &Figures) -> (String, usize) {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN);
    table.set_header(["Measure", "Budget", "Figure", "Bare", "Figure / budget", "Verdict"]);
    let mut missed = 0;
    for row in ROWS {
        let Judged { figure, bare, ratio, verdict } = row.judge(figures);
        missed += usize::from(verdict == Verdict::Missed);
        let number = |number: Option<f64>| {
            number.map(|number| format!("{} {}", rounded(number), row.unit)).unwrap_or_default()
        };
        table.add_row([
            row.what.to_owned(),
            budget(row.budget, row.unit),
            number(figure),
            number(bare),
            ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            said(verdict).to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(2).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    (table.to_string(), missed)
}

fn said(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "met",
        Verdict::Missed => "MISSED",
        Verdict::NotMeasured => "not measured",
    }
}

/// A budget in words.
fn budget(budget: Budget, unit: &str) -> String {
    let times = |times: f64| if times == 1.0 { "bare".to_owned() } else { format!("{times} x bare") };
    match budget {
        Budget::AtMost(most) => format!("{most} {unit}"),
        Budget::Above(_, factor, 0.0) => times(factor),
        Budget::Above(_, factor, plus) => format!("{} + {plus} {unit}", times(factor)),
        Budget::AtLeast(_, factor) => format!("at least {}", times(factor)),
    }
}

/// Three digits that count; more only before the point.
fn rounded(number: f64) -> String {
    let digits = match number.abs() {
        small if small < 1.0 => 3,
        small if small < 10.0 => 2,
        small if small < 100.0 => 1,
        _ => 0,
    };
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_budget_has_its_line_and_only_what_was_measured_counts() {
        let lines =
            [("startup_to_ping", 7.123), ("exec_expr_total", 20.0), ("raw_expr", 4.5)].map(|(name, p50)| {
                format!("{{\"name\":\"{name}\",\"unit\":\"ms\",\"p50\":{p50},\"p95\":1,\"max\":1,\"n\":1}}\n")
            });
        let (table, missed) = table(&Figures::parse(&lines.concat()).unwrap());
        assert_eq!(table.lines().count(), ROWS.len() + 2);
        assert_eq!(missed, 1);
        let cells = |what: &str| -> Vec<String> {
            let line = table.lines().find(|line| line.contains(&format!("| {what} "))).unwrap();
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
        };
        let start = cells("start to the first answered ping");
        assert_eq!(start[1..], ["20 ms", "7.12 ms", "", "0.36", "met"]);
        assert_eq!(cells("expression")[1..], ["bare + 5 ms", "20.0 ms", "4.50 ms", "2.11", "MISSED"]);
        assert_eq!(cells("51 queued cells")[1..], ["1.5 x bare", "", "", "", "not measured"]);
    }
}
