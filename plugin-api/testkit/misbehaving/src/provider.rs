//! The provider: good, but for what the orders say.
//!
//! An environment is a folder with a script that starts an existing Python: the setting `misbehaving.python`,
//! else the variable `RUNTIMED_TEST_KERNEL_PYTHON`, else `python3`. A kernel runs in it if that Python has
//! ipykernel.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use runtimed_plugin_api::{
    EnvPlan, EnvProvider, EnvProviderInfo, EnvRequest, Environment, Health, Host, LaunchCommand,
    PackageIdentity, PluginError, Project, Result, Task, async_trait,
};
use serde_json::{Map, Value, json};

use crate::orders::{Order, Orders};
use crate::{deeds, late};

/// The provider's kind.
const KIND: &str = "misbehaving";
/// Steps of a progress storm between two looks at the orders.
const BURST: usize = 1000;

pub(crate) struct Provider {
    pub(crate) host: Host,
    pub(crate) orders: Orders,
}

#[async_trait]
impl EnvProvider for Provider {
    fn info(&self) -> EnvProviderInfo {
        let order = self.orders.obey_at_once("info").unwrap_or_default();
        EnvProviderInfo {
            kind: if order.is("lie") { "uv" } else { KIND }.to_owned(),
            label: if order.is("huge") { deeds::huge() } else { "Misbehaving".to_owned() },
            markers: Vec::new(),
            base_packages: Vec::new(),
            data_packages: Vec::new(),
            tail_packages: Vec::new(),
            default_channels: Vec::new(),
            script_packages: None,
        }
    }

    async fn detect(&self, _: &Path) -> Result<Option<Project>> {
        self.orders.obey("detect").await?;
        Ok(None)
    }

    async fn plan(&self, mut request: EnvRequest) -> Result<EnvPlan> {
        let order = self.orders.obey("plan").await?;
        let key = match () {
            () if order.is("random-key") => another_key(),
            () if order.is("bad-key") => "../../escaped".to_owned(),
            () => key(&request),
        };
        request.options.extend(ballast(&order));
        Ok(EnvPlan { key, request })
    }

    async fn create(&self, plan: EnvPlan, prefix: &Path, task: Task) -> Result<Environment> {
        let order = self.orders.obey("create").await?;
        while order.is("progress") && self.orders.mode() == "progress:create" {
            (0..BURST)
                .for_each(|_| task.report("storm", json!({ "text": "a plugin that reports for ever" })));
            tokio::task::yield_now().await;
        }
        if order.is("late") {
            return late::create(self.orders.clone(), self.python()?, prefix, task).await;
        }
        task.phase("creating_venv");
        if order.is("half") {
            fs::create_dir_all(prefix.join("bin")).map_err(|error| not_built(prefix, &error))?;
            return Err(PluginError::internal("half of the environment is there"));
        }
        if order.is("outside") {
            let beside = prefix.with_extension("outside");
            fs::write(&beside, "").map_err(|error| not_built(&beside, &error))?;
        }
        if let Some(package) = plan.request.packages.first() {
            return Err(PluginError::invalid(format!(
                "`{package}` cannot be installed into an existing Python"
            )));
        }
        let python = build(&self.python()?, prefix).map_err(|error| not_built(prefix, &error))?;
        Ok(Environment {
            kind: KIND.to_owned(),
            prefix: prefix.to_owned(),
            python,
            python_version: None,
            packages: plan.request.packages,
            extra: ballast(&order),
        })
    }

    async fn clone_env(&self, _: &Environment, _: &Path, _: Task) -> Result<Environment> {
        self.orders.obey("clone").await?;
        Err(PluginError::unsupported("this provider cannot clone environments"))
    }

    async fn install(&self, _: &Environment, _: &[String], _: Task) -> Result<()> {
        self.orders.obey("install").await?;
        Err(PluginError::unsupported("nothing can be installed into an existing Python"))
    }

    async fn optimize(&self, _: &Environment) -> Result<()> {
        self.orders.obey("optimize").await.map(drop)
    }

    async fn verify(&self, env: &Environment) -> Result<Health> {
        self.orders.obey("verify").await?;
        match env.python.exists() {
            true => Ok(Health::Usable),
            false => Ok(Health::Broken { reason: format!("`{}` is gone", env.python.display()) }),
        }
    }

    async fn launch(&self, env: &Environment) -> Result<LaunchCommand> {
        let order = self.orders.obey("launch").await?;
        let program = if order.is("no-program") { Path::new("/no/such/program") } else { &env.python };
        let mut command =
            LaunchCommand { argv: vec![program.display().to_string()], ..LaunchCommand::default() };
        if order.is("huge") {
            command.env.insert("BALLAST".to_owned(), deeds::huge());
        }
        Ok(command)
    }

    async fn identities(&self, request: &EnvRequest) -> Result<Vec<PackageIdentity>> {
        self.orders.obey("identities").await?;
        let identity = |name: &String| PackageIdentity { ecosystem: "pypi".to_owned(), name: name.clone() };
        Ok(request.packages.iter().map(identity).collect())
    }
}

impl Provider {
    /// The Python of every environment.
    fn python(&self) -> Result<PathBuf> {
        let settings = self.host.settings().values;
        let set = settings.pointer("/misbehaving/python").and_then(Value::as_str).map(PathBuf::from);
        let given = set.or_else(|| std::env::var_os("RUNTIMED_TEST_KERNEL_PYTHON").map(PathBuf::from));
        let path = std::env::var_os("PATH").unwrap_or_default();
        given
            .or_else(|| std::env::split_paths(&path).map(|dir| dir.join("python3")).find(|it| it.is_file()))
            .ok_or_else(|| PluginError::unavailable("there is no python3 on the PATH"))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.orders.obey_at_once("drop");
    }
}

/// Builds an environment and returns its interpreter.
pub(crate) fn build(python: &Path, prefix: &Path) -> io::Result<PathBuf> {
    let bin = prefix.join("bin");
    fs::create_dir_all(&bin)?;
    let program = bin.join("python");
    fs::write(&program, format!("#!/bin/sh\nexec '{}' \"$@\"\n", python.display()))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

fn not_built(place: &Path, error: &io::Error) -> PluginError {
    PluginError::internal(format!("`{}` could not be made: {error}", place.display()))
}

/// 16 hex digits that equal requests share.
fn key(request: &EnvRequest) -> String {
    let mut packages = request.packages.clone();
    packages.sort();
    let mut hasher = DefaultHasher::new();
    (packages, &request.python, &request.env_id).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn another_key() -> String {
    static PLANS: AtomicU64 = AtomicU64::new(0);
    format!("{:016x}", PLANS.fetch_add(1, Ordering::Relaxed))
}

/// What makes a document huge, if it is to be.
fn ballast(order: &Order) -> Map<String, Value> {
    let parts = order.is("huge").then(|| ("ballast".to_owned(), Value::from(deeds::huge())));
    parts.into_iter().collect()
}
