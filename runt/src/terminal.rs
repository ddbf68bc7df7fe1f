//! How things look on a terminal, and without one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// Whether `--quiet` was given. Of the process, as the terminal is.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves out from now on what `say!` says, if `quiet`.
pub(crate) fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether what `say!` says is left out.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Says what is being done, or was, on stdout. `--quiet` leaves it out: it is no result.
macro_rules! say {
    ($($text:tt)*) => {
        if !$crate::terminal::is_quiet() {
            anstream::println!($($text)*);
        }
    };
}

/// A rounded table with a header, a rule under it and none between rows.
pub(crate) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL).apply_modifier(UTF8_ROUND_CORNERS);
    for rule in [
        comfy_table::TableComponent::HorizontalLines,
        comfy_table::TableComponent::MiddleIntersections,
        comfy_table::TableComponent::LeftBorderIntersections,
        comfy_table::TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(rule);
    }
    table.set_style(comfy_table::TableComponent::VerticalLines, '│');
    table.set_style(comfy_table::TableComponent::HeaderLines, '─');
    table.set_style(comfy_table::TableComponent::LeftHeaderIntersection, '├');
    table.set_style(comfy_table::TableComponent::RightHeaderIntersection, '┤');
    table.set_style(comfy_table::TableComponent::MiddleHeaderIntersections, '┼');
    // Wraps to the terminal; without one, lines stay whole for grep and cut.
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table
}

/// A title in the box that opens a report.
pub(crate) fn title(text: &str) -> String {
    format!("╭─\n│ {text}\n╰─")
}

/// A path with the home directory shown as `~`.
pub(crate) fn tilde(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home.as_ref().and_then(|home| path.strip_prefix(home).ok()) {
        Some(rest) if rest.as_os_str().is_empty() => "~".to_owned(),
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

/// The value, or the dash that stands for a missing one.
pub(crate) fn or_dash(value: Option<impl Into<String>>) -> String {
    value.map_or_else(|| "-".to_owned(), Into::into)
}

/// Prints one JSON document, two spaces deep.
///
/// # Errors
/// When the value cannot be written as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    anstream::println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_rounded_and_has_one_rule() {
        let shown = table(
            &["NOTEBOOK", "KERNEL"],
            [vec!["~/a.ipynb".into(), "python".into()], vec!["b".into(), "-".into()]],
        );
        let wanted = "\
╭───────────┬────────╮
│ NOTEBOOK  │ KERNEL │
├───────────┼────────┤
│ ~/a.ipynb │ python │
│ b         │ -      │
╰───────────┴────────╯";
        assert_eq!(shown.to_string(), wanted);
    }
}
