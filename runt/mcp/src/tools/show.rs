//! Cells and executions in words.

use runtimed_client::Progress;
use runtimed_client::protocol::documents::Output;
use runtimed_client::protocol::documents::notebook::Cell;
use runtimed_client::protocol::documents::runtime_state::Status;

use crate::notebook::Notebook;
use crate::summary::{Block, Limits, clip};

/// What became of an execution, and its outputs.
pub(super) async fn execution(
    notebook: &Notebook,
    execution_id: &str,
    progress: Option<&Progress>,
    limits: Limits,
) -> Vec<Block> {
    let mut blocks = vec![Block::Text(standing(notebook, execution_id, progress))];
    let outputs = progress.map(|progress| progress.outputs.as_slice()).unwrap_or_default();
    append(&mut blocks, notebook.show(outputs, limits, execution_id).await);
    blocks
}

/// One line about an execution, and more if it is not simply done.
pub(super) fn standing(notebook: &Notebook, execution_id: &str, progress: Option<&Progress>) -> String {
    let execution = progress.map(|progress| &progress.execution);
    let status = execution.map_or(Status::Queued, |execution| execution.status);
    let mut line = format!("execution_id={execution_id} status={}", status.as_str());
    if let Some(cell_id) = execution.and_then(|execution| execution.cell_id.as_deref()) {
        line = format!("cell_id={cell_id} {line}");
    }
    if let Some(count) = execution.and_then(|execution| execution.execution_count) {
        line += &format!(" execution_count={count}");
    }
    let outputs = progress.map(|progress| progress.outputs.as_slice()).unwrap_or_default();
    let told = outputs.iter().any(|output| matches!(output, Output::Error { .. }));
    let further = format!(
        "get_results(execution_id=\"{execution_id}\", timeout_secs=60) waits further; interrupt_kernel stops it."
    );
    line += &match status {
        Status::Done if outputs.is_empty() => "\nno output".to_owned(),
        Status::Done => String::new(),
        Status::Error if told => String::new(),
        Status::Error => format!("\nIt was interrupted, or ended with its kernel ({}).", notebook.kernel()),
        Status::Cancelled => {
            "\nIt did not run: a cell before it failed or was interrupted, or the kernel ended.".to_owned()
        }
        Status::Running => format!("\nIt is still running. {further}"),
        Status::Queued => format!("\nIt waits for its turn ({}). {further}", notebook.kernel()),
    };
    line.push('\n');
    line
}

/// A cell's number, type, id and standing, in a line.
pub(super) fn heading(number: usize, cell: &Cell, progress: Option<&Progress>) -> String {
    let mut line = format!("--- cell {number}: {}, cell_id={}", cell.cell_type, cell.id);
    let execution = progress.map(|progress| &progress.execution);
    if let Some(execution) = execution {
        line += &format!(", execution_id={}, {}", execution.execution_id, execution.status.as_str());
    }
    let count = execution.and_then(|execution| execution.execution_count).or(cell.execution_count);
    if let Some(count) = count {
        line += &format!(", execution_count={count}");
    }
    line.push('\n');
    line
}

/// A cell's source, of which `most` characters are shown.
pub(super) fn source(cell: &Cell, most: usize) -> String {
    let more = |_| format!("get_cell(cell_id=\"{}\")", cell.id);
    let mut text = clip(&cell.source, most, 2, more).0;
    if text.is_empty() {
        text += "(empty)";
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Adds blocks, texts that follow each other as one.
pub(super) fn append(blocks: &mut Vec<Block>, more: Vec<Block>) {
    for block in more {
        match (blocks.last_mut(), block) {
            (Some(Block::Text(before)), Block::Text(text)) => before.push_str(&text),
            (_, block) => blocks.push(block),
        }
    }
}

/// Characters of all texts.
pub(super) fn length(blocks: &[Block]) -> usize {
    let text = |block: &Block| match block {
        Block::Text(text) => text.chars().count(),
        Block::Image { .. } => 0,
    };
    blocks.iter().map(text).sum()
}
