//! Running cells, and the kernel that runs them.

use std::collections::BTreeMap;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{tool, tool_router};
use runtimed_client::Progress;
use runtimed_client::protocol::documents::runtime_state::{Activity, KernelState, Status};
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::protocol::response::NotebookResponse;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::cells::MANY_CELLS;
use super::notebooks::Which;
use super::{answer, deadline, show, words};
use crate::notebook::{Notebook, unexpected};
use crate::refusal::{Answer, Refusal};
use crate::server::Server;
use crate::summary::{Block, Limits};

/// Longest wait for one cell unless the caller says. Many clients give up on a call after 60 s.
pub(super) const RUN_SECS: u64 = 30;
/// The same for all cells, and for a kernel.
const LONG_RUN_SECS: u64 = 55;
/// How long an interrupted kernel may take to become idle before it is said to go on.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// The cell.
    cell_id: String,
    /// How long to wait for its end, in seconds (30 if not given). It goes on running after that.
    timeout_secs: Option<u64>,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    /// How long to wait, in seconds (55 if not given). What was begun goes on after that.
    timeout_secs: Option<u64>,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[tool_router(router = kernel_tools, vis = "pub(crate)")]
impl Server {
    #[tool(
        description = "Run a code cell and show its status and outputs. Starts the kernel if there is none. A cell that is running already is not run again.",
        annotations(
            title = "Run a cell",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = true
        )
    )]
    async fn execute_cell(&self, Parameters(asked): Parameters<Run>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        Ok(answer(run(&notebook, &asked.cell_id, deadline(asked.timeout_secs, RUN_SECS)).await?))
    }

    #[tool(
        description = "Run all code cells in order and show each one's status and short outputs. Stops at the first that fails.",
        annotations(
            title = "Run all cells",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = true
        )
    )]
    async fn run_all_cells(&self, Parameters(asked): Parameters<Wait>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let until = deadline(asked.timeout_secs, LONG_RUN_SECS);
        let cells = notebook.session.read(|documents| documents.notebook.cells());
        let code = cells.iter().filter(|cell| cell.cell_type == "code");
        let ids: BTreeMap<_, _> = code.map(|cell| (cell.id.clone(), Uuid::new_v4().to_string())).collect();
        if ids.is_empty() {
            return Err(Refusal::new("The notebook has no code cell. Nothing was run."));
        }
        let request = || NotebookRequest::RunAllCells { cell_execution_ids: Some(ids.clone()) };
        let queued = match notebook.with_kernel(request, until).await? {
            NotebookResponse::AllCellsQueued { queued } => queued,
            other => return Err(unexpected(&other)),
        };
        let (mut cells, mut done) = (Vec::new(), 0);
        for cell in &queued {
            let limits =
                if show::length(&cells) < MANY_CELLS { Limits::ONE_OF_MANY } else { Limits::STATUS_ONLY };
            let (progress, shown) = followed(&notebook, &cell.execution_id, until, limits).await;
            done += usize::from(progress.is_some_and(|it| it.execution.status == Status::Done));
            show::append(&mut cells, shown);
        }
        let mut blocks = vec![Block::Text(format!("{done} of {} code cells are done.\n", queued.len()))];
        show::append(&mut blocks, cells);
        Ok(answer(blocks))
    }

    #[tool(
        description = "Interrupt what the kernel runs and cancel what waits. Variables stay.",
        annotations(
            title = "Interrupt",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn interrupt_kernel(&self, Parameters(which): Parameters<Which>) -> Answer {
        let notebook = self.notebooks.get(which.notebook.as_deref()).await?;
        match notebook.request(NotebookRequest::InterruptExecution).await? {
            NotebookResponse::InterruptSent => {}
            other => return Err(unexpected(&other)),
        }
        let idle = notebook.session.wait_for(|documents| {
            let busy = documents.runtime_state.kernel_state() == KernelState::Running(Activity::Busy);
            (!busy && documents.runtime_state.queue().executing.is_none()).then_some(())
        });
        match timeout(INTERRUPT_LIMIT, idle).await {
            Ok(idle) => idle.map_err(Refusal::after)?,
            Err(_) => {
                return Ok(words(
                    "Interrupted, but the kernel goes on: what it runs does not let itself be interrupted just now. \
                     restart_kernel ends it, and with it all variables.",
                ));
            }
        }
        Ok(words(format!("Interrupted: {}.", notebook.kernel())))
    }

    #[tool(
        description = "End the kernel and start another. All variables are gone; cells and outputs stay. Takes in changed packages.",
        annotations(
            title = "Restart the kernel",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = true
        )
    )]
    async fn restart_kernel(&self, Parameters(asked): Parameters<Wait>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        restart(&notebook, deadline(asked.timeout_secs, LONG_RUN_SECS)).await?;
        Ok(words(format!("Restarted: {}.", notebook.kernel())))
    }
}

/// What stands below an execution that could not be followed further.
const LOST: &str = "The notebook daemon went away meanwhile; this is how far it was known to be. It was queued: look with \
                    get_results what became of it before you run anything again.\n";

/// Runs a cell and shows how far it is at `until`, or its end.
///
/// # Errors
/// As [`Notebook::queue`]. Once it is queued there are none.
pub(super) async fn run(notebook: &Notebook, cell_id: &str, until: Instant) -> Result<Vec<Block>, Refusal> {
    let queued = notebook.queue(cell_id, until).await?;
    Ok(followed(notebook, &queued.execution_id, until, Limits::ONE_CELL).await.1)
}

/// How far what was queued is at `until`, as data and as a model reads it: as much as can be seen.
async fn followed(
    notebook: &Notebook,
    execution_id: &str,
    until: Instant,
    limits: Limits,
) -> (Option<Progress>, Vec<Block>) {
    let (progress, lost) = match notebook.follow(execution_id, until).await {
        Ok(progress) => (progress, false),
        Err(_) => (notebook.session.progress(execution_id), true),
    };
    let mut blocks = show::execution(notebook, execution_id, progress.as_ref(), limits).await;
    if lost {
        show::append(&mut blocks, vec![Block::Text(LOST.to_owned())]);
    }
    (progress, blocks)
}

/// Ends the kernel, if there is one, and starts another.
pub(super) async fn restart(notebook: &Notebook, until: Instant) -> Result<(), Refusal> {
    match notebook.request(NotebookRequest::ShutdownKernel).await? {
        NotebookResponse::KernelShuttingDown | NotebookResponse::NoKernel => notebook.launch(until).await,
        other => Err(unexpected(&other)),
    }
}
