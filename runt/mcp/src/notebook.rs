//! A connected notebook, with what several tools do to it.
//!
//! Promises: an edit that is reported is with the daemon, which keeps it or has said in [`Notebook::issue`] why it cannot;
//! waiting has an end; what was queued is never called undone.

use std::time::Duration;

use runtimed_client::protocol::documents::notebook::Cell;
use runtimed_client::protocol::documents::runtime_state::{Execution, KernelState};
use runtimed_client::protocol::documents::{self, NotebookDoc, Output};
use runtimed_client::protocol::presence::PresenceData;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::protocol::response::{NotebookResponse, QueuedCell};
use runtimed_client::{Client, ClientError, Documents, NotebookSession, Progress};
use tokio::time::{Instant, timeout, timeout_at};

use crate::refusal::Refusal;
use crate::summary::{self, Blobs, Block, Limits};

/// How long the notebook's state may be behind an answer that is about it.
const STATE_LIMIT: Duration = Duration::from_secs(2);

/// How long a call that shall not wait for what it begins waits for the daemon to say that it has begun.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A connected notebook.
pub(crate) struct Notebook {
    /// UUID.
    pub(crate) id: String,
    /// The connection.
    pub(crate) session: NotebookSession,
    /// Whose session it is.
    pub(crate) client: Client,
}

impl Notebook {
    /// For a session that is ready.
    pub(crate) fn new(id: String, session: NotebookSession, client: Client) -> Self {
        Self { id, session, client }
    }

    /// Its file, if it has one.
    pub(crate) fn path(&self) -> Option<String> {
        self.session.read(|documents| documents.runtime_state.path())
    }

    /// What the user should know about how it is kept, such as a disk that is full; empty if all is well.
    pub(crate) fn issue(&self) -> String {
        self.session.read(|documents| documents.runtime_state.file_checkpoint().source_issue_reason)
    }

    /// What was done, and [`Notebook::issue`] if there is any.
    pub(crate) fn done(&self, said: String) -> String {
        with_issue(said, &self.issue())
    }

