//! `env-provider.v1` as it crosses. Documents and their meaning: `runtimed-plugin-api::EnvProvider`.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, RString};

use crate::{ProgressSinkObject, Reply};

/// Builds environments.
#[sabi_trait]
pub trait EnvProvider: Send + Sync + 'static {
    /// `EnvProviderInfo`.
    fn info(&self) -> RString;
    /// Directory to `Project` or null.
    fn detect(&self, dir: RString) -> Reply;
    /// `EnvRequest` to `EnvPlan`.
    fn plan(&self, request: RString) -> Reply;
    /// `EnvPlan` and prefix to `Environment`.
    fn create(&self, plan: RString, prefix: RString, task: ProgressSinkObject) -> Reply;
    /// `Environment` and prefix to `Environment`.
    fn clone_env(&self, template: RString, prefix: RString, task: ProgressSinkObject) -> Reply;
    /// `Environment` and a list of packages to null.
    fn install(&self, env: RString, packages: RString, task: ProgressSinkObject) -> Reply;
    /// `Environment` to null.
    fn optimize(&self, env: RString) -> Reply;
    /// `Environment` to `Health`.
    fn verify(&self, env: RString) -> Reply;
    /// `Environment` to `LaunchCommand`.
    fn launch(&self, env: RString) -> Reply;
    /// `EnvRequest` to a list of `PackageIdentity`.
    #[sabi(last_prefix_field)]
    fn identities(&self, request: RString) -> Reply;
}

/// An [`EnvProvider`] of the other side.
pub type EnvProviderObject = EnvProvider_TO<RBox<()>>;
