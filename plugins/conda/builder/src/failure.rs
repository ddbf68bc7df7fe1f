//! Why work failed.

use std::error::Error;

use serde::{Deserialize, Serialize};

/// Longest message in characters: what a solver has to say about a hundred packages helps nobody.
const LONGEST: usize = 4000;

/// Lower-case phrases that only a server out of reach leaves in an error text, or one that asks for patience. The types of
/// the errors are no help: many are passed on as their text.
const OUT_OF_REACH: [&str; 6] = [
    "error sending request",
    "connection refused",
    "connection reset",
    "timed out",
    "dns error",
    "http status server error",
];

/// A failure, in the parts the plugin makes an error of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which step it was.
    pub stage: Stage,
    /// What happened.
    pub message: String,
    /// The package to blame, if it is one.
    pub package: Option<String>,
    /// Whether a server was out of reach, so that another try may succeed.
    pub network: bool,
}

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading what was asked for.
    Request,
    /// Fetching the metadata of channels.
    Metadata,
    /// Finding versions that fit together.
    Solve,
    /// Downloading and linking packages.
    Install,
}

impl Failure {
    /// A failure of `stage` that is nobody's fault in particular.
    pub(crate) fn new(stage: Stage, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push_str(" ...");
        }
        Self { stage, message, package: None, network: false }
    }

    /// What `error` and its causes say.
    pub(crate) fn of(stage: Stage, error: &(dyn Error + 'static)) -> Self {
        let mut said: Vec<String> = Vec::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause.
            if !said.last().is_some_and(|last| last.contains(&text)) {
                said.push(text);
            }
            cause = error.source();
        }
        let said = said.join(": ");
        let lower = said.to_lowercase();
        let network = OUT_OF_REACH.iter().any(|phrase| lower.contains(phrase));
        Self { network, ..Self::new(stage, said) }
    }

    /// Blames a package.
    pub(crate) fn blame(mut self, package: &str) -> Self {
        self.package = Some(package.to_owned());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_at_a_bearable_length() {
        let cause = std::io::Error::other("the disk is full");
        let error = std::io::Error::other(cause);
        let failure = Failure::of(Stage::Install, &error);
        assert_eq!((failure.message.as_str(), failure.network), ("the disk is full", false));
        let error = std::io::Error::other("error sending request for url (http://host/)");
        assert!(Failure::of(Stage::Metadata, &error).network);
        assert_eq!(Failure::new(Stage::Solve, "ö".repeat(LONGEST + 1)).message.chars().count(), LONGEST + 4);
    }
}
