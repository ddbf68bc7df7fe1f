//! Which notebooks there are, and making, opening, saving and leaving them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use runtimed_client::NotebookSession;
use runtimed_client::protocol::handshake::{CreateNotebook, EnvironmentMode, OpenNotebook};
use runtimed_client::protocol::pool::RoomState;
use runtimed_client::protocol::request::NotebookRequest;
use runtimed_client::protocol::response::{NotebookResponse, SaveBlocked};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deadline, dependencies, words};
use crate::notebook::{Notebook, unexpected};
use crate::refusal::{Answer, Refusal};
use crate::server::Server;

/// Longest name of a cell in an overview, in characters: its first line.
const FIRST_LINE: usize = 80;
/// Cells in an overview.
const OVERVIEW: usize = 60;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    /// The notebook's file: an absolute path, or one that begins with `~/`. Give this or notebook_id.
    path: Option<String>,
    /// The notebook's id, as in list_active_notebooks. Give this or path.
    notebook_id: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    /// What it runs: `python`, `deno`, or the name of an installed Jupyter kernel.
    #[serde(default = "python")]
    runtime: String,
    /// Where to save it: an absolute path that ends with .ipynb, of a file that is not there yet. Without it the notebook
    /// has no file until save_notebook.
    path: Option<String>,
    /// Python packages it needs, such as `pandas` or `polars>=1`. Those that the user has not allowed on this machine
    /// yet wait for the user; the notebook is made all the same.
    #[serde(default)]
    dependencies: Vec<String>,
    /// Which tool makes the environment: `uv` (the usual), `conda`, `pixi`, or another that is installed.
    package_manager: Option<String>,
    /// `auto` takes the environment of the project around the notebook if there is one, `project` only that,
    /// `notebook` one of its own.
    #[serde(default)]
    #[schemars(with = "String", extend("enum" = ["auto", "project", "notebook"]))]
    environment_mode: EnvironmentMode,
    /// Folder in which its code runs: an absolute path. Otherwise that of the file.
    working_dir: Option<String>,
    /// How long to wait for kernel and packages, in seconds. They go on being made after that.
    timeout_secs: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Save {
    /// Another file, as in create_notebook; the notebook belongs to it from then on. Needed for a notebook without a file.
    path: Option<String>,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Which {
    /// Id or path of a connected notebook; the one that was connected last if not given.
    pub(super) notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// The usual runtime.
fn python() -> String {
    "python".to_owned()
}

#[tool_router(router = notebook_tools, vis = "pub(crate)")]
impl Server {
    #[tool(
        description = "List the notebooks that are open in the daemon: id, file, kernel, how many have it open, and which are connected here.",
        annotations(title = "List open notebooks", read_only_hint = true, open_world_hint = false)
    )]
    async fn list_active_notebooks(&self, Parameters(Nothing {}): Parameters<Nothing>) -> Answer {
        self.notebooks.reach().await?;
        let list = self.notebooks.client().list_rooms().await?;
        let (connected, current) = (self.notebooks.ids(), self.notebooks.ids().pop());
        let mut text = String::new();
        for room in &list.rooms {
            let file = room.notebook_path.as_deref().unwrap_or("(no file yet)");
            let kernel = match (&room.kernel_type, room.has_kernel) {
                (Some(kind), true) => {
                    format!("{kind} kernel {}", room.kernel_status.as_deref().unwrap_or_default())
                }
                _ => room.kernel_error.clone().unwrap_or_else(|| "no kernel".to_owned()),
            };
            let state = match room.state {
                RoomState::Active => format!("open {} time(s)", room.active_peers),
                RoomState::Idle => "nobody has it open".to_owned(),
                RoomState::Inactive => "kept, nobody has it open".to_owned(),
            };
            let here = match &room.notebook_id {
                id if Some(id) == current.as_ref() => ", connected here, the one that is meant",
                id if connected.contains(id) => ", connected here",
                _ => "",
            };
            text += &format!("notebook_id={} {file}: {kernel}, {state}{here}\n", room.notebook_id);
        }
        if let Some(more) = list.truncated {
            text += &format!("and {more} more\n");
        }
        if text.is_empty() {
            text += "No notebook is open. create_notebook makes one; connect_notebook opens a file.\n";
        }
        Ok(words(text))
    }

    #[tool(
        description = "Open a notebook by the path of its .ipynb file, or join one that is open by its id. All other tools mean it from then on. Returns an overview of its cells.",
        annotations(
            title = "Open a notebook",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn connect_notebook(
        &self,
        Parameters(connect): Parameters<Connect>,
        context: RequestContext<RoleServer>,
    ) -> Answer {
        self.notebooks.reach().await?;
        let client = self.client(&context);
        let session = match (connect.path, connect.notebook_id) {
            (Some(path), None) => {
                let path = absolute(&path)?;
                if !path.is_file() {
                    return Err(Refusal(format!(
                        "There is no file {}. list_active_notebooks shows what is open; create_notebook makes a new \
                         notebook.",
                        path.display()
                    )));
                }
                let path = path.display().to_string();
                NotebookSession::open(&client, OpenNotebook { path, ..OpenNotebook::default() }).await?
            }
            (None, Some(id)) => NotebookSession::join(&client, id).await?,
            _ => return Err(Refusal::new("Give either path or notebook_id.")),
        };
        let notebook = self.notebooks.add(&client, session).await?;
        let trust = notebook.session.read(dependencies::trust).map(|trust| format!("{trust}\n"));
        Ok(words(format!("Connected.\n{}{}", trust.unwrap_or_default(), overview(&notebook))))
    }

    #[tool(
        description = "Make a new notebook, without cells, and start its kernel. All other tools mean it from then on.",
        annotations(
            title = "Make a notebook",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = true
        )
    )]
    async fn create_notebook(
        &self,
        Parameters(create): Parameters<Create>,
        context: RequestContext<RoleServer>,
    ) -> Answer {
        let until = deadline(create.timeout_secs, 60);
        let path = create.path.as_deref().map(fresh).transpose()?;
        dependencies::check(&create.dependencies)?;
        let folder = path.as_deref().and_then(Path::parent).map(|folder| folder.display().to_string());
        let working_dir = match create.working_dir {
            Some(folder) => Some(absolute(&folder)?.display().to_string()),
            None => folder,
        };
        let handshake = CreateNotebook {
            runtime: create.runtime,
            working_dir,
            package_manager: create.package_manager,
            environment_mode: create.environment_mode,
            // Not here: asking for packages in a handshake approves them, and that is for the user.
            dependencies: Vec::new(),
            ..CreateNotebook::default()
        };
        self.notebooks.reach().await?;
        let client = self.client(&context);
        let session = NotebookSession::create(&client, handshake).await?;
        let notebook = self.notebooks.add(&client, session).await?;
        // The empty cell that people begin to type in.
        notebook.edit(|document| document.delete_all_cells().map(Ok)).await?;
        let mut said = String::new();
        if let Some(path) = path {
            said += &match save(&notebook, Some(path)).await {
                Ok(path) => format!("Saved as {path}.\n"),
                Err(refusal) => format!("{}\n", refusal.0),
            };
        }
        if !create.dependencies.is_empty() {
            let added = dependencies::add(&notebook, &create.dependencies, until).await;
            said += &added.unwrap_or_else(|refusal| format!("{}\n", refusal.0));
        }
        Ok(words(notebook.done(format!("Created.\n{said}{}", overview(&notebook)))))
    }

    #[tool(
        description = "Write the notebook to its file now, or to another file. A notebook with a file is also saved by itself a moment after each change.",
        annotations(
            title = "Save",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn save_notebook(&self, Parameters(asked): Parameters<Save>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let path = match asked.path.as_deref().map(absolute).transpose()? {
            Some(path) if notebook.path().as_deref().map(Path::new) == Some(&path) => None,
            path => path,
        };
        if path.is_none() && notebook.path().is_none() {
            return Err(Refusal::new("The notebook has no file yet. Give a path."));
        }
        Ok(words(format!("Saved as {}.", save(&notebook, path).await?)))
    }

    #[tool(
        description = "Leave a notebook. It stays open for everybody else, and its kernel goes on for a while.",
        annotations(
            title = "Leave a notebook",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = false
        )
    )]
    async fn disconnect_notebook(&self, Parameters(which): Parameters<Which>) -> Answer {
        let notebook = self.notebooks.remove(which.notebook.as_deref())?;
        let name = notebook.path().unwrap_or_else(|| notebook.id.clone());
        // Another call that still uses it ends the connection instead.
        if let Ok(notebook) = Arc::try_unwrap(notebook) {
            notebook.session.close().await;
        }
        let next = match self.notebooks.ids().pop() {
            Some(id) => format!("Meant is now {id}."),
            None => "No notebook is connected any more.".to_owned(),
        };
        Ok(words(format!("Left {name}. {next}")))
    }
}

