//! Values on their way across: JSON documents, paths, errors.

use std::path::Path;

use runtimed_plugin_abi::{Failure, Outcome, RResult, RString, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ErrorCode, PluginError, Result};

/// Most bytes of an error's message and of its help: a tool's own output fits, and ten pools' errors fit into
/// one status reply of 64 KiB.
const LONGEST_TEXT: usize = 4 << 10;
/// Most bytes of an error's detail; a longer one is dropped.
const LONGEST_DETAIL: usize = 16 << 10;

/// Most bytes of a document about environments: thousands of packages fit. What a pool keeps is written to disk,
/// sent back with each call and shown.
const LONGEST_DOCUMENT: usize = 8 << 20;

/// A document as it crosses.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> Result<RString> {
    Ok(serde_json::to_string(value)?.into())
}

/// A document that has crossed.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    Ok(serde_json::from_str(text)?)
}

/// A path as it crosses.
pub(super) fn path(path: &Path) -> Result<RString> {
    match path.to_str() {
        Some(text) => Ok(text.into()),
        None => Err(PluginError::invalid(format!("the path `{}` is not UTF-8", path.display()))
            .help("rename the folder so that its name is valid UTF-8")),
    }
}

/// A call's result as it crosses.
pub(super) fn outcome<T>(result: Result<T>) -> Outcome<T> {
    match result {
        Ok(value) => RResult::ROk(value),
        Err(error) => RResult::RErr(error.into()),
    }
}

/// A call's result that has crossed.
pub(super) fn result<T>(outcome: Outcome<T>) -> Result<T> {
    match outcome {
        RResult::ROk(value) => Ok(value),
        RResult::RErr(failure) => Err(failure.into()),
    }
}

/// Waits for a document from the other side.
pub(super) async fn document<T: DeserializeOwned>(reply: Reply) -> Result<T> {
    parse(&result(reply.await)?)
}

/// A document about environments that has crossed, unless it is far too long.
pub(super) fn parse_bounded<T: DeserializeOwned>(text: &str) -> Result<T> {
    if text.len() > LONGEST_DOCUMENT {
        let bytes = text.len();
        return Err(PluginError::internal(format!(
            "the plugin returned a document of {bytes} bytes; {LONGEST_DOCUMENT} are allowed"
        ))
        .help("report this to the plugin's author"));
    }
    parse(text)
}

/// Waits for a document about environments.
pub(super) async fn bounded_document<T: DeserializeOwned>(reply: Reply) -> Result<T> {
    parse_bounded(&result(reply.await)?)
}

impl From<PluginError> for Failure {
    fn from(error: PluginError) -> Self {
        Self {
            code: error.code as u32,
            message: error.message.into(),
            help: error.help.unwrap_or_default().into(),
            detail: if error.detail.is_null() { RString::new() } else { error.detail.to_string().into() },
            retryable: error.retryable,
        }
    }
}

impl From<Failure> for PluginError {
    /// Cut to what can be shown: an error ends up in a pool's status, a log line and a notebook.
    fn from(failure: Failure) -> Self {
        let detail = if failure.detail.len() > LONGEST_DETAIL { "" } else { failure.detail.as_str() };
        Self {
            code: ErrorCode::from_number(failure.code),
            message: cut(&failure.message),
            help: (!failure.help.is_empty()).then(|| cut(&failure.help)),
            detail: parse(detail).unwrap_or_default(),
            retryable: failure.retryable,
        }
    }
}

/// A text of at most [`LONGEST_TEXT`] bytes, its beginning if need be.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    let end = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{} ...", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_far_too_long_is_refused() {
        let text = |length: usize| serde_json::to_string(&"x".repeat(length)).unwrap();
        assert_eq!(parse_bounded::<String>(&text(LONGEST_DOCUMENT - 2)).unwrap().len(), LONGEST_DOCUMENT - 2);
        let error = parse_bounded::<String>(&text(LONGEST_DOCUMENT)).unwrap_err();
        assert_eq!(error.message, "the plugin returned a document of 8388610 bytes; 8388608 are allowed");
    }

    #[test]
    fn a_long_error_is_cut() {
        let crossed = |error: PluginError| PluginError::from(Failure::from(error));
        let short = PluginError::internal("m").help("h").detail(serde_json::json!({ "key": 1 }));
        assert_eq!(crossed(short.clone()), short);
        let long = "ä".repeat(LONGEST_TEXT);
        let error = PluginError::internal(&long)
            .help(&long)
            .detail(serde_json::json!({ "key": "x".repeat(LONGEST_DETAIL) }));
        let cut = crossed(error);
        assert_eq!(cut.message, format!("{} ...", "ä".repeat(LONGEST_TEXT / 2)));
        assert_eq!(cut.help, Some(cut.message));
        assert!(cut.detail.is_null());
    }
}
