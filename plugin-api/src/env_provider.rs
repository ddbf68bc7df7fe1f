//! Capability `env-provider.v1`: builds environments. One provider per package manager.
//!
//! For: plugin authors who add a package manager, and the host's pools that drive them.
//! Promises: a provider never knows about pools, leases or trust; each attempt gets a prefix of its
//! own which the host cleans up; a finished prefix never moves.
//! Never: a fixed list of kinds. The host learns them from [`EnvProvider::info`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{PluginError, Result, Task};

/// Capability id of [`EnvProvider`].
pub const ENV_PROVIDER: &str = "env-provider.v1";
/// Where a template's [`Environment::extra`] says that nobody waits: calls of `clone_env` carry no request.
const BACKGROUND: &str = "background";

/// Builds environments with one package manager. Dropping a returned future cancels the work.
///
/// ```
/// use std::path::Path;
///
/// use runtimed_plugin_api::*;
///
/// struct Provider {
///     host: Host,
/// }
///
/// #[async_trait]
/// impl EnvProvider for Provider {
///     fn info(&self) -> EnvProviderInfo {
///         EnvProviderInfo {
///             kind: "mine".to_owned(),
///             label: "Mine".to_owned(),
///             base_packages: vec!["ipykernel".to_owned()],
///             ..EnvProviderInfo::default()
///         }
///     }
///
///     async fn plan(&self, request: EnvRequest) -> Result<EnvPlan> {
///         pypi::checked(&request.packages)?;
///         Ok(EnvPlan::keyed(request, &[]))
///     }
///
///     async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
///         task.phase("creating_venv");
///         let tool = ProcessSpec::new("my-tool").arg("create").arg(prefix);
///         self.host.run(tool.args(&plan.request.packages)).await?;
///         Ok(Environment::at(prefix, "mine", plan.request.packages))
///     }
///
///     async fn verify(&self, env: &Environment) -> Result<Health> {
///         let gone = || Health::Broken { reason: format!("`{}` is gone", env.python.display()) };
///         Ok(if env.python.exists() { Health::Usable } else { gone() })
///     }
///
///     async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
///         Ok(LaunchCommand::of_venv(env))
///     }
///
///     async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
///         Ok(request.packages.iter().map(|package| pypi::identity(package)).collect())
///     }
/// }
/// ```
#[async_trait]
pub trait EnvProvider: Send + Sync + 'static {
    /// What this provider is. Cheap, constant, does no I/O.
    fn info(&self) -> EnvProviderInfo;

    /// The project in `dir` itself (not its parents) that this provider would run, if there is one.
    async fn detect(&self, dir: &Path) -> Result<Option<Project>> {
        let _ = dir;
        Ok(None)
    }

    /// Turns a request into a plan with a stable cache key. Has no side effects.
    async fn plan(&self, request: EnvRequest) -> Result<EnvPlan>;

    /// Builds the planned environment in `prefix`, which does not exist yet.
    /// Returns as soon as the environment is usable; see [`EnvProvider::optimize`] for the rest.
    ///
    /// Of a project, [`EnvRequest::packages`] are added to its file first. Its environment may lie where the project
    /// keeps it; then `prefix` is not used. A project without such a place gets the same `prefix` every time, which may
    /// be there from the last time.
    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment>;

    /// Makes a copy of `template` at `prefix`, which does not exist yet, faster than [`EnvProvider::create`] would.
    /// The copy must not need the template, and nothing that is done in the copy may be seen in the template. Work nicely
    /// if [`Environment::in_background`] says so. For venvs there is `clone_venv` (feature `clone-venv`).
    async fn clone_env(&self, template: &Environment, prefix: &Path, task: Task) -> Result<Environment> {
        let _ = (template, prefix, task);
        Err(PluginError::unsupported("this provider cannot clone environments"))
    }

    /// Adds packages to an environment that a kernel may be running in; to a project's, by adding them to its file,
    /// for the next kernel.
    async fn install(&self, env: &Environment, packages: &[String], task: Task) -> Result<()> {
        let _ = (env, packages, task);
        Err(PluginError::unsupported("this provider cannot install into a running environment"))
    }

    /// Work that makes a usable environment faster, such as byte compilation. May be cancelled at any
    /// time and may run while the environment is in use.
    async fn optimize(&self, env: &Environment) -> Result<()> {
        let _ = env;
        Ok(())
    }

    /// Whether the environment can still start a kernel.
    async fn verify(&self, env: &Environment) -> Result<Health>;

    /// How to start the interpreter of `env`.
    async fn launch(&self, env: &Environment) -> Result<LaunchCommand>;

    /// What trust must allow before `request` may be built. For a project, what its file names, if the provider wants
    /// the user to be asked before that is installed.
    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>>;
}