impl Server {
    /// The daemon, with the caller's name: the windows show it beside what is done.
    fn client(&self, context: &RequestContext<RoleServer>) -> runtimed_client::Client {
        let client = self.notebooks.client().clone();
        match context.client_info() {
            Some(info) => client.named(&info.name),
            None => client,
        }
    }
}

/// Saves and returns where to. A `path` must be that of a file that is not there yet.
async fn save(notebook: &Notebook, path: Option<PathBuf>) -> Result<String, Refusal> {
    let path = path.map(|path| path.display().to_string());
    // Here and not before: whoever makes a kernel and packages first leaves others the time to make the file.
    path.as_deref().map(fresh).transpose()?;
    match notebook.request(NotebookRequest::SaveNotebook { format_cells: false, path }).await? {
        NotebookResponse::NotebookSaved(saved) | NotebookResponse::NotebookAlreadyCurrent(saved) => {
            notebook.arrives(|it| it.runtime_state.path().as_ref() == Some(&saved.path)).await;
            Ok(saved.path)
        }
        NotebookResponse::NotebookSaveBlocked { reason, .. } => Err(Refusal(format!(
            "Not saved: {}. {}",
            match reason {
                SaveBlocked::PathAlreadyOpen { uuid, path } => {
                    format!(
                        "{path} belongs to another open notebook, notebook_id={uuid}; choose another path"
                    )
                }
                SaveBlocked::Io { message }
                | SaveBlocked::SourceConflict { message }
                | SaveBlocked::SourceDegraded { message } => message,
                SaveBlocked::SequenceExhausted | SaveBlocked::Superseded { .. } => {
                    "another save overtook this one; look whether it is what you want".to_owned()
                }
            },
            match notebook.issue() {
                issue if issue.is_empty() => "The daemon keeps the notebook all the same.".to_owned(),
                issue => format!("Tell the user: {issue}"),
            }
        ))),
        other => Err(unexpected(&other)),
    }
}

