//! Making, changing, moving and deleting cells.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::CallToolResult;
use rmcp::{tool, tool_router};
use runtimed_client::protocol::documents::NotebookDoc;
use runtimed_client::protocol::documents::notebook::{NewCell, Place};
use schemars::JsonSchema;
use serde::Deserialize;
use uuid::Uuid;

use super::{answer, deadline, kernel, show, words};
use crate::notebook::Notebook;
use crate::refusal::{Answer, Refusal};
use crate::replace::{self, Edited};
use crate::server::Server;
use crate::summary::Block;

/// What a cell can be.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum CellType {
    #[default]
    Code,
    Markdown,
    Raw,
}

impl CellType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Markdown => "markdown",
            Self::Raw => "raw",
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCellAt {
    /// The text.
    source: String,
    /// What it is.
    #[serde(default)]
    cell_type: CellType,
    /// Put it behind this cell. Without this and before_cell_id it goes to the end.
    after_cell_id: Option<String>,
    /// Put it in front of this cell.
    before_cell_id: Option<String>,
    /// Run it at once.
    #[serde(default)]
    and_run: bool,
    /// With and_run: how long to wait for its end, in seconds. It goes on running after that.
    timeout_secs: Option<u64>,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetCell {
    /// The cell.
    cell_id: String,
    /// The whole new text. Without it the text stays.
    source: Option<String>,
    /// What it shall be. Without it that stays.
    cell_type: Option<CellType>,
    /// Run it at once.
    #[serde(default)]
    and_run: bool,
    /// With and_run: how long to wait for its end, in seconds. It goes on running after that.
    timeout_secs: Option<u64>,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteCell {
    /// The cell.
    cell_id: String,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MoveCell {
    /// The cell.
    cell_id: String,
    /// Put it behind this cell. Give this or before_cell_id.
    after_cell_id: Option<String>,
    /// Put it in front of this cell. Give this or after_cell_id.
    before_cell_id: Option<String>,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceMatch {
    /// The cell.
    cell_id: String,
    /// The text to replace, the same to the character. It must be there once.
    r#match: String,
    /// What to put in its place.
    content: String,
    /// Text that stands directly before the match, to say which one is meant.
    #[serde(default)]
    context_before: String,
    /// Text that stands directly after the match, to say which one is meant.
    #[serde(default)]
    context_after: String,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceRegex {
    /// The cell.
    cell_id: String,
    /// A regular expression that matches one place. `^` and `$` are the ends of lines.
    pattern: String,
    /// What to put in its place, taken as it is: `$1` is no group.
    content: String,
    /// Id or path of a connected notebook; the one that was connected last if not given.
    notebook: Option<String>,
}

#[tool_router(router = edit_tools, vis = "pub(crate)")]
impl Server {
    #[tool(
        description = "Add a cell and, with and_run, run it and show its outputs.",
        annotations(
            title = "Add a cell",
            read_only_hint = false,
            destructive_hint = false,
            open_world_hint = true
        )
    )]
    async fn create_cell(&self, Parameters(asked): Parameters<NewCellAt>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let id = Uuid::new_v4().to_string();
        let cell = NewCell {
            id: id.clone(),
            cell_type: asked.cell_type.as_str().to_owned(),
            source: asked.source,
            ..NewCell::default()
        };
        let place = (asked.after_cell_id.as_deref(), asked.before_cell_id.as_deref());
        notebook
            .edit(|document| match Spot::find(document, None, place) {
                Ok(spot) => document.insert_cell(spot.place(), &cell).map(Ok),
                Err(why) => Ok(Err(why)),
            })
            .await?;
        notebook.point_at(&id);
        let said = notebook.done(format!("Created cell_id={id}."));
        if !asked.and_run {
            return Ok(words(said));
        }
        then_run(&notebook, said, &id, asked.timeout_secs).await
    }

    #[tool(
        description = "Replace the whole text of a cell, or its type, and with and_run run it. Prefer replace_match for a small edit.",
        annotations(
            title = "Rewrite a cell",
            read_only_hint = false,
            destructive_hint = true,
            idempotent_hint = true,
            open_world_hint = true
        )
    )]
    async fn set_cell(&self, Parameters(asked): Parameters<SetCell>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let id = &asked.cell_id;
        notebook.cell(id)?;
        notebook.point_at(id);
        if asked.source.is_none() && asked.cell_type.is_none() && !asked.and_run {
            return Err(Refusal::new("Give source, cell_type or and_run. Nothing was changed."));
        }
        notebook
            .edit(|document| {
                if let Some(cell_type) = asked.cell_type {
                    document.set_cell_type(id, cell_type.as_str())?;
                }
                if let Some(source) = &asked.source {
                    document.set_source(id, source)?;
                }
                Ok(Ok(()))
            })
            .await?;
        let said = notebook.done(format!("Changed cell_id={id}."));
        if !asked.and_run {
            return Ok(words(said));
        }
        then_run(&notebook, said, id, asked.timeout_secs).await
    }

    #[tool(
        description = "Delete a cell and its outputs.",
        annotations(
            title = "Delete a cell",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = false
        )
    )]
    async fn delete_cell(&self, Parameters(asked): Parameters<DeleteCell>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        notebook.cell(&asked.cell_id)?;
        notebook.edit(|document| document.delete_cell(&asked.cell_id).map(Ok)).await?;
        Ok(words(notebook.done(format!("Deleted cell_id={}.", asked.cell_id))))
    }

    #[tool(
        description = "Move a cell behind or in front of another. Its id and outputs stay.",
        annotations(
            title = "Move a cell",
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = true,
            open_world_hint = false
        )
    )]
    async fn move_cell(&self, Parameters(asked): Parameters<MoveCell>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let id = &asked.cell_id;
        notebook.cell(id)?;
        let place = (asked.after_cell_id.as_deref(), asked.before_cell_id.as_deref());
        if place == (None, None) || [place.0, place.1].contains(&Some(id)) {
            return Err(Refusal::new(
                "Give after_cell_id or before_cell_id, of another cell. Nothing was changed.",
            ));
        }
        let number = notebook
            .edit(|document| match Spot::find(document, Some(id), place) {
                Ok(spot) => {
                    document.move_cell(id, spot.place())?;
                    Ok(Ok(document.cell_ids().iter().position(|it| it == id).unwrap_or_default() + 1))
                }
                Err(why) => Ok(Err(why)),
            })
            .await?;
        Ok(words(notebook.done(format!("Moved: cell_id={id} is cell {number} now."))))
    }

    #[tool(
        description = "Replace one exact piece of text in a cell. Fails, and changes nothing, unless it is there exactly once.",
        annotations(
            title = "Edit a cell",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = false
        )
    )]
    async fn replace_match(&self, Parameters(asked): Parameters<ReplaceMatch>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        let context = (asked.context_before.as_str(), asked.context_after.as_str());
        edit_source(&notebook, &asked.cell_id, |source| {
            replace::literal(source, &asked.r#match, &asked.content, context)
        })
        .await
    }

    #[tool(
        description = "Replace what a regular expression matches in a cell. Fails, and changes nothing, unless it matches exactly one place.",
        annotations(
            title = "Edit a cell by pattern",
            read_only_hint = false,
            destructive_hint = true,
            open_world_hint = false
        )
    )]
    async fn replace_regex(&self, Parameters(asked): Parameters<ReplaceRegex>) -> Answer {
        let notebook = self.notebooks.get(asked.notebook.as_deref()).await?;
        edit_source(&notebook, &asked.cell_id, |source| {
            replace::pattern(source, &asked.pattern, &asked.content)
        })
        .await
    }
}

