//! Which kernels there are, asked of whoever runs them.
//!
//! For: new notebooks, and notebooks that do not simply want Python.
//! Never: decides which one a notebook gets; [`crate::room::choice`] does.

use runtimed_plugin_api::{Host, KernelKind, PluginError};

use crate::room::choice;

/// Every kind of kernel that can be started.
///
/// # Errors
/// `Unavailable` when no plugin runs kernels, or what that plugin says.
pub(crate) async fn installed(host: &Host) -> Result<Vec<KernelKind>, PluginError> {
    match host.kernel_backend("") {
        Some(backend) => backend.kinds().await,
        None => Err(no_backend()),
    }
}

/// No plugin runs kernels.
pub(crate) fn no_backend() -> PluginError {
    PluginError::unavailable("No plugin that runs kernels is loaded")
        .help("See what `runt plugins list` says about the jupyter plugin.")
}

/// What new notebooks run: `asked`, if there is such a kernel, or else what the settings say.
pub(crate) async fn of_new_notebook(host: &Host, asked: &str) -> KernelKind {
    let default = match host.settings().values.get("default_runtime").and_then(serde_json::Value::as_str) {
        None | Some("") => choice::PYTHON.to_owned(),
        Some(said) => said.to_owned(),
    };
    let wanted = [asked, default.as_str()].into_iter().filter(|name| !name.is_empty());
    let mut kinds = None;
    for name in wanted {
        if let Some(kind) = choice::built_in(name) {
            return kind;
        }
        if kinds.is_none() {
            kinds = installed(host).await.ok();
        }
        if let Some(kind) = choice::named(name, kinds.as_deref().unwrap_or_default()) {
            return kind;
        }
    }
    choice::unknown(&default)
}