/// A path that a model named, as the daemon needs it.
fn absolute(path: &str) -> Result<PathBuf, Refusal> {
    let home = || std::env::var_os("HOME").map(PathBuf::from);
    let path = match path.strip_prefix("~/") {
        Some(below) => {
            home().ok_or_else(|| Refusal::new("There is no home folder; give an absolute path."))?.join(below)
        }
        None => PathBuf::from(path),
    };
    if !path.is_absolute() {
        return Err(Refusal(format!("`{}` is not an absolute path. Give the whole path.", path.display())));
    }
    Ok(path)
}

/// The path of a notebook that is not there yet: what is there is never overwritten.
fn fresh(path: &str) -> Result<PathBuf, Refusal> {
    let path = absolute(path)?;
    if path.extension().is_none_or(|extension| extension != "ipynb") {
        return Err(Refusal(format!("{} does not end with .ipynb. Nothing was done.", path.display())));
    }
    if path.exists() {
        return Err(Refusal(format!(
            "{} is there already, and is not overwritten. Choose another path, or open it with connect_notebook.",
            path.display()
        )));
    }
    Ok(path)
}

/// What a notebook is, and the first line of each cell.
fn overview(notebook: &Notebook) -> String {
    let file = notebook.path().unwrap_or_else(|| "(no file yet)".to_owned());
    let mut text = format!("notebook_id={} {file}\n{}\n", notebook.id, notebook.kernel());
    let cells = notebook.session.read(|documents| documents.notebook.cells());
    text += &format!("{} cell(s)\n", cells.len());
    for (index, cell) in cells.iter().take(OVERVIEW).enumerate() {
        let first = cell.source.lines().find(|line| !line.trim().is_empty()).unwrap_or("(empty)");
        let first: String = first.chars().take(FIRST_LINE).collect();
        text += &format!("{}. {} cell_id={}: {first}\n", index + 1, cell.cell_type, cell.id);
    }
    if cells.len() > OVERVIEW {
        text += &format!("and more: get_all_cells(start={})\n", OVERVIEW + 1);
    }
    text
}
