//! `runt run`: a notebook as a script.
//!
//! Promises: outputs appear as they are made, whoever the daemon is by then; the notebook is saved whether it succeeds or fails; the
//! exit code is 0 exactly when every cell succeeded, 130 after Ctrl-C, 143 after SIGTERM, else 1.
//! Never: changes the given notebook when an output file is named.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use runtimed_client::protocol::documents::Output;
use runtimed_client::protocol::documents::runtime_state::{Execution, KernelState, Status};
use runtimed_client::protocol::handshake::OpenNotebook;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::protocol::response::{NotebookResponse, QueuedCell, SaveBlocked};
use runtimed_client::{BlobReader, Client, ClientError, NotebookSession};
use serde_json::{Value, json};

use crate::cli::RunOptions;
use crate::interrupt::{Asked, Interrupt};
use crate::render::{Blobs, CellPrinter};
use crate::terminal;

/// How long an interrupted cell may take to end.
const INTERRUPT_LIMIT: Duration = Duration::from_secs(10);

/// How long the traceback of an interrupted cell may be behind its end.
const TRACEBACK_LIMIT: Duration = Duration::from_secs(1);
/// A cell that took less is not worth a line about that.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// How long a run waits for the next daemon. One that is restarted or upgraded is back in a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs all cells of a notebook.
pub(crate) async fn run(options: RunOptions) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let mut interrupt = Interrupt::listen()?;
    let client = Client::discover().patient(PATIENCE);
    // Before a file is written: an older result is worth more than a copy that nobody can run.
    client.ping().await.map_err(explain)?;
    let target = Target::new(&options)?;
    let open = OpenNotebook {
        path: target.path.display().to_string(),
        working_dir: Some(target.working_dir.display().to_string()),
        ..OpenNotebook::default()
    };
    let opening = async {
        let session = NotebookSession::open(&client, open).await.map_err(explain)?;
        session.ready().await.map_err(explain)?;
        Ok((session, client.blobs().await.map_err(explain)?))
    };
    let (session, blobs) = interrupt.or(opening).await?;
    let mut run = Run { session, client: &client, blobs, options: &options, interrupt, asked: None };
    let cells = run.all_cells().await;
    let asked = run.asked;
    // Whatever happened, what there is now is worth keeping.
    let saved = run.save().await;
    let session = run.session;
    let result = json!({
        "notebook": options.notebook,
        "saved": saved.as_ref().ok(),
        "seconds": start.elapsed().as_secs_f64(),
        "kernel": session.read(|documents| documents.runtime_state.kernel_info().env_source),
    });
    close(&client, session).await;
    let cells = match (cells, asked) {
        (Err(error), Some(asked)) => return Err(error.context(asked)),
        (cells, _) => cells?,
    };
    let saved = saved?;
    let success = cells.iter().all(|cell| cell["success"] == Value::Bool(true));
    if options.json {
        let mut result = result;
        result["success"] = success.into();
        result["cells"] = cells.into();
        terminal::print_json(&result)?;
    } else {
        let seconds = start.elapsed().as_secs_f32();
        let how = if success { "ran in" } else { "stopped after" };
        anstream::eprintln!("{how} {seconds:.1} s, saved {}", terminal::tilde(Path::new(&saved)));
    }
    Ok(match asked {
        Some(asked) => ExitCode::from(asked.exit_code()),
        None if success => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

/// The file that is opened, run and saved.
struct Target {
    path: PathBuf,
    /// Where the kernel runs: the folder of the notebook that was named, wherever the result goes.
    working_dir: PathBuf,
}

impl Target {
    /// Checks the files and, if the result goes elsewhere, puts a copy there.
    fn new(options: &RunOptions) -> anyhow::Result<Self> {
        let named = options.notebook.display();
        let notebook = options.notebook.canonicalize().map_err(|error| {
            anyhow::anyhow!("cannot run {named}: {error}\nNothing was run. Name a notebook that is there.")
        })?;
        if !notebook.is_file() {
            bail!("cannot run {named}: it is not a file.\nNothing was run. Name a notebook's file.");
        }
        let working_dir = notebook.parent().unwrap_or(Path::new("/")).to_path_buf();
        let Some(output) = &options.output else { return Ok(Self { path: notebook, working_dir }) };
        let output = std::path::absolute(output)?;
        if output.canonicalize().is_ok_and(|output| output == notebook) {
            return Ok(Self { path: notebook, working_dir });
        }
        let folder = output.parent().context("the output has no folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        std::fs::copy(&notebook, &output).with_context(|| format!("cannot write {}", output.display()))?;
        Ok(Self { path: output, working_dir })
    }
}

/// A notebook that is being run.
struct Run<'a> {
    session: NotebookSession,
    client: &'a Client,
    blobs: BlobReader,
    options: &'a RunOptions,
    interrupt: Interrupt,
    /// What the user asked for while cells ran.
    asked: Option<Asked>,
}

impl Run<'_> {
    /// Queues all cells and follows them to their end. One JSON object a cell.
    async fn all_cells(&mut self) -> anyhow::Result<Vec<Value>> {
        let queued = tokio::select! {
            queued = queue(&self.session) => queued?,
            asked = self.interrupt.asked() => {
                self.asked = Some(asked);
                anstream::eprintln!("interrupted before any cell ran");
                return Ok(Vec::new());
            }
        };
        let mut cells = Vec::new();
        for (index, cell) in queued.iter().enumerate() {
            let start = Instant::now();
            self.announce(index, queued.len(), cell);
            let (execution, outputs) = self.follow(cell).await?;
            let took = start.elapsed();
            if !self.options.json && took >= WORTH_TELLING {
                let dim = anstyle::Style::new().dimmed();
                anstream::eprintln!(
                    "{dim}[{}/{}] took {:.1} s{dim:#}",
                    index + 1,
                    queued.len(),
                    took.as_secs_f32()
                );
            }
            cells.push(json!({
                "cell_id": cell.cell_id,
                "execution_id": cell.execution_id,
                "execution_count": execution.execution_count,
                "status": execution.status.as_str(),
                "success": execution.status == Status::Done,
                "seconds": took.as_secs_f64(),
                "outputs": outputs.iter().map(Output::to_json).collect::<Vec<_>>(),
            }));
            if execution.status != Status::Done {
                break;
            }
        }
        Ok(cells)
    }

    fn announce(&self, index: usize, total: usize, cell: &QueuedCell) {
        if self.options.json {
            return;
        }
        let source =
            self.session.read(|documents| documents.notebook.source(&cell.cell_id)).unwrap_or_default();
        let first = source.lines().find(|line| !line.trim().is_empty()).unwrap_or("(empty)");
        let dim = anstyle::Style::new().dimmed();
        anstream::eprintln!("{dim}[{}/{total}]{dim:#} {first}", index + 1);
    }

    /// Prints a cell's outputs until it has ended.
    async fn follow(&mut self, cell: &QueuedCell) -> anyhow::Result<(Execution, Vec<Output>)> {
        let mut changes = self.session.changes();
        let mut printer = CellPrinter::default();
        let mut phase = Phase::default();
        let mut deadline = None;
        let mut alone = false;
        loop {
            if alone == self.session.is_connected() {
                alone = !alone;
                self.tell_of_the_daemon(alone).await?;
            }
            let (execution, outputs, kernel) = self.look(cell)?;
            if !self.options.json {
                phase.show(&kernel);
                printer.update(&outputs, &self.blobs).await?;
            }
            if execution.status.is_terminal() {
                if !self.options.json {
                    printer.settle(&outputs, &self.blobs).await?;
                    printer.finish()?;
                    explain_silence(&execution, &outputs, &kernel);
                }
                return Ok((execution, outputs));
            }
            if execution.status == Status::Running && deadline.is_none() {
                deadline = self
                    .options
                    .timeout
                    .map(|seconds| tokio::time::Instant::now() + Duration::from_secs(seconds));
            }
            tokio::select! {
                change = changes.next() => change.map_err(explain)?,
                () = until(deadline) => {
                    anstream::eprintln!(
                        "the cell ran longer than {} s and is interrupted",
                        self.options.timeout.unwrap_or_default()
                    );
                    deadline = None;
                    self.interrupt(cell).await?;
                }
                asked = self.interrupt.asked() => {
                    self.asked = Some(asked);
                    anstream::eprintln!("interrupting");
                    self.interrupt(cell).await?;
                }
            }
        }
    }

    /// Says that the daemon is gone, or that the next one is there.
    async fn tell_of_the_daemon(&mut self, alone: bool) -> anyhow::Result<()> {
        if alone {
            let patience = PATIENCE.as_secs();
            anstream::eprintln!(
                "the daemon is gone; the cell goes on. Waiting {patience} s for the next one ..."
            );
        } else {
            self.blobs = self.client.blobs().await.map_err(explain)?;
            anstream::eprintln!("the next daemon is there");
        }
        Ok(())
    }

    /// The execution of a cell as it is now.
    fn look(&self, cell: &QueuedCell) -> anyhow::Result<(Execution, Vec<Output>, KernelState)> {
        self.session.read(|documents| {
            let state = &documents.runtime_state;
            // The answer that named the execution may have overtaken the change that brings it.
            let execution = state.execution(&cell.execution_id).unwrap_or_else(|| Execution {
                execution_id: cell.execution_id.clone(),
                status: Status::Queued,
                execution_count: None,
                success: None,
                source: None,
                cell_id: None,
                seq: None,
                submitted_by_actor_label: None,
            });
            let outputs = state.outputs(&cell.execution_id);
            let outputs = outputs.iter().filter_map(|entry| Output::from_json(&entry.manifest)).collect();
            Ok((execution, outputs, state.kernel_state()))
        })
    }

    /// Interrupts the kernel and waits for the cell to end.
    async fn interrupt(&self, cell: &QueuedCell) -> anyhow::Result<()> {
        self.session.request(NotebookRequest::InterruptExecution).await.map_err(explain)?;
        let ended = self.session.wait_for(|documents| {
            let execution = documents.runtime_state.execution(&cell.execution_id)?;
            execution.status.is_terminal().then_some(())
        });
        match tokio::time::timeout(INTERRUPT_LIMIT, ended).await {
            Ok(ended) => {
                ended.map_err(explain)?;
                // Where it was follows, if the kernel says it at all.
                let told = self.session.wait_for(|documents| {
                    let outputs = documents.runtime_state.outputs(&cell.execution_id);
                    let kinds = outputs.iter().filter_map(|output| Output::from_json(&output.manifest));
                    kinds.into_iter().any(|output| matches!(output, Output::Error { .. })).then_some(())
                });
                match tokio::time::timeout(TRACEBACK_LIMIT, told).await {
                    Ok(told) => told.map_err(explain),
                    Err(_) => Ok(()),
                }
            }
            Err(_) => bail!("the cell does not react to the interrupt; its kernel keeps running"),
        }
    }

    /// Saves the notebook; returns its file.
    async fn save(&self) -> anyhow::Result<String> {
        let save = NotebookRequest::SaveNotebook { format_cells: false, path: None };
        match self.session.request(save).await.map_err(explain)? {
            NotebookResponse::NotebookSaved(saved) | NotebookResponse::NotebookAlreadyCurrent(saved) => {
                Ok(saved.path)
            }
            NotebookResponse::NotebookSaveBlocked { reason, .. } => {
                let why = match reason {
                    SaveBlocked::Io { message }
                    | SaveBlocked::SourceConflict { message }
                    | SaveBlocked::SourceDegraded { message } => message,
                    other => format!("{other:?}"),
                };
                bail!("the notebook could not be saved: {why}")
            }
            other => bail!("unexpected answer to `save_notebook`: {other:?}"),
        }
    }
}

/// Queues every code cell, starting a kernel if none is on its way.
async fn queue(session: &NotebookSession) -> anyhow::Result<Vec<QueuedCell>> {
    match session.request(NotebookRequest::RunAllCells { cell_execution_ids: None }).await {
        Ok(NotebookResponse::AllCellsQueued { queued }) => return Ok(queued),
        Ok(NotebookResponse::NoKernel) => {}
        Ok(other) => bail!("unexpected answer to `run_all_cells`: {other:?}"),
        Err(error) => return Err(explain(error)),
    }
    let launch = NotebookRequest::LaunchKernel {
        kernel_type: String::new(),
        env_source: "auto".to_owned(),
        notebook_path: None,
    };
    match session.request(launch).await.map_err(explain)? {
        NotebookResponse::KernelLaunched(_) | NotebookResponse::KernelAlreadyRunning(_) => {}
        NotebookResponse::GuardRejected { reason } => bail!(
            "this notebook asks for packages that are not allowed on this machine yet: {reason}\n\
             Nothing was installed. Open it in a notebook application and approve its packages."
        ),
        other => bail!("unexpected answer to `launch_kernel`: {other:?}"),
    }
    session.run_all_cells().await.map_err(explain)
}

impl Blobs for BlobReader {
    async fn fetch(&self, hash: &str) -> anyhow::Result<Vec<u8>> {
        Ok(self.read(hash).await?)
    }

    fn address(&self, hash: &str) -> String {
        BlobReader::address(self, hash)
    }
}

/// Says once what the user is waiting for.
#[derive(Default)]
struct Phase(Option<&'static str>);

impl Phase {
    fn show(&mut self, kernel: &KernelState) {
        let now = match kernel {
            KernelState::Resolving | KernelState::PreparingEnv => "preparing the environment",
            KernelState::Launching | KernelState::Connecting => "starting the kernel",
            KernelState::AwaitingTrust => "waiting for approval of the notebook's packages",
            _ => return,
        };
        if self.0.replace(now) != Some(now) {
            anstream::eprintln!("{now} ...");
        }
    }
}

/// A cell may fail without an error of its own. Says why it did.
fn explain_silence(execution: &Execution, outputs: &[Output], kernel: &KernelState) {
    let told = outputs.iter().any(|output| matches!(output, Output::Error { .. }));
    match (execution.status, kernel) {
        (Status::Done, _) => {}
        (_, KernelState::Error { details, .. }) if !told => {
            anstream::eprintln!(
                "the kernel is gone: {}",
                if details.is_empty() { "it ended by itself" } else { details }
            );
        }
        (Status::Cancelled, _) => anstream::eprintln!("the cell was cancelled before it ran"),
        (_, _) if !told => anstream::eprintln!("the cell was interrupted"),
        (_, _) => {}
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Leaves the notebook; closes it if nobody else has it open.
async fn close(client: &Client, session: NotebookSession) {
    let id = session.notebook_id();
    let rooms = client.list_rooms().await.map(|list| list.rooms).unwrap_or_default();
    let alone = rooms.iter().any(|room| Some(&room.notebook_id) == id.as_ref() && room.active_peers <= 1);
    session.close().await;
    if let (true, Some(id)) = (alone, id)
        && let Err(error) = client.shutdown_notebook(&id).await
    {
        anstream::eprintln!("warning: the kernel may still run: {error}");
    }
}

/// An error of the daemon, with what to do about it.
fn explain(error: ClientError) -> anyhow::Error {
    match error {
        ClientError::Connect(_) => {
            anyhow::anyhow!(
                "{error}\nIs the daemon running? Try 'runt daemon start'; 'runt daemon doctor' says what keeps it from that."
            )
        }
        ClientError::Disconnected => {
            anyhow::anyhow!("the daemon has gone away; what was saved before is in the file")
        }
        ClientError::Daemon(message) => anyhow::anyhow!("{message}"),
        other => other.into(),
    }
}
