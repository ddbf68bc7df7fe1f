//! Values on their way across: JSON documents, paths, errors.

use std::path::Path;

use runtimed_plugin_abi::{Failure, Outcome, RResult, RString, Reply};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ErrorCode, PluginError, Result};

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
    fn from(failure: Failure) -> Self {
        Self {
            code: ErrorCode::from_number(failure.code),
            message: failure.message.into(),
            help: (!failure.help.is_empty()).then(|| failure.help.into()),
            detail: parse(&failure.detail).unwrap_or_default(),
            retryable: failure.retryable,
        }
    }
}
