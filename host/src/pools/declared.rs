//! Environments that are built for what a notebook declares.
//!
//! For: `environments.rs`, which has made sure that it may be installed.
//! Promises: equal wishes share one environment, built once; one that is broken is rebuilt, and that is said; one that
//! a kernel runs in is never touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use runtimed_plugin_api::{EnvProvider, EnvRequest, Environment, Health, PluginError, Result, Task};
use serde_json::{Value, json};

use super::build::{build_verified, write_record};
use super::derive::derive;
use super::environments::blocking;
use super::in_use::in_use;
use super::packages::{add_unnamed, bare_name};
use super::pool::Pool;
use super::record::{self, Record};
use super::relative::absolute;
use crate::disk;

/// How providers call it when a kernel cannot be imported.
const IMPORT_ERROR: &str = "import_error";

/// The folder of these environments. Cheap to clone.
#[derive(Clone)]
pub(super) struct DeclaredEnvs {
    pub(super) folder: PathBuf,
    /// One build at a time for each key, so that equal notebooks share instead of racing.
    building: Arc<Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>>,
}

/// What is declared, and where somebody finds that who must change it.
pub(super) struct Declaration {
    /// The request without the provider's own packages.
    pub(super) request: EnvRequest,
    /// The notebook's folder, where relative paths in the request begin.
    pub(super) folder: Option<PathBuf>,
    /// Label of the environment.
    pub(super) label: String,
    /// How an error calls the environment: `inline`.
    pub(super) name: &'static str,
    /// Where the packages are named: `the notebook's dependencies`.
    pub(super) place: String,
    /// The packages that clients are shown, if those of the request are not all.
    pub(super) named: Option<Vec<String>>,
    /// What else is declared, as [`drift::fixed`](super::drift::fixed) has it.
    pub(super) fixed: Value,
}

impl Declaration {
    /// The request with absolute paths.
    pub(super) fn located(&self) -> EnvRequest {
        absolute(self.request.clone(), self.folder.as_deref())
    }
}

impl DeclaredEnvs {
    /// Those in `folder`, which need not be there.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, building: Arc::default() }
    }

    /// An environment for `declaration`: a whole one that is there, or a new one in a folder that nobody uses, which
    /// `is_used` tells. The first folder is `<key>`, the next `<key>-2`: what a notebook installs into its running
    /// environment makes that one useless to others, and it must not be rebuilt under the kernel.
    ///
    /// # Errors
    /// Of the provider, with where to look for the cause.
    pub(super) async fn get(
        &self,
        pool: &Pool,
        provider: &dyn EnvProvider,
        declaration: &Declaration,
        is_used: impl Fn(&Path) -> bool,
        task: &Task,
    ) -> Result<Environment> {
        let request = completed(declaration.located(), provider);
        let explained = |error| explained(error, &provider.info().kind, declaration);
        let plan = provider.plan(request.clone()).await.map_err(explained)?;
        let key = folder_name(&plan.key)?;
        let mut folder = key.to_owned();
        let mut number = 1;
        loop {
            let prefix = self.folder.join(&folder);
            let one_at_a_time = self.build_lock(&prefix);
            let _building = one_at_a_time.lock().await;
            if let Some(environment) = cached(provider, &prefix, task).await? {
                task.report("cache_hit", json!({ "env_path": prefix }));
                self.ready(&environment, task).await?;
                return Ok(environment);
            }
            let path = prefix.clone();
            let runs = blocking(move || Ok(!in_use([path].into()).is_empty())).await?;
            if !runs && !is_used(&prefix) {
                let built = self.build(pool, provider, request, &prefix, task.clone()).await;
                let environment = built.map_err(explained)?;
                self.ready(&environment, task).await?;
                return Ok(environment);
            }
            number += 1;
            folder = format!("{key}-{number}");
        }
    }

    async fn ready(&self, environment: &Environment, task: &Task) -> Result<()> {
        task.report("ready", json!({ "env_path": environment.prefix, "python_path": environment.python }));
        let prefix = environment.prefix.clone();
        blocking(move || record::touch(&prefix)).await
    }

    async fn build(
        &self,
        pool: &Pool,
        provider: &dyn EnvProvider,
        request: EnvRequest,
        prefix: &Path,
        task: Task,
    ) -> Result<Environment> {
        let folder = self.folder.clone();
        blocking(move || std::fs::create_dir_all(folder)).await?;
        self.remove(prefix).await?;
        let packages = request.packages.clone();
        // A dropped call leaves a folder without a record, which the next build removes.
        let built = match derive(pool, &request, prefix, &task).await {
            Some(environment) => Ok(environment),
            None => {
                self.remove(prefix).await?;
                build_verified(provider, request, prefix, task).await
            }
        };
        match built {
            Ok(environment) => {
                let record = Record::of(environment, packages);
                Ok(write_record(record).await?.environment)
            }
            Err(error) => {
                let path = prefix.to_path_buf();
                let elsewhere = blocking(move || Ok(is_installed_elsewhere(&path))).await.unwrap_or_default();
                self.remove(prefix).await.ok();
                Err(with_reason(error, elsewhere))
            }
        }
    }

    async fn remove(&self, prefix: &Path) -> Result<()> {
        let (path, within) = (prefix.to_path_buf(), self.folder.clone());
        blocking(move || disk::remove_tree(&path, &within)).await
    }

    /// Who has this may build, change or delete the environment at `prefix`.
    pub(super) fn build_lock(&self, prefix: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut building = self.building.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        building.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(building.entry(prefix.to_path_buf()).or_default())
    }
}

