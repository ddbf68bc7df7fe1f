//! Completions and history: what clients ask the kernel.
//!
//! For: an editor that completes while the user types.
//! Promises: nobody waits for a kernel that is busy, and nobody longer than 5 s.

use std::time::Duration;

use runtimed_protocol::response::{CompletionItem, HistoryEntry, NotebookResponse as Response};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::core::RoomCore;
use super::event::Effect;
use super::kernel_message::KernelRequest;
use super::requests::{Question, QuestionKind, Ticket};

/// How long a kernel may take to answer. Source: protocol v4; its clients give up after 7 s.
const PATIENCE: Duration = Duration::from_secs(5);

impl RoomCore {
    /// Asks for completions of `code` at `cursor` (in code points).
    pub(super) fn complete(&mut self, ticket: Ticket, code: &str, cursor: u64) {
        let nothing =
            Response::CompletionResult { items: Vec::new(), cursor_start: cursor, cursor_end: cursor };
        let content = json!({"code": code, "cursor_pos": cursor});
        self.ask(ticket, QuestionKind::Completion, "complete_request", content, nothing);
    }

    /// Asks for the last `n` inputs that match a glob pattern.
    pub(super) fn history(&mut self, ticket: Ticket, pattern: Option<&str>, n: i64, unique: bool) {
        let nothing = Response::HistoryResult { entries: Vec::new() };
        if n <= 0 {
            return self.answer(Some(ticket), nothing);
        }
        let content = json!({
            "hist_access_type": "search",
            "pattern": format!("*{}*", pattern.map(escape_glob).unwrap_or_default()),
            "n": n,
            "unique": unique,
            "raw": true,
            "output": false,
        });
        self.ask(ticket, QuestionKind::History, "history_request", content, nothing);
    }

    /// The kernel answered the question with this id, if it is one.
    pub(super) fn answer_question(&mut self, id: &str, content: &[u8]) {
        let Some(question) = self.questions.remove(id) else { return };
        let response = match question.kind {
            QuestionKind::Completion => completions(content),
            QuestionKind::History => history(content),
        };
        let failed = || Response::error("The kernel's answer was not understood");
        self.answer(Some(question.ticket), response.unwrap_or_else(failed));
    }

    /// Answers questions the kernel took too long for.
    pub(super) fn expire_questions(&mut self) {
        let late = |question: &Question| question.until <= self.now;
        let late: Vec<String> =
            self.questions.iter().filter(|(_, question)| late(question)).map(|(id, _)| id.clone()).collect();
        for question in late.iter().filter_map(|id| self.questions.remove(id)).collect::<Vec<_>>() {
            let error = match question.kind {
                QuestionKind::Completion => "Failed to complete: Completion request timed out",
                QuestionKind::History => "Failed to get history: History request timed out",
            };
            self.answer(Some(question.ticket), Response::error(error));
        }
    }

    /// Answers every question: the kernel is gone.
    pub(super) fn fail_questions(&mut self) {
        for (_, question) in std::mem::take(&mut self.questions) {
            self.answer(Some(question.ticket), Response::NoKernel);
        }
    }

    fn ask(&mut self, ticket: Ticket, kind: QuestionKind, msg_type: &str, content: Json, nothing: Response) {
        let Some(launch) = self.kernel.live() else {
            let response = if self.kernel.is_coming_or_up() { nothing } else { Response::NoKernel };
            return self.answer(Some(ticket), response);
        };
        // The kernel reads its shell channel again when the cell is done.
        if self.queue.kernel_is_busy() {
            return self.answer(Some(ticket), nothing);
        }
        let id = self.ids.uuid().to_string();
        self.effects
            .push(Effect::Say { launch, request: KernelRequest::shell(id.as_str(), msg_type, content) });
        self.questions.insert(id, Question { ticket, kind, until: self.now + PATIENCE });
    }
}

fn completions(content: &[u8]) -> Option<Response> {
    #[derive(Deserialize)]
    struct Reply {
        matches: Vec<String>,
        cursor_start: u64,
        cursor_end: u64,
    }
    let reply: Reply = serde_json::from_slice(content).ok()?;
    let item = |label| CompletionItem { label, kind: None, detail: None, source: Some("kernel".to_owned()) };
    Some(Response::CompletionResult {
        items: reply.matches.into_iter().map(item).collect(),
        cursor_start: reply.cursor_start,
        cursor_end: reply.cursor_end,
    })
}

fn history(content: &[u8]) -> Option<Response> {
    #[derive(Deserialize)]
    struct Reply {
        history: Vec<(i64, i64, String)>,
    }
    let reply: Reply = serde_json::from_slice(content).ok()?;
    let entry = |(session, line, source)| HistoryEntry { session, line, source };
    Some(Response::HistoryResult { entries: reply.history.into_iter().map(entry).collect() })
}

/// Makes a pattern match itself.
fn escape_glob(pattern: &str) -> String {
    let escape = |character: char| match character {
        '*' | '?' | '[' => format!("[{character}]"),
        other => other.to_string(),
    };
    pattern.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_a_kernel_are_read() {
        let reply =
            br#"{"matches":["bit_count"],"cursor_start":2,"cursor_end":5,"metadata":{},"status":"ok"}"#;
        let Some(Response::CompletionResult { items, cursor_start, cursor_end }) = completions(reply) else {
            panic!("not read");
        };
        assert_eq!((items[0].label.as_str(), cursor_start, cursor_end), ("bit_count", 2, 5));
        assert!(matches!(
            history(br#"{"status":"ok","history":[[8,1,"x=41"]]}"#),
            Some(Response::HistoryResult { entries }) if entries[0].source == "x=41"
        ));
        assert!(completions(b"{}").is_none());
    }

    #[test]
    fn a_pattern_is_not_a_glob() {
        assert_eq!(escape_glob("a*[b]?"), "a[*][[]b][?]");
    }
}
