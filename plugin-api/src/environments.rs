//! The environment service: what rooms may ask the host for.
//!
//! For: getting an environment for a notebook without knowing pools, providers or trust.
//! Promises: a leased prefix belongs to one room until it is released; nothing a notebook declares is
//! installed before it is trusted.

use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{Environment, LaunchCommand, Result, Task};

/// Gives rooms environments. Implemented by the host.
#[async_trait]
pub trait Environments: Send + Sync + 'static {
    /// An environment for `need`: a pooled one, or one built for it, with progress on `task`.
    ///
    /// # Errors
    /// `Denied` when declared packages are not trusted yet; `Unavailable` and others when none can be had.
    async fn acquire(&self, need: EnvNeed, task: Task) -> Result<Lease>;

    /// Installs packages into a leased environment while a kernel runs in it.
    async fn install(&self, lease: &str, packages: Vec<String>, task: Task) -> Result<()>;

    /// Gives a lease back.
    async fn release(&self, lease: &str, how: Release) -> Result<()>;

    /// Whether what the notebook declares may be installed, what project is around it, and how what it runs in differs
    /// from what it declares.
    async fn trust(&self, need: EnvNeed) -> Result<TrustVerdict>;

    /// Records that the user allows what the notebook declares now; with [`EnvNeed::about_project`], what the project
    /// around it declares.
    async fn approve(&self, need: EnvNeed) -> Result<TrustVerdict>;
}

/// What a notebook declares about where it wants to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvNeed {
    /// Id of the room.
    pub room: String,
    /// The launch request's `env_source`: empty or `auto`, `auto:uv`, or an exact label.
    pub source: String,
    /// The notebook's `metadata` as JSON; the host reads its `runt` section.
    pub metadata: serde_json::Value,
    /// The notebook's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notebook_path: Option<PathBuf>,
    /// Working directory of an untitled notebook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// `auto`, `project` or `notebook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_mode: Option<String>,
    /// For no notebook yet, but to be ready for one: only a pooled environment beyond those that the pool keeps ready,
    /// so that nobody waits longer for it. Of a pool that keeps none there is none, ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
    /// Id of a lease that was acquired as a spare one: this one becomes the notebook's, if it is as good as what it would
    /// get otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
    /// The script blocks (PEP 723) in the notebook's code cells, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub script_blocks: Vec<ScriptBlock>,
    /// For [`Environments::trust`]: what the notebook's kernel runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// For [`Environments::approve`]: what is approved is the project around the notebook, instead of what the notebook
    /// declares itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub about_project: bool,
    /// With [`EnvNeed::about_project`]: the [`TrustVerdict::project_asks`] that the user was shown. If it is another by now,
    /// nothing is approved (`Conflict`). Empty: whatever it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project_asks: String,
}

/// A script block (PEP 723) of a notebook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptBlock {
    /// Where its cell is in the notebook: 1 is the first of all cells.
    pub cell: usize,
    /// The TOML in it, without the comment signs.
    pub text: String,
}

/// What a notebook's kernel runs in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// [`Lease::id`].
    pub lease: String,
    /// [`Lease::source`].
    pub source: String,
    /// [`Lease::launched_config`], with what was installed since.
    pub launched_config: serde_json::Value,
    /// [`Lease::environment`]: a host that was started since knows the lease again by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// An environment that belongs to one room for now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lease {
    /// Names the lease in later calls.
    pub id: String,
    /// Label as clients see it, such as `uv:prewarmed`.
    pub source: String,
    /// The environment.
    pub environment: Environment,
    /// How to start its interpreter.
    pub launch: LaunchCommand,
    /// What the wire's `launched_config` says.
    pub launched_config: serde_json::Value,
    /// Packages that were in the environment before the notebook's own.
    #[serde(default)]
    pub prewarmed_packages: Vec<String>,
}

/// What becomes of a released environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Release {
    /// It may be collected later.
    Keep,
    /// Nobody can want it again, or it is broken: it is not handed out any more.
    Delete,
}

/// What trust says about a notebook's declarations, in the shape of the runtime document's `trust`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrustVerdict {
    /// `trusted`, `untrusted` or `no_dependencies`.
    pub status: String,
    /// True exactly when untrusted.
    pub needs_approval: bool,
    /// `approved_*` key of the runtime document to the declared specifiers already allowed.
    #[serde(default)]
    pub approved: std::collections::BTreeMap<String, Vec<String>>,
    /// The project around the notebook, in the shape of the runtime document's `project_context`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub project_context: serde_json::Map<String, serde_json::Value>,
    /// Names everything that trust must allow before that project's environment is built; differs when that does. Empty
    /// without a project, or if it cannot be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub project_asks: String,
    /// Files that are or would be that project's: what happens to one of them may make this verdict another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub project_files: Vec<PathBuf>,
    /// How what [`EnvNeed::running`] says differs from what the notebook declares; none if nothing was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// How an environment differs from what its notebook declares, in the shape of the runtime document's `env`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Specifiers that are declared and were not when the kernel was launched.
    pub added: Vec<String>,
    /// The other way round.
    pub removed: Vec<String>,
    /// Package sources, or something else about the environment that only a restart changes.
    pub channels_changed: bool,
    /// The project's own packages are meant: they are added to its file, and a restart installs them.
    #[serde(default)]
    pub of_project: bool,
}