/// What a provider is and what its pooled environments hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvProviderInfo {
    /// Key in settings, metadata and labels: `uv`, `conda`, `venv`.
    pub kind: String,
    /// Name shown to users: `UV`, `Conda`.
    pub label: String,
    /// File names that mark a project of this provider, most telling first.
    #[serde(default)]
    pub markers: Vec<String>,
    /// Packages every environment of this kind needs to serve a notebook.
    #[serde(default)]
    pub base_packages: Vec<String>,
    /// Packages added to pooled environments while `install_default_data_packages` is on.
    #[serde(default)]
    pub data_packages: Vec<String>,
    /// Packages appended to every pool list unless it names them already.
    #[serde(default)]
    pub tail_packages: Vec<String>,
    /// Package sources used when a request names none.
    #[serde(default)]
    pub default_channels: Vec<String>,
    /// Where [`EnvRequest::packages`] are not those of the Python package index: the list in [`EnvRequest::options`] that
    /// is. The packages of script blocks (PEP 723) go there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_packages: Option<String>,
}

/// A project file that declares an environment.
///
/// Kind `environment_yml` says in [`Project::extra`] what the host needs to ask before it is built: `prefix` (absolute path of
/// the environment), `label` (its name, or that path), `built` (whether it is there), `user_managed` (whether the user made it:
/// it is added to, never rebuilt), `build_command` (how the user would make it), and `channels` and `pip` as the file lists them.
/// [`EnvProvider::identities`] of a request with the project names all that trust must allow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// Wire name of the project's kind: `pyproject_toml`, `pixi_toml`, `environment_yml`.
    pub kind: String,
    /// Absolute path of the project file.
    pub file: PathBuf,
    /// Declared dependencies, as written.
    #[serde(default)]
    pub dependencies: Vec<String>,
    /// Declared development dependencies, as written.
    #[serde(default)]
    pub dev_dependencies: Vec<String>,
    /// Declared Python constraint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires_python: Option<String>,
    /// Anything else the provider wants to see again in [`EnvProvider::plan`]. For its question before something is installed
    /// the host reads `built` (true once the environment is there), `label` and `build_command`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What somebody wants to run in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvRequest {
    /// Requirement specifiers, base packages included, in order of importance.
    pub packages: Vec<String>,
    /// Python constraint (`>=3.12`) or version (`3.13`); none means the provider's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Package sources; empty means the provider's default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// Set when the environment belongs to one notebook alone; takes part in the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_id: Option<String>,
    /// The project to run; `packages` are then what its file lacks and is to be added to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Project>,
    /// Provider-specific options from the notebook, such as uv's `prerelease`.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Nobody waits for this environment yet: its work should give way to everybody else's. Takes no part
    /// in the key.
    #[serde(default)]
    pub background: bool,
}

/// A decided request: what will be installed, under which name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EnvPlan {
    /// 16 hex digits; equal requests give equal keys.
    pub key: String,
    /// The request after the provider's own additions.
    pub request: EnvRequest,
}

impl EnvPlan {
    /// A plan for `request` as it is. The key covers everything in it that makes two environments different, the
    /// packages in any order, and `more`: whatever else does, such as a setting or the version of a tool.
    ///
    /// ```
    /// use runtimed_plugin_api::{EnvPlan, EnvRequest};
    ///
    /// let request = |packages: [&str; 2]| EnvRequest {
    ///     packages: packages.map(str::to_owned).to_vec(),
    ///     ..EnvRequest::default()
    /// };
    /// let plan = EnvPlan::keyed(request(["six", "attrs"]), &[]);
    /// assert_eq!(plan.key, EnvPlan::keyed(request(["attrs", "six"]), &[]).key);
    /// assert_ne!(plan.key, EnvPlan::keyed(request(["six", "attrs"]), &["prefers 3.13"]).key);
    /// ```
    pub fn keyed(request: EnvRequest, more: &[&str]) -> Self {
        let EnvRequest { packages, python, channels, env_id, project, options, background: _ } = &request;
        let mut packages = packages.clone();
        packages.sort();
        let file = project.as_ref().map(|project| &project.file);
        let mut parts = json!([packages, python, channels, env_id, file, options, more]);
        parts.sort_all_objects();
        Self { key: cache_key(&parts.to_string()), request }
    }
}