    /// One cell.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn cell(&self, cell_id: &str) -> Result<Cell, Refusal> {
        let cell = self.session.read(|documents| documents.notebook.cell(cell_id));
        cell.ok_or_else(|| {
            let words =
                format!("The notebook has no cell `{cell_id}`. get_all_cells has the ids of all cells.");
            Refusal::new(words)
        })
    }

    /// Shows everybody who has the notebook open at which cell the agent is.
    pub(crate) fn point_at(&self, cell_id: &str) {
        // Nothing depends on it; what else is done will say that the connection has ended.
        let _ = self.session.present(PresenceData::Focus { cell_id: cell_id.to_owned() });
    }

    /// As [`NotebookSession::request`].
    ///
    /// # Errors
    /// The same, in words. Of a daemon that went away they do not say that nothing was done.
    pub(crate) async fn request(&self, request: NotebookRequest) -> Result<NotebookResponse, Refusal> {
        self.session.request(request).await.map_err(Refusal::after)
    }

    /// Edits the notebook and waits until the daemon has the edit, and has shown if it cannot keep it.
    ///
    /// # Errors
    /// `edit`'s own; then nothing was changed. And those of a connection that ended.
    pub(crate) async fn edit<T>(
        &self,
        edit: impl FnOnce(&mut NotebookDoc) -> documents::Result<Result<T, String>>,
    ) -> Result<T, Refusal> {
        let done = self.session.edit(edit)?;
        let done = done.map_err(|why| Refusal(format!("{why} Nothing was changed.")))?;
        self.request(NotebookRequest::AcknowledgeNotebookSync).await?;
        if self.issue().is_empty() {
            // That the journal could not be written comes right behind the answer, and before the next one.
            self.request(NotebookRequest::AcknowledgeNotebookSync).await?;
        }
        Ok(done)
    }

    /// Queues a cell, after starting a kernel if there is none.
    ///
    /// # Errors
    /// If there can be no kernel, or not before `deadline`; if it runs already, with another text than it has now.
    pub(crate) async fn queue(&self, cell_id: &str, deadline: Instant) -> Result<QueuedCell, Refusal> {
        let cell = self.cell(cell_id)?;
        if cell.cell_type != "code" {
            let kind = cell.cell_type;
            return Err(Refusal(format!(
                "The cell is a {kind} cell; only code runs. Nothing was run. set_cell can make it a code cell."
            )));
        }
        self.point_at(cell_id);
        let before = cell.execution_id.as_deref().and_then(|id| self.session.progress(id));
        if let Some(before) = before.filter(|progress| !progress.is_over()) {
            return unfinished(cell_id, &cell.source, before.execution);
        }
        let request = || NotebookRequest::ExecuteCell {
            cell_id: cell_id.to_owned(),
            execution_id: Some(uuid::Uuid::new_v4().to_string()),
        };
        match self.with_kernel(request, deadline).await? {
            NotebookResponse::CellQueued(queued) => Ok(queued),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for something that needs a kernel; if there is none, starts one and asks again.
    ///
    /// # Errors
    /// As [`Notebook::queue`].
    pub(crate) async fn with_kernel(
        &self,
        request: impl Fn() -> NotebookRequest,
        deadline: Instant,
    ) -> Result<NotebookResponse, Refusal> {
        match self.ask(request(), deadline).await? {
            NotebookResponse::NoKernel => {}
            answer => return Ok(answer),
        }
        self.launch(deadline).await?;
        self.ask(request(), deadline).await
    }

    /// As [`Notebook::request`], for as long as the caller waits.
    async fn ask(&self, request: NotebookRequest, deadline: Instant) -> Result<NotebookResponse, Refusal> {
        let until = deadline.max(Instant::now() + ANSWER_LIMIT);
        timeout_at(until, self.request(request)).await.unwrap_or_else(|_| {
            Err(Refusal::new(
                "The daemon has not answered in time. It may still run. Look at what there is (get_all_cells) before you \
                 ask again.",
            ))
        })
    }

    /// Starts a kernel, or waits for the one that is starting.
    ///
    /// # Errors
    /// If there can be none, or none until `deadline`: then it is still being started.
    pub(crate) async fn launch(&self, deadline: Instant) -> Result<(), Refusal> {
        let launch = NotebookRequest::LaunchKernel {
            kernel_type: String::new(),
            env_source: "auto".to_owned(),
            notebook_path: None,
        };
        match timeout_at(deadline, self.request(launch)).await {
            Err(_) => Err(Refusal(format!(
                "The kernel is still being started ({}). Nothing was run. Call this again to wait further, with a \
                 larger timeout_secs.",
                self.kernel()
            ))),
            Ok(Err(refusal)) => Err(refusal),
            Ok(Ok(NotebookResponse::KernelLaunched(_) | NotebookResponse::KernelAlreadyRunning(_))) => {
                // If it is gone again, the state says so.
                self.arrives(|it| matches!(it.runtime_state.kernel_state(), KernelState::Running(_))).await;
                Ok(())
            }
            Ok(Ok(NotebookResponse::GuardRejected { reason })) => Err(self.held(&reason).await),
            Ok(Ok(other)) => Err(unexpected(&other)),
        }
    }

    /// Why nothing is installed or launched: the user has to allow it first.
    pub(crate) async fn held(&self, reason: &str) -> Refusal {
        self.arrives(|it| {
            let holds = matches!(it.runtime_state.kernel_state(), KernelState::AwaitingEnvBuild { .. });
            holds || it.runtime_state.section("trust")["needs_approval"] == true
        })
        .await;
        let words = self.session.read(crate::tools::trust);
        Refusal(words.unwrap_or_else(|| format!("{reason} Nothing was installed or run.")))
    }

    /// Follows an execution to its end, or as far as it is at `deadline`; none if it is not known.
    ///
    /// # Errors
    /// If the connection ended before.
    pub(crate) async fn follow(
        &self,
        execution_id: &str,
        deadline: Instant,
    ) -> Result<Option<Progress>, Refusal> {
        let mut watch = self.session.watch(execution_id);
        let (mut last, mut until) = (None, deadline.max(Instant::now() + STATE_LIMIT));
        while let Ok(step) = timeout_at(until, watch.next()).await {
            match step.map_err(Refusal::after)? {
                Some(step) => last = Some(step),
                None => return Ok(last),
            }
            until = deadline;
        }
        Ok(last)
    }

    /// Waits until the notebook's state is as an answer has said it is, or will not be.
    pub(crate) async fn arrives(&self, is_there: impl Fn(&Documents) -> bool) {
        let there = self.session.wait_for(|documents| is_there(documents).then_some(()));
        // What is shown then is what there is.
        let _ = timeout(STATE_LIMIT, there).await;
    }

    /// Outputs as a model reads them. What cannot be read just now is named.
    pub(crate) async fn show(&self, outputs: &[Output], limits: Limits, execution_id: &str) -> Vec<Block> {
        let blobs = fetch(&self.client, summary::wanted(outputs, limits)).await;
        summary::blocks(outputs, &blobs, limits, execution_id)
    }

    /// What its kernel does, in a few words.
    pub(crate) fn kernel(&self) -> String {
        self.session.read(|documents| {
            let state = documents.runtime_state.kernel_state();
            let info = documents.runtime_state.kernel_info();
            match &state {
                KernelState::NotStarted => "no kernel yet; running a cell starts one".to_owned(),
                KernelState::AwaitingTrust => "no kernel: packages wait for the user's approval".to_owned(),
                KernelState::AwaitingEnvBuild { details, .. } => format!("no kernel: {details}"),
                KernelState::Resolving => "working out which environment the kernel needs".to_owned(),
                KernelState::PreparingEnv => {
                    let phase = documents.runtime_state.section("env")["progress"]["phase"]
                        .as_str()
                        .map(str::to_owned);
                    format!(
                        "preparing the environment{}",
                        phase.map_or_else(String::new, |phase| format!(": {phase}"))
                    )
                }
                KernelState::Launching | KernelState::Connecting => "starting the kernel".to_owned(),
                KernelState::Running(activity) => {
                    let activity = format!("{activity:?}").to_lowercase();
                    format!("{} kernel, {activity}, environment {}", info.name, info.env_source)
                }
                KernelState::Error { reason, details } => {
                    let why = if details.is_empty() { reason } else { details };
                    format!("the kernel is gone: {}", if why.is_empty() { "it ended by itself" } else { why })
                }
                KernelState::Shutdown => "the kernel was stopped; running a cell starts another".to_owned(),
            }
        })
    }
}

/// The execution of a cell that has not ended, for one who wants to run the cell with this source.
///
/// # Errors
/// If what runs is not what the cell says now.
fn unfinished(cell_id: &str, source: &str, execution: Execution) -> Result<QueuedCell, Refusal> {
    let id = execution.execution_id;
    if execution.source.as_deref() != Some(source) {
        return Err(Refusal(format!(
            "The cell still runs, or waits to run, with the text that it had before (execution_id={id}), and was not \
             queued again. get_results(execution_id=\"{id}\", timeout_secs=60) waits for its end, interrupt_kernel stops \
             it; then run the cell again."
        )));
    }
    Ok(QueuedCell { cell_id: cell_id.to_owned(), execution_id: id })
}

/// What was done, and below it what is wrong, if anything is.
fn with_issue(mut said: String, issue: &str) -> String {
    if !issue.is_empty() {
        said += &format!("\nTell the user: {issue}\n");
    }
    said
}

/// Blobs by their hash. One that cannot be read just now is left out.
pub(crate) async fn fetch(client: &Client, hashes: Vec<String>) -> Blobs {
    let mut blobs = Blobs::new();
    if hashes.is_empty() {
        return blobs;
    }
    let reader = match client.blobs().await {
        Ok(reader) => reader,
        Err(error) => {
            tracing::info!(%error, "contents of outputs cannot be read");
            return blobs;
        }
    };
    for hash in hashes {
        match reader.read(&hash).await {
            Ok(bytes) => drop(blobs.insert(hash, Some(bytes))),
            Err(ClientError::NoBlob(_)) => drop(blobs.insert(hash, None)),
            Err(error) => tracing::info!(%error, "the content of an output cannot be read"),
        }
    }
    blobs
}

/// An answer to another question.
pub(crate) fn unexpected(answer: &NotebookResponse) -> Refusal {
    match answer {
        NotebookResponse::NoKernel => Refusal::new("There is no kernel. Run a cell, which starts one."),
        NotebookResponse::GuardRejected { reason } => Refusal(format!("{reason} Nothing was done.")),
        other => Refusal(format!("The daemon gave an answer that makes no sense here: {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use runtimed_client::protocol::documents::runtime_state::Status;

    use super::*;

    fn running(source: Option<&str>) -> Execution {
        Execution {
            execution_id: "e1".to_owned(),
            status: Status::Running,
            execution_count: None,
            success: None,
            source: source.map(str::to_owned),
            cell_id: Some("c1".to_owned()),
            seq: Some(1),
            submitted_by_actor_label: None,
        }
    }

    #[test]
    fn what_runs_is_shown_only_if_it_is_what_the_cell_says() {
        let queued = unfinished("c1", "new", running(Some("new"))).unwrap();
        assert_eq!((queued.cell_id.as_str(), queued.execution_id.as_str()), ("c1", "e1"));
        for other in [Some("old"), None] {
            let words = unfinished("c1", "new", running(other)).unwrap_err().0;
            assert!(words.contains("not queued again") && words.contains("execution_id=e1"), "{words}");
        }
    }

    #[test]
    fn what_is_not_kept_is_said() {
        assert_eq!(with_issue("Changed.".to_owned(), ""), "Changed.");
        assert_eq!(with_issue("Changed.".to_owned(), "disk full"), "Changed.\nTell the user: disk full\n");
    }
}
