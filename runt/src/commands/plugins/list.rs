//! `runt plugins list`: which plugins there are and what became of them.

use std::process::ExitCode;

use runtimed_client::protocol::pool::PluginRow;

use crate::plugins::rows::{self, Plugins};
use crate::terminal;

/// Prints every plugin found, working or not; shadowed ones only if `all` of them are wanted.
pub(crate) async fn list(json: bool, all: bool) -> anyhow::Result<ExitCode> {
    let Plugins { rows, live } = Plugins::find().await?;
    if !live {
        anstream::eprintln!("The daemon is not running; this is what its plugin folders hold.");
    }
    if json {
        terminal::print_json(&rows)?;
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        anstream::println!("No plugins found.");
        return Ok(ExitCode::SUCCESS);
    }
    let (shown, folded): (Vec<_>, Vec<_>) = rows.iter().partition(|row| all || row.status != "shadowed");
    let header = ["PLUGIN", "VERSION", "PROVIDES", "ABI", "CARRIER", "SOURCE", "STATUS"];
    anstream::println!("{}", terminal::table(&header, shown.iter().map(|row| cells(row))));
    for row in shown {
        for sentence in [&row.reason, &row.pending].into_iter().flatten() {
            anstream::println!("{}: {sentence}", row.id);
        }
    }
    match folded.len() {
        0 => {}
        1 => anstream::println!("1 shadowed; --all shows it"),
        count => anstream::println!("{count} shadowed; --all shows them"),
    }
    if live {
        rows::missing(&rows).iter().for_each(|problem| anstream::eprintln!("Missing: {problem}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(row: &PluginRow) -> Vec<String> {
    let known = |text: &str| terminal::or_dash(Some(text).filter(|text| !text.is_empty()));
    let provides = row.provides.iter().map(|p| format!("{} ({})", p.capability, p.name)).collect::<Vec<_>>();
    vec![
        row.id.clone(),
        known(&row.version),
        known(&provides.join("\n")),
        known(&row.abi),
        known(&row.carrier),
        row.source.clone(),
        rows::status(row),
    ]
}