/// The environment at `prefix`, if a former build left a whole one there.
async fn cached(provider: &dyn EnvProvider, prefix: &Path, task: &Task) -> Result<Option<Environment>> {
    let path = prefix.to_path_buf();
    let (found, was_there) = blocking(move || Ok((Record::read(&path), record::is_recorded(&path)))).await?;
    let health = match &found {
        Some(record) => provider.verify(&record.environment).await?,
        None => Health::Broken { reason: "its interpreter is gone".to_owned() },
    };
    match health {
        Health::Usable => return Ok(found.map(|record| record.environment)),
        Health::Broken { reason } if was_there => {
            tracing::warn!("`{}` is broken and is rebuilt: {reason}", prefix.display());
            task.report("rebuilding", json!({ "env_path": prefix, "reason": reason }));
        }
        Health::Broken { .. } => {}
    }
    Ok(None)
}

/// The request with what the provider adds to every environment.
fn completed(mut request: EnvRequest, provider: &dyn EnvProvider) -> EnvRequest {
    let info = provider.info();
    let declared = std::mem::take(&mut request.packages);
    let is_named = |base: &String| declared.iter().any(|named| bare_name(named) == bare_name(base));
    request.packages = info.base_packages.into_iter().filter(|base| !is_named(base)).collect();
    request.packages.extend(declared);
    add_unnamed(&mut request.packages, &info.tail_packages);
    if request.channels.is_empty() {
        request.channels = info.default_channels;
    }
    request
}

/// `error` with what was being prepared, and where the cause is found.
fn explained(mut error: PluginError, kind: &str, declaration: &Declaration) -> PluginError {
    let Declaration { label, name, place, .. } = declaration;
    if error.detail["error_kind"] == IMPORT_ERROR {
        error.message = format!("ipykernel not found in prepared {label} environment: {}", error.message);
        return error;
    }
    let name = if kind == "conda" { format!("conda {name}") } else { (*name).to_owned() };
    error.message = format!("Failed to prepare {name} environment: {}", error.message);
    if let Some(package) = error.detail.get("failed_package").and_then(Value::as_str) {
        error.help = Some(format!(
            "Check the name and the version of `{package}` in {place}. Nothing was changed; run again after that."
        ));
    }
    error
}

/// `error` with nteract's name for why a kernel cannot be imported, if that is it. `elsewhere` says that ipykernel is there
/// for another Python.
fn with_reason(mut error: PluginError, elsewhere: bool) -> PluginError {
    if error.detail["error_kind"] == IMPORT_ERROR {
        let reason =
            if elsewhere { "ipykernel_site_packages_mismatch" } else { "dependency_cache_missing_ipykernel" };
        error.detail["error_reason"] = reason.into();
    }
    error
}

/// Whether ipykernel lies with the packages of a Python that is not the environment's. Blocks.
fn is_installed_elsewhere(prefix: &Path) -> bool {
    // An interpreter is called like the folder of its packages, once it is no link any more: `python3.13`.
    let python = std::fs::canonicalize(prefix.join("bin/python")).unwrap_or_default();
    let has = |folder: &Path| folder.join("site-packages/ipykernel").is_dir();
    let Some(own) = python.file_name().map(|name| prefix.join("lib").join(name)) else { return false };
    let folders = std::fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
    !has(&own) && folders.map(|folder| folder.path()).any(|folder| has(&folder))
}

/// A key is a folder's name, so it must not be a path.
///
/// # Errors
/// `Internal` if it is one.
pub(super) fn folder_name(key: &str) -> Result<&str> {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    plain.then_some(key).ok_or_else(|| PluginError::internal(format!("`{key}` cannot name an environment")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_ipykernel_is_not_found_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let declaration = Declaration {
            request: EnvRequest::default(),
            folder: None,
            label: "uv:inline".to_owned(),
            name: "inline",
            place: String::new(),
            named: None,
            fixed: Value::Null,
        };
        let reason = |prefix: &Path| {
            let error = PluginError::internal("no").detail(json!({"error_kind": "import_error"}));
            let error = explained(with_reason(error, is_installed_elsewhere(prefix)), "uv", &declaration);
            assert!(error.message.starts_with("ipykernel not found in prepared uv:inline environment"));
            error.detail["error_reason"].as_str().unwrap().to_owned()
        };
        for folder in ["bin", "lib/python3.9/site-packages/ipykernel"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        assert_eq!(reason(dir.path()), "dependency_cache_missing_ipykernel");
        std::fs::write(dir.path().join("bin/python3.9"), "").unwrap();
        std::os::unix::fs::symlink("python3.9", dir.path().join("bin/python")).unwrap();
        assert_eq!(reason(dir.path()), "dependency_cache_missing_ipykernel", "it is there, and broken");
        std::fs::rename(dir.path().join("bin/python3.9"), dir.path().join("bin/python3.13")).unwrap();
        std::fs::remove_file(dir.path().join("bin/python")).unwrap();
        std::os::unix::fs::symlink("python3.13", dir.path().join("bin/python")).unwrap();
        assert_eq!(reason(dir.path()), "ipykernel_site_packages_mismatch");
    }
}
