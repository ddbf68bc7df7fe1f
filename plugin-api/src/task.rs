//! The handle a long call gets for reporting progress.
//!
//! For: showing users which phase, package and byte count a build is at.
//! Promises: reporting never blocks and never fails; nobody listening costs one virtual call.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One step of progress: a phase tag and the phase's own fields beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// snake_case phase, such as `creating_venv` or `installing_packages`.
    pub phase: String,
    /// Fields of the phase, such as `packages`.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// Receives progress. Implemented by whoever wants to show it.
pub trait ProgressSink: Send + Sync + 'static {
    /// Takes one step. Must return at once.
    fn progress(&self, progress: Progress);
}

/// Handed to every long call. Cheap to clone. Cancellation is the dropped future, not this handle.
///
/// ```
/// use runtimed_plugin_api::Task;
/// use serde_json::json;
///
/// fn build(task: &Task) {
///     task.phase("creating_venv");
///     task.report("installing_packages", json!({ "packages": ["six"] }));
/// }
/// build(&Task::silent());
/// ```
#[derive(Clone)]
pub struct Task(Arc<dyn ProgressSink>);

impl Task {
    /// A task whose progress goes to `sink`.
    pub fn new(sink: Arc<dyn ProgressSink>) -> Self {
        Self(sink)
    }

    /// A task nobody watches.
    pub fn silent() -> Self {
        struct Silent;
        impl ProgressSink for Silent {
            fn progress(&self, _: Progress) {}
        }
        Self(Arc::new(Silent))
    }

    /// Reports a phase without fields.
    pub fn phase(&self, phase: &str) {
        self.0.progress(Progress { phase: phase.to_owned(), fields: serde_json::Map::new() });
    }

    /// Reports a phase with fields; anything but a JSON object counts as none.
    pub fn report(&self, phase: &str, fields: serde_json::Value) {
        let fields = match fields {
            serde_json::Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        self.0.progress(Progress { phase: phase.to_owned(), fields });
    }

    /// The sink itself, for adapters.
    pub fn sink(&self) -> &Arc<dyn ProgressSink> {
        &self.0
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Task")
    }
}
