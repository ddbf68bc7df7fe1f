//! The line that is being typed: history, completion, several lines, colors.
//!
//! For: `runt jupyter console` on a terminal.
//! Promises: a kernel that does not answer makes nobody wait longer than [`COMPLETION`]; lines are
//! remembered in a file of the user's own.
//! Never: runs anything; what it wants to know of the kernel it asks the one who owns the connection.

use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use nu_ansi_term::{Color, Style};
use reedline::{
    ColumnarMenu, Completer, EditCommand, Emacs, FileBackedHistory, Highlighter, KeyCode, KeyModifiers,
    MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal,
    Span, StyledText, Suggestion, ValidationResult, Validator, default_emacs_keybindings,
};
use runtimed_client::Places;
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::highlight::{Kind, Language};

/// How long the kernel may take to say whether a line is all.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long it may take to complete a word. The first time, ipykernel loads its parser for that.
const COMPLETION: Duration = Duration::from_secs(3);
/// Lines that are remembered.
const HISTORY: usize = 10_000;
/// What Tab means where there is nothing to complete.
const INDENT: &str = "    ";
/// Name of the menu with completions.
const MENU: &str = "completions";

/// A question to the kernel, on shell.
pub(crate) struct Question {
    pub(crate) kind: &'static str,
    pub(crate) content: Value,
    /// Where the content of the reply goes.
    pub(crate) reply: SyncSender<Value>,
}

/// An editor of lines.
pub(crate) struct Editor {
    reedline: Reedline,
    stop: Arc<AtomicBool>,
}

/// Ends the reading of a line from elsewhere.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

/// What was typed.
pub(crate) enum Typed {
    Code(String),
    /// Ctrl-C: what was typed is thrown away.
    Nothing,
    /// Ctrl-D, or [`Stop`].
    End,
}

impl Editor {
    /// An editor for a kernel that speaks `language` and answers `questions`.
    pub(crate) fn new(language: &str, colors: bool, questions: UnboundedSender<Question>) -> Self {
        let kernel = Kernel { questions };
        let mut keys = default_emacs_keybindings();
        let complete = vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext];
        keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, ReedlineEvent::UntilFound(complete));
        keys.add_binding(
            KeyModifiers::ALT,
            KeyCode::Enter,
            ReedlineEvent::Edit(vec![EditCommand::InsertNewline]),
        );
        let menu =
            ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU).with_marker("")));
        let stop = Arc::new(AtomicBool::new(false));
        let mut reedline = Reedline::create()
            .with_ansi_colors(colors)
            .use_bracketed_paste(true)
            .with_edit_mode(Box::new(Emacs::new(keys)))
            .with_menu(menu)
            .with_quick_completions(true)
            .with_partial_completions(true)
            .with_completer(Box::new(kernel.clone()))
            .with_validator(Box::new(kernel))
            .with_break_signal(Arc::clone(&stop));
        if colors {
            reedline = reedline.with_highlighter(Box::new(Colors(Language::named(language))));
        }
        // Without a file, lines are remembered until the end.
        if let Some(history) =
            history().ok().and_then(|file| FileBackedHistory::with_file(HISTORY, file).ok())
        {
            reedline = reedline.with_history(Box::new(history));
        }
        Self { reedline, stop }
    }

    /// Ends the reading of a line.
    pub(crate) fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// Reads what runs as input `number`. Blocks.
    ///
    /// # Errors
    /// The terminal's.
    pub(crate) fn read(&mut self, number: u64) -> io::Result<Typed> {
        let signal = self.reedline.read_line(&Number(number)).map_err(io::Error::other)?;
        // So that a console that is killed loses nothing.
        let _ = self.reedline.sync_history();
        Ok(match signal {
            Signal::Success(code) => Typed::Code(code),
            Signal::CtrlC => Typed::Nothing,
            _ => Typed::End,
        })
    }
}

impl Stop {
    /// Ends it.
    pub(crate) fn now(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The file of lines, made if it is not there.
fn history() -> io::Result<PathBuf> {
    let folder = Places::of_this_process().base;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let file = folder.join("console-history");
    OpenOptions::new().create(true).append(true).mode(0o600).open(&file)?;
    Ok(file)
}

/// The kernel, as far as the editor asks it.
#[derive(Clone)]
struct Kernel {
    questions: UnboundedSender<Question>,
}

impl Kernel {
    fn ask(&self, kind: &'static str, content: Value, patience: Duration) -> Option<Value> {
        let (reply, answer) = sync_channel(1);
        self.questions.send(Question { kind, content, reply }).ok()?;
        answer.recv_timeout(patience).ok()
    }
}

impl Completer for Kernel {
    fn complete(&mut self, line: &str, pos: usize) -> Vec<Suggestion> {
        let before = line.get(..pos).unwrap_or(line);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        if before.get(line_start..).unwrap_or_default().trim().is_empty() {
            return vec![Suggestion {
                value: INDENT.to_owned(),
                span: Span::new(pos, pos),
                ..Suggestion::default()
            }];
        }
        // Jupyter counts characters.
        let content = json!({ "code": line, "cursor_pos": before.chars().count() });
        let Some(reply) = self.ask("complete_request", content, COMPLETION) else { return Vec::new() };
        let place = |name: &str| {
            let characters = reply.get(name).and_then(Value::as_u64)?;
            let nth = usize::try_from(characters).ok()?;
            Some(line.char_indices().nth(nth).map_or(line.len(), |(at, _)| at))
        };
        let (Some(start), Some(end)) = (place("cursor_start"), place("cursor_end")) else {
            return Vec::new();
        };
        let matches = reply.get("matches").and_then(Value::as_array).into_iter().flatten();
        let suggestion = |value: &str| Suggestion {
            value: value.to_owned(),
            span: Span::new(start.min(end), end),
            ..Suggestion::default()
        };
        matches.filter_map(Value::as_str).map(suggestion).collect()
    }
}

impl Validator for Kernel {
    fn validate(&self, line: &str) -> ValidationResult {
        let reply = self.ask("is_complete_request", json!({ "code": line }), PATIENCE);
        match reply.as_ref().and_then(|reply| reply.get("status")).and_then(Value::as_str) {
            Some("incomplete") => ValidationResult::Incomplete,
            _ => ValidationResult::Complete,
        }
    }
}

struct Colors(Language);

impl Highlighter for Colors {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let mut text = StyledText::new();
        for (kind, piece) in self.0.pieces(line) {
            let style = match kind {
                Kind::Plain => Style::new(),
                Kind::Keyword => Style::new().fg(Color::Green).bold(),
                Kind::Text => Style::new().fg(Color::Yellow),
                Kind::Number => Style::new().fg(Color::Cyan),
                Kind::Comment => Style::new().dimmed(),
            };
            text.push((style, piece.to_owned()));
        }
        text
    }
}

/// The prompt of one input.
struct Number(u64);

impl Prompt for Number {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        format!("In [{}]: ", self.0).into()
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        let width = self.render_prompt_left().len();
        format!("{:>width$}", "...: ").into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(search: {}) ", search.term).into()
    }
}