/// A key made of `text`, which is to say everything that makes two environments different: 16 hex digits.
pub fn cache_key(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A built environment. The document stays readable by newer versions of its provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The provider's kind.
    pub kind: String,
    /// Directory of the environment. Never moves.
    pub prefix: PathBuf,
    /// Its interpreter.
    pub python: PathBuf,
    /// `major.minor.patch` of the interpreter, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_version: Option<String>,
    /// What was asked for, as in [`EnvRequest::packages`].
    #[serde(default)]
    pub packages: Vec<String>,
    /// Provider's own notes.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Environment {
    /// The environment of `kind` at `prefix` that holds `packages`, its interpreter where a venv has it:
    /// `bin/python`.
    pub fn at(prefix: &Path, kind: &str, packages: Vec<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            prefix: prefix.to_owned(),
            python: prefix.join("bin/python"),
            python_version: None,
            packages,
            extra: serde_json::Map::new(),
        }
    }

    /// Whether nobody waits for what is made of this environment, as the host tells [`EnvProvider::clone_env`].
    pub fn in_background(&self) -> bool {
        self.extra.get(BACKGROUND).and_then(serde_json::Value::as_bool).unwrap_or_default()
    }

    /// Notes whether somebody waits for what is made of this environment.
    pub fn set_in_background(&mut self, background: bool) {
        match background {
            true => self.extra.insert(BACKGROUND.to_owned(), true.into()),
            false => self.extra.remove(BACKGROUND),
        };
    }
}

/// Result of [`EnvProvider::verify`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "health", rename_all = "snake_case")]
pub enum Health {
    /// A kernel can start.
    Usable,
    /// It cannot, and why.
    Broken {
        /// One sentence for the user.
        reason: String,
    },
}

/// How to start the interpreter of an environment. Kernel backends append their own arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchCommand {
    /// Program and leading arguments: `["/envs/a/bin/python"]`, `["uv", "run", "python"]`.
    pub argv: Vec<String>,
    /// Variables to set.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Directories to put before `PATH`.
    #[serde(default)]
    pub path: Vec<PathBuf>,
    /// Working directory the environment insists on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
}

impl LaunchCommand {
    /// How the interpreter of a venv is started: its `bin` before `PATH`, and `VIRTUAL_ENV` set.
    pub fn of_venv(env: &Environment) -> Self {
        Self {
            argv: vec![env.python.display().to_string()],
            env: [("VIRTUAL_ENV".to_owned(), env.prefix.display().to_string())].into(),
            path: vec![env.prefix.join("bin")],
            cwd: None,
        }
    }
}

/// A name on the trust allowlist.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageIdentity {
    /// `pypi`, `conda`, `conda-channel`, `pixi-channel` or a provider's own.
    pub ecosystem: String,
    /// Normalized name within the ecosystem.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_makes_a_difference_is_in_the_key_and_nothing_else() {
        let request = || EnvRequest {
            packages: vec!["six".to_owned()],
            options: serde_json::from_str(r#"{"a": {"x": 1, "y": 2}, "b": 3}"#).unwrap(),
            ..EnvRequest::default()
        };
        let key = |request| EnvPlan::keyed(request, &[]).key;
        let known = key(request());
        // Keys name folders on users' disks: another formula would build every environment anew.
        assert_eq!(known, "1cf27331131eefd3");
        let options = serde_json::from_str(r#"{"b": 3, "a": {"y": 2, "x": 1}}"#).unwrap();
        assert_eq!(key(EnvRequest { background: true, options, ..request() }), known);
        let text = || Some("x".to_owned());
        let project = serde_json::from_str(r#"{"kind": "k", "file": "/f"}"#).unwrap();
        for other in [
            EnvRequest { packages: Vec::new(), ..request() },
            EnvRequest { python: text(), ..request() },
            EnvRequest { env_id: text(), ..request() },
            EnvRequest { channels: vec!["x".to_owned()], ..request() },
            EnvRequest { options: serde_json::Map::new(), ..request() },
            EnvRequest { project: Some(project), ..request() },
        ] {
            assert_ne!(key(other.clone()), known, "{other:?}");
        }
    }
}
