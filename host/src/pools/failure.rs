//! Why a pool cannot build, and when it tries again.
//!
//! For: `state.rs`, and the status users see.
//! Promises: pure; a network failure is tried again sooner than any other.

use std::time::Duration;

use runtimed_plugin_api::{ErrorCode, PluginError};
use tokio::time::Instant;

/// Characters of a provider's advice that are shown (our choice: a paragraph; a provider can write without end).
const MOST_HELP: usize = 500;

/// Words in an error text that mean the network (environments contract, section 2.4).
const NETWORK_WORDS: &[&str] = &[
    "connection refused",
    "connection reset",
    "connection timed out",
    "request timed out",
    "connect timed out",
    "dns",
    "network is unreachable",
    "network unreachable",
    "failed to fetch",
    "could not resolve",
    "no cached repodata",
];

/// Failures in a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Failure {
    /// How many, at least 1.
    pub count: u32,
    /// When the last one happened.
    at: Instant,
    /// The last one.
    pub error: PluginError,
}

impl Failure {
    /// One more failure after those of `before`.
    pub(super) fn after(before: Option<&Self>, error: PluginError, now: Instant) -> Self {
        Self { count: before.map_or(0, |failure| failure.count).saturating_add(1), at: now, error }
    }

    /// Time until the next attempt; zero once it is due.
    pub(super) fn retry_in(&self, now: Instant) -> Duration {
        (self.at + self.delay()).saturating_duration_since(now)
    }

    /// What happened and what to do.
    pub(super) fn text(&self) -> String {
        match &self.error.help {
            Some(help) => {
                format!("{}\n{}", self.error.message, help.chars().take(MOST_HELP).collect::<String>())
            }
            None => self.error.message.clone(),
        }
    }

    /// `timeout`, `invalid_package`, `import_error` or `setup_failed`.
    pub(super) fn kind(&self) -> String {
        let told = self.error.detail.get("error_kind").and_then(|kind| kind.as_str());
        let kind = told.unwrap_or(match self.error.code {
            ErrorCode::Timeout => "timeout",
            _ if self.failed_package().is_some() => "invalid_package",
            _ => "setup_failed",
        });
        kind.to_owned()
    }

    /// The package at fault, if the provider could tell.
    pub(super) fn failed_package(&self) -> Option<String> {
        self.error.detail.get("failed_package")?.as_str().map(str::to_owned)
    }

    /// Doubles with each failure: from 10 s to 60 s for the network, from 30 s to 300 s otherwise.
    fn delay(&self) -> Duration {
        let (first, most) = if self.is_network() { (10, 60) } else { (30, 300) };
        Duration::from_secs((first << (self.count.saturating_sub(1)).min(4)).min(most))
    }

    fn is_network(&self) -> bool {
        let text = self.error.message.to_lowercase();
        NETWORK_WORDS.iter().any(|word| text.contains(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn delays(error: PluginError) -> Vec<u64> {
        let now = Instant::now();
        let mut failure: Option<Failure> = None;
        (0..6)
            .map(|_| {
                let next = Failure::after(failure.as_ref(), error.clone(), now);
                let delay = next.retry_in(now).as_secs();
                failure = Some(next);
                delay
            })
            .collect()
    }

    #[test]
    fn back_off_doubles_up_to_its_cap() {
        assert_eq!(delays(PluginError::internal("DNS error")), [10, 20, 40, 60, 60, 60]);
        assert_eq!(delays(PluginError::internal("no space left")), [30, 60, 120, 240, 300, 300]);
    }

    #[test]
    fn the_kind_comes_from_the_provider_or_the_code() {
        let now = Instant::now();
        let kind = |error| Failure::after(None, error, now).kind();
        assert_eq!(kind(PluginError::new(ErrorCode::Timeout, "slow")), "timeout");
        assert_eq!(kind(PluginError::invalid("x").detail(json!({"failed_package": "y"}))), "invalid_package");
        assert_eq!(
            kind(PluginError::internal("x").detail(json!({"error_kind": "import_error"}))),
            "import_error"
        );
        assert_eq!(kind(PluginError::internal("x")), "setup_failed");
    }
}
