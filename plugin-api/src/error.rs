//! The one error that crosses the plugin boundary.
//!
//! For: saying what happened, what to do next, and whether trying again can help.
//! Promises: every part is plain data; the host adds which plugin and capability it came from.

use serde::{Deserialize, Serialize};

/// What capability methods return.
pub type Result<T, E = PluginError> = std::result::Result<T, E>;

/// A failed call, in the parts a user message has: what happened (`message`), what to do (`help`).
///
/// ```
/// use runtimed_plugin_api::{ErrorCode, PluginError};
/// use serde_json::json;
///
/// let error = PluginError::invalid("There is no package `numpyy`. Nothing was installed.")
///     .help("Check the spelling in the notebook's dependencies.")
///     .detail(json!({ "failed_package": "numpyy" }));
/// assert_eq!((error.code, error.retryable), (ErrorCode::Invalid, false));
/// assert!(PluginError::unavailable("The package index could not be reached.").retryable);
/// ```
///
/// Pools read two facts of `detail`: `failed_package`, and `error_kind` (`timeout`, `invalid_package`,
/// `import_error`, `setup_failed`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct PluginError {
    /// The kind of failure, for callers that react to it.
    pub code: ErrorCode,
    /// What happened, one sentence or the tool's own text.
    pub message: String,
    /// What the user can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether the same call may succeed later without anybody changing anything.
    #[serde(default)]
    pub retryable: bool,
    /// Facts for programs, such as `{"failed_package": "numpyy"}`.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

/// The kind of a failure. The numbers are the ABI's and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[repr(u32)]
pub enum ErrorCode {
    /// The thing asked for does not exist.
    NotFound = 1,
    /// The request makes no sense as it stands.
    Invalid = 2,
    /// This plugin cannot do that, now or ever.
    Unsupported = 3,
    /// Something needed is missing at the moment: network, tool, plugin.
    Unavailable = 4,
    /// A deadline passed.
    Timeout = 5,
    /// The caller dropped the call, or the daemon is shutting down.
    Cancelled = 6,
    /// Permission or trust is missing.
    Denied = 7,
    /// Somebody else holds or changed it.
    Conflict = 8,
    /// The plugin panicked; it is marked poisoned.
    Panicked = 9,
    /// Anything else.
    Internal = 10,
}

impl ErrorCode {
    /// The code for an ABI number; unknown numbers (a newer plugin's) read as [`ErrorCode::Internal`].
    pub fn from_number(number: u32) -> Self {
        match number {
            1 => Self::NotFound,
            2 => Self::Invalid,
            3 => Self::Unsupported,
            4 => Self::Unavailable,
            5 => Self::Timeout,
            6 => Self::Cancelled,
            7 => Self::Denied,
            8 => Self::Conflict,
            9 => Self::Panicked,
            _ => Self::Internal,
        }
    }
}

impl PluginError {
    /// A failure of `code` with `message`, not retryable, without help.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, retryable: false, detail: serde_json::Value::Null }
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Marks that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds facts for programs.
    #[must_use]
    pub fn detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = detail;
        self
    }

    /// Shorthand for [`ErrorCode::NotFound`].
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// Shorthand for [`ErrorCode::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    /// Shorthand for [`ErrorCode::Unsupported`].
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unsupported, message)
    }

    /// Shorthand for [`ErrorCode::Unavailable`], which is retryable.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message).retryable()
    }

    /// Shorthand for [`ErrorCode::Internal`].
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }
}

impl From<serde_json::Error> for PluginError {
    fn from(error: serde_json::Error) -> Self {
        Self::invalid(format!("not the JSON that was expected: {error}"))
    }
}
