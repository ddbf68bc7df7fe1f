//! Reading cells.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{answer, show};
use crate::notebook::fetch;
use crate::refusal::{Answer, Refusal};
use crate::server::Server;
use crate::summary::{self, Block, Limits};

/// Characters of one source among many.
const SOURCE_OF_MANY: usize = 2_000;
/// Characters of the source of one cell: no person writes longer ones.
const SOURCE: usize = 40_000;
/// Characters of an answer about many cells. About 8,000 tokens, which every client takes.
pub(super) const MANY_CELLS: usize = 30_000;
/// Characters of a page of one output.
const PAGE: usize = 16_000;
/// Longest wait for results unless the caller says.
const RESULTS_SECS: u64 = 0;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneCell {
    /// The cell.
    cell_id: String,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AllCells {
    /// Number of the first cell to show, from 1.
    #[serde(default = "one")]
    start: usize,
    /// How many cells to show; all that fit if not given.
    count: Option<usize>,
    /// Whether to show outputs, a few hundred characters each.
    #[serde(default = "yes")]
    outputs: bool,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    /// As execute_cell and others returned it.
    execution_id: String,
    /// How long to wait for the end, in seconds; 0 shows what there is now.
    timeout_secs: Option<u64>,
    /// Number of one output, to read all of its text page by page.
    output: Option<usize>,
    /// With output: the character to read on from.
    #[serde(default)]
    offset: usize,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

#[tool_router(router = cell_tools, vis = "pub(crate)")]
impl Server {
    #[tool(
        description = "Show one cell: its whole source and its outputs, with images. Long outputs are shortened.",
        annotations(title = "Read a cell", read_only_hint = true, open_world_hint = false)
    )]
    async fn get_cell(&self, Parameters(asked): Parameters<OneCell>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let cell = notebook.cell(&asked.cell_id)?;
        let ids = notebook.session.read(|documents| documents.notebook.cell_ids());
        let number = ids.iter().position(|id| *id == cell.id).unwrap_or_default() + 1;
        let progress = cell.execution_id.as_deref().and_then(|id| notebook.session.progress(id));
        let heading = show::heading(number, &cell, progress.as_ref());
        let mut blocks = vec![Block::Text(heading + &show::source(&cell, SOURCE))];
        if let Some(progress) = progress {
            let id = &progress.execution.execution_id;
            show::append(&mut blocks, notebook.show(&progress.outputs, Limits::ONE_CELL, id).await);
        }
        Ok(answer(blocks))
    }

    #[tool(
        description = "Show the cells in order: ids, sources and short outputs without images. Long sources and outputs are shortened; get_cell shows one cell with images.",
        annotations(title = "Read all cells", read_only_hint = true, open_world_hint = false)
    )]
    async fn get_all_cells(&self, Parameters(asked): Parameters<AllCells>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let cells = notebook.session.read(|documents| documents.notebook.cells());
        let file = notebook.path().unwrap_or_else(|| "(no file yet)".to_owned());
        let head =
            format!("notebook_id={} {file}: {} cell(s), {}\n", notebook.id, cells.len(), notebook.kernel());
        let mut blocks = vec![Block::Text(head)];
        let first = asked.start.saturating_sub(1);
        let shown = cells.iter().enumerate().skip(first).take(asked.count.unwrap_or(usize::MAX));
        for (index, cell) in shown {
            if show::length(&blocks) > MANY_CELLS {
                let number = index + 1;
                let left_out =
                    format!("[cells {number} to {} left out; get_all_cells(start={number})]\n", cells.len());
                show::append(&mut blocks, vec![Block::Text(left_out)]);
                break;
            }
            let progress = cell.execution_id.as_deref().and_then(|id| notebook.session.progress(id));
            let heading = show::heading(index + 1, cell, progress.as_ref());
            show::append(&mut blocks, vec![Block::Text(heading + &show::source(cell, SOURCE_OF_MANY))]);
            if let (Some(progress), true) = (progress, asked.outputs) {
                let id = &progress.execution.execution_id;
                show::append(&mut blocks, notebook.show(&progress.outputs, Limits::ONE_OF_MANY, id).await);
            }
        }
        Ok(answer(blocks))
    }

    #[tool(
        description = "Show the status and the outputs of an execution, waiting for its end if asked to. With `output`, read the whole text of one output, page by page.",
        annotations(title = "Read results", read_only_hint = true, open_world_hint = false)
    )]
    async fn get_results(&self, Parameters(asked): Parameters<Results>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let id = asked.execution_id.as_str();
        let until = super::deadline(asked.timeout_secs, RESULTS_SECS);
        let Some(progress) = notebook.follow(id, until).await? else {
            return Err(Refusal(format!(
                "The notebook has no execution `{id}`. The ids are in get_all_cells; if it ran in another notebook, \
                 name that with `notebook`."
            )));
        };
        let Some(number) = asked.output else {
            let blocks = show::execution(&notebook, id, Some(&progress), Limits::ONE_CELL).await;
            return Ok(answer(blocks));
        };
        let outputs = progress.outputs;
        let blobs = fetch(self.notebooks.client(), summary::wanted_whole(&outputs, number)).await;
        let Some(text) = summary::whole(&outputs, number, &blobs) else {
            let count = summary::count(&outputs);
            return Err(Refusal(format!("There is no output {number}; it has {count}, counted from 1.")));
        };
        Ok(super::words(summary::page(&text, asked.offset, PAGE)))
    }
}