/// Edits the source as it is at that moment, and shows the lines around.
async fn edit_source(
    notebook: &Notebook,
    cell_id: &str,
    edit: impl FnOnce(&str) -> Result<Edited, String>,
) -> Answer {
    notebook.cell(cell_id)?;
    notebook.point_at(cell_id);
    let edited = notebook
        .edit(|document| match edit(&document.source(cell_id).unwrap_or_default()) {
            Ok(edited) => document.set_source(cell_id, &edited.source).map(|()| Ok(edited)),
            Err(why) => Ok(Err(why)),
        })
        .await?;
    Ok(words(notebook.done(format!("Changed cell_id={cell_id}:\n{}", edited.show()))))
}

/// What was done, and then the outputs. That a run was refused does not undo what was done; the refusal itself says
/// whether it may run all the same.
async fn then_run(
    notebook: &Notebook,
    done: String,
    cell_id: &str,
    timeout_secs: Option<u64>,
) -> Result<CallToolResult, Refusal> {
    let until = deadline(timeout_secs, kernel::RUN_SECS);
    let ran = kernel::run(notebook, cell_id, until).await;
    let ran = ran.map_err(|refusal| Refusal(format!("{done} Running it: {}", refusal.0)))?;
    let mut blocks = vec![Block::Text(format!("{done}\n"))];
    show::append(&mut blocks, ran);
    Ok(answer(blocks))
}

/// Where a cell goes.
enum Spot {
    First,
    Last,
    Behind(String),
}

impl Spot {
    /// The spot that is meant. The cell `moving` does not count.
    ///
    /// # Errors
    /// If it names a cell that is not there, or two.
    fn find(
        document: &NotebookDoc,
        moving: Option<&str>,
        (after, before): (Option<&str>, Option<&str>),
    ) -> Result<Self, String> {
        let mut ids = document.cell_ids();
        ids.retain(|id| Some(id.as_str()) != moving);
        let number = |id: &str| {
            let unknown = || format!("The notebook has no cell `{id}`; get_all_cells has the ids.");
            ids.iter().position(|it| it == id).ok_or_else(unknown)
        };
        match (after, before) {
            (Some(_), Some(_)) => Err("Give after_cell_id or before_cell_id, not both.".to_owned()),
            (Some(after), None) => number(after).map(|_| Self::Behind(after.to_owned())),
            (None, Some(before)) => {
                let previous = number(before)?.checked_sub(1).and_then(|number| ids.get(number).cloned());
                Ok(previous.map_or(Self::First, Self::Behind))
            }
            (None, None) => Ok(Self::Last),
        }
    }

    fn place(&self) -> Place<'_> {
        match self {
            Self::First => Place::Start,
            Self::Last => Place::End,
            Self::Behind(id) => Place::After(id),
        }
    }
}
