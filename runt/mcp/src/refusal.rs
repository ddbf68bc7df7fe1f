//! Why a tool did not do what it was asked to, in words that say what to do next.

use rmcp::handler::server::tool::IntoCallToolResult;
use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock};
use runtimed_client::ClientError;

/// What a tool answers.
pub(crate) type Answer = Result<CallToolResult, Refusal>;

/// Words for the model.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) String);

impl Refusal {
    /// With these words.
    pub(crate) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }

    /// For what was asked of a daemon that is away since: nobody knows whether it was done.
    pub(crate) fn after(error: ClientError) -> Self {
        match error {
            ClientError::Connect(_) | ClientError::Timeout => ClientError::Disconnected.into(),
            error => error.into(),
        }
    }
}

impl IntoCallToolResult for Refusal {
    fn into_call_tool_result(self) -> Result<CallToolResponse, rmcp::ErrorData> {
        Ok(CallToolResult::error(vec![ContentBlock::text(self.0)]).into())
    }
}

impl From<ClientError> for Refusal {
    fn from(error: ClientError) -> Self {
        Self(match error {
            ClientError::Connect(_) | ClientError::Timeout => format!(
                "The notebook daemon cannot be reached ({error}). Nothing was done. Ask the user to run \
                 `runt daemon start`, then do this again."
            ),
            ClientError::Disconnected => "The notebook daemon went away while this was being done. What was \
                 reported as done before is kept. Look at what there is now (get_all_cells, get_results) before you \
                 do it again."
                .to_owned(),
            ClientError::Unanswered { .. } => {
                format!("{error}. It may still be done. Look at what there is before you ask again.")
            }
            ClientError::Document(error) => {
                format!("{error}. Nothing was changed. get_all_cells has the ids of all cells.")
            }
            ClientError::Daemon(words) => words,
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_called_undone_that_may_have_been_done() {
        assert!(Refusal::from(ClientError::Timeout).0.contains("Nothing was done"));
        let words = Refusal::after(ClientError::Timeout).0;
        assert!(!words.contains("Nothing was done") && words.contains("Look at what there is"), "{words}");
    }
}
