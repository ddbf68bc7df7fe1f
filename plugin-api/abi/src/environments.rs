//! The environment service as it crosses. Documents: `runtimed-plugin-api::Environments`.
#![allow(missing_docs, reason = "sabi_trait adds public items that cannot be documented")]

use abi_stable::sabi_trait;
use abi_stable::std_types::{RBox, RString};

use crate::{ProgressSinkObject, Reply};

/// Gives rooms environments.
#[sabi_trait]
pub trait Environments: Send + Sync + 'static {
    /// `EnvNeed` to `Lease`.
    fn acquire(&self, need: RString, task: ProgressSinkObject) -> Reply;
    /// Plain lease id and a list of packages to null.
    fn install(&self, lease: RString, packages: RString, task: ProgressSinkObject) -> Reply;
    /// Plain lease id and `Release` to null.
    fn release(&self, lease: RString, how: RString) -> Reply;
    /// `EnvNeed` to `TrustVerdict`.
    fn trust(&self, need: RString) -> Reply;
    /// `EnvNeed` to `TrustVerdict`.
    #[sabi(last_prefix_field)]
    fn approve(&self, need: RString) -> Reply;
}

/// An [`Environments`] of the other side.
pub type EnvironmentsObject = Environments_TO<RBox<()>>;
